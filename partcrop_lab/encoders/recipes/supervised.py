"""Supervised training by labels, as DeiT's without its teacher (Touvron et al., ICML 2021, arXiv 2012.12877)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from partcrop_lab.encoders.recipes.base import SMALL_VIT, Recipe, SeparableObjective, full_precision, pooled, register
from partcrop_lab.errors import BadInput
from partcrop_lab.images import ImageSet


@register
@dataclass(frozen=True, kw_only=True)
class Supervised(Recipe):
    """Settings of supervised training; `drop_path_rate` is an option of the model.

    Attributes:
        classes: outputs of the linear head; raised to the number of classes of the images.
        label_smoothing: share of the target that is spread over all classes, in [0, 1).
        mixup: alpha of the Beta distribution of the share by which images of a batch are mixed in pairs; 0: not mixed.
    """

    name: ClassVar[str] = "supervised"
    model_options: dict[str, Any] = field(default_factory=lambda: SMALL_VIT | {"drop_path_rate": 0.1})
    classes: int = 1
    label_smoothing: float = 0.1
    mixup: float = 0.0

    def for_images(self, images: ImageSet) -> Recipe:
        """The recipe with a head for the images' classes.

        Raises:
            BadInput: images without a label.
        """
        missing = int((images.labels < 0).sum())
        if missing:
            raise BadInput(
                f"recipe supervised needs a label for every image, but {missing} of the {len(images)} from "
                f"{images.source['source']} have none; give ImageSet labels=, or a folder that holds one for each class"
            )
        return replace(self, classes=max(self.classes, len(images.classes), int(images.labels.max()) + 1))

    def build(self, image_size: int, seed: int) -> SeparableObjective:
        """Encoder, linear head and cross-entropy."""
        return SupervisedObjective(self, image_size, seed)


class SupervisedObjective(SeparableObjective):
    """Encoder and linear head."""

    def __init__(self, recipe: Supervised, image_size: int, seed: int) -> None:
        super().__init__(recipe, image_size)
        self.encoder = recipe.architecture(image_size).build(seed)
        self.classify = nn.Linear(self.encoder.num_features, recipe.classes)

    @property
    def backbone(self) -> nn.Module:
        """The encoder without the linear head."""
        return self.encoder

    def drawn(self, images: Tensor, generator: Generator, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Views (B, 3, S, S) and targets (B, classes), mixed where the recipe says so; the labels may not be None."""
        views = self.views(images, generator)[:, 0]
        targets = one_hot(labels, self.recipe.classes).float()
        if self.recipe.mixup:
            seed = int(torch.randint(2**62, (), generator=generator))
            share = np.random.default_rng(seed).beta(self.recipe.mixup, self.recipe.mixup)
            views, targets = (share * each + (1 - share) * each.flip(0) for each in (views, targets))
        return views, targets

    def each(self, views: Tensor, targets: Tensor) -> Tensor:
        """The cross-entropy with the smoothed targets."""
        logits = self.classify(pooled(self.encoder, views)).float()
        with full_precision(logits):
            return cross_entropy(logits, targets, label_smoothing=self.recipe.label_smoothing, reduction="none")
