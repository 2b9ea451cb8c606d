"""Where the pixels of an image set lie: rows of tensors in memory and of .npy files on disk, read alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from partcrop_lab.errors import BadInput


@dataclass(frozen=True, eq=False)
class Pixels:
    """Rows of one or more stores of images, in an order of their own; taking and joining copies no pixel.

    Args:
        stores: each a uint8 tensor (m, 3, S, S), or the path of such an array in a .npy file.
        rows: (n, 2) int64; image i is row ``rows[i, 1]`` of store ``rows[i, 0]``.
        size: the side S in pixels.
    """

    stores: tuple[Tensor | Path, ...]
    rows: np.ndarray
    size: int

    @staticmethod
    def of(images: Tensor | np.ndarray | Path, count: int | None = None) -> Pixels:
        """All images of a tensor or array (n, 3, S, S) uint8, or the first `count` of a .npy file.

        Raises:
            BadInput: another shape or dtype.
        """
        if isinstance(images, np.ndarray):
            images = torch.from_numpy(images.copy())
        array = np.load(images, mmap_mode="r") if isinstance(images, Path) else images
        kind, shape = str(array.dtype).removeprefix("torch."), tuple(array.shape)
        if kind != "uint8" or len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
            raise BadInput(f"images are {kind} of shape {shape}; they must be uint8 of shape (n, 3, S, S), square RGB")
        n = shape[0] if count is None else count
        return Pixels((images,), np.stack([np.zeros(n, np.int64), np.arange(n)], axis=1), shape[2])

    def take(self, rows: np.ndarray) -> Pixels:
        """The images at `rows`, in that order."""
        return Pixels(self.stores, self.rows[rows], self.size)

    @staticmethod
    def join(parts: Sequence[Pixels]) -> Pixels:
        """The images of all `parts`, one after the other; a store that several share is kept once."""
        stores = list({id(store): store for part in parts for store in part.stores}.values())
        place = {id(store): k for k, store in enumerate(stores)}
        rows = []
        for part in parts:
            moved = np.array([place[id(store)] for store in part.stores], np.int64)
            rows.append(np.stack([moved[part.rows[:, 0]], part.rows[:, 1]], axis=1))
        return Pixels(tuple(stores), np.concatenate(rows), parts[0].size)

    def read(self, rows: np.ndarray) -> Tensor:
        """A copy of the images at `rows`, (B, 3, S, S) uint8; a file is open only while it is copied from."""
        wanted = self.rows[rows]
        if len(self.stores) == 1:
            return _read(self.stores[0], wanted[:, 1])
        images = torch.empty((len(wanted), 3, self.size, self.size), dtype=torch.uint8)
        for k in np.unique(wanted[:, 0]):
            here = np.flatnonzero(wanted[:, 0] == k)
            images[torch.from_numpy(here)] = _read(self.stores[k], wanted[here, 1])
        return images


def _read(store: Tensor | Path, rows: np.ndarray) -> Tensor:
    if isinstance(store, Tensor):
        return store[torch.from_numpy(rows)]
    try:
        # A fresh mapping for each batch: pages of an old one would count as resident memory.
        return torch.from_numpy(np.load(store, mmap_mode="r")[rows])
    except FileNotFoundError as error:
        raise BadInput(f"{store}: the cached pixels of this image set are gone; load the images again") from error
