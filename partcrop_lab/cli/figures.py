"""The figures: `figures`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from partcrop_lab.cli.base import BAD, DEBUG_VARIABLE, FAULT, app, echo, say
from partcrop_lab.cli.options import Option, named
from partcrop_lab.cli.words import aligned
from partcrop_lab.errors import Failure, FiguresFailed
from partcrop_lab.figures import make_figures
from partcrop_lab.studio import open_studio
from partcrop_lab.text import plain


@app.command()
def figures(
    out: Annotated[Path | None, Option(help="Folder for the files; figures, figures/paper, or their released.")] = None,
    only: Annotated[str | None, Option(help="Just these figures, by name, separated by commas.")] = None,
    preset: Annotated[str, Option(help="classroom: the zoo; paper: as in the papers, long on a GPU.")] = "classroom",
    protocol: Annotated[str, Option(help="released: its audits as the released code has them.")] = "matched",
    images: Annotated[str | None, Option(help="Paper: what is trained on; as --images of audit, cifar100.")] = None,
    size: Annotated[int | None, Option(min=16, help="Paper: side of the images in pixels, 32.")] = None,
    members: Annotated[int | None, Option(min=2, help="Paper: images trained on, 25000.")] = None,
    nonmembers: Annotated[int | None, Option(min=2, help="Paper: other images of the same pool, 10000.")] = None,
    epochs: Annotated[int | None, Option(min=1, help="Paper: passes over the members, 1600.")] = None,
    jobs: Annotated[int | None, Option(min=1, help="Figures at a time; one a core, up to 4; paper: 1.")] = None,
    dry: Annotated[bool, Option("--dry", help="Say what it costs, and draw nothing.")] = False,
) -> None:
    """Draw the figures, each as PNG and PDF with its CSV and provenance."""
    settings = named(source=images, size=size, members=members, nonmembers=nonmembers, epochs=epochs)
    studio = open_studio(preset, protocol, **settings)
    typer.echo(studio.cost(), err=True)
    if dry:
        return
    own = "paper" if studio.preset == "paper" else "", "released" if protocol == "released" else ""
    out = out or Path("figures", *own)
    jobs = jobs or (1 if studio.preset == "paper" else min(os.cpu_count() or 1, 4))
    try:
        written = make_figures(out, only.split(",") if only else None, studio=studio, jobs=jobs)
    except FiguresFailed as error:
        _list(error.written)
        raise typer.Exit(_tell(error.failures)) from error
    _list(written)


def _list(paths: Sequence[Path]) -> None:
    for path in paths:
        echo(path)


def _tell(failures: Sequence[Failure]) -> int:
    """A table of what failed and why on stderr; the exit status."""
    status = FAULT if any(one.fault for one in failures) else BAD
    again = f"; set {DEBUG_VARIABLE}=1 to see where the faults are, and please report them" if status == FAULT else ""
    say(f"{len(failures)} of the figures could not be drawn{again}:", status)
    rows = [(one.name, "fault" if one.fault else "input", " ".join(one.reason.split())) for one in failures]
    print(plain(aligned(rows)), file=sys.stderr)
    if os.environ.get(DEBUG_VARIABLE):
        print(*(one.trace for one in failures), sep="\n", file=sys.stderr)
    return status
