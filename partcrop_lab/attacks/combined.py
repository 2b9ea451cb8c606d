"""Attacks made of others: several side by side, and one measured against reference encoders (ours, METHODS 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from partcrop_lab.attacks.base import Attack, attack_from, register
from partcrop_lab.attacks.encodermi import EncoderMI
from partcrop_lab.attacks.norms import Norms
from partcrop_lab.attacks.partcosine import PartCosine
from partcrop_lab.attacks.partcrop import PartCrop
from partcrop_lab.attacks.variance import Variance

if TYPE_CHECKING:
    from partcrop_lab.encoders import Encoder
    from partcrop_lab.images import ImageSet


def _made(attack: Attack | Mapping[str, Any]) -> Attack:
    """An attack, or the one that such settings describe, as they are read from a saved result."""
    return attack if isinstance(attack, Attack) else attack_from(attack)


def _selected(attack: Attack, encoder: Encoder, images: Tensor, hashes: Sequence[str], seed: int) -> np.ndarray:
    """The features of an attack on a few images, uncached."""
    return attack.select(attack.measure(encoder, images, hashes, seed).float().numpy(force=True))


@register
@dataclass(frozen=True)
class Stacked(Attack):
    """The features of several attacks side by side.

    Attributes:
        attacks: at least one; by default all that ask the encoder alone.

    Raises:
        ValueError: no attack.

    >>> Stacked((Norms(), PartCosine())).queries
    12
    """

    name: ClassVar[str] = "stacked"
    attacker: ClassVar[str] = "boosting"
    attacks: tuple[Attack, ...] = (PartCrop(crops=32), PartCosine(), EncoderMI(), Variance(), Norms())

    def __post_init__(self) -> None:
        if not self.attacks:
            raise ValueError("attacks is empty; at least one is needed to stack")
        object.__setattr__(self, "attacks", tuple(_made(one) for one in self.attacks))

    @property
    def queries(self) -> int:
        """Those of all."""
        return sum(one.queries for one in self.attacks)

    @property
    def references(self) -> tuple[Encoder, ...]:
        """Those of all."""
        return tuple(reference for one in self.attacks for reference in one.references)

    @property
    def settings(self) -> dict[str, Any]:
        """The attack's name, and the settings of all."""
        return {"attack": self.name, "attacks": [one.settings for one in self.attacks]}

    @property
    def label(self) -> str:
        """The name; of others than the default, with theirs."""
        named = " + ".join(one.label for one in self.attacks)
        return self.name if self == Stacked() else f"{self.name}: {named}"

    def measure(self, encoder: Encoder, images: Tensor, hashes: Sequence[str], seed: int) -> Tensor:
        """The features of all, side by side."""
        features = [_selected(one, encoder, images, hashes, seed) for one in self.attacks]
        return torch.from_numpy(np.hstack(features))

    def features(self, encoder: Encoder, images: ImageSet, seed: int = 0, progress: bool = True) -> np.ndarray:
        """The features of all attacks, each found in the cache where it was measured alone."""
        return np.hstack([one.features(encoder, images, seed, progress) for one in self.attacks])


@register
@dataclass(frozen=True)
class Calibrated(Attack):
    """An attack's features, and how much they exceed their mean under reference encoders trained on other images.

    In the manner of LiRA's offline test: what makes an image easy for any encoder is in the references too. The pooled
    standard deviation that METHODS divides by is one number for each feature, which attackers that standardise undo.

    Attributes:
        attack: which one.
        references: encoders of the same recipe, trained on other images than those audited; without any, this is the
            attack alone.

    >>> Calibrated(Norms()).queries
    1
    """

    name: ClassVar[str] = "calibrated"
    attack: Attack = field(default_factory=PartCosine)
    references: tuple[Encoder, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "attack", _made(self.attack))

    @property
    def queries(self) -> int:
        """Those of the attack; what is sent to references is not counted."""
        return self.attack.queries

    @property
    def attacker(self) -> str:  # a property here, since each attack has its own
        """The attack's own."""
        return self.attack.attacker

    @property
    def rising(self) -> bool:
        """Whether the attack's features do."""
        return self.attack.rising

    @property
    def settings(self) -> dict[str, Any]:
        """The attack's name and settings; references by their digests."""
        digests = [reference.digest for reference in self.references]
        return {"attack": self.name, "of": self.attack.settings, "references": digests}

    @property
    def label(self) -> str:
        """The name, that of the attack, and how many references there are."""
        count = len(self.references)
        return f"{self.name}: {self.attack.label}, {count} reference{'' if count == 1 else 's'}"

    def measure(self, encoder: Encoder, images: Tensor, hashes: Sequence[str], seed: int) -> Tensor:
        """The features under the encoder, and minus their mean under the references, side by side."""
        encoders = encoder, *self.references
        own, *others = (_selected(self.attack, one, images, hashes, seed) for one in encoders)
        return torch.from_numpy(_calibrated(own, others))

    def features(self, encoder: Encoder, images: ImageSet, seed: int = 0, progress: bool = True) -> np.ndarray:
        """As `measure`; the attack's own features, under each encoder, are found in the cache."""
        own, *others = (self.attack.features(one, images, seed, progress) for one in (encoder, *self.references))
        return _calibrated(own, others)


def _calibrated(own: np.ndarray, others: list[np.ndarray]) -> np.ndarray:
    return np.hstack([own, own - np.mean(others, axis=0)]) if others else own
