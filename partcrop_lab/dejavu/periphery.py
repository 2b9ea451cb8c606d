"""The periphery crop: the largest part of an image that shows nothing of its objects (METHODS 5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from partcrop_lab.images import ImageSet
from partcrop_lab.images.imageset import Box
from partcrop_lab.images.resample import crop_resize

BACKGROUND, CORNER = "background", "corner"
"""How a crop was found: outside all object boxes, or, where an image has none, a corner."""
CORNER_SHARE = 0.3
LEAST_SHARE = 0.2
LONGEST = 4 / 3
"""Crops are cut to this aspect ratio, the most that training crops have, before they are resized to squares."""


@dataclass(frozen=True)
class Periphery:
    """The periphery crops of an image set.

    Attributes:
        images: those that have a usable crop.
        boxes: (n, 4) int64 x0, y0, x1, y1 in pixels, one for each.
        kinds: for each "background", or "corner" where no object box is known.
        unusable: names of the images left out, whose objects leave no background wide enough.
    """

    images: ImageSet
    boxes: Tensor
    kinds: tuple[str, ...]
    unusable: tuple[str, ...]

    def crops(self, size: int, batch: int = 256) -> Iterable[Tensor]:
        """The crops in order, some at a time, each (B, 3, size, size) float32 in about [0, 1]."""
        for start in range(0, len(self.images), batch):
            some = slice(start, start + batch)
            yield crop_resize(self.images.batch(some), self.boxes[some, None], size)[:, 0]


def periphery(images: ImageSet, least: float = LEAST_SHARE) -> Periphery:
    """The periphery crop of every image that has one.

    Args:
        images: with object boxes; where a set or an image has none, the upper left corner of `CORNER_SHARE` of each
            side is taken.
        least: shorter side that a crop must have, as a share of the image's.
    """
    side, rows, boxes, kinds = images.size, [], [], []
    corner = (0, 0, round(CORNER_SHARE * side), round(CORNER_SHARE * side))
    for row in range(len(images)):
        objects = images.object_boxes[row] if images.object_boxes else ()
        box, kind = (largest_outside(objects, side), BACKGROUND) if objects else (corner, CORNER)
        if min(box[2] - box[0], box[3] - box[1]) >= least * side:
            rows.append(row)
            boxes.append(_squarer(box))
            kinds.append(kind)
    kept = set(rows)
    return Periphery(
        images=images.subset(rows),
        boxes=torch.tensor(boxes, dtype=torch.int64).reshape(-1, 4),
        kinds=tuple(kinds),
        unusable=tuple(name for row, name in enumerate(images.names) if row not in kept),
    )


def largest_outside(objects: Sequence[Box], side: int) -> tuple[int, int, int, int]:
    """The box in an image that overlaps no object, of the largest shorter side, then of the largest area.

    Its edges lie on those of the image and of the objects; where these leave nothing, the box is empty.

    Args:
        objects: boxes x0, y0, x1, y1 in pixels, ends exclusive; they may leave the image.
        side: of the image.

    >>> largest_outside([(2, 0, 8, 5)], 8)
    (0, 5, 8, 8)
    """
    whole = [(int(x0 // 1), int(y0 // 1), -int(-x1 // 1), -int(-y1 // 1)) for x0, y0, x1, y1 in objects]
    starts = sorted({0, *(x1 for _, _, x1, _ in whole if 0 <= x1 < side)})
    stops = sorted({side, *(x0 for x0, _, _, _ in whole if 0 < x0 <= side)})
    best, found = (0, 0), (0, 0, 0, 0)
    for x0 in starts:
        for x1 in (stop for stop in stops if stop > x0):
            for y0, y1 in _gaps([(b[1], b[3]) for b in whole if b[0] < x1 and b[2] > x0], side):
                rank = min(x1 - x0, y1 - y0), (x1 - x0) * (y1 - y0)
                if rank > best:
                    best, found = rank, (x0, y0, x1, y1)
    return found


def _gaps(spans: Sequence[tuple[int, int]], side: int) -> Iterable[tuple[int, int]]:
    """The stretches of an axis that no span covers."""
    reached = 0
    for low, high in sorted(spans):
        if low > reached:
            yield reached, min(low, side)
        reached = max(reached, high)
    if reached < side:
        yield reached, side


def _squarer(box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The middle of a box that is longer than `LONGEST` times its width or height."""
    x0, y0, x1, y1 = box
    most = int(LONGEST * min(x1 - x0, y1 - y0))
    cut_x, cut_y = max(0, x1 - x0 - most), max(0, y1 - y0 - most)
    return x0 + cut_x // 2, y0 + cut_y // 2, x0 + cut_x // 2 + x1 - x0 - cut_x, y0 + cut_y // 2 + y1 - y0 - cut_y
