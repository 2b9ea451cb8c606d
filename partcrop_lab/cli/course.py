"""The course: `notebooks`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from partcrop_lab.cli.base import app
from partcrop_lab.shipped import copy_course


@app.command()
def notebooks(
    folder: Annotated[Path, typer.Argument(help="Where to; files that are there are never overwritten.")],
) -> None:
    """Copy the course into a folder: the notebooks, their solutions, and the panels alone as dashboards."""
    copied = copy_course(folder)
    start = next(path for path in copied if path.suffix == ".ipynb")
    print(f"{len(copied)} files are in {folder}; open the first with: jupyter lab {start}")
