"""VICReg: views agree, features keep their variance and do not covary (Bardes et al., ICLR 2022, arXiv 2105.04906)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lightly.loss import VICRegLoss
from lightly.models.modules.heads import VICRegProjectionHead
from torch import nn

from partcrop_lab.encoders.recipes.base import Objective, Recipe, register
from partcrop_lab.encoders.recipes.siamese import TwoViewObjective


@register
@dataclass(frozen=True, kw_only=True)
class VICReg(Recipe):
    """Settings of VICReg.

    Attributes:
        invariance, variance, covariance: weights of the three terms.
        hidden, output: widths of the projector.
    """

    name: ClassVar[str] = "vicreg"
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    hidden: int = 512
    output: int = 256

    def build(self, image_size: int, seed: int) -> Objective:
        """Encoder, projector and the three terms."""
        criterion = VICRegLoss(self.invariance, self.variance, self.covariance)
        return TwoViewObjective(self, image_size, seed, self.head, criterion)

    def head(self, width: int) -> nn.Module:
        """The projector for vectors of this width."""
        return VICRegProjectionHead(width, self.hidden, self.output)
