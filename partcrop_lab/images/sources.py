"""`load_images`: one door for every source of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from partcrop_lab.errors import BadInput
from partcrop_lab.images import partshapes
from partcrop_lab.images.folders import folder_listing, tiny_imagenet_listing
from partcrop_lab.images.imagenet import imagenet_listing
from partcrop_lab.images.imageset import JOINED, MEMORY, ImageSet
from partcrop_lab.images.listing import Listing, choose_rows, image_set
from partcrop_lab.images.parquet import parquet_listing
from partcrop_lab.images.torchvision_sets import TORCHVISION_SETS, torchvision_listing

OPTIONS = {
    "partshapes": "background_correlation",
    **dict.fromkeys((*TORCHVISION_SETS, "tiny-imagenet", "imagenet"), "part"),
}
"""The named sources, and the option of its own that each has."""
FOLDER_OPTIONS = ("boxes", "follow_links")


def load_images(
    source: str | Path,
    n: int | None = None,
    size: int | None = None,
    seed: int = 0,
    root: str | Path = "data",
    *,
    names: Sequence[str] | None = None,
    on_error: str = "raise",
    **options: Any,
) -> ImageSet:
    """Load images from a named data set, a folder or a parquet file, as squares of uint8 RGB.

    Args:
        source: "partshapes" (drawn here, no files), "cifar10", "cifar100", "stl10", "tiny-imagenet", "imagenet", a
            folder of class folders, a folder of photographs of any size and mode, or a parquet file in the Hugging Face
            image layout.
        n: how many images, at least 1: a random choice fixed by `seed`, in the source's order. Default all
            (partshapes: the first 2000).
        size: side in pixels, at least 8; the shorter side is resized to it (bicubic, antialias) and the centre
            kept. Default: their own where all images share one square size, else 64.
        seed: of the choice; for partshapes of the drawing.
        root: folder that holds the named data sets.
        names: load just these images, in this order, whatever `n` says.
        on_error: "raise" at the first image that cannot be used, or "skip" such images with a warning and list
            them in ``images.source["skipped"]``.
        options: partshapes: background_correlation in [0, 1]. The other named data sets: part="train" (default),
            "test" ("val" for Tiny-ImageNet and ImageNet; also "unlabeled" for STL-10). Folders: boxes=, a CSV of object
            boxes in the folder or elsewhere, with columns name, x0, y0, x1, y1 in pixels, one row for each box; and
            follow_links=True to take what lies outside the folder where links in it lead.

    Returns:
        The images. Sets of more than 256 MiB lie in the cache on disk and are read batch by batch.

    Raises:
        BadInput: a source that is missing, empty, too small for `n`, or holds an image that cannot be used.
        ValueError: an option that the source does not have.

    >>> load_images("partshapes", n=3, size=32).batch([0, 2]).shape
    torch.Size([2, 3, 32, 32])
    """
    source, root = str(source), str(root)
    _check(source, n, size, on_error, options)
    if source == "partshapes":
        return _partshapes(2000 if n is None else n, size or 64, seed, names, **options)
    listing = _listing(source, Path(root), **options)
    recipe = {"source": source, "n": n, "seed": seed, "on_error": on_error, **options}
    recipe |= {"root": root} if source in OPTIONS else {}
    return image_set(listing, choose_rows(listing, n, seed, names), size, on_error, recipe)


def load_again(source: dict[str, Any], names: Sequence[str], folder: str | Path = ".") -> ImageSet:
    """The images `names` of a set, from its `ImageSet.source`.

    Args:
        source: as the set had it.
        names: which of its images, in order.
        folder: where relative paths are looked for when they lead nowhere from the current folder.

    Raises:
        BadInput: images that came from no source, or are not there any more.
    """
    if source["source"] == MEMORY:
        raise BadInput("these images were handed over as an array, not loaded from anywhere, and cannot be loaded")
    if source["source"] == JOINED:
        sets = [load_again(part["load"], part["names"], folder) for part in source["parts"]]
        return ImageSet.concat(sets, [part["prefix"] for part in source["parts"]]).subset(names)
    recipe = {key: value for key, value in source.items() if key != "skipped"}
    key = "root" if source["source"] in OPTIONS else "source"
    if key in recipe and not Path(recipe[key]).exists() and (beside := Path(folder) / recipe[key]).exists():
        recipe[key] = str(beside)
    return load_images(**recipe, names=names)


def _check(source: str, n: int | None, size: int | None, on_error: str, options: dict[str, Any]) -> None:
    if n is not None and n < 1:
        raise BadInput(f"n={n} images asked for; it must be at least 1")
    if size is not None and size < 8:
        raise BadInput(f"size={size} pixels asked for; it must be at least 8")
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error is {on_error!r}; it must be 'raise' or 'skip'")
    named = (OPTIONS[source],) if source in OPTIONS else ()
    own = named or (FOLDER_OPTIONS if Path(source).expanduser().is_dir() else ())
    for name in options:
        if name not in own:
            has = f"it has {' and '.join(map(repr, own))}" if own else "it has none"
            raise ValueError(f"{source} has no option {name!r}; {has}")


def _listing(source: str, root: Path, **options: Any) -> Listing:
    if source in TORCHVISION_SETS:
        return torchvision_listing(source, root, **options)
    if source == "tiny-imagenet":
        return tiny_imagenet_listing(root, **options)
    if source == "imagenet":
        return imagenet_listing(root, **options)
    path = Path(source).expanduser()
    if path.is_dir():
        return folder_listing(path, **options)
    if path.is_file():
        return parquet_listing(path)
    raise BadInput(f"{source}: no such folder or parquet file, nor a named source; these are {', '.join(OPTIONS)}")


def _partshapes(
    n: int, size: int, seed: int, names: Sequence[str] | None, background_correlation: float = 0.0
) -> ImageSet:
    drawn = partshapes.partshapes(n, size, seed, background_correlation, None if names is None else set(names))
    recipe = {"source": "partshapes", "n": n, "size": size, "seed": seed}
    images = ImageSet(
        torch.from_numpy(drawn.images),
        drawn.names,
        drawn.labels,
        partshapes.CLASSES,
        drawn.part_boxes,
        drawn.object_boxes,
        recipe | {"background_correlation": background_correlation},
    )
    return images if names is None else images.subset(names)
