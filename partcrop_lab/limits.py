"""How much a file from outside may ask for: one table, and a bound on what building a model takes.

Each limit is raised by an environment variable that its message names: ``PARTCROP_LAB_MAX_`` and its name in capitals.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from partcrop_lab.errors import BadInput

LIMITS = {
    "json": 64 * 2**20,
    "nesting": 64,
    "side": 4096,
    "repeats": 1000,
    "rows": 5_000_000,
    "unpacked": 4 * 2**30,
    "ratio": 100,
    "encoded": 256 * 2**20,
    "pixels": 64 * 10**6,
    "model": 16 * 2**30,
}
"""By name: json, bytes of a JSON text; nesting, how deep it goes; side, in pixels, of images and inputs that a file
declares; repeats of a file of queries; rows of a parquet file; unpacked, bytes that a packed file unpacks to; ratio,
how many times its size that may be where it is more than `SMALL`; encoded, bytes of an image before it is decoded;
pixels of images decoded at the same time; model, bytes of one that is built."""

LARGEST_SEED = 2**25 - 1
"""Of an audit: others are made of it by up to a hundred times, and scikit-learn takes none above 2^32."""

SMALL = 64 * 2**20
"""Bytes that may come of a file of any size."""

PREFIX = "PARTCROP_LAB_MAX_"
CREATING = ("empty", "empty_strided", "zeros", "ones", "full", "rand", "randn")
"""Torch's operators that take memory for a new tensor of a shape given first."""


def limit(name: str) -> int:
    """The limit of this name: of `LIMITS`, or as its environment variable says.

    Raises:
        BadInput: a variable that holds no whole number above 0.
    """
    text = os.environ.get(PREFIX + name.upper())
    if text is None:
        return LIMITS[name]
    if not text.isdecimal() or len(text) > 18 or not int(text):
        raise BadInput(f"{PREFIX}{name.upper()} is {text[:20]!r}; it must be a whole number above 0")
    return int(text)


def refuse_above(name: str, found: int, what: str) -> None:
    """Refuse what is above a limit.

    Args:
        name: of the limit.
        found: how much was found.
        what: file and field, as "q.npz: repeats".

    Raises:
        BadInput: it is above the limit; the message names the variable that raises it.
    """
    most = limit(name)
    if found > most:
        raise BadInput(f"{what} is {short(found)}, above the limit of {most:,}; {how_to_raise(name)}")


def how_to_raise(name: str) -> str:
    """How a limit is raised, for the end of a message."""
    return f"set {PREFIX}{name.upper()} to allow more where you trust the file"


def short(number: int) -> str:
    """A whole number in few characters, also one of thousands of digits.

    >>> short(4096), short(10**40)
    ('4,096', 'more than 10^18')
    """
    return f"{number:,}" if abs(number) <= 10**18 else "more than 10^18"


def refuse_bomb(path: object, unpacked: int, packed: int) -> None:
    """Refuse a file that would unpack to too much, in all or for its size.

    Raises:
        BadInput: it would.
    """
    refuse_above("unpacked", unpacked, f"{path}: what it unpacks to, in bytes,")
    if unpacked > SMALL:
        refuse_above("ratio", unpacked // max(1, packed), f"{path}: how many times its own size it unpacks to")


@contextmanager
def building_at_most(most: int | None, what: str) -> Iterator[None]:
    """Within, torch takes no more than `most` bytes for new tensors.

    Args:
        most: in bytes, over all tensors made: as much as the file can fill; the limit "model" where None.
        what: what is being built, for the message.

    Raises:
        BadInput: more was asked for; it was not taken.
    """
    hint = how_to_raise("model") if most is None else "its file holds far less"
    with _Counting(limit("model") if most is None else most, f"{what} asks for more memory than it can need; {hint}"):
        yield


class _Counting(TorchDispatchMode):
    def __init__(self, most: int, refusal: str) -> None:
        super().__init__()
        self.left = most
        self.refusal = refusal

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name.removeprefix("new_") in CREATING:
            shape = args[1] if name.startswith("new_") else args[0]
            dtype = (kwargs or {}).get("dtype") or torch.get_default_dtype()
            self.left -= math.prod(shape) * dtype.itemsize
            if self.left < 0:
                raise BadInput(self.refusal)
        return func(*args, **(kwargs or {}))


class Together:
    """Lets work of known sizes run side by side in threads while it fits; what is larger than all runs alone.

    Args:
        limit_name: of the sum of sizes.
    """

    def __init__(self, limit_name: str) -> None:
        self.limit_name = limit_name
        self.held = 0
        self.changed = threading.Condition()

    @contextmanager
    def taking(self, amount: int) -> Iterator[None]:
        """Wait until `amount` fits, and hold it within."""
        most = limit(self.limit_name)
        amount = min(amount, most)
        with self.changed:
            self.changed.wait_for(lambda: self.held + amount <= most)
            self.held += amount
        try:
            yield
        finally:
            with self.changed:
                self.held -= amount
                self.changed.notify_all()
