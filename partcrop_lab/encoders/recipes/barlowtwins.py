"""Barlow Twins: two views correlate in each feature and in no other (Zbontar et al., ICML 2021, arXiv 2103.03230)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lightly.loss import BarlowTwinsLoss
from lightly.models.modules import BarlowTwinsProjectionHead
from torch import nn

from partcrop_lab.encoders.recipes.base import Objective, Recipe, register
from partcrop_lab.encoders.recipes.siamese import TwoViewObjective


@register
@dataclass(frozen=True, kw_only=True)
class BarlowTwins(Recipe):
    """Settings of Barlow Twins.

    Attributes:
        redundancy: weight of the correlations between features, lambda.
        hidden, output: widths of the projector.
    """

    name: ClassVar[str] = "barlowtwins"
    redundancy: float = 5e-3
    hidden: int = 512
    output: int = 256

    def build(self, image_size: int, seed: int) -> Objective:
        """Encoder, projector and the loss of their cross-correlation."""
        return TwoViewObjective(self, image_size, seed, self.head, BarlowTwinsLoss(self.redundancy))

    def head(self, width: int) -> nn.Module:
        """The projector for vectors of this width."""
        return BarlowTwinsProjectionHead(width, self.hidden, self.output)
