"""Augmented views of an image, drawn from the seed and its pixel hash: what EncoderMI and its kin send as queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from partcrop_lab.devices import generator
from partcrop_lab.encoders.augment import Augmentation
from partcrop_lab.encoders.recipes import make_recipe
from partcrop_lab.errors import BadInput

if TYPE_CHECKING:
    from partcrop_lab.encoders import Encoder

VIEWS = Augmentation(
    crop_scale=(0.2, 1.0), flip=0.5, jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grey=0.2
)
"""EncoderMI's augmentation (METHODS 4)."""


def training_views(encoder: Encoder) -> Augmentation:
    """How the encoder's views were drawn in training, by its card.

    Raises:
        BadInput: the card does not say it, or it was trained on whole images.
    """
    recipe, settings = encoder.card.get("recipe"), encoder.card.get("settings")
    if settings is None:
        raise BadInput(f"encoder {encoder.name} does not say how its views were drawn; take augmentation=simclr")
    views = make_recipe(recipe, **settings).augmentation
    if views.crop_scale is None:
        raise BadInput(f"encoder {encoder.name} was trained on whole images, not on views; take augmentation=simclr")
    return views


def view_vectors(
    encoder: Encoder,
    images: Tensor,
    hashes: Sequence[str],
    count: int,
    seed: int,
    pooling: str | None = None,
    views: Augmentation = VIEWS,
) -> Tensor:
    """The encoder's vectors of `count` views of each image, as large as its views in training: (B, count, D) float32.

    Args:
        images: (B, 3, S, S) uint8.
        hashes: one pixel hash per image; with the seed they decide the views.
        views: how they are drawn.
    """
    drawn = [
        views(image[None], generator("views", seed, name), encoder.view_side, count)[0]
        for image, name in zip(images, hashes, strict=True)
    ]
    return encoder.vectors(torch.cat(drawn), pooling).unflatten(0, (len(images), count))
