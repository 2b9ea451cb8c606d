"""PartCrop (arXiv 2404.02462): sorted energies of the responses of random parts (METHODS 1, 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from partcrop_lab.attacks.base import Attack, register
from partcrop_lab.parts.crops import PartCrops, part_boxes, query_parts
from partcrop_lab.parts.features import part_energies, select_kind
from partcrop_lab.parts.responses import gaussian_target

if TYPE_CHECKING:
    from partcrop_lab.encoders import Encoder

CROPS_AT_ONCE = 2048


@register
@dataclass(frozen=True)
class PartCrop(Attack):
    """Crop parts, query each over the image's feature map, sort the energies of the responses.

    Attributes:
        crops: parts per image N, at least 1.
        scale: range of a part's area as a share of the image, within (0, 1].
        kind: "uniform" or "gaussian" (N features), or "both" (2N).
        pooling: of the part vectors, "cls" or "mean"; the encoder's own default where None.
        measure_by: "dot" as published, or "cosine" at temperature 0.1.
        part_size: side in pixels of the resized part; the encoder's own (METHODS 1) where None.

    >>> PartCrop(crops=32).queries
    33
    """

    name: ClassVar[str] = "partcrop"
    selecting: ClassVar[tuple[str, ...]] = ("kind",)
    crops: int = 128
    scale: tuple[float, float] = (0.08, 0.2)
    kind: str = "both"
    pooling: str | None = None
    measure_by: str = "dot"
    part_size: int | None = None

    @property
    def queries(self) -> int:
        """The image itself and its parts."""
        return 1 + self.crops

    def measure(self, encoder: Encoder, images: Tensor, hashes: Sequence[str], seed: int) -> Tensor:
        """Sorted energies (B, 2N): uniform, then Gaussian."""
        crops = part_boxes(hashes, self.crops, images.shape[-1], self.scale, seed=seed)
        maps = encoder.feature_map(images)
        target = gaussian_target(self.crops, maps.shape[1], seed).to(maps.device)
        at_once = max(1, CROPS_AT_ONCE // self.crops)
        energies = []
        for start in range(0, len(images), at_once):
            some = slice(start, start + at_once)
            few = PartCrops(crops.boxes[some], crops.flip[some])
            vectors = query_parts(encoder, images[some], few, self.part_size, self.pooling)
            energies.append(part_energies(maps[some], vectors, target, measure=self.measure_by).flatten(1))
        return torch.cat(energies)

    def select(self, measured: np.ndarray) -> np.ndarray:
        """The energies of the kind asked for."""
        return select_kind(torch.from_numpy(measured).unflatten(1, (2, self.crops)), self.kind).numpy()
