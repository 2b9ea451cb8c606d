"""Defences of serving: what an encoder answers is blurred, cut, taken earlier, or given less often (METHODS 6)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from partcrop_lab import store
from partcrop_lab.attacks import Attack
from partcrop_lab.defenses.base import Defense, register
from partcrop_lab.devices import generator
from partcrop_lab.encoders import Encoder
from partcrop_lab.encoders.backbone import Architecture
from partcrop_lab.encoders.recorded import as_bytes
from partcrop_lab.errors import BadInput
from partcrop_lab.images.resample import as_floats

Ask = Callable[[Tensor], Tensor]
"""Answers, rows of vectors (..., D), to a batch of images."""


class _Through(Encoder, ABC):
    """An encoder that is asked through something: a service that changes answers, an attacker who averages them."""

    def __init__(self, inner: Encoder) -> None:
        kept = {name: value for name, value in vars(inner).items() if name not in ("digest", "name")}
        vars(self).update(kept)
        self.inner = inner

    def _stream(self, images: Tensor, head: Callable[..., Tensor], whole: bool) -> Tensor:
        return self.answer(lambda some: self.inner._stream(some, head, whole), images)

    def singly(self) -> Encoder:
        """As of any encoder, the one within too."""
        one = super().singly()
        one.inner = self.inner.singly()
        return one

    @abstractmethod
    def answer(self, ask: Ask, images: Tensor) -> Tensor:
        """The answers to `images`, by asking the encoder within."""

    def masked_losses(self, images: Tensor, sources: Any, masks: int) -> Tensor:
        """Refused: what is served are features.

        Raises:
            BadInput: always.
        """
        raise BadInput(f"encoder {self.name} serves features alone; its decoder cannot be asked")

    def save(self, path: str | Path) -> None:
        """Refused: what is served is made anew at each answer.

        Raises:
            BadInput: always.
        """
        raise BadInput(f"encoder {self.name} is a service around another; save {self.inner.name} and wrap it again")


class Served(_Through):
    """An encoder whose answers a defence changes on their way out.

    Args:
        inner: the encoder.
        defense: what changes them.
    """

    def __init__(self, inner: Encoder, defense: AnswerDefense) -> None:
        super().__init__(inner)
        self.defense, self.name = defense, f"{inner.name}, {defense.label}"
        self.card = inner.card | {"served": defense.settings}

    @cached_property
    def digest(self) -> str:
        """A sha256 of the encoder and of the defence."""
        return store.digest(self.inner.digest, self.defense.settings)

    def answer(self, ask: Ask, images: Tensor) -> Tensor:
        """As the defence changes them."""
        return self.defense.change(ask(images), images)

    def untrained(self, seed: int) -> Encoder:
        """The untrained control, served in the same way."""
        return Served(self.inner.untrained(seed), self.defense)


class Averaged(_Through):
    """An attacker's view of a service: each image is asked several times, and the answers are averaged.

    Since a service may answer the same image in the same way, each time its pixels are moved by -1, 0 or 1 of 255.

    Args:
        inner: the service.
        times: how often each image is asked.
    """

    def __init__(self, inner: Encoder, times: int = 8) -> None:
        super().__init__(inner)
        self.times, self.name = times, f"{inner.name}, {times} answers averaged"

    @cached_property
    def digest(self) -> str:
        """A sha256 of the service and of how often it is asked."""
        return store.digest(self.inner.digest, "averaged", self.times)

    def answer(self, ask: Ask, images: Tensor) -> Tensor:
        """The mean over the times."""
        pixels = as_floats(images)
        return torch.stack([ask((pixels + _shaken(pixels, time)).clamp(0, 1)) for time in range(self.times)]).mean(0)

    def untrained(self, seed: int) -> Encoder:
        """The untrained control, asked in the same way."""
        return Averaged(self.inner.untrained(seed), self.times)


def _shaken(images: Tensor, time: int) -> Tensor:
    """-1, 0 or 1 of 255 for each pixel, decided by the image and the time."""
    sources = (generator("averaged", time, key) for key in _keys(images))
    moves = [torch.randint(-1, 2, image.shape, generator=source) for image, source in zip(images, sources)]
    return torch.stack(moves).to(images) / 255


def _keys(images: Tensor) -> list[str]:
    """A digest of each image as a service receives it, in steps of 255."""
    return [store.digest(image) for image in as_bytes(images).numpy(force=True)]


class AnswerDefense(Defense):
    """A defence that changes every answer."""

    stage: ClassVar[str] = "serving"
    averaging: ClassVar[int] = 8
    """How often an attacker who knows the defence asks each image; 1 where more answers tell no more."""

    def wrap(self, encoder: Encoder) -> Encoder:
        """The encoder, its answers changed."""
        return Served(encoder, self)

    @abstractmethod
    def change(self, answers: Tensor, images: Tensor) -> Tensor:
        """What is answered for vectors (B, ..., D), all of them to `images` (B, 3, S, S)."""

    def adaptive(self, encoder: Encoder, attack: Attack) -> tuple[Encoder, Attack]:
        """Answers to hardly different images are averaged, where that undoes anything."""
        return encoder if self.averaging == 1 else Averaged(encoder, self.averaging), attack


def _size(vectors: Tensor) -> Tensor:
    """The root mean square of each vector (..., D): (..., 1)."""
    return vectors.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-12)


@register
@dataclass(frozen=True)
class OutputNoise(AnswerDefense):
    """Gaussian noise on every vector served, the same whenever the same image is asked.

    Attributes:
        sigma: its standard deviation, as a multiple of the vector's root mean square; at least 0.
        seed: of the service, which its users do not know.

    Raises:
        ValueError: a negative sigma.
    """

    name: ClassVar[str] = "noise"
    sigma: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.sigma >= 0:
            raise ValueError(f"sigma is {self.sigma}; it must be at least 0")

    def change(self, answers: Tensor, images: Tensor) -> Tensor:
        """With noise."""
        drawn = [
            torch.randn(answer.shape, generator=generator("noise", self.seed, key))
            for answer, key in zip(answers, _keys(images), strict=True)
        ]
        return answers + self.sigma * _size(answers) * torch.stack(drawn).to(answers)


@register
@dataclass(frozen=True)
class Rounding(AnswerDefense):
    """Every number served is rounded to a multiple of a step.

    Attributes:
        step: as a multiple of the vector's root mean square, itself rounded to a power of two; above 0.

    Raises:
        ValueError: a step that is not above 0.
    """

    name: ClassVar[str] = "rounding"
    step: float = 1.0

    def __post_init__(self) -> None:
        if not self.step > 0:
            raise ValueError(f"step is {self.step}; it must be above 0")

    def change(self, answers: Tensor, images: Tensor) -> Tensor:
        """Rounded."""
        step = self.step * _size(answers).log2().round().exp2()
        return (answers / step).round() * step


@register
@dataclass(frozen=True)
class TopK(AnswerDefense):
    """Only the largest numbers of a vector are served, the others as 0.

    Attributes:
        share: of the numbers that are served, in (0, 1]; at least one.

    Raises:
        ValueError: another share.
    """

    name: ClassVar[str] = "top-k"
    averaging: ClassVar[int] = 1
    share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}; it must be above 0 and at most 1")

    def change(self, answers: Tensor, images: Tensor) -> Tensor:
        """The largest by magnitude."""
        kept = answers.abs().topk(max(1, round(self.share * answers.shape[-1])), dim=-1).indices
        return torch.zeros_like(answers).scatter(-1, kept, answers.gather(-1, kept))


@register
@dataclass(frozen=True)
class EarlierLayer(Defense):
    """The features of an earlier block are served, as a guillotine does (METHODS 6), with the final norm on them.

    Attributes:
        blocks: of the ViT that are kept, at least 1.

    Raises:
        ValueError: no block.
    """

    name: ClassVar[str] = "earlier-layer"
    stage: ClassVar[str] = "serving"
    blocks: int = 2

    def __post_init__(self) -> None:
        if self.blocks < 1:
            raise ValueError(f"blocks is {self.blocks}; at least one must be kept")

    def wrap(self, encoder: Encoder) -> Encoder:
        """The encoder without its last blocks.

        Raises:
            BadInput: no ViT of ours or timm's, or one without so many blocks.
        """
        model, architecture = encoder._model, encoder.architecture
        if architecture is None or not encoder.depth:
            raise BadInput(f"encoder {encoder.name} has no blocks to leave out; {self.name} needs a ViT of timm")
        if self.blocks > encoder.depth:
            raise BadInput(f"encoder {encoder.name} has {encoder.depth} blocks; blocks= must be at most so many")
        shorter = Architecture(
            architecture.model, architecture.image_size, architecture.options | {"depth": self.blocks}
        )
        cut = shorter.build()
        weights = model.state_dict()
        cut.load_state_dict({name: weights[name] for name in cut.state_dict()})
        card = encoder.card | {"served": self.settings}
        return encoder.like(cut, name=f"{encoder.name}, {self.label}", architecture=shorter, card=card)


@register
@dataclass(frozen=True)
class QueryLimit(Defense):
    """Each user may ask so often about one image; who is asked hides nothing else.

    Attributes:
        queries: images an attack may send for each image attacked, at least 3.

    Raises:
        ValueError: fewer.
    """

    name: ClassVar[str] = "query-limit"
    stage: ClassVar[str] = "serving"
    queries: int = 3

    def __post_init__(self) -> None:
        if self.queries < 3:
            raise ValueError(f"queries is {self.queries}; it must be at least 3")

    def hindered(self, attack: Attack) -> Attack:
        """The attack with no more queries than are allowed."""
        return attack if attack.queries <= self.queries else attack.asking(self.queries)
