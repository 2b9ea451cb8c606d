"""iBOT: DINO, and its loss on masked patches too (Zhou et al., ICLR 2022, arXiv 2111.07832).

Patches are masked one by one, where the authors mask blocks; CLS and patches share one head, as in the paper.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from lightly.loss import IBOTPatchLoss
from lightly.models.modules import MaskedVisionTransformerTIMM
from torch import Generator, Tensor, nn

from partcrop_lab.encoders.backbone import Tokens, timm_tokens
from partcrop_lab.encoders.recipes.base import Objective, full_precision, pooled_tokens, register
from partcrop_lab.encoders.recipes.dino import DINO, DINOObjective
from partcrop_lab.encoders.recipes.masked import checked_vit


@register
@dataclass(frozen=True, kw_only=True)
class IBOT(DINO):
    """Settings of iBOT: those of `DINO`, and how its global crops are masked.

    Attributes:
        mask_share: share of the global crops that are masked for the student.
        mask_ratio: range of the share of their patches that are.
    """

    name: ClassVar[str] = "ibot"
    mask_share: float = 0.5
    mask_ratio: tuple[float, float] = (0.1, 0.5)

    def build(self, image_size: int, seed: int) -> Objective:
        """Student, teacher and the cross-entropies between them."""
        return IBOTObjective(self, image_size, seed)


class IBOTObjective(DINOObjective):
    """Student that sees masked crops, teacher that sees them whole; lightly's head and losses."""

    def __init__(self, recipe: IBOT, image_size: int, seed: int) -> None:
        super().__init__(recipe, image_size, seed)
        vit = checked_vit(recipe, self.student)
        self.side = self.view_side // vit.patch_embed.patch_size[0]
        self.mask_token = nn.Parameter(torch.zeros(1, 1, vit.embed_dim))
        self.patch_criterion = IBOTPatchLoss(recipe.prototypes, recipe.teacher_temperature, recipe.student_temperature)

    def forward(
        self, images: Tensor, generator: Generator, progress: float = 0.0, labels: Tensor | None = None
    ) -> Tensor:
        """DINO's cross-entropy, plus that of the masked patches of each global crop."""
        crops = self.crops(images, generator)
        masks = self.draw_masks(len(crops), generator)
        with torch.no_grad():
            targets, patch_targets = _through(self.teacher_head, timm_tokens(self.teacher, crops), masks)
        outputs, patch_outputs = _through(self.student_head, self.masked_tokens(crops, masks), masks)
        loss = self.distil(targets, outputs, self.recipe.on_local(self, self.predictions, images, generator))
        with full_precision(crops):
            return loss + self.patch_criterion(patch_targets, patch_outputs, masks)

    def draw_masks(self, n: int, generator: Generator) -> Tensor:
        """Which patches of n crops to mask, (n, h, h) bool: in a share of the crops some, in the others none."""
        low, high = self.recipe.mask_ratio
        count = ((low + (high - low) * torch.rand(n, 1, generator=generator)) * self.side**2).round().clamp(min=1)
        rank = torch.rand(n, self.side**2, generator=generator).argsort(1).argsort(1)
        chosen = torch.randperm(n, generator=generator)[:, None] < math.ceil(n * self.recipe.mask_share)
        return ((rank < count) & chosen).view(n, self.side, self.side).to(self.mean.device)

    def masked_tokens(self, crops: Tensor, masks: Tensor) -> Tokens:
        """The student's tokens of crops (n, 3, S, S) whose masked patches (n, h, h) it does not see."""
        student = MaskedVisionTransformerTIMM(
            self.student, self.mask_token, weight_initialization="skip", pos_embed_initialization="skip"
        )  # no module of its own: its weights are the student's
        prefix = self.student.num_prefix_tokens
        tokens = student.encode(crops, mask=nn.functional.pad(masks.flatten(1), (prefix, 0)))
        return tokens[:, prefix:], tokens[:, 0] if self.student.has_class_token else None


def _through(head: nn.Module, tokens: Tokens, masks: Tensor) -> tuple[Tensor, Tensor]:
    """A head's outputs for the crops' vectors (n, K) and for their masked patches (masked, K), in float32."""
    return head(pooled_tokens(tokens)).float(), head(tokens[0][masks.flatten(1)]).float()
