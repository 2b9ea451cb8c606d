"""How well a masked-image model guesses an image's hidden patches: a grey-box attack (arXiv 2408.06825), METHODS 4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from partcrop_lab.attacks.base import Attack, register
from partcrop_lab.devices import generator

if TYPE_CHECKING:
    from partcrop_lab.encoders import Encoder


@register
@dataclass(frozen=True)
class Reconstruction(Attack):
    """The training loss of MAE, SimMIM or CAE on an image, which is lower for members.

    It needs what served encoders do not come with: the decoder that they were trained with.

    Attributes:
        masks: random maskings of each image, at least 1.

    Raises:
        ValueError: no mask.
    """

    name: ClassVar[str] = "reconstruction"
    attacker: ClassVar[str] = "logistic"
    masks: int = 10

    def __post_init__(self) -> None:
        if self.masks < 1:
            raise ValueError(f"masks is {self.masks}; at least one is needed")

    @property
    def queries(self) -> int:
        """One for each mask."""
        return self.masks

    @property
    def needs(self) -> list[str]:
        """Beside queries, the decoder."""
        return [*super().needs, "the decoder that the encoder was trained with (grey box)"]

    @property
    def rising(self) -> bool:
        """Members are expected to be higher."""
        return True

    def measure(self, encoder: Encoder, images: Tensor, hashes: Sequence[str], seed: int) -> Tensor:
        """Minus the logarithm of the mean loss, (B, 1)."""
        sources = [generator("masks", seed, name) for name in hashes]
        return -encoder.masked_losses(images, sources, self.masks).mean(1, keepdim=True).log()
