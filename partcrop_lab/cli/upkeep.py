"""The cache and the installation: `cache size|clear`, `doctor`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Annotated

import typer
from packaging.requirements import Requirement

from partcrop_lab import store
from partcrop_lab.cli.base import BAD, app, echo
from partcrop_lab.cli.options import check_writable
from partcrop_lab.cli.words import aligned, megabytes
from partcrop_lab.devices import bf16_is_fast, default_device, resolve_precision
from partcrop_lab.encoders.zoo import ZOO_VARIABLE, zoo_names
from partcrop_lab.errors import BadInput
from partcrop_lab.shipped import how_to_restore

cache_app = typer.Typer(help="Stored features, images and scores; all of it can be made again.")
app.add_typer(cache_app, name="cache")


@cache_app.command("size")
def cache_size() -> None:
    """How much each room of the cache holds."""
    sizes = store.cache_sizes()
    rows = [(room, megabytes(held)) for room, held in sizes.items()]
    echo(aligned([*rows, ("in all", megabytes(sum(sizes.values()))), ("folder", str(store.cache_dir()))]))


@cache_app.command("clear")
def cache_clear(room: Annotated[str | None, typer.Argument(help="One room; all where omitted.")] = None) -> None:
    """Delete one room of the cache, or all of it."""
    echo(f"freed {megabytes(store.clear_cache(room))}")


@app.command()
def doctor() -> None:
    """What is installed, where things run and are kept, and what is missing. Exit status 2 where that stops work."""
    device = default_device()
    precision = str(resolve_precision("auto")).removeprefix("torch.")
    fast = ", bf16 in hardware" if bf16_is_fast() else ""
    problem = _cache_problem()
    held = f"{store.cache_dir()}, {megabytes(sum(store.cache_sizes().values()))}"
    rows = [
        ("python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"),
        ("device", f"{device}, {precision}, {os.cpu_count()} cores{fast}"),
        ("cache", problem or f"{held}, can be written"),
        ("zoo", ", ".join(zoo_names()) or f"MISSING: {how_to_restore()}, or set {ZOO_VARIABLE}"),
    ]
    needed, optional = _requirements()
    echo(aligned([*rows, *needed, *optional]))
    if problem or any("MISSING" in found for _, found in needed):
        raise typer.Exit(BAD)


def _cache_problem() -> str | None:
    try:
        check_writable(store.cache_dir() / "doctor")
    except BadInput as error:
        return f"MISSING: {error}"
    return None


def _requirements() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """What the package needs, and what its extras need, each with the version found or how to get it."""
    needed, optional = [], []
    for text in importlib.metadata.requires("partcrop-lab") or ():
        wanted = Requirement(text)
        extra = str(wanted.marker).rpartition("== ")[2].strip("\"'") if wanted.marker else ""
        try:
            found = importlib.metadata.version(wanted.name)
            good = wanted.specifier.contains(found, prereleases=True)
            state = found if good else f"MISSING: {found} is there, it needs {wanted.specifier}"
        except importlib.metadata.PackageNotFoundError:
            wanted.marker = None
            state = f"{'optional, not installed' if extra else 'MISSING'}: pip install '{wanted}'"
        (optional if extra else needed).append((wanted.name, state))
    return needed, optional
