"""Folders of image files: photographs, class folders, and Tiny-ImageNet as it unpacks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from partcrop_lab.errors import BadInput
from partcrop_lab.images.boxes import Annotation, read_table
from partcrop_lab.images.listing import Listing

# HEIC is in the list although Pillow does not read it: a photograph must not be left out in silence.
SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga", ".avif", ".heic", ".heif"),
}


def folder_listing(path: Path, boxes: str | None = None) -> Listing:
    """The image files under `path`, sorted and named by their path inside it.

    Where every image lies in a sub-folder, the first sub-folder's name is the class; elsewhere labels are -1.

    Args:
        path: the folder.
        boxes: a CSV of object boxes, in it or elsewhere; see `read_table`.

    Raises:
        BadInput: no image file is there, or a table of boxes that cannot be used or names none of them.
    """
    if (path / "wnids.txt").is_file() and (path / "train").is_dir():
        return _tiny_imagenet(path, "train")
    names = image_files(path)
    if not names:
        raise BadInput(f"{path}: no image files in this folder; it needs files such as .jpg, .png or .tif")
    folders = [name.partition("/")[0] if "/" in name else None for name in names]
    classes = () if None in folders else tuple(sorted(set(folders)))
    number = {name: k for k, name in enumerate(classes)}
    return file_listing(path, names, [number.get(one, -1) for one in folders], classes, _annotation(path, names, boxes))


def _annotation(path: Path, names: Sequence[str], boxes: str | None) -> Callable[[int], Annotation] | None:
    if boxes is None:
        return None
    place = path / boxes if (path / boxes).is_file() else Path(boxes).expanduser()
    table = read_table(place)
    if not table.keys() & set(names):
        few = f"the images' are like {names[0]!r}, its own like {next(iter(table), '')!r}"
        raise BadInput(f"{place}: names none of the {len(names)} images of {path}: {few}")
    return lambda row: table.get(names[row], Annotation())


def image_files(path: Path) -> list[str]:
    """Relative paths of all image files under `path`, sorted; hidden files and folders are left out."""
    names, seen = [], set()
    for folder, folders, files in os.walk(path, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        names += [
            (Path(folder) / name).relative_to(path).as_posix()
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    return sorted(names)


def file_listing(
    path: Path,
    names: Sequence[str],
    labels: Sequence[int],
    classes: tuple[str, ...],
    annotation: Callable[[int], Annotation] | None = None,
) -> Listing:
    """The image files `names` under `path`, with their labels and, by their row, their objects."""

    def stamp(rows: np.ndarray) -> list:
        stats = [(path / names[row]).stat() for row in rows]
        return [str(path.resolve()), [[names[r], s.st_size, s.st_mtime_ns] for r, s in zip(rows, stats, strict=True)]]

    return Listing(
        where=str(path),
        names=names,
        labels=np.asarray(labels, dtype=np.int64),
        classes=classes,
        read=lambda rows: (path / names[row] for row in rows),
        stamp=stamp,
        annotation=annotation,
    )


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


def _tiny_imagenet(path: Path, part: str) -> Listing:
    wnids = sorted((path / "wnids.txt").read_text().split())
    number = {wnid: k for k, wnid in enumerate(wnids)}
    if part == "val":
        lines = (path / "val" / "val_annotations.txt").read_text().splitlines()
        labels = {f"val/images/{file}": number[wnid] for file, wnid in (line.split("\t")[:2] for line in lines)}
    else:
        labels = {name: number[name.split("/")[1]] for name in (f"train/{n}" for n in image_files(path / "train"))}
    names = sorted(labels)
    if not names:
        raise BadInput(f"{path / part}: holds no images; unpack the archive again")
    return file_listing(path, names, [labels[name] for name in names], _class_names(path, wnids))


def _class_names(path: Path, wnids: Sequence[str]) -> tuple[str, ...]:
    """The first word for each class, with its WordNet id where two classes share it; the ids without words.txt."""
    words = path / "words.txt"
    if not words.is_file():
        return tuple(wnids)
    table = dict(line.split("\t", 1) for line in words.read_text().splitlines() if "\t" in line)
    return first_words(table, wnids)


def first_words(table: Mapping[str, str], wnids: Sequence[str]) -> tuple[str, ...]:
    """The first of the words for each class, with its WordNet id where two classes share it; the id without words.

    >>> first_words({"n1": "crane, bird", "n2": "crane, machine", "n3": "dog"}, ["n1", "n2", "n3", "n4"])
    ('crane (n1)', 'crane (n2)', 'dog', 'n4')
    """
    first = [table.get(wnid, wnid).split(",")[0] for wnid in wnids]
    count = Counter(first)
    return tuple(word if count[word] == 1 else f"{word} ({wnid})" for word, wnid in zip(first, wnids, strict=True))
