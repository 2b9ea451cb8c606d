"""Defences of training: stop early, train privately, shrink the crops; and plain baselines (METHODS 6)."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from partcrop_lab.attacks import Attack
from partcrop_lab.defenses.base import Defense, register
from partcrop_lab.encoders import Encoder
from partcrop_lab.encoders.privacy import Privacy
from partcrop_lab.encoders.recipes import Recipe


class TrainingDefense(Defense):
    """A defence that changes how an encoder is trained."""

    stage: ClassVar[str] = "training"


@register
@dataclass(frozen=True)
class EarlyStop(TrainingDefense):
    """End the training early, mid-schedule.

    Attributes:
        share: of the planned epochs that are trained, in (0, 1].

    Raises:
        ValueError: another share.
    """

    name: ClassVar[str] = "early-stop"
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}; it must be above 0 and at most 1")

    def changes(self, recipe: Recipe, images: int) -> dict[str, Any]:
        """The epoch to stop at."""
        return {"stop": max(1, round(self.share * recipe.epochs))}


@register
@dataclass(frozen=True)
class DPSGD(TrainingDefense):
    """Clip each image's gradient and add noise, as much as an epsilon allows; see `Privacy` for what that guarantees.

    Attributes:
        epsilon, delta, clip, accountant: of the guarantee and of the clipping; the paper's are 150, 1e-5 and 1.2.
        secret: whether nobody can draw the noise again.
    """

    name: ClassVar[str] = "dp-sgd"
    epsilon: float = 8.0
    delta: float = 1e-5
    clip: float = 1.2
    accountant: str = "rdp"
    secret: bool = False

    def changes(self, recipe: Recipe, images: int) -> dict[str, Any]:
        """The noise for this epsilon; recipes without a guarantee get as much."""
        how = {"delta": self.delta, "clip": self.clip, "accountant": self.accountant, "secret": self.secret}
        return {"privacy": Privacy.for_epsilon(self.epsilon, images, recipe.batch_size, recipe.epochs, **how)}


@register
@dataclass(frozen=True)
class SCSR(TrainingDefense):
    """Shrink the range of the training crops' area, from above or from below (the paper's own defence).

    Attributes:
        scale: the range, as shares of the image, within (0, 1].

    Raises:
        ValueError: another range.
    """

    name: ClassVar[str] = "scsr"
    scale: tuple[float, float] = (0.2, 0.6)

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"scale is {self.scale}; it must be a range within (0, 1]")

    def changes(self, recipe: Recipe, images: int) -> dict[str, Any]:
        """The crops."""
        return {"crop_scale": self.scale}

    def adaptive(self, encoder: Encoder, attack: Attack) -> tuple[Encoder, Attack]:
        """Parts are cut by the law of the training crops, where the attack cuts parts."""
        cuts = "scale" in {each.name for each in fields(attack)}
        return encoder, replace(attack, scale=self.scale) if cuts else attack


@register
@dataclass(frozen=True)
class StrongAugmentation(TrainingDefense):
    """Colours changed more, and blurred and solarised views: a plain baseline.

    Attributes:
        strength: factor on brightness, contrast and saturation.
        grey, blur, solarise: chances of each, see `Augmentation`.
    """

    name: ClassVar[str] = "augmentation"
    strength: float = 2.0
    grey: float = 0.4
    blur: float = 0.5
    solarise: float = 0.2

    def changes(self, recipe: Recipe, images: int) -> dict[str, Any]:
        """The augmentation; crops and flips, too, where the recipe has none."""
        colours = {name: self.strength * getattr(recipe, name) for name in ("brightness", "contrast", "saturation")}
        chances = {"jitter": max(0.8, recipe.jitter), "grey": self.grey, "blur": self.blur, "solarise": self.solarise}
        crops = {"crop_scale": (0.2, 1.0), "flip": 0.5} if recipe.crop_scale is None else {}
        return colours | chances | crops


@register
@dataclass(frozen=True)
class WeightDecay(TrainingDefense):
    """A stronger pull of the weights to zero: a plain baseline.

    Attributes:
        value: the weight decay of AdamW.
    """

    name: ClassVar[str] = "weight-decay"
    value: float = 0.5

    def changes(self, recipe: Recipe, images: int) -> dict[str, Any]:
        """The weight decay."""
        return {"weight_decay": self.value}


@register
@dataclass(frozen=True)
class Capacity(TrainingDefense):
    """A smaller ViT: a plain baseline.

    Attributes:
        width, depth, heads: of it.
    """

    name: ClassVar[str] = "capacity"
    width: int = 64
    depth: int = 2
    heads: int = 2

    def changes(self, recipe: Recipe, images: int) -> dict[str, Any]:
        """The backbone's options."""
        return {"embed_dim": self.width, "depth": self.depth, "num_heads": self.heads}
