"""What all commands share: the program they join, its exit statuses, and how it speaks of trouble."""

from __future__ import annotations

import sys
from contextlib import suppress

import typer

from partcrop_lab.text import plain

FAULT, BAD, EXCEEDED, CONFOUNDED, INTERRUPTED, PIPE, TERMINATED = 1, 2, 3, 4, 130, 141, 143
DEBUG_VARIABLE = "PARTCROP_LAB_DEBUG"
app = typer.Typer(
    name="partcrop-lab",
    help="Membership inference against visual self-supervised encoders. Audit only encoders that you may test.",
    add_completion=False,
    rich_markup_mode=None,
)


def say(message: str, status: int) -> int:
    """One line on stderr; returns the exit status."""
    with suppress(BrokenPipeError):
        print("partcrop-lab:", plain(" ".join(message.split())), file=sys.stderr)
    return status


def echo(text: object) -> None:
    """Print a text for people; what in it could steer a terminal is shown as escapes."""
    print(plain(str(text)), flush=True)
