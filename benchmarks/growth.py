"""Does the leak grow along the epochs T and shrink with the number of training images N? (METHODS 3.8)

``python benchmarks/growth.py --jobs 2`` trains by the zoo's settings on several numbers of images, for as many steps
each, so that N alone differs (what the cache holds is not trained again), audits each encoder along the way with the
attack that was chosen for it and all controls, and writes data/zoo/growth.csv, which `partcrop-lab figures --only
growth` draws. It resumes where it was stopped.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from grid import audit_columns, grow

import partcrop_lab as pl
from partcrop_lab.cli import attack_of
from partcrop_lab.encoders.zoo import trained, zoo_dir
from partcrop_lab.encoders.zoo_entries import ZOO, ZooEntry, sized

SORTED = ("recipe", "N", "training_seed", "T")


def entry(recipe: str, members: int, again: int) -> ZooEntry:
    """The zoo's entry on so many images, or, where `again` is not 0, another training on another split of them."""
    how = ZOO[recipe] if members == ZOO[recipe].members else sized(ZOO[recipe], members)
    return replace(how, seed=how.seed + again)


def rise(result: pl.AuditResult, first: pl.AuditResult) -> dict[str, float]:
    """How much larger an AUC is than at the first epoch, with its paired 95 % interval; nothing at the first."""
    if result is first:
        return {}
    found = result.minus(first).rename({"gain": "rise", "low": "rise_low", "high": "rise_high"})
    return found[["rise", "rise_low", "rise_high"]].astype(float).round(4).to_dict()


def points(recipe: str, members: int, again: int) -> list[dict[str, Any]]:
    """One row per epoch: AUC with interval and controls, and its rise since the first, image by image."""
    torch.set_num_threads(1)
    how, rows, results = entry(recipe, members, again), [], []
    for epoch, encoder in sorted(trained(how, progress=False).items()):
        result = pl.audit(encoder, how.split(), attack_of(how.attack), progress=False)
        results.append(result)
        about = {
            "recipe": recipe,
            "N": members,
            "T": epoch,
            "planned": encoder.card["planned"],
            "steps": epoch * math.ceil(members / how.settings["batch_size"]),
            "attack": how.attack,
            "training_seed": how.seed,
        }
        rows.append(about | audit_columns(result) | rise(result, results[0]))
    return rows


def main(
    out: Annotated[Path | None, typer.Option(help="CSV of all points; default data/zoo/growth.csv.")] = None,
    recipes: Annotated[str, typer.Option(help="Entries of the zoo, separated by commas.")] = "simclr",
    sizes: Annotated[str, typer.Option(help="Numbers of training images N.")] = "100,300,1000",
    again: Annotated[int, typer.Option(help="Another split and training, by this number; 0: the zoo's own.")] = 0,
    jobs: Annotated[int, typer.Option(help="Trainings at a time, on one thread each.")] = 1,
) -> None:
    out, names = out or zoo_dir() / "growth.csv", recipes.split(",")
    jobs_of = [(recipe, n, again) for n in map(int, sizes.split(",")) for recipe in names]
    wanted = {(recipe, n, entry(recipe, n, again).seed): (recipe, n, again) for recipe, n, again in jobs_of}
    print(grow(out, ("recipe", "N", "training_seed"), wanted, points, jobs, SORTED).to_string())


if __name__ == "__main__":
    typer.run(main)
