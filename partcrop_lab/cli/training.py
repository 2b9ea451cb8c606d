"""Training an encoder on a split that is drawn first: `pretrain`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

import partcrop_lab as pl
from partcrop_lab import MembershipSplit, plots, store
from partcrop_lab.cli.base import app, echo
from partcrop_lab.cli.options import (
    Images,
    Links,
    Members,
    Nonmembers,
    Option,
    Quiet,
    Sides,
    Skip,
    SplitFile,
    keywords,
)
from partcrop_lab.devices import default_device
from partcrop_lab.encoders import ranks
from partcrop_lab.encoders.recipes import RECIPES, make_recipe
from partcrop_lab.errors import BadInput
from partcrop_lab.limits import LARGEST_SEED
from partcrop_lab.schemas import Split, checked


@app.command()
def pretrain(
    recipe: Annotated[str, Option(help=f"How to train: {', '.join(sorted(RECIPES))}.")],
    out: Annotated[Path, Option(help="Folder for the encoder, its split, log and checkpoints.")],
    images: Images = None,
    members: Members = None,
    nonmembers: Nonmembers = None,
    size: Annotated[int | None, Option(min=8, help="Side in pixels to load images and train at.")] = None,
    split: SplitFile = None,
    skip_unreadable: Skip = False,
    follow_links: Links = False,
    epochs: Annotated[int | None, Option(min=1, help="Passes over the members; default the recipe's.")] = None,
    seed: Annotated[int, Option(min=0, max=LARGEST_SEED, help="Of drawing, weights and augmentation.")] = 0,
    checkpoint_every: Annotated[int | None, Option(min=1, help="Epochs between states to resume from.")] = None,
    keep: Annotated[list[str] | None, Option(help="Epochs whose encoder is kept too, as 100,300; repeatable.")] = None,
    setting: Annotated[list[str] | None, Option("--set", help="key=value of the recipe; repeatable.")] = None,
    decoder: Annotated[
        bool, Option("--decoder", help="Keep the decoder of MAE, SimMIM or CAE, for grey-box attacks.")
    ] = False,
    devices: Annotated[int, Option(min=1, help="GPUs of each machine to train on, or CPU processes.")] = 1,
    nodes: Annotated[int, Option(min=1, help="Machines, on each of which torchrun or srun starts this.")] = 1,
    quiet: Quiet = False,
) -> None:
    """Draw a split, record it, and train an encoder on its members. The same command resumes an interrupted run.

    Encoders kept along the way are mid-schedule: their learning rate has not come down as at the end of a run.
    """
    drawing = {"images": images, "members": members, "nonmembers": nonmembers}
    sides = Sides(split, **drawing, size=size, seed=seed, skip_unreadable=skip_unreadable, follow_links=follow_links)
    if not sides.given:
        raise typer.BadParameter("give --images and --members, or --split")
    overrides, kept = keywords(setting), _epochs(keep)
    make_recipe(recipe, **overrides)  # wrong names are said before anything is written
    ranks.check_devices(default_device(), devices, nodes)
    drawn = sides.load()
    if ranks.is_first(devices * nodes):
        _record(drawn, out / "split.json")
    how = {"checkpoint_every": checkpoint_every, "keep": kept, "devices": devices, "nodes": nodes, "decoder": decoder}
    encoder = pl.pretrain(recipe, drawn, epochs, seed, out, **how, **overrides)
    if ranks.is_first(devices * nodes):
        _draw_loss(out, encoder.name)
        path = out / "encoder.safetensors"
        echo(f"{path}: trained on {len(drawn.members)} images; audit it with partcrop-lab audit --encoder {path}")


def _epochs(texts: Iterable[str] | None) -> list[int]:
    """Numbers from options like "100,300".

    >>> _epochs(["100,300", "500"])
    [100, 300, 500]
    """
    try:
        return [int(number) for text in texts or () for number in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"--keep takes epochs separated by commas; {error}") from error


def _draw_loss(out: Path, name: str) -> None:
    """Draw the log of a training run beside its encoder."""
    table = pd.read_json(out / "log.jsonl", lines=True)
    with store.atomic(out / "loss.png") as temporary:
        text = f"{name}, trained on its N members."
        temporary.write_bytes(plots.png(lambda figure: plots.training_curve(table, figure, text), 4.6, 3.6, 300))


def _record(split: MembershipSplit, path: Path) -> None:
    """Write the split before training; a folder that holds another one is refused."""
    if path.exists():
        if checked(Split, store.read_json(path), path)["digest"] != split.digest:
            raise BadInput(f"{path.parent} holds a run on another split; choose another --out, or remove that folder")
        return
    split.save(path)
