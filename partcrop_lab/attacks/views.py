"""Augmented views of an image, drawn from the seed and its pixel hash: what EncoderMI and its kin send as queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from partcrop_lab.devices import generator
from partcrop_lab.encoders.augment import Augmentation

if TYPE_CHECKING:
    from partcrop_lab.encoders import Encoder

VIEWS = Augmentation(
    crop_scale=(0.2, 1.0), flip=0.5, jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grey=0.2
)
"""EncoderMI's augmentation (METHODS 4)."""


def view_vectors(
    encoder: Encoder, images: Tensor, hashes: Sequence[str], count: int, seed: int, pooling: str | None = None
) -> Tensor:
    """The encoder's vectors of `count` views of each image, as large as its views in training: (B, count, D) float32.

    Args:
        images: (B, 3, S, S) uint8.
        hashes: one pixel hash per image; with the seed they decide the views.
    """
    drawn = [
        VIEWS(image[None], generator("views", seed, name), encoder.view_side, count)[0]
        for image, name in zip(images, hashes, strict=True)
    ]
    return encoder.vectors(torch.cat(drawn), pooling).unflatten(0, (len(images), count))
