"""A command line run from its words to its exit status."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from partcrop_lab.cli.base import BAD, DEBUG_VARIABLE, FAULT, INTERRUPTED, app, say
from partcrop_lab.errors import about_input, in_words
from partcrop_lab.progress import speaks


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status.

    Args:
        arguments: without the program's name; those of this process where None. Without any, the help is printed.

    >>> main(["cache", "size", "--nonsense"])
    2
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    command = typer.main.get_command(app)
    usage_error = typer.BadParameter.__base__  # typer names it only from click, which newer versions carry inside
    try:
        with warnings.catch_warnings(), command.make_context("partcrop-lab", [*arguments], obj=arguments) as context:
            warnings.showwarning = _show_warning
            command.invoke(context)
        return 0
    except typer.Exit as ending:
        return ending.exit_code
    except usage_error as error:
        where = f"; see {error.ctx.command_path} --help" if error.ctx else ""
        return say(error.format_message().rstrip(".") + where, BAD)
    except KeyboardInterrupt:
        told = "interrupted; what is finished is kept, and the same command resumes from it"
        return say(told, INTERRUPTED) if speaks() else INTERRUPTED
    except Exception as error:
        if about_input(error):
            return say(in_words(error), BAD)
        if os.environ.get(DEBUG_VARIABLE):
            traceback.print_exc()
        again = f"; set {DEBUG_VARIABLE}=1 to see where, and please report it"
        return say(f"a fault of this program, {in_words(error)}{again}", FAULT)


def _show_warning(message: Warning | str, category: type[Warning], filename: str, *_: Any) -> None:
    ours = Path(filename).is_relative_to(Path(__file__).parents[1])  # those of other libraries are for developers
    if ours and speaks():
        say(f"note: {message}", 0)
