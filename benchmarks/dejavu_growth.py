"""Does deja vu grow along the epochs T and fall with the number of images N, and after which layer? (METHODS 5)

``python benchmarks/dejavu_growth.py --jobs 2`` trains pairs of encoders on disjoint sets A and B of each size, several
times on other splits (what the cache holds is not trained again), and scores them along the way: the projector at every
epoch, all layers at the last. The third set C is scored beside, which neither encoder saw and where 0 is right, and the
gap of a linear probe between A's own images and C's, which may fail to foretell the score. One row per pair, epoch,
layer, share of most confident images and kind of score goes to data/zoo/dejavu_growth.csv. It resumes where it was
stopped.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from grid import grow

import partcrop_lab as pl
from partcrop_lab.dejavu import deja_vu
from partcrop_lab.encoders.utility import linear_probe
from partcrop_lab.encoders.zoo import trained, zoo_dir
from partcrop_lab.encoders.zoo_entries import PROBE, ZOO, ZooEntry

ALONG = (150, 300, 600)
SHARES = (0.2, 1.0)
SORTED = ("recipe", "N", "training_seed", "T", "layer", "what", "share")


def entry(recipe: str, members: int, seed: int, which: str) -> ZooEntry:
    """One of a pair like the zoo's, on so many images, in a training and a split of its own."""
    return replace(ZOO[recipe], members=members, seed=seed, pair=which, keep=(), along=ALONG, pool={}, projector=True)


def points(recipe: str, members: int, seed: int) -> list[dict[str, Any]]:
    """One row per epoch, layer, kind of score and share."""
    torch.set_num_threads(1)
    pair = [entry(recipe, members, seed, which) for which in "ab"]
    public = pl.load_images(**PROBE, size=64)
    third, along = pair[1].split().nonmembers, [trained(one, progress=False) for one in pair]
    rows = []
    for epoch in sorted(along[0]):
        one, two = (encoders[epoch] for encoders in along)
        last = epoch == max(along[0])
        layers = ["projector", *(["backbone", *range(1, one.depth)] if last else [])]
        seen, unseen = (linear_probe(one, one.split.members, images) for images in (one.split.members, third))
        about = {"recipe": recipe, "N": members, "training_seed": seed, "T": epoch, "public": len(public)}
        about |= {"probe_members": seen, "probe_third": unseen}
        for layer in layers:
            scores = deja_vu(one, two, public, third, layer=layer, progress=False).scores(SHARES)
            kinds = scores["direction"].map({"both": "deja vu", "C": "third set"})
            table = scores.assign(what=kinds, layer=layer, **about).dropna(subset="what").drop(columns="direction")
            rows += table.to_dict("records")
    return rows


def main(
    recipes: Annotated[str, typer.Option(help="Recipes with a projector, separated by commas.")] = "simclr",
    sizes: Annotated[str, typer.Option(help="Numbers of training images N of each set.")] = "50,100,200",
    seeds: Annotated[int, typer.Option(help="Trainings on splits of their own, from 0 on.")] = 3,
    jobs: Annotated[int, typer.Option(help="Pairs at a time, on one thread each.")] = 1,
    out: Annotated[Path | None, typer.Option(help="CSV of all scores; default data/zoo/dejavu_growth.csv.")] = None,
) -> None:
    jobs_of = [(r, n, s) for s in range(seeds) for n in map(int, sizes.split(",")) for r in recipes.split(",")]
    wanted = {one: one for one in jobs_of}
    names = ("recipe", "N", "training_seed")
    table = grow(out or zoo_dir() / "dejavu_growth.csv", names, wanted, points, jobs, SORTED)
    print(table[table["share"] == 1].to_string())


if __name__ == "__main__":
    typer.run(main)
