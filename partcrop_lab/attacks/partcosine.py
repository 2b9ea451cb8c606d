"""Cosines between an image's parts, and between them and the image: what PartCrop's softmax throws away (METHODS 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from partcrop_lab.attacks.base import Attack, register
from partcrop_lab.attacks.encodermi import pair_cosines
from partcrop_lab.parts.crops import part_boxes, query_parts

if TYPE_CHECKING:
    from partcrop_lab.encoders import Encoder

ATTACKER_OF_KIND = {"mean": "logistic", "sorted": "mlp"}


@register
@dataclass(frozen=True)
class PartCosine(Attack):
    """Members' parts lie closer to the image and to each other.

    Attributes:
        kind: "mean": the two means; "sorted": all N cosines with the image and N (N - 1) / 2 of pairs, each sorted.
            Two numbers leave a few hundred images less to overfit. Each kind has its own attacker.
        crops: parts per image N, at least 2.
        scale: range of a part's area as a share of the image, within (0, 1].
        part_size: side in pixels of the resized parts; that of the views in training, `Encoder.view_side`, where None.
        pooling: of all vectors, "cls" or "mean"; the encoder's own default where None.

    Raises:
        ValueError: another kind, or fewer than 2 parts.

    >>> PartCosine().queries
    11
    """

    name: ClassVar[str] = "partcosine"
    revision: ClassVar[int] = 2
    selecting: ClassVar[tuple[str, ...]] = ("kind",)
    kind: str = "mean"
    crops: int = 10
    scale: tuple[float, float] = (0.2, 1.0)
    part_size: int | None = None
    pooling: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in ATTACKER_OF_KIND:
            raise ValueError(f"kind is {self.kind!r}; it must be one of {', '.join(ATTACKER_OF_KIND)}")
        if self.crops < 2:
            raise ValueError(f"crops is {self.crops}; at least two are needed for a cosine between them")

    @property
    def queries(self) -> int:
        """The image itself and its parts."""
        return 1 + self.crops

    @property
    def attacker(self) -> str:  # a property here, since each kind has its own
        """The attacker of this kind: a logistic regression on the two means, or the paper's network."""
        return ATTACKER_OF_KIND[self.kind]

    @property
    def rising(self) -> bool:
        """Members are expected to be higher in each."""
        return True

    def measure(self, encoder: Encoder, images: Tensor, hashes: Sequence[str], seed: int) -> Tensor:
        """Sorted cosines (B, N + N (N - 1) / 2): with the image, then between parts."""
        boxes = part_boxes(hashes, self.crops, images.shape[-1], self.scale, seed=seed)
        parts = query_parts(encoder, images, boxes, self.part_size or encoder.view_side, self.pooling)
        image = encoder.vectors(images, self.pooling)[:, None]
        with_image = (normalize(parts, dim=-1) * normalize(image, dim=-1)).sum(-1).sort(-1, descending=True).values
        return torch.cat([with_image, pair_cosines(parts)], 1)

    def select(self, measured: np.ndarray) -> np.ndarray:
        """All cosines, or the two means for kind "mean"."""
        if self.kind == "sorted":
            return measured
        halves = measured[:, : self.crops], measured[:, self.crops :]
        return np.stack([half.mean(1) for half in halves], 1)
