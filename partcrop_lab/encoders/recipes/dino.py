"""DINO: a student matches a moving teacher across crops (Caron et al., ICCV 2021, arXiv 2104.14294)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

from lightly.loss import DINOLoss
from lightly.models.modules import DINOProjectionHead
from torch import Generator, Tensor, nn

from partcrop_lab.encoders.recipes.base import Objective, full_precision, pooled, register
from partcrop_lab.encoders.recipes.siamese import MultiCrop, TeacherObjective


@register
@dataclass(frozen=True, kw_only=True)
class DINO(MultiCrop):
    """Settings of DINO; small crops are seen by the student only, see `MultiCrop`.

    Attributes:
        prototypes, hidden, bottleneck: widths of the projection head.
        teacher_temperature, student_temperature: of the softmax over prototypes.
        momentum: of the teacher at the start; it rises to 1 by a cosine.
    """

    name: ClassVar[str] = "dino"
    lr: float = 5e-4
    prototypes: int = 1024
    hidden: int = 512
    bottleneck: int = 128
    teacher_temperature: float = 0.04
    student_temperature: float = 0.1
    momentum: float = 0.99

    def build(self, image_size: int, seed: int) -> Objective:
        """Student, teacher and the cross-entropy between them."""
        return DINOObjective(self, image_size, seed)

    def head(self, width: int) -> nn.Module:
        """The projection head for vectors of this width."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # lightly's head uses torch's older weight_norm
            return DINOProjectionHead(width, self.hidden, self.bottleneck, self.prototypes)


class DINOObjective(TeacherObjective):
    """Student and teacher with lightly's head and loss; the teacher becomes the encoder."""

    def __init__(self, recipe: DINO, image_size: int, seed: int) -> None:
        super().__init__(recipe, image_size, seed, recipe.head)
        self.criterion = DINOLoss(recipe.prototypes, student_temp=recipe.student_temperature)

    @property
    def backbone(self) -> nn.Module:
        """The teacher, as in the authors' evaluation."""
        return self.teacher

    @property
    def projector(self) -> nn.Module:
        """The teacher's head."""
        return self.teacher_head

    def forward(
        self, images: Tensor, generator: Generator, progress: float = 0.0, labels: Tensor | None = None
    ) -> Tensor:
        """The cross-entropy from the teacher's global crops to the student's other crops."""
        crops = self.crops(images, generator)
        targets, outputs = self.targets(crops), self.predictions(crops)
        return self.distil(targets, outputs, self.recipe.on_local(self, self.predictions, images, generator))

    def predictions(self, crops: Tensor) -> Tensor:
        """What the student makes of crops (n, 3, s, s): (n, prototypes) float32."""
        return self.student_head(pooled(self.student, crops)).float()

    def distil(self, targets: Tensor, outputs: Tensor, local: list[Tensor]) -> Tensor:
        """The cross-entropy from the targets (2 B, prototypes) of two global crops to the outputs of other crops."""
        with full_precision(targets):
            outputs = [*outputs.chunk(2), *local]
            return self.criterion(list(targets.chunk(2)), outputs, teacher_temp=self.recipe.teacher_temperature)
