"""BYOL: predict a moving teacher's projection of another view, without negatives (Grill et al., NeurIPS 2020,
arXiv 2006.07733).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
from torch import Generator, Tensor, nn

from partcrop_lab.encoders.recipes.base import Objective, Recipe, full_precision, pooled, register
from partcrop_lab.encoders.recipes.siamese import TeacherObjective


@register
@dataclass(frozen=True, kw_only=True)
class BYOL(Recipe):
    """Settings of BYOL.

    Attributes:
        momentum: of the teacher at the start; it rises to 1 by a cosine.
        hidden, output: widths of projector and predictor.
    """

    name: ClassVar[str] = "byol"
    momentum: float = 0.99
    hidden: int = 512
    output: int = 128

    def build(self, image_size: int, seed: int) -> Objective:
        """Student with predictor, and teacher."""
        return BYOLObjective(self, image_size, seed)

    def head(self, width: int) -> nn.Module:
        """The projector for vectors of this width."""
        return BYOLProjectionHead(width, self.hidden, self.output)


class BYOLObjective(TeacherObjective):
    """Student with projector and predictor, teacher with projector; lightly's heads."""

    def __init__(self, recipe: BYOL, image_size: int, seed: int) -> None:
        super().__init__(recipe, image_size, seed, recipe.head)
        self.predictor = BYOLPredictionHead(recipe.output, recipe.hidden, recipe.output)
        self.criterion = NegativeCosineSimilarity()

    def forward(
        self, images: Tensor, generator: Generator, progress: float = 0.0, labels: Tensor | None = None
    ) -> Tensor:
        """The squared distance of unit vectors, 2 - 2 cos, from predictions to the other view's targets (eq. 2)."""
        views = self.crops(images, generator)
        predictions = self.predictor(self.student_head(pooled(self.student, views))).float()
        others = self.targets(views).roll(len(images), 0)
        with full_precision(views):
            return 2 + 2 * self.criterion(predictions, others)
