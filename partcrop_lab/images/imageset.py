"""Images as the laboratory sees them: square uint8 RGB with names, labels, boxes and a content digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from partcrop_lab.errors import BadInput
from partcrop_lab.images.pixels import Pixels

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1) in pixels, exclusive end, x right, y down."""

MEMORY, JOINED = "memory", "joined"
"""The sources of images handed over as an array, and of sets that `ImageSet.concat` made of several sources."""


class ImageSet:
    """A fixed, ordered set of square images; small ones in memory, large ones read from disk batch by batch.

    Args:
        images: (n, 3, S, S) uint8 RGB tensor or array, the path of such an array in a .npy file, or `Pixels`.
        names: one stable, unique name per image; default "000000", "000001", ...
        labels: (n,) class numbers, -1 where unknown (the default).
        classes: the classes' names.
        part_boxes: for each image a dict from part name to `Box`.
        object_boxes: for each image a tuple of `Box`.
        source: JSON-able; with it and the names `load_again` makes the set again. For what `load_images` made, its
            keywords.

    Raises:
        BadInput: images that are not uint8 (n, 3, S, S), names that repeat, or columns of unequal length.

    >>> images = ImageSet(np.zeros((4, 3, 8, 8), np.uint8), labels=[0, 1, 0, 1])
    >>> images.subset(images.labels == 1).names
    ('000001', '000003')
    """

    def __init__(
        self,
        images: Tensor | np.ndarray | Path | Pixels,
        names: Sequence[str] | None = None,
        labels: Sequence[int] | np.ndarray | None = None,
        classes: Sequence[str] = (),
        part_boxes: Sequence[dict[str, Box]] | None = None,
        object_boxes: Sequence[tuple[Box, ...]] | None = None,
        source: dict[str, Any] | None = None,
    ) -> None:
        self.pixels = images if isinstance(images, Pixels) else Pixels.of(images)
        n = len(self.pixels.rows)
        self.names = tuple(f"{i:06d}" for i in range(n)) if names is None else tuple(names)
        self.labels = np.full(n, -1) if labels is None else np.asarray(labels, dtype=np.int64)
        self.classes = tuple(classes)
        self.part_boxes = None if part_boxes is None else tuple(part_boxes)
        self.object_boxes = None if object_boxes is None else tuple(object_boxes)
        self.source = {"source": MEMORY} if source is None else dict(source)
        self._check(n)

    def _check(self, n: int) -> None:
        for column in ("names", "labels", "part_boxes", "object_boxes"):
            values = getattr(self, column)
            if values is not None and len(values) != n:
                raise BadInput(f"{column} has {len(values)} entries for {n} images; it must have one for each")
        if len(self._row_of) != n:
            seen: set[str] = set()
            twice = next(name for name in self.names if name in seen or seen.add(name))
            raise BadInput(f"the image name {twice!r} occurs more than once; every image needs a name of its own")

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}

    @property
    def size(self) -> int:
        """The images' side in pixels."""
        return self.pixels.size

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        classes = f", {len(self.classes)} classes" if self.classes else ""
        return f"ImageSet({len(self)} images of {self.size} x {self.size} px from {self.source['source']}{classes})"

    def __getitem__(self, i: int) -> Tensor:
        """Image `i`, (3, S, S) uint8."""
        return self.batch([i])[0]

    def batch(self, indices: slice | Sequence[int] | np.ndarray | Tensor) -> Tensor:
        """The images at `indices` (a slice, indices or a boolean mask), (B, 3, S, S) uint8, a copy."""
        return self.pixels.read(self._rows(indices))

    def batches(self, size: int = 256) -> Iterator[Tensor]:
        """All images in order, `size` at a time, each (B, 3, S, S) uint8."""
        return (self.batch(slice(start, start + size)) for start in range(0, len(self), size))

    def _rows(self, indices: slice | Sequence[int] | np.ndarray | Tensor) -> np.ndarray:
        if not isinstance(indices, slice):
            indices = np.asarray(indices)
            indices = indices if indices.size else indices.astype(np.int64)
        return np.arange(len(self))[indices]

    def title(self, i: int) -> str:
        """What an image is called in a list: its class, or its name where that is not known."""
        return self.classes[self.labels[i]] if self.classes and self.labels[i] >= 0 else self.names[i]

    def subset(self, chosen: Sequence[str] | Sequence[int] | slice | np.ndarray | Tensor) -> ImageSet:
        """The images with these names, indices, slice or boolean mask, in the order given.

        Raises:
            BadInput: a name that is not in the set, or an image named twice.
        """
        if not isinstance(chosen, slice) and len(chosen) and isinstance(chosen[0], str):
            unknown = [name for name in chosen if name not in self._row_of]
            if unknown:
                raise BadInput(
                    f"{len(unknown)} of the names asked for are not in the set, the first {unknown[0]!r}; "
                    f"its names look like {self.names[0]!r}"
                )
            chosen = [self._row_of[name] for name in chosen]
        rows = self._rows(chosen)

        def pick(values: tuple | None) -> list | None:
            return None if values is None else [values[row] for row in rows]

        taken = ImageSet(
            self.pixels.take(rows),
            pick(self.names),
            self.labels[rows],
            self.classes,
            pick(self.part_boxes),
            pick(self.object_boxes),
            self.source,
        )
        if "hashes" in self.__dict__:
            taken.__dict__["hashes"] = tuple(pick(self.hashes))
        return taken

    @staticmethod
    def concat(sets: Sequence[ImageSet], prefixes: Sequence[str] | None = None) -> ImageSet:
        """The images of all `sets`, one after the other; no pixel is copied.

        Args:
            sets: image sets of one size. Boxes are kept where all sets have them, classes where all agree.
            prefixes: put before the names of each set, for sets that share names.

        Raises:
            BadInput: no sets, unequal sizes, or a name in two sets.
        """
        sets = tuple(sets)
        sizes = sorted({images.size for images in sets})
        if len(sizes) != 1:
            raise BadInput(f"the image sets to join have sides of {sizes} px; load them with one size=")
        prefixes = [""] * len(sets) if prefixes is None else list(prefixes)
        same_classes = len({images.classes for images in sets}) == 1

        def chain(column: str) -> list | None:
            values = [getattr(images, column) for images in sets]
            return None if any(value is None for value in values) else [one for value in values for one in value]

        joined = ImageSet(
            Pixels.join([images.pixels for images in sets]),
            [prefix + name for prefix, images in zip(prefixes, sets, strict=True) for name in images.names],
            chain("labels") if same_classes else None,
            sets[0].classes if same_classes else (),
            chain("part_boxes"),
            chain("object_boxes"),
            _joined_source(sets, prefixes),
        )
        if all("hashes" in images.__dict__ for images in sets):
            joined.__dict__["hashes"] = tuple(chain("hashes"))
        return joined

    @cached_property
    def hashes(self) -> tuple[str, ...]:
        """The sha256 of each image's pixels (3, S, S), in hex."""
        return tuple(hashlib.sha256(image.data).hexdigest() for batch in self.batches() for image in batch.numpy())

    @cached_property
    def digest(self) -> str:
        """The sha256 over the pixels in order (over the images' own sha256), in hex."""
        return hashlib.sha256("".join(self.hashes).encode()).hexdigest()


def _joined_source(sets: Sequence[ImageSet], prefixes: Sequence[str]) -> dict[str, Any]:
    """One source where all sets share it, else a list of sources with the names taken from each."""
    if all(images.source == sets[0].source for images in sets) and not any(prefixes):
        return sets[0].source
    if any(images.source["source"] == MEMORY for images in sets):
        return {"source": MEMORY}
    parts = [
        {"load": images.source, "names": list(images.names), "prefix": prefix}
        for images, prefix in zip(sets, prefixes, strict=True)
    ]
    return {"source": JOINED, "parts": parts}
