"""SwAV: the cluster of one view is predicted from another (Caron et al., NeurIPS 2020, arXiv 2006.09882).

Without the authors' queue, so a batch should hold more images than there are prototypes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lightly.loss import SwaVLoss
from lightly.models.modules import SwaVProjectionHead, SwaVPrototypes
from torch import Generator, Tensor, nn
from torch.nn.functional import normalize

from partcrop_lab.encoders.recipes.base import Objective, full_precision, pooled, register
from partcrop_lab.encoders.recipes.siamese import MultiCrop, TwoViewObjective


@register
@dataclass(frozen=True, kw_only=True)
class SwAV(MultiCrop):
    """Settings of SwAV; small crops have no clusters of their own, see `MultiCrop`.

    Attributes:
        temperature: of the softmax over prototypes.
        epsilon: temperature of the Sinkhorn iterations that share a batch out among the prototypes.
        prototypes: number of clusters.
        freeze_prototypes: share of the training during which they stay as drawn.
        hidden, output: widths of the projector.
    """

    name: ClassVar[str] = "swav"
    temperature: float = 0.1
    epsilon: float = 0.05
    prototypes: int = 64
    freeze_prototypes: float = 0.05
    hidden: int = 512
    output: int = 128

    def build(self, image_size: int, seed: int) -> Objective:
        """Encoder, projector, prototypes and the swapped prediction."""
        return SwAVObjective(self, image_size, seed)

    def head(self, width: int) -> nn.Module:
        """The projector for vectors of this width."""
        return SwaVProjectionHead(width, self.hidden, self.output)


class SwAVObjective(TwoViewObjective):
    """Encoder, projector and prototypes of unit length; lightly's heads and loss."""

    def __init__(self, recipe: SwAV, image_size: int, seed: int) -> None:
        how = {"sinkhorn_epsilon": recipe.epsilon, "sinkhorn_gather_distributed": True}
        criterion = SwaVLoss(recipe.temperature, **how)
        super().__init__(recipe, image_size, seed, recipe.head, criterion)
        self.prototypes = SwaVPrototypes(recipe.output, recipe.prototypes)
        self.prototypes.normalize()

    def forward(
        self, images: Tensor, generator: Generator, progress: float = 0.0, labels: Tensor | None = None
    ) -> Tensor:
        """The cross-entropy from each large crop's cluster to the other crops' scores."""
        self.prototypes.requires_grad_(progress >= self.recipe.freeze_prototypes)
        large = self.scores(self.crops(images, generator))
        small = self.recipe.on_local(self, self.scores, images, generator)
        with full_precision(large):
            return self.criterion(list(large.chunk(2)), small).squeeze()

    def scores(self, crops: Tensor) -> Tensor:
        """How near crops (n, 3, s, s) are to every prototype, (n, prototypes) float32."""
        projections = self.head(pooled(self.encoder, crops)).float()
        with full_precision(projections):
            return self.prototypes(normalize(projections, dim=1))

    def after_step(self, progress: float) -> None:
        """Bring the prototypes back to unit length."""
        self.prototypes.normalize()
