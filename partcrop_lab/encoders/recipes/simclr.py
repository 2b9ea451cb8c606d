"""SimCLR: two views of an image attract, all other views repel (Chen et al., ICML 2020, arXiv 2002.05709)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from torch import nn

from partcrop_lab.encoders.recipes.base import Objective, Recipe, register
from partcrop_lab.encoders.recipes.siamese import TwoViewObjective


@register
@dataclass(frozen=True, kw_only=True)
class SimCLR(Recipe):
    """Settings of SimCLR.

    Attributes:
        temperature: of the contrastive softmax.
        hidden, output: widths of the projector.
    """

    name: ClassVar[str] = "simclr"
    temperature: float = 0.2
    hidden: int = 512
    output: int = 128

    def build(self, image_size: int, seed: int) -> Objective:
        """Encoder, projector and NT-Xent loss."""
        return TwoViewObjective(self, image_size, seed, self.head, NTXentLoss(self.temperature))

    def head(self, width: int) -> nn.Module:
        """The projector for vectors of this width."""
        return SimCLRProjectionHead(width, self.hidden, self.output)
