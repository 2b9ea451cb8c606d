"""MoCo v3: two views, a momentum encoder, no queue (Chen et al., ICCV 2021, arXiv 2104.02057)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from lightly.models.modules import MoCoProjectionHead
from lightly.utils.dist import rank
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from partcrop_lab.encoders.ranks import of_all
from partcrop_lab.encoders.recipes.base import Objective, Recipe, full_precision, pooled, register
from partcrop_lab.encoders.recipes.siamese import TeacherObjective


@register
@dataclass(frozen=True, kw_only=True)
class MoCoV3(Recipe):
    """Settings of MoCo v3.

    Attributes:
        temperature: of the contrastive softmax.
        momentum: of the momentum encoder at the start; it rises to 1 by a cosine.
        hidden, output: widths of projector and predictor.
        freeze_patches: keep a ViT's random patch projection, which steadies the training.
    """

    name: ClassVar[str] = "mocov3"
    temperature: float = 0.2
    momentum: float = 0.99
    hidden: int = 512
    output: int = 128
    freeze_patches: bool = True

    def build(self, image_size: int, seed: int) -> Objective:
        """Encoder, momentum encoder and the contrastive loss."""
        return MoCoV3Objective(self, image_size, seed)

    def head(self, width: int) -> nn.Module:
        """The projector for vectors of this width."""
        return MoCoProjectionHead(width, self.hidden, self.output, num_layers=3, batch_norm=True)


class MoCoV3Objective(TeacherObjective):
    """Encoder with projector and predictor, momentum encoder with projector; lightly's heads."""

    def __init__(self, recipe: MoCoV3, image_size: int, seed: int) -> None:
        super().__init__(recipe, image_size, seed, recipe.head)
        self.predictor = MoCoProjectionHead(recipe.output, recipe.hidden, recipe.output, num_layers=2, batch_norm=True)
        if recipe.freeze_patches and hasattr(self.student, "patch_embed"):
            self.student.patch_embed.requires_grad_(False)

    def forward(
        self, images: Tensor, generator: Generator, progress: float = 0.0, labels: Tensor | None = None
    ) -> Tensor:
        """The contrastive loss of each view's query against the other view's keys, those of all ranks."""
        views = self.crops(images, generator)
        queries = self.predictor(self.student_head(pooled(self.student, views))).chunk(2)
        keys = self.targets(views).chunk(2)
        return self._contrast(queries[0], keys[1]) + self._contrast(queries[1], keys[0])

    def _contrast(self, queries: Tensor, keys: Tensor) -> Tensor:
        with full_precision(queries):
            logits = normalize(queries.float(), dim=1) @ normalize(of_all(keys), dim=1).T / self.recipe.temperature
        own = torch.arange(len(logits), device=logits.device) + rank() * len(logits)
        return 2 * self.recipe.temperature * cross_entropy(logits, own)
