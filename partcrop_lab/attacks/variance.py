"""Variance-only: how much an image's vectors vary over its parts or views, dimension by dimension (METHODS 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from partcrop_lab.attacks.base import Attack, register
from partcrop_lab.attacks.views import view_vectors
from partcrop_lab.parts.crops import part_boxes, query_parts

if TYPE_CHECKING:
    from partcrop_lab.encoders import Encoder

OVER = ("views", "parts")


@register
@dataclass(frozen=True)
class Variance(Attack):
    """The simplest baseline of augmentation statistics: the sorted variances of the vector's dimensions.

    Attributes:
        over: "views" (those of EncoderMI) or "parts" (those of PartCrop).
        count: views or parts per image, at least 2.
        pooling: of the vectors, "cls" or "mean"; the encoder's own default where None.

    Raises:
        ValueError: neither views nor parts, or fewer than 2.
    """

    name: ClassVar[str] = "variance"
    over: str = "views"
    count: int = 10
    pooling: str | None = None

    def __post_init__(self) -> None:
        if self.over not in OVER:
            raise ValueError(f"over is {self.over!r}; it must be one of {', '.join(OVER)}")
        if self.count < 2:
            raise ValueError(f"count is {self.count}; at least two are needed for a variance")

    @property
    def queries(self) -> int:
        """One for each view or part."""
        return self.count

    def measure(self, encoder: Encoder, images: Tensor, hashes: Sequence[str], seed: int) -> Tensor:
        """The unbiased variances of the D dimensions (B, D), sorted from high to low."""
        if self.over == "views":
            vectors = view_vectors(encoder, images, hashes, self.count, seed, self.pooling)
        else:
            crops = part_boxes(hashes, self.count, images.shape[-1], seed=seed)
            vectors = query_parts(encoder, images, crops, pooling=self.pooling)
        return vectors.var(1).sort(-1, descending=True).values
