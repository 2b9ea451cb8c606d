"""Progress bars: how they look, and whether they are shown."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import RLock
from typing import Any

from tqdm.auto import tqdm

from partcrop_lab.text import plain

_hidden = ContextVar("hidden", default=False)


class Bar(tqdm):
    """A bar whose lock is among threads: tqdm's own is a semaphore, which a process that is ended early leaks."""


Bar.set_lock(RLock())


def bar(iterable: Iterable | None = None, desc: str = "", *, shown: bool = True, **how: Any) -> Bar:
    """A tqdm bar that leaves nothing behind when it is done, in terminals and notebooks.

    Args:
        iterable: what to go through; None for a bar that is updated by hand.
        desc: what is being done.
        shown: whether to show it, where `no_bars` does not hide all.
        how: further keywords of tqdm: total=, unit=, delay= in seconds, ...
    """
    return Bar(iterable, desc=plain(desc), leave=False, disable=_hidden.get() or not shown or not speaks(), **how)


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
