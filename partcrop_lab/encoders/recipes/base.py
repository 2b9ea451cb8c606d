"""What every recipe is: a frozen dataclass of settings that builds an objective around a backbone."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from partcrop_lab.devices import fresh_weights
from partcrop_lab.encoders.augment import Augmentation
from partcrop_lab.encoders.backbone import Architecture, Tokens, timm_tokens
from partcrop_lab.images import ImageSet
from partcrop_lab.store import with_tuples

SMALL_VIT = {"patch_size": 8, "embed_dim": 128, "depth": 4, "num_heads": 4}
"""The classroom backbone: 0.8 million parameters, 8 x 8 positions at 64 px."""

SMALL_RESNET = {"small_stem": True, "channels": (16, 32, 64, 128)}
"""The classroom ResNet-18: 0.7 million parameters, 8 x 8 positions at 64 px."""

MODEL_OPTIONS = (*SMALL_VIT, "drop_path_rate", "channels", "small_stem")
"""What `make_recipe` takes beside a recipe's own settings and hands to the backbone; see `Architecture`."""

RECIPES: dict[str, type[Recipe]] = {}
"""Every recipe by its name; `register` adds to it."""


class Objective(nn.Module, ABC):
    """A backbone with its heads and its loss; what the training loop moves, steps and saves as one module."""

    def __init__(self, recipe: Recipe, image_size: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.image_size = image_size
        self.view_side = recipe.side(image_size, recipe.view_size)
        for name, values in (("mean", recipe.mean), ("std", recipe.std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    @property
    @abstractmethod
    def backbone(self) -> nn.Module:
        """The part that becomes the encoder."""

    @property
    def projector(self) -> nn.Module | None:
        """The head (n, D) -> (n, E) between the backbone's vectors and the loss; None where there is none."""
        return None

    @abstractmethod
    def forward(
        self, images: Tensor, generator: Generator, progress: float = 0.0, labels: Tensor | None = None
    ) -> Tensor:
        """The loss, a scalar.

        Args:
            images: (B, 3, S, S) uint8.
            generator: on the CPU; decides views and masks.
            progress: share of the training done, in [0, 1).
            labels: (B,) int64 class numbers, -1 where unknown, None where all are; self-supervision ignores them.
        """

    def after_step(self, progress: float) -> None:
        """Called after each step of the optimiser, e.g. to move a teacher."""

    def views(
        self,
        images: Tensor,
        generator: Generator,
        size: int | None = None,
        count: int = 1,
        augmentation: Augmentation | None = None,
    ) -> Tensor:
        """Normalised views (B, count, 3, size, size), of the recipe's size and augmentation where none is given."""
        with full_precision(images):
            views = (augmentation or self.recipe.augmentation)(images, generator, size or self.view_side, count)
            return (views - self.mean) / self.std

    def crops(self, images: Tensor, generator: Generator, count: int = 2, **how: Any) -> Tensor:
        """Normalised views crop by crop, (count * B, 3, size, size): `chunk(count)` gives one crop of each image."""
        return self.views(images, generator, count=count, **how).transpose(0, 1).flatten(0, 1)


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """Settings of a training run; subclasses add those of their objective.

    Attributes:
        model: backbone, a timm name.
        model_options: its further options, see `Architecture`.
        epochs: passes over the images, T.
        batch_size: most images in a step; an epoch is cut into equal batches.
        lr: peak learning rate of AdamW, reached after `warmup` (share of all steps), then a cosine to 0.
        weight_decay: of matrices; vectors have none.
        clip: largest norm of the gradient.
        mean, std: normalisation per RGB channel; public constants, never measured on the members.
        view_size: side of the views as a share of the image's, within (0, 1], rounded up to a multiple of the patch. At
            0.5 a step of a ViT costs a quarter; its position embeddings are interpolated, as for parts.
        crop_scale, flip, jitter, brightness, contrast, saturation, hue, grey, blur, solarise: see `Augmentation`.
    """

    name: ClassVar[str]

    model: str = "vit_tiny_patch16_224"
    model_options: dict[str, Any] = field(default_factory=lambda: dict(SMALL_VIT))
    epochs: int = 1000
    batch_size: int = 256
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    clip: float = 3.0
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)
    view_size: float = 1.0
    crop_scale: tuple[float, float] | None = (0.2, 1.0)
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grey: float = 0.2
    blur: float = 0.0
    solarise: float = 0.0

    def architecture(self, image_size: int) -> Architecture:
        """The backbone for images of this side."""
        return Architecture(self.model, image_size, dict(self.model_options))

    def side(self, image_size: int, share: float) -> int:
        """This share of an image's side, in pixels, see `Architecture.side`."""
        return self.architecture(image_size).side(share)

    @property
    def augmentation(self) -> Augmentation:
        """How views are drawn."""
        names = {each.name for each in fields(Augmentation)} & {each.name for each in fields(self)}
        return Augmentation(**{name: getattr(self, name) for name in names})

    def for_images(self, images: ImageSet) -> Recipe:
        """The recipe for training on these images, with what it has to know of them."""
        return self

    def objective(self, image_size: int, seed: int) -> Objective:
        """The objective with fresh weights that depend on the seed alone."""
        with fresh_weights("objective", self.name, seed):
            return self.build(image_size, seed).float()

    @abstractmethod
    def build(self, image_size: int, seed: int) -> Objective:
        """The objective; heads take their weights from torch's global generator."""


class SeparableObjective(Objective):
    """An objective whose loss is a mean over images, that of each depending on the image, its label and chance alone.

    So each image has a gradient of its own, which can be clipped: the ground that DP-SGD's guarantee stands on.
    """

    @abstractmethod
    def drawn(self, images: Tensor, generator: Generator, labels: Tensor | None) -> tuple[Tensor, ...]:
        """What the loss of each image is computed from, tensors (B, ...): its view, and what was drawn for it."""

    @abstractmethod
    def each(self, *drawn: Tensor) -> Tensor:
        """The loss of each image by itself, (B,) float32, from what `drawn` gave."""

    def forward(
        self, images: Tensor, generator: Generator, progress: float = 0.0, labels: Tensor | None = None
    ) -> Tensor:
        """The mean over the images."""
        return self.each(*self.drawn(images, generator, labels)).mean()


def full_precision(tensor: Tensor) -> torch.autocast:
    """Context in which products stay in float32: pixels when they are resampled, and losses."""
    return torch.autocast(tensor.device.type, enabled=False)


def pooled(backbone: nn.Module, views: Tensor) -> Tensor:
    """The vector (n, D) a head sees for each view: the CLS token, or the mean of the feature map without one."""
    return pooled_tokens(timm_tokens(backbone, views))


def pooled_tokens(tokens: Tokens) -> Tensor:
    """The vector (n, D) of feature maps (n, L, D) with or without CLS tokens."""
    fmap, cls = tokens
    return fmap.mean(1) if cls is None else cls


def rising(momentum: float, progress: float) -> float:
    """A momentum that rises from its start to 1 along a cosine, at this share of the training.

    >>> rising(0.9, 0.0), rising(0.9, 1.0)
    (0.9, 1.0)
    """
    return 1 - (1 - momentum) * (math.cos(math.pi * progress) + 1) / 2


def register(recipe: type[Recipe]) -> type[Recipe]:
    """Class decorator: makes a recipe known by its `name`."""
    RECIPES[recipe.name] = recipe
    return recipe


def make_recipe(recipe_name: str, **settings: Any) -> Recipe:
    """A recipe by its name, with settings.

    Args:
        recipe_name: one of `RECIPES`.
        settings: fields of the recipe; and those of `MODEL_OPTIONS`, which go into `model_options`. Another `model`
            begins with no options.

    Raises:
        ValueError: an unknown recipe or setting; the right ones are listed.

    >>> make_recipe("mae", epochs=5, depth=2).model_options["depth"]
    2
    """
    if recipe_name not in RECIPES:
        raise ValueError(f"recipe is {recipe_name!r}; it must be one of {', '.join(sorted(RECIPES))}")
    recipe = RECIPES[recipe_name]
    options = {key: settings.pop(key) for key in MODEL_OPTIONS if key in settings}
    known = {each.name: each for each in fields(recipe)}
    unknown = sorted(set(settings) - set(known))
    if unknown:
        right = ", ".join([*known, *MODEL_OPTIONS])
        raise ValueError(f"recipe {recipe_name} has no setting {', '.join(unknown)}; its settings are {right}")
    default = {} if settings.get("model", recipe.model) != recipe.model else recipe().model_options
    settings["model_options"] = settings.get("model_options", default) | options
    return recipe(**with_tuples(settings))
