"""Does deja vu grow along the epochs T and fall with the number of images N, and after which layer? (METHODS 5)

``python benchmarks/dejavu_growth.py --jobs 2`` trains pairs of encoders on disjoint sets A and B of each size, several
times on other splits (what the cache holds is not trained again), and scores them along the way: the projector at every
epoch, all layers at the last. The third set C is scored beside, which neither encoder saw and where 0 is right, and the
gap of a linear probe between A's own images and C's, which may fail to foretell the score, and the accuracy of a probe
that is trained and tested on public images, which is what a layer is good for. One row per pair, epoch, layer, share of
most confident images and kind of score goes to data/zoo/dejavu_growth.csv. It resumes where it was stopped.
``--recipes all --sizes 100`` does so for other recipes, temperatures, weights, capacities and augmentations (`SWEEPS`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from grid import grow

import partcrop_lab as pl
from partcrop_lab.defenses import StrongAugmentation
from partcrop_lab.dejavu import deja_vu
from partcrop_lab.dejavu.score import public_index
from partcrop_lab.encoders.recipes import make_recipe
from partcrop_lab.encoders.utility import fitted, linear_probe
from partcrop_lab.encoders.zoo import trained, zoo_dir
from partcrop_lab.encoders.zoo_entries import GENTLE, PROBE, ZOO, ZooEntry

ALONG = (150, 300, 600)
SHARES = (0.2, 1.0)
SHORT = {"epochs": 300}
"""A quarter of the zoo's steps, for what is swept; by then a probe's gap is 0.64, 0.72 at the end (SimCLR, N = 50)."""
SWEEPS: dict[str, dict[str, Any]] = {
    "simclr": {},
    "simclr epochs=300": SHORT,
    "simclr temperature=0.05": SHORT | {"temperature": 0.05},
    "simclr temperature=0.5": SHORT | {"temperature": 0.5},
    "simclr embed_dim=48": SHORT | {"embed_dim": 48},
    "simclr embed_dim=192": SHORT | {"embed_dim": 192},
    "simclr weaker": SHORT | {"crop_scale": (0.6, 1.0), "jitter": 0.0, "grey": 0.0},
    "simclr stronger": SHORT | StrongAugmentation().changes(make_recipe("simclr"), 0),
    "vicreg": SHORT,
    "vicreg invariance=5": SHORT | {"invariance": 5.0},
    "vicreg invariance=100": SHORT | {"invariance": 100.0},
    "barlowtwins": SHORT,
    "byol": SHORT,
    "dino": SHORT | GENTLE,
    "supervised": SHORT,
}
"""Settings that are not the zoo's, by what the table calls them: a recipe first, then what was changed."""
SORTED = ("recipe", "N", "training_seed", "T", "layer", "what", "share")


def entry(label: str, members: int, seed: int, which: str) -> ZooEntry:
    """One of a pair like the zoo's, on so many images, in a training and a split of its own."""
    one = ZOO[label.split()[0]]
    settings = one.settings | SWEEPS[label]
    along = tuple(epoch for epoch in ALONG if epoch < settings["epochs"])
    own = {"settings": settings, "members": members, "seed": seed, "pair": which, "along": along}
    return replace(one, **own, keep=(), pool={}, projector=label != "supervised")


def points(label: str, members: int, seed: int) -> list[dict[str, Any]]:
    """One row per epoch, layer, kind of score and share."""
    torch.set_num_threads(1)
    pair = [entry(label, members, seed, which) for which in "ab"]
    public = pl.load_images(**PROBE, size=64)
    third, along = pair[1].split().nonmembers, [trained(one, progress=False) for one in pair]
    rows = []
    for epoch in sorted(along[0]):
        both = one, two = [encoders[epoch] for encoders in along]
        top, last = "backbone" if one.projector is None else "projector", epoch == max(along[0])
        layers = [top, *(["backbone", *range(1, one.depth)] if last else [])]
        seen, unseen = (linear_probe(one, one.split.members, images) for images in (one.split.members, third))
        about = {"recipe": label, "N": members, "training_seed": seed, "T": epoch, "public": len(public)}
        about |= {"probe_members": seen, "probe_third": unseen}
        for layer in dict.fromkeys(layers):
            scores = deja_vu(one, two, public, third, layer=layer, progress=False).scores(SHARES)
            kinds = scores["direction"].map({"both": "deja vu", "C": "third set"})
            use = {"layer": layer, "probe": sum(used(each, layer, public) for each in both) / 2}
            table = scores.assign(what=kinds, **use, **about).dropna(subset="what").drop(columns="direction")
            rows += table.to_dict("records")
    return rows


def used(encoder: pl.Encoder, layer: str | int, public: pl.ImageSet) -> float:
    """Accuracy of a linear probe at a layer, trained on the first half of the public images, on the second half."""
    vectors, labels = torch.as_tensor(public_index(encoder, layer, public, public.labels).embeddings), public.labels
    half = len(public) // 2
    return float(fitted(vectors[:half], labels[:half], vectors[half:], labels[half:]).mean())


def main(
    recipes: Annotated[str, typer.Option(help="Names of `SWEEPS`, separated by commas, or all.")] = "simclr",
    sizes: Annotated[str, typer.Option(help="Numbers of training images N of each set.")] = "50,100,200",
    seeds: Annotated[int, typer.Option(help="Trainings on splits of their own, from 0 on.")] = 3,
    jobs: Annotated[int, typer.Option(help="Pairs at a time, on one thread each.")] = 1,
    out: Annotated[Path | None, typer.Option(help="CSV of all scores; default data/zoo/dejavu_growth.csv.")] = None,
) -> None:
    chosen = list(SWEEPS) if recipes == "all" else recipes.split(",")
    jobs_of = [(r, n, s) for s in range(seeds) for n in map(int, sizes.split(",")) for r in chosen]
    wanted = {one: one for one in jobs_of}
    names = ("recipe", "N", "training_seed")
    table = grow(out or zoo_dir() / "dejavu_growth.csv", names, wanted, points, jobs, SORTED)
    print(table[table["share"] == 1].to_string())


if __name__ == "__main__":
    typer.run(main)
