"""What all commands share: the program they join, its exit statuses, and how it speaks of trouble."""

from __future__ import annotations

import sys

import typer

FAULT, BAD, EXCEEDED, CONFOUNDED, INTERRUPTED = 1, 2, 3, 4, 130
DEBUG_VARIABLE = "PARTCROP_LAB_DEBUG"
app = typer.Typer(
    name="partcrop-lab",
    help="Membership inference against visual self-supervised encoders. Audit only encoders that you may test.",
    add_completion=False,
    rich_markup_mode=None,
)


def say(message: str, status: int) -> int:
    """One line on stderr; returns the exit status."""
    print("partcrop-lab:", " ".join(message.split()), file=sys.stderr)
    return status
