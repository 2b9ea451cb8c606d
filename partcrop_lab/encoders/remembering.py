"""An encoder that remembers its answers, for services around one encoder that all ask it the same images."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from partcrop_lab import store
from partcrop_lab.encoders.backbone import Tokens
from partcrop_lab.encoders.encoder import Encoder

LIMIT = 2**31
"""Bytes of answers that are kept, of an encoder and of its untrained control each."""


class Remembering(Encoder):
    """The same encoder, its answers kept in memory: what was asked before is not computed again.

    Answers are the same to the bit, since whole micro-batches are kept.

    Args:
        inner: the encoder.
        limit: bytes of answers kept; what goes beyond is computed each time.
    """

    def __init__(self, inner: Encoder, limit: int = LIMIT) -> None:
        vars(self).update(vars(inner))
        self.inner, self.limit = inner, limit
        self._forward = _Kept(inner._forward, limit)
        self._controls: dict[int, Encoder] = {}

    def untrained(self, seed: int) -> Encoder:
        """The untrained control, which remembers too."""
        if seed not in self._controls:
            self._controls[seed] = Remembering(self.inner.untrained(seed), self.limit)
        return self._controls[seed]


class _Kept:
    """A forward pass whose tokens are found again by the micro-batch."""

    def __init__(self, forward: Callable[[Tensor], Tokens], limit: int) -> None:
        self.forward, self.left = forward, limit
        self.kept: dict[str, Tokens] = {}

    def __call__(self, batch: Tensor) -> Tokens:
        key = store.digest(batch.float().numpy(force=True))
        if key in self.kept:
            return self.kept[key]
        tokens = self.forward(batch)
        size = sum(each.nbytes for each in tokens if each is not None)
        if size <= self.left:
            self.left -= size
            self.kept[key] = tokens
        return tokens
