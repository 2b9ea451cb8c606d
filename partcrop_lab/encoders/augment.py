"""Batched augmentation on the device: every image of a batch gets its own draw, without a loop over images.

The parameters come from a `torch.Generator` on the CPU, so that a run repeats exactly on any device. Brightness,
contrast, saturation, hue and greyscale are one affine map of RGB for each image: the product of the single ones,
clamped once at the end, where torchvision clamps after each; hue turns the chroma plane of YIQ, not HSV's circle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from partcrop_lab.images.resample import crop_resize, random_boxes

LUMA = (0.299, 0.587, 0.114)
RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True)
class Augmentation:
    """How views of images are drawn; the default changes nothing.

    Attributes:
        crop_scale: range of the area of RandomResizedCrop as a share of the image, within (0, 1]; None: no crop.
        flip: probability of a horizontal flip.
        jitter: probability of colour jitter.
        brightness, contrast, saturation: jitter by a factor in 1 -+ this, each in [0, 1].
        hue: jitter by an angle in -+ this share of the whole circle, in [0, 0.5].
        grey, blur, solarise: probabilities.
        blur_sigma: range of the Gaussian's standard deviation in pixels.

    >>> views = Augmentation(crop_scale=(0.2, 1), flip=0.5)
    >>> views(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), Generator().manual_seed(0), size=16, count=2).shape
    torch.Size([4, 2, 3, 16, 16])
    """

    crop_scale: tuple[float, float] | None = None
    flip: float = 0.0
    jitter: float = 0.0
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grey: float = 0.0
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 1.0)
    solarise: float = 0.0

    def __call__(self, images: Tensor, generator: Generator, size: int | None = None, count: int = 1) -> Tensor:
        """Draw `count` views of each image.

        Args:
            images: (B, 3, S, S) uint8.
            generator: on the CPU; decides everything random.
            size: side of the views in pixels; S where None.

        Returns:
            (B, count, 3, size, size) float32 in [0, 1].
        """
        batch, side, size = len(images), images.shape[-1], size or images.shape[-1]
        flips = torch.rand(batch, count, generator=generator) < self.flip
        if self.crop_scale is None and size == side:
            pixels = (images.float() / 255)[:, None].expand(-1, count, -1, -1, -1)
            views = torch.where(flips.to(images.device)[..., None, None, None], pixels.flip(-1), pixels)
        else:
            whole = torch.tensor([0, 0, side, side]).expand(batch, count, 4)
            scale = self.crop_scale
            boxes = whole if scale is None else random_boxes(batch, count, side, scale, generator=generator)
            views = crop_resize(images, boxes, size, flips)
        return self._colour(views.flatten(0, 1), generator).clamp_(0, 1).unflatten(0, (batch, count))

    def _colour(self, views: Tensor, generator: Generator) -> Tensor:
        if self.jitter or self.grey:
            views = self._affine(views, generator)
        if self.blur:
            views = gaussian_blur(views, self._sigma(len(views), generator).to(views.device))
        if self.solarise:
            chosen = _chosen(len(views), self.solarise, generator).to(views.device).view(-1, 1, 1, 1)
            views = torch.where(chosen & (views >= 0.5), 1 - views, views)
        return views

    def _affine(self, views: Tensor, generator: Generator) -> Tensor:
        n = len(views)
        on = _chosen(n, self.jitter, generator)
        draws = torch.where(on[:, None], torch.rand(n, 4, generator=generator) * 2 - 1, 0)
        bright, contrast, saturation = (
            1 + draws[:, :3] * torch.tensor([self.brightness, self.contrast, self.saturation])
        ).T
        saturation = torch.where(_chosen(n, self.grey, generator), 0, saturation)
        matrix = colour_matrix(saturation, draws[:, 3] * self.hue * 2 * math.pi).to(views.device)
        bright, contrast = (value.to(views.device).view(-1, 1, 1) for value in (bright, contrast))
        luma = torch.tensor(LUMA, device=views.device)
        mean = torch.einsum("nchw,c->n", views, luma).view(-1, 1, 1) / views[0, 0].numel()
        mixed = (bright * contrast * matrix) @ views.flatten(2)
        return mixed.add_((1 - contrast) * bright * mean).clamp_(0, 1).view_as(views)

    def _sigma(self, n: int, generator: Generator) -> Tensor:
        low, high = self.blur_sigma
        drawn = low + (high - low) * torch.rand(n, generator=generator)
        return torch.where(_chosen(n, self.blur, generator), drawn, 0)


def _chosen(n: int, probability: float, generator: Generator) -> Tensor:
    return torch.rand(n, generator=generator) < probability


def colour_matrix(saturation: Tensor, angle: Tensor) -> Tensor:
    """The (n, 3, 3) maps of RGB that scale the chroma by `saturation` (n,) and turn it by `angle` (n,) in radians.

    Grey stays grey: every matrix maps (1, 1, 1) to itself.
    """
    to_yiq = torch.tensor(RGB_TO_YIQ)
    to_yiq[1:] -= to_yiq[1:].mean(1, keepdim=True)  # the rounded constants give grey a trace of colour
    chroma = torch.zeros(len(angle), 3, 3)
    chroma[:, 0, 0] = 1
    chroma[:, 1, 1] = chroma[:, 2, 2] = saturation * angle.cos()
    chroma[:, 1, 2], chroma[:, 2, 1] = -saturation * angle.sin(), saturation * angle.sin()
    return torch.linalg.inv(to_yiq) @ chroma @ to_yiq


def gaussian_blur(views: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image (n, 3, S, S) with its own sigma (n,) in pixels, 0 for none: two matrix products per image."""
    position = torch.arange(views.shape[-1], device=views.device, dtype=views.dtype)
    distance = (position - position[:, None]) ** 2
    kernel = torch.exp(-distance / (2 * sigma.clamp(min=1e-3) ** 2).view(-1, 1, 1))
    kernel = (kernel / kernel.sum(-1, keepdim=True))[:, None]
    return kernel @ views @ kernel.transpose(-1, -2)
