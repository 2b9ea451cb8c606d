"""Folders of image files: photographs, class folders, and Tiny-ImageNet as it unpacks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from partcrop_lab.errors import BadInput
from partcrop_lab.files import read_text
from partcrop_lab.images.boxes import Annotation, read_table
from partcrop_lab.images.listing import Listing
from partcrop_lab.text import written

# HEIC is in the list although Pillow does not read it: a photograph must not be left out in silence.
SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga", ".avif", ".heic", ".heif"),
}


def folder_listing(path: Path, boxes: str | None = None, follow_links: bool = False) -> Listing:
    """The image files under `path`, sorted and named by their path inside it.

    Where every image lies in a sub-folder, the first sub-folder's name is the class; elsewhere labels are -1.

    Args:
        path: the folder.
        boxes: a CSV of object boxes, in it or elsewhere; see `read_table`.
        follow_links: also take what lies outside the folder, where links in it lead.

    Raises:
        BadInput: no image file is there, a linked folder outside, or a table of boxes that cannot be used or names
            none of them.
    """
    if (path / "wnids.txt").is_file() and (path / "train").is_dir():
        return _tiny_imagenet(path, "train", follow_links)
    names = image_files(path, follow_links)
    if not names:
        raise BadInput(f"{path}: no image files in this folder; it needs files such as .jpg, .png or .tif")
    folders = [name.partition("/")[0] if "/" in name else None for name in names]
    classes = () if None in folders else tuple(sorted(set(folders)))
    number = {name: k for k, name in enumerate(classes)}
    labels, annotation = [number.get(one, -1) for one in folders], _annotation(path, names, boxes)
    return file_listing(path, names, labels, classes, annotation, follow_links)


def _annotation(path: Path, names: Sequence[str], boxes: str | None) -> Callable[[int], Annotation] | None:
    if boxes is None:
        return None
    place = path / boxes if (path / boxes).is_file() else Path(boxes).expanduser()
    table = read_table(place)
    if not table.keys() & set(names):
        few = f"the images' are like {names[0]!r}, its own like {next(iter(table), '')!r}"
        raise BadInput(f"{place}: names none of the {len(names)} images of {path}: {few}")
    return lambda row: table.get(names[row], Annotation())


def image_files(path: Path, follow_links: bool = True) -> list[str]:
    """Relative paths of all image files under `path`, sorted; hidden files and folders are left out.

    Raises:
        BadInput: a link to a folder that lies outside, unless `follow_links`.
    """
    names, seen, home = [], set(), os.path.realpath(path)
    for folder, folders, files in os.walk(path, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        if not follow_links and not _inside(real, home):
            raise BadInput(_outside(folder, path))
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        names += [
            (Path(folder) / name).relative_to(path).as_posix()
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    return sorted(names)


def _inside(real: str, home: str) -> bool:
    return real == home or real.startswith(os.path.join(home, ""))


def _outside(place: object, path: Path) -> str:
    told = f"{place}: a link that leads out of {path}"
    return f"{told}; remove it, or pass follow_links=True (--follow-links) to take what it leads to"


def file_listing(
    path: Path,
    names: Sequence[str],
    labels: Sequence[int],
    classes: tuple[str, ...],
    annotation: Callable[[int], Annotation] | None = None,
    follow_links: bool = True,
) -> Listing:
    """The image files `names` under `path`, with their labels and, by their row, their objects.

    A file that is a link and leads out of the folder is not read, unless `follow_links`: what stands for it says so.
    """
    home = os.path.realpath(path)

    def stamp(rows: np.ndarray) -> list:
        return [str(path.resolve()), [[names[row], *_stamp(path / names[row])] for row in rows]]

    def encoded(row: int) -> Path | BadInput:
        place = path / names[row]
        if not follow_links and place.is_symlink() and not _inside(os.path.realpath(place), home):
            return BadInput(_outside(place, path))
        return place

    return Listing(
        where=str(path),
        names=[written(name) for name in names],
        labels=np.asarray(labels, dtype=np.int64),
        classes=tuple(written(name) for name in classes),
        read=lambda rows: map(encoded, rows),
        stamp=stamp,
        annotation=annotation,
    )


def _stamp(path: Path) -> list[int | None]:
    """Size and time of a file; of one that cannot be looked at, which is said when it is decoded, None."""
    try:
        found = path.stat()
    except OSError:
        return [None, None]
    return [found.st_size, found.st_mtime_ns]


def tiny_imagenet_listing(root: Path, part: str = "train") -> Listing:
    """Tiny-ImageNet's train or val part, from `root`/tiny-imagenet-200 as the archive unpacks.

    Raises:
        BadInput: the folder is not there.
        ValueError: another part.
    """
    if part not in ("train", "val"):
        raise ValueError(f"part is {part!r}; Tiny-ImageNet has 'train' and 'val' (its test images have no labels)")
    for path in (root / "tiny-imagenet-200", root / "tiny-imagenet", root):
        if (path / "wnids.txt").is_file():
            return _tiny_imagenet(path, part)
    raise BadInput(
        f"Tiny-ImageNet is not under {root}; unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip so that "
        f"{root / 'tiny-imagenet-200' / 'wnids.txt'} exists"
    )


def _tiny_imagenet(path: Path, part: str, follow_links: bool = True) -> Listing:
    wnids = sorted(read_text(path / "wnids.txt").split())
    number = {wnid: k for k, wnid in enumerate(wnids)}
    try:
        labels = {name: number[wnid] for name, wnid in _tiny_pairs(path, part, follow_links)}
    except (LookupError, ValueError) as error:
        told = f"{path / part}: an image without a class, or of one that wnids.txt does not name"
        raise BadInput(f"{told}; unpack the archive again") from error
    names = sorted(labels)
    if not names:
        raise BadInput(f"{path / part}: holds no images; unpack the archive again")
    return file_listing(path, names, [labels[name] for name in names], _class_names(path, wnids), None, follow_links)


def _tiny_pairs(path: Path, part: str, follow_links: bool) -> list[tuple[str, str]]:
    """The images of a part of Tiny-ImageNet, each with the id of its class."""
    if part == "val":
        lines = read_text(path / "val" / "val_annotations.txt").splitlines()
        return [(f"val/images/{file}", wnid) for file, wnid in (line.split("\t")[:2] for line in lines)]
    names = [f"train/{name}" for name in image_files(path / "train", follow_links)]
    return [(name, name.split("/")[1]) for name in names]


def _class_names(path: Path, wnids: Sequence[str]) -> tuple[str, ...]:
    """The first word for each class, with its WordNet id where two classes share it; the ids without words.txt."""
    words = path / "words.txt"
    if not words.is_file():
        return tuple(wnids)
    table = dict(line.split("\t", 1) for line in read_text(words).splitlines() if "\t" in line)
    return first_words(table, wnids)


def first_words(table: Mapping[str, str], wnids: Sequence[str]) -> tuple[str, ...]:
    """The first of the words for each class, with its WordNet id where two classes share it; the id without words.

    >>> first_words({"n1": "crane, bird", "n2": "crane, machine", "n3": "dog"}, ["n1", "n2", "n3", "n4"])
    ('crane (n1)', 'crane (n2)', 'dog', 'n4')
    """
    first = [table.get(wnid, wnid).split(",")[0] for wnid in wnids]
    count = Counter(first)
    return tuple(word if count[word] == 1 else f"{word} ({wnid})" for word, wnid in zip(first, wnids, strict=True))
