"""What makes an encoder remember? Recipes, sizes, epochs, augmentation and capacity, each trained and attacked.

``python benchmarks/memory.py --jobs 2`` trains the runs of `RUNS` that benchmarks/memory.csv does not hold yet, on
`partshapes` images that no encoder of the zoo has seen, attacks each with the attacks of `ATTACKS` under the matched
protocol, and adds one row per encoder and attack. It resumes where it was stopped. Settings for the zoo are chosen
here and reported there, on other images and seeds (METHODS 3.10). There are no controls here, and all runs of one size
share a split: compare their rows with each other, not with 0.5.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from grid import grow

import partcrop_lab as pl
from partcrop_lab.encoders.training import kept_path
from partcrop_lab.encoders.utility import knn, linear_probe
from partcrop_lab.store import cache_dir, digest

CSV = Path(__file__).with_suffix(".csv")
SIZE = 64
NONMEMBERS = 300
KEY = ("recipe", "N", "planned", "settings", "seed")
POOL_SEED, PROBE_SEED = 1000, 1001
ATTACKS = {
    "partcrop": pl.attacks.PartCrop(crops=48),
    "partcrop pooling=mean": pl.attacks.PartCrop(crops=48, pooling="mean"),
    "encodermi": pl.attacks.EncoderMI(),
    "encodermi kind=T": pl.attacks.EncoderMI("T"),
    "partcosine": pl.attacks.PartCosine(),
    "partcosine pooling=mean": pl.attacks.PartCosine(pooling="mean"),
}


@dataclass(frozen=True)
class Run:
    """One encoder to train, and the epochs at which it is attacked.

    Attributes:
        recipe: its name.
        members: images trained on, N.
        epochs: all at which it is attacked; the last is how long it is trained. The others are mid-schedule.
        settings: of the recipe, where they are not its defaults.
        seed: of the split and of the training.
    """

    recipe: str
    members: int
    epochs: tuple[int, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells it from other runs in the table."""
        return self.recipe, self.members, self.epochs[-1], json.dumps(self.settings), self.seed

    @property
    def folder(self) -> Path:
        """Where its encoders are kept."""
        return cache_dir() / "memory" / digest(*self.key)[:16]


SMALL_VIEWS = {"view_size": 0.5}
NO_VIEWS = {"crop_scale": None, "flip": 0.0}
WEAK_VIEWS = {"crop_scale": (0.6, 1.0), "jitter": 0.0, "grey": 0.0}
LOCAL = {"local_crops": 2, "local_size": 0.25}
MASKED = {"batch_size": 50, "lr": 1e-3}

SIMCLR = Run("simclr", 100, (300, 600, 1200), SMALL_VIEWS | {"batch_size": 50})
WIDE_MAE = Run("mae", 100, (250, 500, 1000), NO_VIEWS | MASKED | {"embed_dim": 192, "depth": 6, "num_heads": 3})
"""With `SIMCLR` what benchmarks/unified.py is designed on."""

