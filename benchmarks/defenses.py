"""What each defence buys and costs, over levels and training seeds, and in serving every encoder of the zoo.

``python benchmarks/defenses.py --jobs 2`` trains small encoders of `RECIPES` with and without each defence of `LEVELS`
(what the cache holds is not trained again), attacks each, also as someone who knows the defence, and writes
data/zoo/training.csv; ``--serving`` does so with the defences of `SERVING` on the encoders of the zoo and writes
data/zoo/serving.csv. Both resume. The attack is `ATTACK`, chosen before and on other encoders (METHODS 3.10).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from grid import grow

import partcrop_lab as pl
from partcrop_lab.defenses import (
    DPSGD,
    SCSR,
    Capacity,
    Defense,
    EarlierLayer,
    EarlyStop,
    OutputNoise,
    QueryLimit,
    Rounding,
    StrongAugmentation,
    TopK,
    WeightDecay,
    tradeoff,
)
from partcrop_lab.encoders.zoo import trained, zoo_dir, zoo_names
from partcrop_lab.encoders.zoo_entries import GENTLE, MASKED, PROBE, SMALL_VIEWS, WIDER, ZooEntry
from partcrop_lab.figures import DEFENDED
from partcrop_lab.store import cache_dir, digest

ATTACK = pl.attacks.Unified(11)
SEEDS = (1, 2, 3)
"""Of split and training; 0 was set aside, see `FEW` in the zoo's entries."""

COLOURLESS = {"epochs": 400, "jitter": 0.0, "grey": 0.0, **SMALL_VIEWS}
RECIPES = {
    "mae": ZooEntry("mae", MASKED | WIDER | {"epochs": 500}, members=100, pool={"size": 32}),
    "simclr": ZooEntry("simclr", COLOURLESS, members=100),
    "dino": ZooEntry("dino", COLOURLESS | GENTLE, members=100),
    "mocov3": ZooEntry("mocov3", COLOURLESS, members=100),
}
"""The paper's three, and the contrastive one that remembers most. So that there is something to defend after minutes,
masked images are small and views keep their colours: chosen on seed 0."""

LEVELS: dict[str, Sequence[Defense]] = {
    "early-stop": [EarlyStop(share) for share in (0.5, 0.25, 0.1)],
    "dp-sgd": [DPSGD(epsilon) for epsilon in (150.0, 30.0, 8.0)],
    "scsr": [SCSR(scale) for scale in ((0.2, 0.6), (0.2, 0.3), (0.6, 1.0))],
    "baselines": [StrongAugmentation(), WeightDecay()],
    "capacity": [Capacity(), Capacity(width=32)],
}
SERVING = [
    *(OutputNoise(sigma) for sigma in (0.5, 1.0, 2.0)),
    *(Rounding(step) for step in (1.0, 2.0, 4.0)),
    *(TopK(share) for share in (0.25, 0.1, 0.03)),
    *(EarlierLayer(blocks) for blocks in (3, 2, 1)),
    *(QueryLimit(queries) for queries in (5, 3)),
]
MIDDLE = [OutputNoise(1.0), Rounding(2.0), TopK(0.1), EarlierLayer(2), QueryLimit(5)]
"""One level of each, for the encoders of the zoo that leak less, for time."""


def points(recipe: str, seed: int, kind: str) -> list[dict[str, Any]]:
    """The undefended encoder of a recipe and seed, and all levels of one kind of defence."""
    torch.set_num_threads(1)
    entry = replace(RECIPES[recipe], seed=seed)
    encoder = trained(entry, progress=False)[entry.settings["epochs"]]
    place = cache_dir() / "defenses" / digest(encoder.digest)[:16]
    labelled = pl.load_images(**PROBE, size=encoder.image_size)
    table = tradeoff(encoder, LEVELS[kind], ATTACK, labelled, out=place, progress=False)
    return table.assign(recipe=recipe, kind=kind).to_dict("records")


def served(name: str) -> list[dict[str, Any]]:
    """An encoder of the zoo, and its services."""
    torch.set_num_threads(1)
    encoder = pl.load_encoder(f"zoo:{name}")
    levels = SERVING if encoder.name in DEFENDED else MIDDLE
    fitting = [one for one in levels if not isinstance(one, EarlierLayer) or one.blocks < encoder.depth]
    labelled = pl.load_images(**PROBE, size=encoder.image_size)
    return tradeoff(encoder, fitting, ATTACK, labelled, progress=False).to_dict("records")


def main(
    serving: Annotated[bool, typer.Option("--serving", help="On the zoo, instead of training.")] = False,
    only: Annotated[str, typer.Option(help="Recipes or encoders of the zoo, separated by commas; all.")] = "",
    kinds: Annotated[str, typer.Option(help="Kinds of defence, separated by commas.")] = ",".join(LEVELS),
    jobs: Annotated[int, typer.Option(help="Trainings at a time, on one thread each.")] = 1,
    out: Annotated[Path | None, typer.Option(help="CSV of all points.")] = None,
) -> None:
    chosen = only.split(",") if only else zoo_names() if serving else list(RECIPES)
    if serving:
        wanted = {(f"zoo:{name}",): (name,) for name in chosen}
        table = grow(out or zoo_dir() / "serving.csv", ("encoder",), wanted, served, jobs)
    else:
        wanted = {(r, s, k): (r, s, k) for k in kinds.split(",") for s in SEEDS for r in chosen}
        table = grow(out or zoo_dir() / "training.csv", ("recipe", "training_seed", "kind"), wanted, points, jobs)
    print(table[["encoder", "level", "attacker", "probe", "auc", "low", "high", "outcome"]].to_string())


if __name__ == "__main__":
    typer.run(main)
