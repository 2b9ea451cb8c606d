"""MoCo v2: a momentum encoder and a queue of its keys as negatives (Chen et al., 2020, arXiv 2003.04297).

The authors shuffle the keys' batches between GPUs, so that batch statistics give nothing away; here they are of the
whole step, on several GPUs too, and there is nothing to shuffle.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from lightly.loss import NTXentLoss
from lightly.models.modules import MoCoProjectionHead
from torch import Generator, Tensor, nn

from partcrop_lab.encoders.recipes.base import SMALL_RESNET, Objective, Recipe, full_precision, pooled, register
from partcrop_lab.encoders.recipes.siamese import TeacherObjective


@register
@dataclass(frozen=True, kw_only=True)
class MoCoV2(Recipe):
    """Settings of MoCo v2; its default backbone is a narrow ResNet.

    Attributes:
        temperature: of the contrastive softmax.
        momentum: of the momentum encoder, constant.
        queue: keys of earlier steps that serve as negatives; far fewer than there are images, or an image is repelled
            by its own older keys.
        hidden, output: widths of the projector.
    """

    name: ClassVar[str] = "mocov2"
    model: str = "resnet18"
    model_options: dict[str, Any] = field(default_factory=lambda: dict(SMALL_RESNET))
    batch_size: int = 64
    temperature: float = 0.2
    momentum: float = 0.99
    queue: int = 128
    hidden: int = 512
    output: int = 128

    def build(self, image_size: int, seed: int) -> Objective:
        """Encoder, momentum encoder, queue and the contrastive loss."""
        return MoCoV2Objective(self, image_size, seed)

    def head(self, width: int) -> nn.Module:
        """The projector for vectors of this width."""
        return MoCoProjectionHead(width, self.hidden, self.output)


class MoCoV2Objective(TeacherObjective):
    """Encoder and momentum encoder with their projectors; lightly's heads, loss and queue."""

    def __init__(self, recipe: MoCoV2, image_size: int, seed: int) -> None:
        super().__init__(recipe, image_size, seed, recipe.head)
        size = (recipe.queue, recipe.output)
        self.criterion = NTXentLoss(recipe.temperature, memory_bank_size=size, gather_distributed=True)
        queue = self.criterion.memory_bank
        for name, value in list(queue.named_buffers()):
            queue.register_buffer(name, value)  # lightly keeps them out of the state from which a run resumes

    def forward(
        self, images: Tensor, generator: Generator, progress: float = 0.0, labels: Tensor | None = None
    ) -> Tensor:
        """The contrastive loss of one view's queries against the other's keys and the queue, which the keys enter."""
        first, second = self.crops(images, generator).chunk(2)
        queries, keys = self.student_head(pooled(self.student, first)).float(), self.targets(second)
        with full_precision(queries):
            return self.criterion(queries, keys)

    def after_step(self, progress: float) -> None:
        """Move the momentum encoder towards the encoder, at any time by the same share."""
        super().after_step(0.0)
