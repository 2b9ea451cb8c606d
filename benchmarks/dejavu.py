"""Do memory and correlation part as the backgrounds say more of the class? The dial of `partshapes` (METHODS 5).

``python benchmarks/dejavu.py --jobs 2`` takes pairs of encoders trained on disjoint sets A and B whose backgrounds say
nothing, something or everything of the class (those of the zoo, and others, which are trained where the cache does not
hold them), and scores what each recalls from backgrounds alone, with untrained encoders, permuted labels and the third
set C as controls. One row per pair, layer, share of most confident images and kind of score goes to
data/zoo/dejavu.csv, beside how many images of A and B are memorised, correlated, misrepresented or unassociated, and
the accuracies of a linear probe on its own training images and on C. It resumes where it was stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from grid import grow

import partcrop_lab as pl
from partcrop_lab.dejavu import with_controls
from partcrop_lab.encoders.utility import linear_probe
from partcrop_lab.encoders.zoo import trained, zoo_dir, zoo_names
from partcrop_lab.encoders.zoo_entries import PROBE, ZOO, correlated

DIAL = (0.0, 0.5, 1.0)
LAYERS = {"simclr": ("projector", "backbone"), "vicreg": ("projector", "backbone"), "supervised": ("backbone",)}
"""The recipes, and the layers that they have: the head of the supervised one is linear, so it has no projector."""


def encoder_of(name: str, correlation: float) -> pl.Encoder:
    """The encoder: of the zoo where it is there, else of the cache, else trained."""
    if not correlation and name in zoo_names():
        return pl.load_encoder(f"zoo:{name}")
    return trained(correlated(ZOO[name], correlation), progress=False)[ZOO[name].settings["epochs"]]


def points(recipe: str, correlation: float) -> list[dict[str, Any]]:
    """One row per layer, kind of score and share."""
    torch.set_num_threads(1)
    names = recipe, f"{recipe}-b"
    one, two = (encoder_of(name, correlation) for name in names)
    public = pl.load_images(**PROBE, background_correlation=correlation, size=one.image_size)
    sets = [correlated(ZOO[name], correlation).split() for name in names]
    third = sets[1].nonmembers
    seen, unseen = (linear_probe(one, sets[0].members, images) for images in (sets[0].members, third))
    rows = []
    for layer in LAYERS[recipe]:
        found, scores = with_controls(one, two, public, third, layer=layer, progress=False)
        about = {"recipe": recipe, "correlation": correlation, "layer": layer, "N": one.card["N"], "T": one.card["T"]}
        about |= found.partition().sum().to_dict() | {"probe_members": seen, "probe_third": unseen}
        rows += scores.drop(columns="direction").assign(**about, public=len(public)).to_dict("records")
    return rows


def main(
    recipes: Annotated[str, typer.Option(help="Recipes, separated by commas.")] = ",".join(LAYERS),
    dial: Annotated[str, typer.Option(help="Correlations, separated by commas.")] = ",".join(map(str, DIAL)),
    jobs: Annotated[int, typer.Option(help="Pairs at a time, on one thread each.")] = 1,
    out: Annotated[Path | None, typer.Option(help="CSV of all scores; default data/zoo/dejavu.csv.")] = None,
) -> None:
    wanted = {(r, c): (r, c) for r in recipes.split(",") for c in map(float, dial.split(","))}
    sort = ("recipe", "correlation", "layer", "what", "share")
    table = grow(out or zoo_dir() / "dejavu.csv", ("recipe", "correlation"), wanted, points, jobs, sort)
    print(table[table["share"].isin([0.2, 1.0])].to_string())


if __name__ == "__main__":
    typer.run(main)
