"""How one part responds over an image's feature map: similarity curve, heat map and energies (METHODS 1, 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from partcrop_lab.devices import generator
from partcrop_lab.images.resample import crop_resize

if TYPE_CHECKING:
    from partcrop_lab.encoders import Encoder

MEASURES = ("dot", "cosine")
EPSILON = 1e-6


def similarity(part_vectors: Tensor, feature_map: Tensor, measure: str = "dot", temperature: float = 0.1) -> Tensor:
    """Similarity curves s_i[n] of parts against every position of their image's feature map.

    Args:
        part_vectors: (B, N, D).
        feature_map: (B, L, D).
        measure: "dot", the raw product as published, or "cosine", divided by `temperature`.
        temperature: divides cosines only.

    Returns:
        (B, N, L) float32.

    Raises:
        ValueError: another measure.
    """
    if measure not in MEASURES:
        raise ValueError(f"similarity is {measure!r}; it must be one of {', '.join(MEASURES)}")
    parts, positions = part_vectors.float(), feature_map.float()
    if measure == "cosine":
        parts = torch.nn.functional.normalize(parts, dim=-1) / temperature
        positions = torch.nn.functional.normalize(positions, dim=-1)
    return parts @ positions.transpose(-1, -2)


def response_energy(curves: Tensor, target: Tensor | None = None) -> Tensor:
    """KL(target || softmax(curve)) of each curve, computed as sum_n T_n (log(T_n + 1e-6) - log q[n]).

    Args:
        curves: (..., L) similarity curves.
        target: distribution broadcastable to (..., L); the uniform one where omitted.

    Returns:
        (...) energies in nats (eqs. 4-7).
    """
    if target is None:
        target = torch.full_like(curves[..., :1], 1 / curves.shape[-1]).expand_as(curves)
    return (target * ((target + EPSILON).log() - curves.log_softmax(-1))).sum(-1)


def gaussian_target(parts: int, length: int, seed: int = 0) -> Tensor:
    """The sampled Gaussian distributions G_i that responses are compared with (eq. 6).

    For each part `length` values are drawn from N(0, 1) and sorted; the normal density with their own mean and
    unbiased standard deviation is evaluated at each and renormalised to sum 1. The draw depends on the seed alone,
    so that a feature can be computed again exactly; the released code draws anew at every call.

    Returns:
        (parts, length) float32, rows summing to 1.
    """
    values = torch.randn(parts, length, generator=generator("gaussian", seed), dtype=torch.float64).sort(-1).values
    centred = (values - values.mean(-1, keepdim=True)) / values.std(-1, keepdim=True)
    return (-0.5 * centred.square()).softmax(-1).float()


@dataclass(frozen=True)
class PartResponse:
    """One part's response over one image's feature map of h x w = L positions.

    Attributes:
        similarity: (L,) the similarity curve of Fig. 2.
        response: (L,) its softmax, summing to 1.
        heatmap: (h, w) the similarity curve laid out as the image.
        uniform_energy, gaussian_energy: KL divergences in nats.
        box: the part's x0, y0, x1, y1 in pixels.
    """

    similarity: np.ndarray
    response: np.ndarray
    heatmap: np.ndarray
    uniform_energy: float
    gaussian_energy: float
    box: tuple[int, int, int, int]


def part_response(
    encoder: Encoder,
    image: Tensor,
    box: tuple[float, float, float, float],
    *,
    pooling: str | None = None,
    measure: str = "dot",
    part_size: int | None = None,
    flip: bool = False,
    seed: int = 0,
    feature_map: Tensor | None = None,
) -> PartResponse:
    """Cut one part out of an image and query how it responds over the image's feature map (METHODS 1, Fig. 2).

    Args:
        encoder: the encoder asked.
        image: (3, S, S) uint8.
        box: x0, y0, x1, y1 in pixels, rounded to whole ones; at least one pixel a side.
        pooling: "cls" or "mean"; the encoder's own default where omitted.
        measure: "dot" as published, or "cosine".
        part_size: side in pixels the part is resized to; the encoder's own where omitted.
        flip: mirror the part left to right.
        seed: of the Gaussian target.
        feature_map: (1, L, D) of this image where it is known already (saves a forward in widgets).

    Raises:
        ValueError: the box is empty or leaves the image.
        BadInput: the encoder has fewer than 4 positions.
    """
    images, box, encoder = image[None], tuple(round(float(edge)) for edge in box), encoder.singly()
    if feature_map is None:
        feature_map = encoder.feature_map(images)
    crop = crop_resize(images, torch.tensor([[box]]), part_size or encoder.part_size, torch.tensor([[flip]]))[0]
    curve = similarity(encoder.vectors(crop, pooling)[None].cpu(), feature_map.cpu(), measure)[0, 0]
    gaussian = gaussian_target(1, len(curve), seed)[0]
    return PartResponse(
        similarity=curve.numpy(),
        response=curve.softmax(-1).numpy(),
        heatmap=curve.view(encoder.map_shape).numpy(),
        uniform_energy=float(response_energy(curve)),
        gaussian_energy=float(response_energy(curve, gaussian)),
        box=box,
    )
