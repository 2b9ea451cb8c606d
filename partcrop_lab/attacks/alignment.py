"""Alignment of an image with its views, against reference encoders (SSLMem; Wang et al., ICLR 2024): METHODS 4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor
from torch.nn.functional import normalize

from partcrop_lab.attacks.base import Attack, register
from partcrop_lab.attacks.views import view_vectors

if TYPE_CHECKING:
    from partcrop_lab.encoders import Encoder


@register
@dataclass(frozen=True)
class Alignment(Attack):
    """How much closer an image lies to its views than under reference encoders trained without it.

    Attributes:
        views: augmented views per image, at least 1.
        references: encoders trained on other images; without any, the distance alone is measured.
        pooling: of the vectors, "cls" or "mean"; the encoder's own default where None.

    Raises:
        ValueError: no view.
    """

    name: ClassVar[str] = "alignment"
    attacker: ClassVar[str] = "logistic"
    views: int = 5
    references: tuple[Encoder, ...] = ()
    pooling: str | None = None

    def __post_init__(self) -> None:
        if self.views < 1:
            raise ValueError(f"views is {self.views}; at least one is needed")

    @property
    def queries(self) -> int:
        """The image and its views; what is sent to references is not counted."""
        return 1 + self.views

    @property
    def settings(self) -> dict[str, Any]:
        """The attack's name and settings; references by their digests."""
        digests = [reference.digest for reference in self.references]
        return {"attack": self.name, "views": self.views, "references": digests, "pooling": self.pooling}

    @property
    def label(self) -> str:
        """The name, the settings that are not its defaults, and how many references there are."""
        count = len(self.references)
        plain = replace(self, references=())
        return f"{super(Alignment, plain).label}, {count} reference{'s' * (count > 1)}" if count else super().label

    @property
    def rising(self) -> bool:
        """Members are expected to be higher in each."""
        return True

    def measure(self, encoder: Encoder, images: Tensor, hashes: Sequence[str], seed: int) -> Tensor:
        """The mean distance under the references minus that under the encoder, (B, 1)."""
        own = self._distance(encoder, images, hashes, seed)
        others = [self._distance(reference, images, hashes, seed) for reference in self.references]
        return (sum(others) / len(others) if others else 0) - own

    def _distance(self, encoder: Encoder, images: Tensor, hashes: Sequence[str], seed: int) -> Tensor:
        views = view_vectors(encoder, images, hashes, self.views, seed, self.pooling)
        image = encoder.vectors(images, self.pooling)[:, None]
        return (normalize(image, dim=-1) - normalize(views, dim=-1)).norm(dim=-1).mean(1, keepdim=True).to("cpu")
