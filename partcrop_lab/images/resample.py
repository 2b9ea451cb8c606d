"""Batched exact crops: each crop is two small matrix products, never a loop over PIL images.

Bicubic with antialias is separable and linear, so a crop resized to ``size`` is ``W_y @ image @ W_x.T`` with
one (size, side) weight matrix per axis, zero outside the box. The weights are those of torchvision's
``resize(..., BICUBIC, antialias=True)`` (Keys' cubic, a = -0.5, support widened by the scale when shrinking).
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor


def keys_cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -0.5, the one torchvision and Pillow use with antialias."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


@functools.lru_cache(maxsize=16)
def resize_table(side: int, size: int) -> Tensor:
    """Weights that resize any stretch of an axis of `side` pixels to `size` pixels.

    Returns:
        (2, side + 1, side + 1, size, side) float32: plain or mirrored, by the stretch's length, by `side` minus its
        start. A view: the stretches of one length are one another shifted, and share memory.
    """
    length = torch.arange(side + 1, dtype=torch.float64).clamp(min=1)[:, None, None]
    scale = length / size
    centre = scale * (torch.arange(size, dtype=torch.float64)[:, None] + 0.5)
    stretch = scale.clamp(min=1)
    first = (centre - 2 * stretch + 0.5).floor().clamp(min=0)
    last = torch.minimum((centre + 2 * stretch + 0.5).floor(), length)
    pixel = torch.arange(side, dtype=torch.float64)
    weights = keys_cubic((pixel + 0.5 - centre) / stretch) * ((pixel >= first) & (pixel < last))
    weights = torch.nn.functional.pad(weights / weights.sum(-1, keepdim=True), (side, 0)).float()
    return torch.stack([weights, weights.flip(1)]).unfold(-1, side, 1).transpose(2, 3)


def resize_weights(start: Tensor, stop: Tensor, side: int, size: int, flip: Tensor | None = None) -> Tensor:
    """Weights that resize the pixels [start, stop) of an axis of `side` pixels to `size` pixels.

    Args:
        start, stop: int64 pixel positions, any shape (...), 0 <= start < stop <= side.
        flip: (...) bool, mirror the result.

    Returns:
        (..., size, side) float32; rows sum to 1 and are zero outside [start, stop).
    """
    table = resize_table(side, size).to(start.device)
    mirrored = torch.zeros_like(start) if flip is None else flip.to(start)
    return table[mirrored, stop - start, side - start]


def as_floats(images: Tensor) -> Tensor:
    """Images, uint8 or float in [0, 1], as float32 in [0, 1]."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def crop_resize(images: Tensor, boxes: Tensor, size: int, flip: Tensor | None = None) -> Tensor:
    """Cut boxes out of images and resize each to a square.

    Args:
        images: (B, 3, H, W), uint8 or float in [0, 1].
        boxes: (B, K, 4) integers x0, y0, x1, y1 in pixels, ends exclusive.
        size: side of the result in pixels.
        flip: (B, K) bool, mirror left to right; none where omitted.

    Returns:
        (B, K, 3, size, size) float32; bicubic overshoot beyond [0, 1] is kept, as torchvision keeps it for floats.

    >>> crop_resize(torch.rand(2, 3, 8, 8), torch.tensor([[[0, 0, 4, 8]], [[2, 2, 6, 6]]]), 4).shape
    torch.Size([2, 1, 3, 4, 4])
    """
    height, width = images.shape[-2:]
    x0, y0, x1, y1 = boxes.to(images.device).unbind(-1)
    if bool(((x0 < 0) | (y0 < 0) | (x1 > width) | (y1 > height) | (x0 >= x1) | (y0 >= y1)).any()):
        raise ValueError(f"a box leaves the image of {width} x {height} pixels or is empty")
    pixels = as_floats(images)
    rows, columns = resize_weights(y0, y1, height, size), resize_weights(x0, x1, width, size, flip)
    batch, count = boxes.shape[:2]
    # (K*size, H) @ (H, 3*W): one product per image for the rows, then one per crop for the columns.
    tall = pixels.permute(0, 2, 1, 3).reshape(batch, height, 3 * width)
    part = rows.reshape(batch, count * size, height) @ tall
    crops = part.view(batch * count, size * 3, width) @ columns.reshape(batch * count, size, width).transpose(1, 2)
    return crops.view(batch, count, size, 3, size).transpose(2, 3).contiguous()


def resize(images: Tensor, size: int) -> Tensor:
    """Resize whole images (B, 3, H, W) to (B, 3, size, size) float32, by the same resampling."""
    box = torch.tensor([0, 0, images.shape[-1], images.shape[-2]]).expand(len(images), 1, 4)
    return crop_resize(images, box, size)[:, 0]


def random_boxes(
    n: int,
    count: int,
    side: int,
    scale: tuple[float, float],
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Boxes with RandomResizedCrop's law (torchvision): ten tries at an area and aspect, else the whole image.

    Args:
        n, count: `count` boxes for each of `n` square images of `side` pixels.
        scale: range of the area as a share of the image's, within (0, 1].
        ratio: range of width over height, drawn uniformly in its logarithm.

    Returns:
        (n, count, 4) int64 boxes x0, y0, x1, y1.

    Raises:
        ValueError: an empty or impossible range.
    """
    for name, (low, high), limit in (("scale", scale, 1.0), ("ratio", ratio, math.inf)):
        if not 0 < low <= high <= limit:
            raise ValueError(f"{name} is ({low}, {high}); it must be (low, high) with 0 < low <= high <= {limit}")
    draws = torch.rand(n, count, 10, 4, generator=generator, dtype=torch.float64)
    area = side * side * (scale[0] + (scale[1] - scale[0]) * draws[..., 0])
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    aspect = (log_low + (log_high - log_low) * draws[..., 1]).exp()
    width, height = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (width >= 1) & (width <= side) & (height >= 1) & (height <= side)
    chosen = fits.to(torch.uint8).argmax(-1, keepdim=True)  # the first try that fits
    width, height, u, v = (t.gather(-1, chosen)[..., 0] for t in (width, height, draws[..., 2], draws[..., 3]))
    some = fits.any(-1)
    whole = torch.full_like(width, side)
    width, height = torch.where(some, width, whole), torch.where(some, height, whole)
    x0, y0 = (u * (side - width + 1)).floor(), (v * (side - height + 1)).floor()
    return torch.stack([x0, y0, x0 + width, y0 + height], -1).long()
