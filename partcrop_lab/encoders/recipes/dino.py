"""DINO: a student matches a moving teacher across crops (Caron et al., ICCV 2021, arXiv 2104.14294)."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from lightly.loss import DINOLoss
from lightly.models.modules import DINOProjectionHead
from lightly.models.utils import update_momentum
from torch import Generator, Tensor, nn

from partcrop_lab.encoders.recipes.base import Objective, Recipe, full_precision, pooled, register, rising


@register
@dataclass(frozen=True, kw_only=True)
class DINO(Recipe):
    """Settings of DINO; `crop_scale` is that of the global crops.

    Attributes:
        local_crops: small crops per image, seen by the student only; 0 for none.
        local_scale: range of their area as a share of the image.
        local_size: their side as a share of the image's, rounded up to a multiple of the patch.
        prototypes, hidden, bottleneck: widths of the projection head.
        teacher_temperature, student_temperature: of the softmax over prototypes.
        momentum: of the teacher at the start; it rises to 1 by a cosine.
    """

    name: ClassVar[str] = "dino"
    crop_scale: tuple[float, float] | None = (0.4, 1.0)
    lr: float = 5e-4
    local_crops: int = 4
    local_scale: tuple[float, float] = (0.05, 0.4)
    local_size: float = 0.5
    prototypes: int = 1024
    hidden: int = 512
    bottleneck: int = 128
    teacher_temperature: float = 0.04
    student_temperature: float = 0.1
    momentum: float = 0.99

    def build(self, image_size: int, seed: int) -> Objective:
        """Student, teacher and the cross-entropy between them."""
        return DINOObjective(self, image_size, seed)


class DINOObjective(Objective):
    """Student and teacher with lightly's head and loss; the teacher becomes the encoder."""

    def __init__(self, recipe: DINO, image_size: int, seed: int) -> None:
        super().__init__(recipe, image_size)
        architecture = recipe.architecture(image_size)
        self.student, self.teacher = architecture.build(seed), architecture.build(seed)
        width = (self.student.num_features, recipe.hidden, recipe.bottleneck, recipe.prototypes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # lightly's head uses torch's older weight_norm
            self.student_head, self.teacher_head = DINOProjectionHead(*width), DINOProjectionHead(*width)
        self.teacher_head.load_state_dict(self.student_head.state_dict())
        self.teacher.requires_grad_(False)
        self.teacher_head.requires_grad_(False)
        self.criterion = DINOLoss(recipe.prototypes, student_temp=recipe.student_temperature)

    @property
    def backbone(self) -> nn.Module:
        """The teacher, as in the authors' evaluation."""
        return self.teacher

    def forward(self, images: Tensor, generator: Generator, progress: float = 0.0) -> Tensor:
        """The cross-entropy from the teacher's global crops to the student's other crops."""
        crops = self.views(images, generator, count=2).transpose(0, 1).flatten(0, 1)
        with torch.no_grad():
            targets = self.teacher_head(pooled(self.teacher, crops)).float().chunk(2)
        outputs = list(self._student(crops).chunk(2))
        if self.recipe.local_crops:
            outputs += self._student(self._local(images, generator)).chunk(self.recipe.local_crops)
        with full_precision(crops):
            return self.criterion(list(targets), outputs, teacher_temp=self.recipe.teacher_temperature)

    def _student(self, crops: Tensor) -> Tensor:
        return self.student_head(pooled(self.student, crops)).float()

    def _local(self, images: Tensor, generator: Generator) -> Tensor:
        """Small crops, (local_crops * B, 3, size, size)."""
        step = self.recipe.model_options.get("patch_size", 8)
        size = math.ceil(self.image_size * self.recipe.local_size / step) * step
        augmentation = replace(self.recipe.augmentation, crop_scale=self.recipe.local_scale)
        crops = self.views(images, generator, size, self.recipe.local_crops, augmentation)
        return crops.transpose(0, 1).flatten(0, 1)

    def after_step(self, progress: float) -> None:
        """Move the teacher towards the student."""
        momentum = rising(self.recipe.momentum, progress)
        update_momentum(self.student, self.teacher, momentum)
        update_momentum(self.student_head, self.teacher_head, momentum)
