"""Does unlearning come near to never having learned? Alignment calibration beside training anew (METHODS 6).

``python benchmarks/unlearning.py --jobs 2`` lets encoders of the zoo forget a third of their members, another third for
each seed, trains each again without them (what the cache holds is not trained again), and attacks the forgotten images
in all three. One row per encoder goes to benchmarks/unlearning.csv. It resumes where it was stopped. The settings of
`Unlearning` were set on zoo:simclr and a third of another draw, by looking at alignments alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from grid import grow

import partcrop_lab as pl
from partcrop_lab.defenses.unlearning import RETRAINED, Unlearning, judge, retained, some_members
from partcrop_lab.encoders.zoo_entries import PROBE
from partcrop_lab.store import cache_dir, digest

CSV = Path(__file__).with_suffix(".csv")
ATTACK = pl.attacks.Unified(11)
UNSEEN = {"source": "partshapes", "n": 300, "seed": 20_000}


def points(name: str, seed: int) -> list[dict[str, Any]]:
    """One encoder of the zoo and one third of its members: as it was, unlearned, and trained without them."""
    torch.set_num_threads(1)
    encoder = pl.load_encoder(f"zoo:{name}")
    how = encoder.card
    forget = some_members(encoder, how["N"] // 3, seed)
    unseen, labelled = (pl.load_images(**some, size=encoder.image_size) for some in (UNSEEN, PROBE))
    kept = retained(encoder, forget)
    place = cache_dir() / "unlearning" / digest(encoder.digest, kept.digest)[:16]
    again = pl.pretrain(how["recipe"], kept, seed=how["seed"], out=place, progress=False, **how["settings"])
    fitted = Unlearning(seed=seed).fit(encoder, forget, unseen, progress=False)
    encoders = {"as it was": encoder, "unlearned": fitted, RETRAINED: again}
    table = judge(encoders, forget, encoder.split.nonmembers, ATTACK, labelled, seed, progress=False)
    return table.assign(zoo=name, seed=seed, N=how["N"]).to_dict("records")


def main(
    names: Annotated[str, typer.Option(help="Encoders of the zoo, separated by commas.")] = "simclr",
    seeds: Annotated[int, typer.Option(help="Draws of the images to forget.")] = 3,
    jobs: Annotated[int, typer.Option(help="Trainings at a time, on one thread each.")] = 1,
    out: Annotated[Path, typer.Option(help="CSV of all encoders.")] = CSV,
) -> None:
    wanted = {(name, seed): (name, seed) for seed in range(seeds) for name in names.split(",")}
    print(grow(out, ("zoo", "seed"), wanted, points, jobs, ("zoo", "seed")).to_string())


if __name__ == "__main__":
    typer.run(main)
