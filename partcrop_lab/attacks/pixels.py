"""The blind baseline: statistics of the pixels alone, with no encoder (METHODS 3.6b).

If these tell members from non-members, the two sets differ by more than membership: in augmentation, JPEG
quality, resizing or the mix of classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from partcrop_lab.attacks.base import Attack, register
from partcrop_lab.errors import BadInput

if TYPE_CHECKING:
    from partcrop_lab.encoders import Encoder

TINY = 1e-4
LUMA = (0.299, 0.587, 0.114)

LEAST_SIDE = 12
"""Pixels a side of the smallest images whose every statistic is a number."""


@register
@dataclass(frozen=True)
class PixelStatistics(Attack):
    """Colour moments and layout, sharpness over scales, spectrum, block artefacts: about 170 numbers an image."""

    name: ClassVar[str] = "pixels"

    @property
    def queries(self) -> int:
        """None: no encoder is asked."""
        return 0

    def measure(self, encoder: Encoder | None, images: Tensor, hashes: Sequence[str], seed: int) -> Tensor:
        """Pixel statistics (B, M); the encoder, the hashes and the seed are not used."""
        return pixel_statistics(images)


def check_side(side: int) -> None:
    """Refuse images too small for differences at a quarter of their size."""
    if side < LEAST_SIDE:
        raise BadInput(
            f"the images have a side of {side} px; the control by pixel statistics needs at least {LEAST_SIDE}, so "
            "load them larger (size=)"
        )


def pixel_statistics(images: Tensor) -> Tensor:
    """All pixel statistics of images (B, 3, H, W) uint8: (B, M) float32, of order one.

    Raises:
        BadInput: images of less than `LEAST_SIDE`.
    """
    check_side(images.shape[-1])
    colour = images.double() / 255
    luma = (colour * torch.tensor(LUMA, dtype=torch.float64)[:, None, None]).sum(1, keepdim=True)
    groups = [_colour(colour), _sharpness(luma), _spectrum(luma), _blocks(luma), _orientation(luma)]
    return torch.cat(groups, 1).float()


def _colour(colour: Tensor) -> Tensor:
    flat = colour.flatten(2)
    centred = flat - flat.mean(-1, keepdim=True)
    std = centred.square().mean(-1).sqrt()
    skew = centred.pow(3).mean(-1) / (std.pow(3) + TINY)
    quantiles = flat.quantile(torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=flat.dtype), -1)
    saturation = (colour.amax(1) - colour.amin(1)).flatten(1)
    unit = centred / (std[..., None] + TINY)
    links = (unit * unit.roll(1, 1)).mean(-1)
    ends = torch.stack([(flat <= 0).double().mean((1, 2)), (flat >= 1).double().mean((1, 2))], 1)
    layout = functional.adaptive_avg_pool2d(colour, 3).flatten(1)
    spread = torch.stack([saturation.mean(1), saturation.std(1)], 1)
    return torch.cat(
        [flat.mean(-1), std, skew.clamp(-5, 5), quantiles.permute(1, 0, 2).flatten(1), links, ends, layout, spread], 1
    )


def _steps(plane: Tensor) -> tuple[Tensor, Tensor]:
    return plane.diff(dim=-1), plane.diff(dim=-2)


def _sharpness(luma: Tensor) -> Tensor:
    """Log mean size of first and second differences along both axes, at full, half and quarter size."""
    columns = []
    for shrink in (1, 2, 4):
        plane = functional.avg_pool2d(luma, shrink) if shrink > 1 else luma
        for step in _steps(plane):
            columns.append(step.abs().mean((1, 2, 3)))
        columns += [plane.diff(n=2, dim=-1).abs().mean((1, 2, 3)), plane.diff(n=2, dim=-2).abs().mean((1, 2, 3))]
    return (torch.stack(columns, 1) + TINY).log()


def _spectrum(luma: Tensor, rings: int = 10) -> Tensor:
    """Log power of the luminance in rings of spatial frequency."""
    side = luma.shape[-1]
    power = torch.fft.rfft2(luma[:, 0] - luma.mean((1, 2, 3))[:, None, None], norm="ortho").abs().square()
    vertical, horizontal = torch.fft.fftfreq(luma.shape[-2]), torch.fft.rfftfreq(side)
    radius = (vertical[:, None] ** 2 + horizontal**2).sqrt()
    ring = (radius / math.sqrt(0.5) * rings).long().clamp(max=rings - 1)
    means = [power[:, ring == k].mean(1) for k in range(rings) if bool((ring == k).any())]
    return (torch.stack(means, 1) + TINY**2).log()


def _blocks(luma: Tensor) -> Tensor:
    """What JPEG leaves in the 8 x 8 DCT: mean size and share that vanishes of each of 15 frequencies, and seams."""
    k = torch.arange(8, dtype=torch.float64)
    dct = torch.cos(math.pi * (k + 0.5) * k[:, None] / 8) / 2
    dct[0] /= math.sqrt(2)
    side = luma.shape[-1] // 8 * 8
    blocks = (luma[:, 0, :side, :side] * 255).unfold(1, 8, 8).unfold(2, 8, 8)
    sizes = (dct @ blocks @ dct.T).abs()
    diagonal = k[:, None] + k
    bands = [sizes[..., diagonal == d].flatten(1) for d in range(15)]
    columns = [(band.mean(1) + 0.1).log() for band in bands] + [(band < 1.5).double().mean(1) for band in bands]
    for step in _steps(luma):
        step = (step if step.shape[-1] < luma.shape[-1] else step.transpose(-1, -2)).abs()
        seam = torch.arange(step.shape[-1]) % 8 == 7
        columns.append((step[..., seam].mean((1, 2, 3)) + TINY).log() - (step[..., ~seam].mean((1, 2, 3)) + TINY).log())
    return torch.stack(columns, 1)


def _orientation(luma: Tensor, bins: int = 6, cells: int = 3) -> Tensor:
    """Share of the gradient's size in each range of its direction, in each of cells x cells places: coarse shape."""
    across, down = luma[:, 0].diff(dim=-1)[:, :-1], luma[:, 0].diff(dim=-2)[..., :-1]
    size = (across.square() + down.square()).sqrt()
    index = (torch.atan2(down, across).remainder(math.pi) / math.pi * bins).long().clamp(max=bins - 1)
    planes = size[:, None] * functional.one_hot(index, bins).movedim(-1, 1)
    shares = functional.adaptive_avg_pool2d(planes, cells)
    return (shares / (shares.sum(1, keepdim=True) + TINY)).flatten(1)
