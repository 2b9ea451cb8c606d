"""What recipes share that compare views of the same image: two views, a moving teacher, small crops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from lightly.models.utils import update_momentum
from torch import Generator, Tensor, nn

from partcrop_lab.encoders.ranks import of_all
from partcrop_lab.encoders.recipes.base import Objective, Recipe, full_precision, pooled, rising


class TwoViewObjective(Objective):
    """An encoder and a projector whose outputs for two views of each image meet in a loss.

    Args:
        recipe: its settings.
        image_size: side of the images in pixels.
        seed: of the encoder's weights.
        head: the projector for vectors of a given width.
        criterion: the loss of two batches of projections, each (B, E) float32.
    """

    def __init__(
        self, recipe: Recipe, image_size: int, seed: int, head: Callable[[int], nn.Module], criterion: nn.Module
    ) -> None:
        super().__init__(recipe, image_size)
        self.encoder = recipe.architecture(image_size).build(seed)
        self.head = head(self.encoder.num_features)
        self.criterion = criterion

    @property
    def backbone(self) -> nn.Module:
        """The encoder."""
        return self.encoder

    @property
    def projector(self) -> nn.Module:
        """The head whose outputs the loss compares."""
        return self.head

    def forward(
        self, images: Tensor, generator: Generator, progress: float = 0.0, labels: Tensor | None = None
    ) -> Tensor:
        """The loss of the two views' projections, of the images of all ranks."""
        projections = self.head(pooled(self.encoder, self.crops(images, generator))).float()
        with full_precision(projections):
            return self.criterion(*(of_all(view) for view in projections.chunk(2)))


class TeacherObjective(Objective):
    """A student with a head, and a teacher: a moving average of both that gets no gradient and drops no path.

    The recipe's `momentum` is that of the teacher at the start; it rises to 1 by a cosine.

    Args:
        recipe: its settings.
        image_size: side of the images in pixels.
        seed: of the student's weights, with which the teacher begins too.
        head: a head for vectors of a given width; called for the student and for the teacher.
    """

    def __init__(self, recipe: Recipe, image_size: int, seed: int, head: Callable[[int], nn.Module]) -> None:
        super().__init__(recipe, image_size)
        architecture = recipe.architecture(image_size)
        every_path = {key: value for key, value in architecture.options.items() if key != "drop_path_rate"}
        self.student, self.teacher = architecture.build(seed), replace(architecture, options=every_path).build(seed)
        self.student_head, self.teacher_head = (head(self.student.num_features) for _ in range(2))
        self.teacher_head.load_state_dict(self.student_head.state_dict())
        self.teacher.requires_grad_(False)
        self.teacher_head.requires_grad_(False)

    @property
    def backbone(self) -> nn.Module:
        """The student, which is trained by gradients."""
        return self.student

    @property
    def projector(self) -> nn.Module:
        """The head of the backbone."""
        return self.student_head

    @torch.no_grad()
    def targets(self, crops: Tensor) -> Tensor:
        """What the teacher makes of crops (n, 3, s, s): (n, E) float32, without gradient."""
        return self.teacher_head(pooled(self.teacher, crops)).float()

    def after_step(self, progress: float) -> None:
        """Move the teacher towards the student."""
        momentum = rising(self.recipe.momentum, progress)
        update_momentum(self.student, self.teacher, momentum)
        update_momentum(self.student_head, self.teacher_head, momentum)


@dataclass(frozen=True, kw_only=True)
class MultiCrop(Recipe):
    """Settings of recipes that show the encoder small crops beside two large ones, whose range is `crop_scale`.

    Attributes:
        local_crops: small crops per image; 0 for none.
        local_scale: range of their area as a share of the image.
        local_size: their side as a share of the image's, rounded up to a multiple of the patch.
    """

    crop_scale: tuple[float, float] | None = (0.4, 1.0)
    local_crops: int = 4
    local_scale: tuple[float, float] = (0.05, 0.4)
    local_size: float = 0.5

    def on_local(
        self, objective: Objective, network: Callable[[Tensor], Tensor], images: Tensor, generator: Generator
    ) -> list[Tensor]:
        """What a network makes of the small crops of one step: a tensor (B, ...) for each of them."""
        if not self.local_crops:
            return []
        size = self.side(objective.image_size, self.local_size)
        augmentation = replace(self.augmentation, crop_scale=self.local_scale)
        crops = objective.crops(images, generator, self.local_crops, size=size, augmentation=augmentation)
        return list(network(crops).chunk(self.local_crops))
