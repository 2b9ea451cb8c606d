"""What comes with the package: the zoo and the course, beside the package in a clone, inside it in a wheel."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from partcrop_lab.errors import BadInput
from partcrop_lab.store import atomic

ZOO_FOLDER = "data/zoo"
COURSE_FOLDER = "notebooks"
PACKAGE = Path(__file__).resolve().parent
INSTALLED = any((PACKAGE / folder).is_dir() for folder in (ZOO_FOLDER, COURSE_FOLDER))
"""Whether this is a wheel, into which pyproject.toml maps both folders, and not a clone."""


def shipped(folder: str) -> Path:
    """Where a shipped folder lies.

    Args:
        folder: `ZOO_FOLDER` or `COURSE_FOLDER`, its path in the repository.

    >>> (shipped(COURSE_FOLDER) / "README.md").is_file()
    True
    """
    return (PACKAGE if INSTALLED else PACKAGE.parent) / folder


def how_to_restore(command: str | None = None) -> str:
    """What to do where something shipped is missing or damaged, as a message ends.

    Args:
        command: what makes it again, where something does.
    """
    how = "restore it by installing partcrop-lab again, with pip's --force-reinstall --no-deps"
    how, where = (how, " in a clone of the repository") if INSTALLED else ("restore it from git", "")
    return how if command is None else f"{how}, or make it{where} with {command}"


def copy_course(folder: str | Path) -> list[Path]:
    """Copy the notebooks, their solutions and the dashboards, with the plan for teaching.

    Args:
        folder: where to; made where it is missing.

    Returns:
        The files written, in order.

    Raises:
        BadInput: a file is there already, and then nothing is copied; or the folder cannot be written.
    """
    course, folder = shipped(COURSE_FOLDER), Path(folder)
    sources = sorted([course / "README.md", *course.glob("*.ipynb"), *course.glob("[!.]*/*.ipynb")])
    copies = {folder / source.relative_to(course): source for source in sources}
    if there := [str(path) for path in copies if os.path.lexists(path)]:
        more = f" and {len(there) - 1} more are" if there[1:] else " is"
        raise BadInput(f"{there[0]}{more} there already and would be overwritten; name another folder")
    for path, source in copies.items():
        with atomic(path) as temporary:
            shutil.copyfile(source, temporary)
    return list(copies)
