"""A command line run from its words to its exit status."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import typer

from partcrop_lab.cli.base import BAD, DEBUG_VARIABLE, FAULT, INTERRUPTED, PIPE, TERMINATED, app, say
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
        with (
            _terminable(),
            warnings.catch_warnings(),
            command.make_context("partcrop-lab", [*arguments], obj=arguments) as context,
        ):
            warnings.showwarning = _show_warning
            command.invoke(context)
        sys.stdout.flush()
        return 0
    except typer.Exit as ending:
        return ending.exit_code
    except usage_error as error:
        where = f"; see {error.ctx.command_path} --help" if error.ctx else ""
        return say(error.format_message().rstrip(".") + where, BAD)
    except KeyboardInterrupt as stop:
        ended, status = ("terminated", TERMINATED) if isinstance(stop, Terminated) else ("interrupted", INTERRUPTED)
        told = f"{ended}; what is finished is kept, and the same command resumes from it"
        return say(told, status) if speaks() else status
    except BrokenPipeError:
        return _leave_pipe()
    except Exception as error:
        if about_input(error):
            return say(in_words(error), BAD)
        if os.environ.get(DEBUG_VARIABLE):
            traceback.print_exc()
        again = f"; set {DEBUG_VARIABLE}=1 to see where, and please report it"
        return say(f"a fault of this program, {in_words(error)}{again}", FAULT)


class Terminated(KeyboardInterrupt):
    """A SIGTERM, as schedulers and containers send: it ends a run as Ctrl-C does."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Within, a SIGTERM is raised as `Terminated`, where this is the thread that hears of signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave_pipe() -> int:
    """Whoever read our output has gone, as `head` does: end quietly, by the status of a program that SIGPIPE ended."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that Python's own last flush finds a reader
    return PIPE


def _show_warning(message: Warning | str, category: type[Warning], filename: str, *_: Any) -> None:
    ours = Path(filename).is_relative_to(Path(__file__).parents[1])  # those of other libraries are for developers
    if ours and speaks():
        say(f"note: {message}", 0)
