"""The exceptions of the package, and what is said of any other."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class BadInput(ValueError):
    """Input that cannot be used; the message names it, says what was found and what would be right.

    The command line prints the message alone and exits with status 2.
    """


@dataclass(frozen=True)
class Failure:
    """Why one piece of work among several was not done; unlike an exception it passes between processes whole.

    Attributes:
        name: of the piece.
        reason: in words.
        fault: whether it is a fault of this package, not of what it was given.
        trace: where it happened, as Python prints it.
    """

    name: str
    reason: str
    fault: bool
    trace: str = ""

    @classmethod
    def of(cls, name: str, error: Exception) -> Failure:
        """That of an exception which was caught."""
        return cls(name, in_words(error), not about_input(error), "".join(traceback.format_exception(error)))


class FiguresFailed(Exception):
    """Figures that could not be drawn, raised when all others are.

    Attributes:
        failures: one for each of them.
        written: the files of the others.
    """

    def __init__(self, failures: Sequence[Failure], written: Sequence[Path]) -> None:
        told = "; ".join(f"{one.name}: {one.reason}" for one in failures)
        super().__init__(f"{len(failures)} of the figures could not be drawn: {told}")
        self.failures = list(failures)
        self.written = list(written)


def about_input(error: Exception) -> bool:
    """Whether it speaks of the user's input: a BadInput, a file, or a ValueError that this package itself raised."""
    if isinstance(error, ValueError) and not isinstance(error, BadInput):
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        return frame.f_globals.get("__name__", "").startswith("partcrop_lab")
    return isinstance(error, (BadInput, OSError))


def in_words(error: Exception) -> str:
    """One sentence for an exception; its type too where it is not about input."""
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or error}"
    return str(error) if about_input(error) else f"{type(error).__name__}: {error}"
