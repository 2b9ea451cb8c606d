"""ImageNet (ILSVRC 2012, CLS-LOC) as its archives unpack, with the object boxes of its XML files."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from partcrop_lab.errors import BadInput
from partcrop_lab.files import read_bytes, read_text
from partcrop_lab.images.boxes import Annotation, read_xml
from partcrop_lab.images.folders import file_listing, first_words, image_files
from partcrop_lab.images.listing import Listing

PARTS = ("train", "val")
DATA, BOXES = Path("Data/CLS-LOC"), Path("Annotations/CLS-LOC")
WORDS, SOLUTION = "LOC_synset_mapping.txt", "LOC_val_solution.csv"


def imagenet_listing(root: Path, part: str = "train") -> Listing:
    """One part of ImageNet, from `root`/ILSVRC/Data/CLS-LOC and, where they are there, Annotations/CLS-LOC.

    Classes are WordNet ids in their order, by their first word where LOC_synset_mapping.txt is there. The labels of
    val are those of LOC_val_solution.csv, else of the XML files; -1 where neither tells.

    Raises:
        BadInput: the folder is not there, or holds no images.
        ValueError: another part.
    """
    if part not in PARTS:
        raise ValueError(f"part is {part!r}; ImageNet has {' and '.join(map(repr, PARTS))}")
    home = next((p for p in (root / "imagenet/ILSVRC", root / "ILSVRC", root) if (p / DATA).is_dir()), None)
    if home is None:
        raise BadInput(
            f"ImageNet is not under {root}; unpack imagenet_object_localization_patched2019.tar.gz so that "
            f"{root / 'ILSVRC' / DATA / 'train'} exists"
        )
    folder = home / DATA / part
    names = image_files(folder) if folder.is_dir() else []
    if not names:
        raise BadInput(f"{folder}: holds no images; unpack the archive again")
    boxes = home / BOXES / part

    def annotation(row: int) -> Annotation:
        path = boxes / Path(names[row]).with_suffix(".xml")
        return read_xml(path) if path.exists() else Annotation()

    ids, words = _ids(home, names, part, annotation), _words(home)
    wnids = sorted(words or {one for one in ids if one})
    number = {wnid: k for k, wnid in enumerate(wnids)}
    labels = [number.get(one, -1) for one in ids]
    return file_listing(folder, names, labels, first_words(words, wnids), annotation if boxes.is_dir() else None)


def _ids(home: Path, names: list[str], part: str, annotation: Callable[[int], Annotation]) -> list[str | None]:
    """The WordNet id of each image's class."""
    if part == "train":
        return [name.partition("/")[0] for name in names]
    solution = _beside(home, SOLUTION)
    if solution is not None:
        try:
            table = pd.read_csv(io.BytesIO(read_bytes(solution)), index_col=0, dtype=str)
            told = table.iloc[:, 0].str.split().str[0].to_dict()
        except (LookupError, AttributeError, OverflowError, UnicodeDecodeError, pd.errors.ParserError) as error:
            raise BadInput(f"{solution}: not the table of classes that comes with ImageNet; restore it") from error
        return [told.get(Path(name).stem) for name in names]
    return [_object(annotation, row) for row in range(len(names))]


def _object(annotation: Callable[[int], Annotation], row: int) -> str | None:
    """The id of an image's first object; None where a broken file does not tell: who loads the image says that."""
    try:
        return next(iter(annotation(row).objects), None)
    except BadInput:
        return None


def _words(home: Path) -> dict[str, str]:
    """The words for each class by its id; empty where the file is not there."""
    path = _beside(home, WORDS)
    lines = read_text(path).splitlines() if path else []
    return dict(line.split(" ", 1) for line in lines if re.match(r"n\d+ ", line))


def _beside(home: Path, name: str) -> Path | None:
    """A file of the archive, in it or in the folder above."""
    return next((path for path in (home / name, home.parent / name) if path.is_file()), None)
