"""The public set as an encoder sees it: nearest neighbours by L2, their votes, and how sure these are (METHODS 5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from partcrop_lab.errors import BadInput

QUERIES, ROWS = 1024, 2**16
"""How many distances are held at a time: 256 MiB."""


@dataclass(frozen=True)
class PublicIndex:
    """Embeddings of public images, to be searched by brute force, a block at a time.

    Attributes:
        embeddings: (m, E) float, a tensor or an array, also one on disk (np.memmap), which is then read in blocks.
        labels: (m,) class numbers, all known.

    Raises:
        BadInput: no image, labels that do not fit or are not known, or embeddings that are not finite.
    """

    embeddings: Tensor | np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 2 or not len(self.embeddings) or len(self.embeddings) != len(self.labels):
            found = f"{tuple(self.embeddings.shape)} with {len(self.labels)} labels"
            raise BadInput(f"a public index needs embeddings (m, E), m at least 1, and a label for each; found {found}")
        if (np.asarray(self.labels) < 0).any():
            raise BadInput("the public images are to vote with their labels; some of them have none")
        for block in self._blocks():
            if not torch.isfinite(block).all():
                raise BadInput("the public embeddings hold NaN or infinite numbers; check the encoder")

    def _blocks(self) -> Iterator[Tensor]:
        for start in range(0, len(self.embeddings), ROWS):
            yield torch.as_tensor(np.asarray(self.embeddings[start : start + ROWS])).float()

    def check(self, k: int) -> None:
        """Refuse a k that is not from 1 to the number of public images, by a ValueError."""
        if not 1 <= k <= len(self.embeddings):
            raise ValueError(f"k is {k}; it must be from 1 to the {len(self.embeddings)} public images")

    def search(self, queries: Tensor, k: int = 100) -> Tensor:
        """The k nearest rows to each query (q, E) by L2, nearest first: (q, k) int64.

        Raises:
            ValueError: k that is not from 1 to the number of public images.
            BadInput: queries of another width.
        """
        self.check(k)
        if queries.ndim != 2 or queries.shape[1] != self.embeddings.shape[1]:
            found = tuple(queries.shape)
            raise BadInput(f"queries must be (q, {self.embeddings.shape[1]}), as the public embeddings; found {found}")
        return torch.cat([self._nearest(some.float(), k) for some in queries.split(QUERIES)])

    def _nearest(self, queries: Tensor, k: int) -> Tensor:
        best, rows, start = torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64), 0
        for block in self._blocks():
            squared = block.square().sum(1) - 2 * queries @ block.T  # that of the query is the same for all
            near, place = squared.topk(min(k, len(block)), largest=False)
            best, rows = torch.cat([best, near], 1), torch.cat([rows, place + start], 1)
            chosen = best.topk(min(k, best.shape[1]), largest=False).indices
            best, rows, start = best.gather(1, chosen), rows.gather(1, chosen), start + len(block)
        return rows

    def votes(self, queries: Tensor, k: int = 100, classes: int | None = None) -> Tensor:
        """The share of each class among the k nearest: (q, classes) float32, rows summing to 1."""
        return self.tally(self.search(queries, k), classes)

    def tally(self, rows: Tensor, classes: int | None = None) -> Tensor:
        """The share of each class among rows (q, k), as `search` finds them: (q, classes) float32."""
        labels = torch.as_tensor(np.asarray(self.labels))
        classes, near = classes or int(labels.max()) + 1, labels[rows]
        return torch.zeros(len(rows), classes).scatter_add_(1, near, torch.full(near.shape, 1 / rows.shape[1]))


def confidence(votes: Tensor) -> Tensor:
    """How sure votes (..., C) are: minus their entropy in nats, at most 0.

    >>> confidence(torch.tensor([[1.0, 0.0]]))
    tensor([0.])
    """
    return torch.special.entr(votes).sum(-1).neg() + 0.0