RUNS = [
    Run("simclr", 300, (100, 200, 400), SMALL_VIEWS | {"batch_size": 300}),
    Run("dino", 300, (100, 200, 400), SMALL_VIEWS | {"batch_size": 100} | LOCAL),
    SIMCLR,
    Run("simmim", 100, (150, 300, 600), NO_VIEWS | {"batch_size": 50}),
    Run("simclr", 100, (200, 400), SMALL_VIEWS | {"batch_size": 25, "lr": 2e-3}),
    Run("dino", 100, (200, 400), SMALL_VIEWS | {"batch_size": 25} | LOCAL),
    Run("vicreg", 100, (200, 400), SMALL_VIEWS | {"batch_size": 50, "lr": 2e-3}),
    Run("byol", 100, (200, 400), SMALL_VIEWS | {"batch_size": 25, "lr": 2e-3}),
    Run(
        "dino",
        100,
        (300, 600),
        SMALL_VIEWS | LOCAL | {"batch_size": 25, "lr": 1e-3, "momentum": 0.96, "prototypes": 256},
    ),
    Run(
        "dino",
        100,
        (300, 600, 1200),
        SMALL_VIEWS | {"batch_size": 50, "local_crops": 0, "crop_scale": (0.2, 1.0), "lr": 1e-3, "prototypes": 256},
    ),
    # augmentation, projector and capacity of SimCLR, each against `SIMCLR`
    Run("simclr", 100, (300, 600, 1200), SMALL_VIEWS | {"batch_size": 50} | WEAK_VIEWS),
    Run("simclr", 100, (300, 600, 1200), SMALL_VIEWS | {"batch_size": 50, "hidden": 1024, "output": 512}),
    Run("simclr", 100, (300, 600, 1200), SMALL_VIEWS | {"batch_size": 50, "embed_dim": 64, "depth": 2, "num_heads": 1}),
    # as many steps on more images
    Run("simclr", 300, (100, 200, 400), SMALL_VIEWS | {"batch_size": 50}),
    Run("simclr", 2000, (15, 30, 60), SMALL_VIEWS | {"batch_size": 50}),
    # mask ratio, capacity and augmentation of MAE
    Run("mae", 100, (250, 500, 1000), NO_VIEWS | MASKED),
    Run("mae", 100, (250, 500, 1000), NO_VIEWS | MASKED | {"mask_ratio": 0.5}),
    Run("mae", 100, (250, 500, 1000), NO_VIEWS | MASKED | {"mask_ratio": 0.9}),
    Run("mae", 100, (250, 500, 1000), MASKED),
    WIDE_MAE,
]


def attacked(run: Run) -> list[dict[str, Any]]:
    """Train an encoder and attack it: one row per epoch and attack."""
    torch.set_num_threads(1)
    pool = pl.load_images("partshapes", n=run.members + NONMEMBERS + 100, size=SIZE, seed=POOL_SEED + run.seed)
    split = pl.member_split(pool, members=run.members, nonmembers=NONMEMBERS, seed=run.seed)
    out = run.folder
    last, early = run.epochs[-1], run.epochs[:-1]
    how = {"keep": early, "progress": False, "checkpoint_every": max(1, last // 10)}
    final = pl.pretrain(run.recipe, split, last, run.seed, out, **how, **run.settings)
    probe = pl.load_images("partshapes", n=1000, size=SIZE, seed=PROBE_SEED)
    halves = probe.subset(slice(0, 500)), probe.subset(slice(500, None))
    rows = []
    for encoder in [*(pl.load_encoder(kept_path(out, epoch)) for epoch in early), final]:
        good = {"linear_probe": linear_probe(encoder, *halves), "knn": knn(encoder, *halves)}
        for name, attack in ATTACKS.items():
            result = pl.audit(encoder, split, attack, seed=run.seed, controls=False, progress=False)
            auc = result.metrics.loc["auc"]
            rows.append(
                {
                    **dict(zip(KEY, run.key, strict=True)),
                    "T": encoder.card["T"],
                    **good,
                    "attack": name,
                    "queries": attack.queries,
                    **auc[["value", "low", "high"]].rename({"value": "auc"}).round(4).to_dict(),
                    "p_value": result.p_value,
                    "nonmembers": NONMEMBERS,
                    "minutes": encoder.card["minutes"],
                }
            )
    return rows


def main(
    out: Annotated[Path, typer.Option(help="CSV of all runs; finished ones are not run again.")] = CSV,
    jobs: Annotated[int, typer.Option(help="Runs at a time, on one thread each.")] = 1,
    first: Annotated[int, typer.Option(help="So many of the runs alone.")] = len(RUNS),
) -> None:
    table = grow(out, KEY, {run.key: (run,) for run in RUNS[:first]}, attacked, jobs)
    best = table.sort_values("auc").groupby(["recipe", "N", "T", "settings", "seed"]).tail(1)
    columns = ["recipe", "N", "T", "settings", "attack", "auc", "low", "linear_probe"]
    print(best.sort_values(["recipe", "auc"])[columns].to_string())


if __name__ == "__main__":
    typer.run(main)
