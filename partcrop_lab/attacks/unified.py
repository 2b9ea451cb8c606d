"""One part-aware attack for all paradigms (ours): everything that parts say of an image, energies and cosines both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from partcrop_lab.attacks.base import Attack, register
from partcrop_lab.attacks.encodermi import pair_products
from partcrop_lab.attacks.norms import log_norm
from partcrop_lab.encoders.backbone import grid
from partcrop_lab.encoders.encoder import LEAST_POSITIONS
from partcrop_lab.parts.crops import PartCrops, covered_cells, cut_parts, part_boxes
from partcrop_lab.parts.responses import response_energy, similarity

if TYPE_CHECKING:
    from partcrop_lab.encoders import Encoder

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@register
@dataclass(frozen=True)
class Unified(Attack):
    """How an image's parts respond to it, to each other and over its feature map, in a few robust numbers.

    Contrastive encoders betray members by how close parts lie to the image and to each other, masked-image models by
    how their responses spread over the map (METHODS 8). This carries both, from the same queries: each is asked once
    and gives its CLS vector, its mean vector and its map. Encoders whose map has too few positions for a response are
    attacked by their vectors alone. What was tried and chosen is in benchmarks/unified.csv.

    Attributes:
        queries: images sent to the encoder for each image attacked, at least 3: the image and its parts.
        scale: range of a part's area as a share of the image, within (0, 1].
        part_size: side in pixels of the resized parts; that of the views in training, `Encoder.view_side`, where None.

    Raises:
        ValueError: fewer than 3 queries.

    >>> Unified(queries=49).crops
    48
    """

    name: ClassVar[str] = "unified"
    revision: ClassVar[int] = 2
    attacker: ClassVar[str] = "logistic"
    queries: int = 11
    scale: tuple[float, float] = (0.5, 1.0)
    part_size: int | None = None

    def __post_init__(self) -> None:
        if self.queries < 3:
            raise ValueError(f"queries is {self.queries}; at least 3 are needed, for the image and two parts of it")

    @property
    def crops(self) -> int:
        """Parts per image N."""
        return self.queries - 1

    def measure(self, encoder: Encoder, images: Tensor, hashes: Sequence[str], seed: int) -> Tensor:
        """For each of `statistics` its mean, standard deviation and `QUANTILES`: (B, F)."""
        found = self.statistics(encoder, images, hashes, seed)
        return torch.cat([summary(values) for values in found.values()], 1)

    def statistics(self, encoder: Encoder, images: Tensor, hashes: Sequence[str], seed: int) -> dict[str, Tensor]:
        """Those of `part_statistics`, for each pooling that the encoder has, and of `image_statistics`."""
        boxes = part_boxes(hashes, self.crops, images.shape[-1], self.scale, seed=seed)
        parts = cut_parts(images.to(encoder.device), boxes, self.part_size or encoder.view_side)
        image_map, image_cls = encoder.tokens(images)
        part_map, part_cls = encoder.tokens(parts.flatten(0, 1), resize=False)
        found = {}
        for pooling, image, part in (("mean", image_map.mean(1), part_map.mean(1)), ("cls", image_cls, part_cls)):
            if image is not None:
                vectors = part.unflatten(0, boxes.flip.shape)
                found |= part_statistics(image, vectors, image_map, boxes, images.shape[-1], pooling)
        return found | image_statistics(image_map, image_cls)


def part_statistics(
    image: Tensor, parts: Tensor, fmap: Tensor, crops: PartCrops, side: int, pooling: str
) -> dict[str, Tensor]:
    """What the vectors of an image's parts say, each statistic (B, K).

    Args:
        image: (B, D) the image's vector.
        parts: (B, N, D) the parts' vectors, of the same pooling.
        fmap: (B, L, D) the image's feature map.
        crops: where the parts were cut, in an image of `side` pixels.
        pooling: "cls" or "mean", for the names.

    Returns:
        image: cosines with the image, pairs: between parts, norm: logarithms of their norms. Over a map of at least
        `LEAST_POSITIONS`: energy and cosine energy of the responses (METHODS 1, 2), and the cosine over the map: its
        mean, its peak, its mean over the part's own place, and that with the mean of the map there.
    """
    unit = normalize(parts, dim=-1)
    found = {
        "image": (unit @ normalize(image, dim=-1)[..., None])[..., 0],
        "pairs": pair_products(unit),
        "norm": log_norm(parts),
    }
    if fmap.shape[1] >= LEAST_POSITIONS:
        cosines = similarity(parts, fmap, "cosine", temperature=1.0)
        place = own_places(crops, side, fmap.shape[1]).to(fmap)
        there = normalize(place @ fmap, dim=-1)
        found |= {
            "energy": response_energy(similarity(parts, fmap)),
            "cosine energy": response_energy(similarity(parts, fmap, "cosine")),
            "map": cosines.mean(-1),
            "peak": cosines.amax(-1),
            "place": (cosines * place).sum(-1),
            "region": (unit * there).sum(-1),
        }
    return {f"{pooling} {name}": values for name, values in found.items()}


def image_statistics(fmap: Tensor, cls: Tensor | None) -> dict[str, Tensor]:
    """What the image's own query says: norms, and how positions and CLS lie to their mean; each (B, K)."""
    mean = fmap.mean(1, keepdim=True)
    found = {
        "norms of positions": log_norm(fmap),
        "positions": (normalize(fmap, dim=-1) * normalize(mean, dim=-1)).sum(-1),
        "norm of the mean": log_norm(mean),
    }
    if cls is not None:
        found["norm of cls"] = log_norm(cls)[:, None]
        found["cls and mean"] = (normalize(cls, dim=-1) * normalize(mean[:, 0], dim=-1)).sum(-1, keepdim=True)
    return found


def own_places(crops: PartCrops, side: int, positions: int) -> Tensor:
    """The share of each part's area that lies in each cell of the map: (B, N, L), rows summing to 1.

    >>> own_places(PartCrops(torch.tensor([[[0, 0, 4, 2]]]), torch.tensor([[False]])), 8, 4)
    tensor([[[1., 0., 0., 0.]]])
    """
    area = covered_cells(crops.boxes.float(), side, grid(positions)).flatten(-2)
    return area / area.sum(-1, keepdim=True)


def summary(values: Tensor) -> Tensor:
    """Mean, standard deviation and `QUANTILES` of (B, K): (B, 7); of a single value itself, (B, 1)."""
    if values.shape[1] == 1:
        return values
    quantiles = values.quantile(torch.tensor(QUANTILES).to(values), dim=1).T
    return torch.cat([values.mean(1, keepdim=True), values.std(1, keepdim=True), quantiles], 1)
