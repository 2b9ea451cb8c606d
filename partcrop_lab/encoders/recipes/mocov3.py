"""MoCo v3: two views, a momentum encoder, no queue (Chen et al., ICCV 2021, arXiv 2104.02057)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from lightly.models.modules import MoCoProjectionHead
from lightly.models.utils import update_momentum
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from partcrop_lab.encoders.recipes.base import Objective, Recipe, full_precision, pooled, register, rising


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


class MoCoV3Objective(Objective):
    """Encoder with projector and predictor, momentum encoder with projector; lightly's heads."""

    def __init__(self, recipe: MoCoV3, image_size: int, seed: int) -> None:
        super().__init__(recipe, image_size)
        architecture = recipe.architecture(image_size)
        self.online, self.target = architecture.build(seed), architecture.build(seed)
        width = (self.online.num_features, recipe.hidden, recipe.output)
        self.projector, self.target_projector = (
            MoCoProjectionHead(*width, num_layers=3, batch_norm=True) for _ in range(2)
        )
        self.predictor = MoCoProjectionHead(recipe.output, *width[1:], num_layers=2, batch_norm=True)
        self.target_projector.load_state_dict(self.projector.state_dict())
        self.target.requires_grad_(False)
        self.target_projector.requires_grad_(False)
        if recipe.freeze_patches and hasattr(self.online, "patch_embed"):
            self.online.patch_embed.requires_grad_(False)

    @property
    def backbone(self) -> nn.Module:
        """The encoder that is trained by gradients."""
        return self.online

    def forward(self, images: Tensor, generator: Generator, progress: float = 0.0) -> Tensor:
        """The contrastive loss of each view's query against the other view's keys."""
        views = self.views(images, generator, count=2).transpose(0, 1).flatten(0, 1)
        queries = self.predictor(self.projector(pooled(self.online, views))).chunk(2)
        with torch.no_grad():
            keys = self.target_projector(pooled(self.target, views)).chunk(2)
        return self._contrast(queries[0], keys[1]) + self._contrast(queries[1], keys[0])

    def _contrast(self, queries: Tensor, keys: Tensor) -> Tensor:
        with full_precision(queries):
            logits = normalize(queries.float(), dim=1) @ normalize(keys.float(), dim=1).T / self.recipe.temperature
        return 2 * self.recipe.temperature * cross_entropy(logits, torch.arange(len(logits), device=logits.device))

    def after_step(self, progress: float) -> None:
        """Move the momentum encoder towards the encoder."""
        momentum = rising(self.recipe.momentum, progress)
        update_momentum(self.online, self.target, momentum)
        update_momentum(self.projector, self.target_projector, momentum)
