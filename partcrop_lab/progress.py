"""Progress bars: how they look, and whether they are shown."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm.auto import tqdm

from partcrop_lab.text import plain

_hidden = ContextVar("hidden", default=False)


def bar(iterable: Iterable | None = None, desc: str = "", *, shown: bool = True, **how: Any) -> tqdm:
    """A tqdm bar that leaves nothing behind when it is done, in terminals and notebooks.

    Args:
        iterable: what to go through; None for a bar that is updated by hand.
        desc: what is being done.
        shown: whether to show it, where `no_bars` does not hide all.
        how: further keywords of tqdm: total=, unit=, delay= in seconds, ...
    """
    return tqdm(iterable, desc=plain(desc), leave=False, disable=_hidden.get() or not shown or not speaks(), **how)


def speaks() -> bool:
    """Whether this process shows bars and notes: of those that train together on a machine, the first alone does."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


@contextmanager
def no_bars() -> Iterator[None]:
    """Hide all bars within, also those of functions that have no `progress` argument."""
    before = _hidden.set(True)
    try:
        yield
    finally:
        _hidden.reset(before)
