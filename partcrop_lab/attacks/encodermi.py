"""EncoderMI (Liu et al., CCS 2021, arXiv 2108.11023): members' augmented views lie closer together (METHODS 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from partcrop_lab.attacks.base import Attack, register
from partcrop_lab.attacks.views import VIEWS, training_views, view_vectors

if TYPE_CHECKING:
    from partcrop_lab.encoders import Encoder

ATTACKER_OF_KIND = {"V": "mlp-256", "S": "deepsets", "T": "logistic"}
AUGMENTATIONS = ("simclr", "training")


@register
@dataclass(frozen=True)
class EncoderMI(Attack):
    """Cosines between the vectors of all pairs of an image's augmented views.

    Attributes:
        kind: "V": the sorted cosines; "S": the same as a set; "T": their mean. Each has its own attacker.
        views: augmented views per image n, at least 2; there are n (n - 1) / 2 cosines.
        pooling: of the vectors, "cls" or "mean"; the encoder's own default where None.
        augmentation: how views are drawn: "simclr", as published for an attacker who does not know how the encoder was
            trained (METHODS 4), or "training", as its card says, for one who does.

    Raises:
        ValueError: another kind or augmentation, or fewer than 2 views.

    >>> EncoderMI(views=4).queries
    4
    """

    name: ClassVar[str] = "encodermi"
    selecting: ClassVar[tuple[str, ...]] = ("kind",)
    kind: str = "V"
    views: int = 10
    pooling: str | None = None
    augmentation: str = "simclr"

    def __post_init__(self) -> None:
        if self.kind not in ATTACKER_OF_KIND:
            raise ValueError(f"kind is {self.kind!r}; it must be one of {', '.join(ATTACKER_OF_KIND)}")
        if self.augmentation not in AUGMENTATIONS:
            raise ValueError(f"augmentation is {self.augmentation!r}; it must be one of {', '.join(AUGMENTATIONS)}")
        if self.views < 2:
            raise ValueError(f"views is {self.views}; at least two are needed for a cosine between them")

    @property
    def queries(self) -> int:
        """One for each view; the image itself is not sent."""
        return self.views

    @property
    def attacker(self) -> str:  # a property here, since each kind has its own
        """The attacker of this kind: one hidden layer of 256, DeepSets, or a threshold on the mean."""
        return ATTACKER_OF_KIND[self.kind]

    @property
    def rising(self) -> bool:
        """Members are expected to be higher in each."""
        return True

    @property
    def needs(self) -> list[str]:
        """The queries, and how the encoder was trained where views are drawn so."""
        return [*super().needs, *(["the augmentation it was trained with"] if self.augmentation == "training" else [])]

    def measure(self, encoder: Encoder, images: Tensor, hashes: Sequence[str], seed: int) -> Tensor:
        """The cosines (B, n (n - 1) / 2), sorted from high to low.

        Raises:
            BadInput: views as in training are asked of an encoder whose card does not say how they were drawn.
        """
        views = VIEWS if self.augmentation == "simclr" else training_views(encoder)
        return pair_cosines(view_vectors(encoder, images, hashes, self.views, seed, self.pooling, views))

    def select(self, measured: np.ndarray) -> np.ndarray:
        """All cosines, or their mean for kind "T"."""
        return measured.mean(1, keepdims=True) if self.kind == "T" else measured


def pair_cosines(vectors: Tensor) -> Tensor:
    """Cosines of all pairs within (B, n, D), sorted from high to low: (B, n (n - 1) / 2)."""
    return pair_products(normalize(vectors, dim=-1)).sort(-1, descending=True).values


def pair_products(vectors: Tensor) -> Tensor:
    """Products of all pairs within (B, n, D), pair by pair: (B, n (n - 1) / 2)."""
    first, second = torch.triu_indices(vectors.shape[1], vectors.shape[1], offset=1)
    return (vectors @ vectors.transpose(1, 2))[:, first, second]
