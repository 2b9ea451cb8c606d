"""What every attack is: a label-blind measurement of images through an encoder, made once and cached."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from partcrop_lab.errors import BadInput
from partcrop_lab.progress import bar
from partcrop_lab.store import cached_arrays, digest, with_tuples

if TYPE_CHECKING:
    from partcrop_lab.encoders import Encoder
    from partcrop_lab.images import ImageSet

SHARD = 64
"""Images measured, stored and resumed together."""

COUNTS = ("queries", "crops", "views", "count", "masks")
"""What an attack's number of parts, views or masks may be called."""

ATTACKS: dict[str, type[Attack]] = {}
"""Every attack by its name; `register` adds to it."""


class Attack(ABC):
    """A way to turn images into membership features; subclasses are frozen dataclasses of their settings.

    An attack never sees who is a member: it is given images, their pixel hashes and a seed, and nothing else.
    """

    name: ClassVar[str]
    revision: ClassVar[int] = 1
    """Raised when the same settings measure something else than before, so that no stale cache entry is used."""
    selecting: ClassVar[tuple[str, ...]] = ()
    """Settings that only select columns of what is measured, so that they share one cache entry."""
    attacker: ClassVar[str] = "mlp"
    """The attacker that an audit trains on these features where none is asked for."""
    references: tuple[Encoder, ...] = ()
    """Encoders trained on other images, that some attacks also ask."""

    @property
    @abstractmethod
    def queries(self) -> int:
        """Images sent to the encoder for each image attacked."""

    @property
    def rising(self) -> bool:
        """Whether all its features are expected to be higher for members, as an attacker without known ones needs."""
        return False

    @property
    def needs(self) -> list[str]:
        """What whoever attacks must have, in words."""
        count = len(self.references)
        others = [f"{count} reference encoder{'s' * (count > 1)} trained on other images"] if count else []
        return [f"{self.queries} quer{'y' if self.queries == 1 else 'ies'} an image", *others]

    @abstractmethod
    def measure(self, encoder: Encoder, images: Tensor, hashes: Sequence[str], seed: int) -> Tensor:
        """Measure a few images (B, 3, S, S) uint8 with pixel hashes (B,); returns (B, M) float32."""

    def select(self, measured: np.ndarray) -> np.ndarray:
        """The membership features (n, F) within what was measured (n, M)."""
        return measured

    @property
    def label(self) -> str:
        """The attack's name and the settings that are not its defaults, as `partcrop-lab compare` takes them."""
        own = {name: value for name, value in self.settings.items() if name != "attack"}
        defaults = type(self)().settings
        return " ".join([self.name, *(f"{name}={value}" for name, value in own.items() if value != defaults[name])])

    @property
    def settings(self) -> dict[str, Any]:
        """The attack's name and settings, JSON-able."""
        return {"attack": self.name, **asdict(self)}

    def asking(self, queries: int) -> Attack:
        """The same attack with so many queries an image.

        Raises:
            ValueError: the attack's queries are fixed, or it needs more.
        """
        count = next((each.name for each in fields(self) if each.name in COUNTS), None)
        if count is None:
            raise ValueError(f"attack {self.name} always asks {self.queries} times an image")
        return replace(self, **{count: queries - (self.queries - getattr(self, count))})

    def features(self, encoder: Encoder, images: ImageSet, seed: int = 0, progress: bool = True) -> np.ndarray:
        """The membership features of all images, in their order: (n, F) float32.

        Images are measured in the order of their pixel hashes, a shard at a time; each shard is stored as soon as
        it is done, so an interrupted run loses at most one, and is found again by what decides its content.

        Raises:
            BadInput: the encoder gives features that are not finite numbers.
        """
        hashes = np.array(images.hashes)
        order = np.argsort(hashes, kind="stable")
        rows = []
        with bar(total=len(order), desc=f"{self.name} x {encoder.name}", unit="image", shown=progress) as done:
            for start in range(0, len(order), SHARD):
                shard = order[start : start + SHARD]
                rows.append(self._shard(encoder, images, shard, hashes[shard].tolist(), seed))
                done.update(len(shard))
        measured = np.empty((len(order), rows[0].shape[1]), np.float32)
        measured[order] = np.concatenate(rows)
        return self.select(measured)

    def _shard(self, encoder: Encoder, images: ImageSet, shard: np.ndarray, hashes: list[str], seed: int) -> np.ndarray:
        settings = {name: value for name, value in self.settings.items() if name not in self.selecting}

        def make() -> dict[str, np.ndarray]:
            with torch.inference_mode():
                measured = self.measure(encoder, images.batch(shard), hashes, seed).float().numpy(force=True)
            bad = ~np.isfinite(measured).all(1)
            if bad.any():
                raise BadInput(
                    f"encoder {encoder.name}: {bad.sum()} of {len(bad)} images got features that are NaN or infinite; "
                    "check its weights and its mean and std"
                )
            return {"measured": measured}

        trained = encoder.card.get("settings")  # by which some attacks draw their queries
        asked = [encoder.cache_key, *(reference.cache_key for reference in self.references)]
        key = digest(settings, self.revision, seed, asked, trained, hashes)
        return cached_arrays("features", key, make)["measured"]

    def expected_seconds(self, encoder: Encoder, images: ImageSet, seed: int = 0, probe: int = 4) -> float:
        """Seconds that measuring all images will take, judged by measuring `probe` of them, uncached."""
        batch, hashes = images.batch(slice(0, probe)), images.subset(slice(0, probe)).hashes
        with torch.inference_mode():
            self.measure(encoder, batch[:1], hashes[:1], seed)
            start = time.perf_counter()
            self.measure(encoder, batch, hashes, seed)
        return (time.perf_counter() - start) / len(batch) * len(images)


def register(attack: type[Attack]) -> type[Attack]:
    """Class decorator: makes an attack known by its `name`."""
    ATTACKS[attack.name] = attack
    return attack


def make_attack(name: str, **settings: Any) -> Attack:
    """An attack by its name, with settings.

    Raises:
        ValueError: no attack has that name.
    """
    if name not in ATTACKS:
        raise ValueError(f"attack is {name!r}; it must be one of {', '.join(sorted(ATTACKS))}")
    return ATTACKS[name](**settings)


def attack_from(settings: Mapping[str, Any]) -> Attack:
    """The attack that `Attack.settings` describes, also as it is read from a file, where tuples have become lists."""
    own = with_tuples(settings)
    return make_attack(own.pop("attack"), **own)
