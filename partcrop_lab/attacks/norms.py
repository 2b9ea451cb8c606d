"""The norm attack (LpLA, arXiv 2506.05743; its formula is not public, this is our reading): METHODS 4."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from partcrop_lab.attacks.base import Attack, register

if TYPE_CHECKING:
    from partcrop_lab.encoders import Encoder

ORDERS = (1, 2, 4, math.inf)


@register
@dataclass(frozen=True)
class Norms(Attack):
    """Norms of an image's vector; the likelihood ratio of Gaussians fitted to known members and non-members.

    Attributes:
        pooling: of the vector, "cls" or "mean"; the encoder's own default where None.
    """

    name: ClassVar[str] = "norms"
    attacker: ClassVar[str] = "likelihood-ratio"
    pooling: str | None = None

    @property
    def queries(self) -> int:
        """The image alone."""
        return 1

    def measure(self, encoder: Encoder, images: Tensor, hashes: Sequence[str], seed: int) -> Tensor:
        """Logarithms of the p-norms for p = 1, 2, 4 and infinity: (B, 4)."""
        vectors = encoder.vectors(images, self.pooling)
        return torch.stack([log_norm(vectors, p) for p in ORDERS], 1)


def log_norm(vectors: Tensor, p: float = 2) -> Tensor:
    """Logarithms of the p-norms of vectors (..., D), a zero vector's bounded below: (...)."""
    return vectors.norm(p, dim=-1).clamp(min=1e-12).log()
