"""Parquet files in the Hugging Face image layout: a column `img` or `image` of {bytes, path}, and `label`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from partcrop_lab.errors import BadInput
from partcrop_lab.files import check_regular, parse_json
from partcrop_lab.images.listing import Listing
from partcrop_lab.limits import refuse_above, refuse_bomb
from partcrop_lab.schemas import HuggingFace, checked

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "fine_label", "labels")
BATCH = 64
"""Images read at once."""


def parquet_listing(path: Path) -> Listing:
    """The images of a parquet file, named "<file>-000123" by row.

    Raises:
        BadInput: not a parquet file, or one without the image column.
    """
    check_regular(path)
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput(
            f"{path}: not a parquet file that can be read ({_one_line(error)}); give one, or a folder of images"
        ) from error
    with file:
        schema, total = file.schema_arrow, file.metadata.num_rows
        column = next((name for name in IMAGE_COLUMNS if name in schema.names), None)
        if column is None or not _holds_bytes(schema.field(column).type):
            found = ", ".join(f"{field.name}: {field.type}" for field in schema)
            raise BadInput(f"{path}: no column img or image of {{bytes, path}}; its columns are {found}")
        if not total:
            raise BadInput(f"{path}: holds no images")
        _refuse_bombs(path, file, column)
        label = next((name for name in LABEL_COLUMNS if name in schema.names), None)
        labels, classes = _labels(path, file, label, total)
    return Listing(
        where=path.name,
        names=[f"{path.stem}-{row:06d}" for row in range(total)],
        labels=labels,
        classes=classes,
        read=lambda rows: _read(path, column, rows),
        stamp=lambda rows: [str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns],
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _holds_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def _refuse_bombs(path: Path, file: pq.ParquetFile, column: str) -> None:
    """Refuse more rows than can be named, and row groups whose images unpack to too much, before any is read."""
    about = file.metadata
    refuse_above("rows", about.num_rows, f"{path}: its rows")
    for group in map(about.row_group, range(about.num_row_groups)):
        chunks = [group.column(k) for k in range(group.num_columns)]
        images = [chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] == column]
        sizes = [(chunk.total_uncompressed_size, chunk.total_compressed_size) for chunk in images]
        refuse_bomb(path, *map(sum, zip(*sizes)))


def _labels(path: Path, file: pq.ParquetFile, column: str | None, total: int) -> tuple[np.ndarray, tuple[str, ...]]:
    if column is None or not pa.types.is_integer(file.schema_arrow.field(column).type):
        return np.full(total, -1), ()
    labels = file.read(columns=[column])[column].fill_null(-1).to_numpy().astype(np.int64)
    where = f"{path}: its metadata huggingface"
    metadata = (file.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
    about = checked(HuggingFace, parse_json(metadata, where), where)
    feature = about.get("info", {}).get("features", {}).get(column)
    classes = tuple(feature.get("names") or ()) if isinstance(feature, dict) else ()
    if classes and labels.max() >= len(classes):
        raise BadInput(f"{where} names {len(classes)} classes, but {column} goes to {labels.max()}; name each class")
    return labels, classes


def _read(path: Path, column: str, rows: np.ndarray) -> Iterator[bytes]:
    """The encoded images of ascending `rows`."""
    try:
        yield from _stream(path, column, rows)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path}: a damaged parquet file ({_one_line(error)}); fetch it again") from error


def _stream(path: Path, column: str, rows: np.ndarray) -> Iterator[bytes]:
    """Row groups without any of `rows` are skipped, the others read a few images at a time.

    A small file may hold one large value a thousand times: what counts is how much lies in memory at once.
    """
    with pq.ParquetFile(path) as file:
        start = 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            if len(rows) and np.searchsorted(rows, start) < np.searchsorted(rows, end):
                for batch in file.iter_batches(batch_size=BATCH, row_groups=[group], columns=[column]):
                    refuse_above("encoded", batch.nbytes // batch.num_rows, f"{path}: bytes of an image in it")
                    here = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + batch.num_rows)]
                    for content in batch.column(0).field("bytes").take(pa.array(here - start)):
                        yield content.as_py() or b""
                    start += batch.num_rows
            start = end
