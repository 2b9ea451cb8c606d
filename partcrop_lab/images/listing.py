"""What a source holds before any pixel is decoded, and the one way from there to an `ImageSet`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from partcrop_lab import store
from partcrop_lab.devices import generator
from partcrop_lab.errors import BadInput
from partcrop_lab.images.boxes import Annotation
from partcrop_lab.images.decode import Encoded, decode, shape_of, side_if_square
from partcrop_lab.images.imageset import Box, ImageSet
from partcrop_lab.images.pixels import Pixels
from partcrop_lab.progress import bar

MEMORY_LIMIT = 256 * 2**20
"""Sets with more bytes of pixels than this are kept in the cache on disk and read batch by batch."""

CHUNK, CHUNK_BYTES = 256, 64 * 2**20


@dataclass(frozen=True)
class Listing:
    """The images of a source by name, none of them decoded yet.

    Args:
        where: the source in words for errors, such as "photos" or "train.parquet".
        names: one stable name per image.
        labels: (n,) int64, -1 where unknown.
        classes: the classes' names.
        read: yields the encoded images of the given ascending rows, in that order.
        stamp: JSON-able; for the given rows, what changes when the source's files change.
        annotation: by row, where the objects are; None where the source does not know. BadInput where it should.
    """

    where: str
    names: Sequence[str]
    labels: np.ndarray
    classes: tuple[str, ...]
    read: Callable[[np.ndarray], Iterator[Encoded]]
    stamp: Callable[[np.ndarray], Any]
    annotation: Callable[[int], Annotation] | None = None


def choose_rows(listing: Listing, n: int | None, seed: int, names: Sequence[str] | None) -> np.ndarray:
    """The rows of the images called `names`, or of `n` random ones in the source's order, or of all.

    The choice of n images is contained in that of n + 1 with the same seed.

    Raises:
        BadInput: a name that is not there, or more images asked for than there are.
    """
    total = len(listing.names)
    if names is not None:
        row_of = {name: row for row, name in enumerate(listing.names)}
        missing = [name for name in names if name not in row_of]
        if not len(names):
            raise BadInput(f"{listing.where}: the list of names is empty; give at least one")
        if missing:
            raise BadInput(f"{listing.where}: {len(missing)} images are not there, the first {missing[0]!r}")
        return np.array([row_of[name] for name in names], dtype=np.int64)
    if n is None:
        return np.arange(total)
    if not 0 < n <= total:
        raise BadInput(f"n={n} images asked for, but {listing.where} holds {total}; choose n from 1 to {total}")
    return np.sort(torch.randperm(total, generator=generator(seed, "subset"))[:n].numpy())


def image_set(listing: Listing, rows: np.ndarray, size: int | None, on_error: str, source: dict[str, Any]) -> ImageSet:
    """Decode `rows` of a listing to squares of `size` px (None: their own side where they share one, else 64).

    Raises:
        BadInput: an image that cannot be used (with on_error="skip": none that can), or a cache that cannot be
            written where the set is large.
    """
    ascending = np.sort(rows)
    size = size or _shared_side(bar(listing.read(ascending), "sizes", total=len(rows), delay=2)) or 64
    boxes, unboxed = _object_boxes(listing, ascending, size, on_error)
    ascending = np.setdiff1d(ascending, [row for row, _ in unboxed])
    if len(rows) * 3 * size**2 <= MEMORY_LIMIT:
        pixels, skipped = _decode_to_memory(listing, ascending, size, on_error)
    else:
        pixels, skipped = _decode_to_cache(listing, ascending, size, on_error)
    skipped = sorted(unboxed + skipped)
    if len(skipped) == len(rows):
        raise BadInput(f"{listing.where}: none of its {len(rows)} images can be used; the first error: {skipped[0][1]}")
    failed = {row for row, _ in skipped}
    place = {row: k for k, row in enumerate(row for row in ascending.tolist() if row not in failed)}
    kept = [row for row in rows.tolist() if row not in failed]
    if skipped:
        source = source | {"skipped": [listing.names[row] for row, _ in skipped]}
        warnings.warn(f"{listing.where}: skipped {len(skipped)} images, the first: {skipped[0][1]}", stacklevel=3)
    return ImageSet(
        pixels.take(np.array([place[row] for row in kept])),
        [listing.names[row] for row in kept],
        listing.labels[kept],
        listing.classes,
        object_boxes=None if boxes is None else [boxes[row] for row in kept],
        source=source | {"size": size},
    )


def _object_boxes(
    listing: Listing, rows: np.ndarray, size: int, on_error: str
) -> tuple[dict[int, tuple[Box, ...]] | None, Skipped]:
    """The object boxes of rows by row, None where the source knows of none; and the rows whose boxes are broken."""
    if listing.annotation is None:
        return None, []
    found, broken = {}, []
    images = bar(listing.read(rows), "boxes", total=len(rows), delay=2)
    for row, encoded in zip(rows.tolist(), images, strict=True):
        try:
            annotation = listing.annotation(row)
            found[row] = annotation.squared(shape_of(encoded), size) if annotation.boxes else ()
        except BadInput as error:
            if on_error != "skip":
                raise
            broken.append((row, str(error)))
    return found, broken


def _shared_side(images: Iterable[Encoded]) -> int | None:
    """The side that all images share, where all are square; looks no further than the first that differs."""
    shared = None
    for image in images:
        side = side_if_square(image)
        if side is None or side != (shared := shared or side):
            return None
    return shared


def _decoded(listing: Listing, rows: np.ndarray, size: int) -> Iterator[tuple[int, np.ndarray | BadInput]]:
    """Each row with its image (3, size, size), or with what is wrong with it."""

    def attempt(job: tuple[int, Encoded]) -> tuple[int, np.ndarray | BadInput]:
        row, encoded = job
        try:
            return row, decode(encoded, f"{listing.where}/{listing.names[row]}", size)
        except BadInput as error:
            return row, error

    jobs = zip(rows.tolist(), listing.read(rows), strict=True)
    with (
        bar(total=len(rows), desc=f"decoding {listing.where}", unit="image", delay=1) as done,
        ThreadPoolExecutor() as pool,
    ):
        for chunk in _chunks(jobs):
            yield from pool.map(attempt, chunk)
            done.update(len(chunk))


def _chunks(jobs: Iterator[tuple[int, Encoded]]) -> Iterator[list[tuple[int, Encoded]]]:
    """Up to `CHUNK` images at a time, and of those already in memory no more than `CHUNK_BYTES`."""
    chunk, held = [], 0
    for job in jobs:
        chunk.append(job)
        held += len(job[1]) if isinstance(job[1], bytes) else 0
        if len(chunk) == CHUNK or held > CHUNK_BYTES:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


Skipped = list[tuple[int, str]]
"""The rows that could not be decoded, each with the reason."""


def _good(listing: Listing, rows: np.ndarray, size: int, on_error: str, skipped: Skipped) -> Iterator[np.ndarray]:
    """The images that decode; the others are added to `skipped`, or raised."""
    for row, image in _decoded(listing, rows, size):
        if not isinstance(image, BadInput):
            yield image
        elif on_error == "skip":
            skipped.append((row, str(image)))
        else:
            raise image


def _decode_to_memory(listing: Listing, rows: np.ndarray, size: int, on_error: str) -> tuple[Pixels, Skipped]:
    skipped: Skipped = []
    images = np.empty((len(rows), 3, size, size), dtype=np.uint8)
    count = 0
    for image in _good(listing, rows, size, on_error, skipped):
        images[count] = image
        count += 1
    return Pixels.of(torch.from_numpy(images[:count])), skipped


def _decode_to_cache(listing: Listing, rows: np.ndarray, size: int, on_error: str) -> tuple[Pixels, Skipped]:
    """As a .npy file in the cache, found again as long as the source's files do not change."""
    key = store.digest("pixels-1", listing.stamp(rows), rows, size)
    path = store.cache_dir() / "images" / f"{key}.npy"
    record = path.with_suffix(".json")
    shape = (len(rows), 3, size, size)
    if not _is_whole(path, record, shape):
        skipped: Skipped = []
        with store.atomic(path) as temporary, temporary.open("wb") as file:
            _write_npy(file, _good(listing, rows, size, on_error, skipped), shape)
        store.write_json(record, skipped)
    skipped = [(row, reason) for row, reason in store.read_json(record)]
    if skipped and on_error == "raise":
        raise BadInput(skipped[0][1])
    return Pixels.of(path, count=len(rows) - len(skipped)), skipped


def _is_whole(path: Path, record: Path, shape: tuple[int, ...]) -> bool:
    """Whether both files of a set in the cache are there, as long as they must be; says where they are damaged."""
    if not (path.exists() and record.exists()):
        return False
    try:
        pixels = np.load(path, mmap_mode="r")
        reasons = all(isinstance(row, int) and isinstance(reason, str) for row, reason in store.read_json(record))
        if reasons and pixels.shape == shape and pixels.dtype == np.uint8:
            return True
    except (OSError, ValueError, TypeError, EOFError):
        pass
    warnings.warn(f"{path}: these images in the cache are damaged; they are decoded anew", stacklevel=2)
    return False


def _write_npy(file: BinaryIO, images: Iterator[np.ndarray], shape: tuple[int, ...]) -> None:
    """Stream uint8 images to a .npy file of `shape`; rows that never come stay zero."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    end = file.tell() + int(np.prod(shape))
    for image in images:
        file.write(np.ascontiguousarray(image).data)
    file.truncate(end)
