"""PartCrop's membership feature: the sorted energies of an image's part responses (eqs. 1-9, METHODS 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from partcrop_lab.parts.responses import gaussian_target, response_energy, similarity

KINDS = ("uniform", "gaussian", "both")


def part_energies(
    feature_map: Tensor,
    part_vectors: Tensor,
    gaussian: Tensor | None = None,
    *,
    measure: str = "dot",
    seed: int = 0,
) -> Tensor:
    """Uniform and Gaussian energies of every part, each sorted in descending order.

    Args:
        feature_map: (B, L, D).
        part_vectors: (B, N, D).
        gaussian: Gaussian targets (L,), (N, L) or (B, N, L); those of `seed` where omitted.
        measure: "dot" or "cosine".

    Returns:
        (B, 2, N) float32: sorted u_i, then sorted g_i.
    """
    curves = similarity(part_vectors, feature_map, measure)
    if gaussian is None:
        gaussian = gaussian_target(*curves.shape[1:], seed)
    energies = torch.stack([response_energy(curves), response_energy(curves, gaussian.to(curves))], 1)
    return energies.sort(-1, descending=True).values


def membership_features(
    feature_map: Tensor,
    part_vectors: Tensor,
    kind: str = "both",
    gaussian_target: Tensor | None = None,
    *,
    measure: str = "dot",
    seed: int = 0,
) -> Tensor:
    """PartCrop's membership feature of each image (eqs. 8-9).

    Args:
        feature_map: (B, L, D).
        part_vectors: (B, N, D).
        kind: "uniform" (B, N), "gaussian" (B, N) or "both" (B, 2N), the uniform energies first.
        gaussian_target: targets (L,), (N, L) or (B, N, L), to compare with another implementation's draw.
        measure: "dot" as published, or "cosine".
        seed: of the Gaussian targets where none are given.

    Raises:
        ValueError: another kind.

    >>> membership_features(torch.rand(2, 16, 8), torch.rand(2, 5, 8)).shape
    torch.Size([2, 10])
    """
    energies = part_energies(feature_map, part_vectors, gaussian_target, measure=measure, seed=seed)
    return select_kind(energies, kind)


def select_kind(energies: Tensor, kind: str) -> Tensor:
    """The columns of (B, 2, N) energies that a kind of feature uses: (B, N) or (B, 2N).

    Raises:
        ValueError: another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")
    return {"uniform": energies[:, 0], "gaussian": energies[:, 1], "both": energies.flatten(1)}[kind]
