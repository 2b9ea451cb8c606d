"""Random part crops: which boxes of an image are cut, decided by the seed and the image's own pixels alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from partcrop_lab.devices import generator
from partcrop_lab.images.resample import crop_resize, random_boxes

if TYPE_CHECKING:
    from partcrop_lab.encoders import Encoder


@dataclass(frozen=True)
class PartCrops:
    """Where parts are cut: `boxes` (B, N, 4) int64 x0, y0, x1, y1 in pixels; `flip` (B, N) bool."""

    boxes: Tensor
    flip: Tensor


def part_boxes(
    hashes: Sequence[str],
    count: int,
    side: int,
    scale: tuple[float, float] = (0.08, 0.2),
    flip: float = 0.5,
    seed: int = 0,
) -> PartCrops:
    """Boxes of `count` random parts for each image, by RandomResizedCrop's law (METHODS 1).

    The draw for an image depends on the seed and on its pixel hash, never on its place among the others, so a
    feature is the same whichever images are computed beside it.

    Args:
        hashes: one pixel hash per image (`ImageSet.hashes`).
        count: parts per image, N >= 1.
        side: side of the images in pixels.
        scale: range of a part's area as a share of the image, within (0, 1].
        flip: probability of a horizontal flip.
        seed: crop seed.

    Raises:
        ValueError: an impossible count or range.
    """
    if count < 1:
        raise ValueError(f"crops is {count}; at least one part must be cut")
    drawn = []
    for name in hashes:
        source = generator("crops", seed, name)
        boxes = random_boxes(1, count, side, scale, generator=source)[0]
        drawn.append((boxes, torch.rand(count, generator=source) < flip))
    return PartCrops(torch.stack([boxes for boxes, _ in drawn]), torch.stack([flips for _, flips in drawn]))


def cut_parts(images: Tensor, crops: PartCrops, part_size: int) -> Tensor:
    """The parts of images (B, 3, S, S), resized to (B, N, 3, part_size, part_size) float32 in about [0, 1]."""
    return crop_resize(images, crops.boxes, part_size, crops.flip)


def covered_cells(boxes: Tensor, side: float, shape: tuple[int, int]) -> Tensor:
    """The share of each cell of a map that boxes cover: (..., h, w) in [0, 1], of the boxes' precision.

    Args:
        boxes: (..., 4) float x0, y0, x1, y1 in pixels.
        side: the image's side in pixels.
        shape: (h, w) of the map laid over it.

    >>> covered_cells(torch.tensor([0.0, 0.0, 32.0, 16.0]), 64, (2, 2))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.0000]])
    """

    def covered(low: Tensor, high: Tensor, cells: int) -> Tensor:
        edges = torch.arange(cells + 1, dtype=boxes.dtype, device=boxes.device) * side / cells
        reach = torch.minimum(high[..., None], edges[1:]) - torch.maximum(low[..., None], edges[:-1])
        return reach.clamp(min=0) * cells / side

    x0, y0, x1, y1 = boxes.unbind(-1)
    return covered(y0, y1, shape[0])[..., None] * covered(x0, x1, shape[1])[..., None, :]


def query_parts(
    encoder: Encoder, images: Tensor, crops: PartCrops, part_size: int | None = None, pooling: str | None = None
) -> Tensor:
    """Vectors (B, N, D) float32 of the parts of images (B, 3, S, S), at the encoder's own size and pooling if None."""
    parts = cut_parts(images.to(encoder.device), crops, part_size or encoder.part_size)
    return encoder.vectors(parts.flatten(0, 1), pooling).unflatten(0, crops.flip.shape)
