"""The pairs of the zoo whose backgrounds say something of the class: trained, judged and audited, but not shipped.

``python benchmarks/pairs.py --jobs 2`` makes the encoders of the zoo's entries named -correlated, as ``partcrop-lab zoo
train NAME --out FOLDER`` does (what the cache holds is not trained again), and writes one row each to
data/zoo/pairs.csv: what its card would say. The zoo is kept small and has no room for their weights;
benchmarks/dejavu.py asks them what backgrounds betray. It resumes where it was stopped.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from grid import audit_columns, grow

import partcrop_lab as pl
from partcrop_lab.cli import attack_of
from partcrop_lab.encoders.zoo import train_zoo, zoo_dir
from partcrop_lab.encoders.zoo_entries import ZOO
from partcrop_lab.store import read_json


def row(name: str) -> list[dict[str, Any]]:
    """One encoder: how it was made, what it is good for, what the attack chosen beforehand finds, and its digest."""
    torch.set_num_threads(1)
    entry = ZOO[name]
    with tempfile.TemporaryDirectory() as folder:
        (path,) = train_zoo(name, folder, progress=False)
        encoder = pl.load_encoder(path, name=f"zoo:{name}")
        result = pl.audit(encoder, encoder.split, attack_of(entry.attack), progress=False)
        card = read_json(path.with_suffix(".json"))
    use = {key: card["utility"][key] for key in ("linear_probe", "untrained_linear_probe", "knn")}
    return [
        {
            "name": name,
            "recipe": entry.recipe,
            "set": entry.pair,
            **entry.pool,
            "T": card["T"],
            "training_seed": entry.seed,
            **{key: round(value, 4) for key, value in use.items()},
            "attack": entry.attack,
            **audit_columns(result),
            "minutes": card["minutes"],
            "sha256": card["sha256"],
        }
    ]


def main(
    out: Annotated[Path | None, typer.Option(help="CSV of all encoders; default data/zoo/pairs.csv.")] = None,
    jobs: Annotated[int, typer.Option(help="Trainings at a time, on one thread each.")] = 1,
) -> None:
    wanted = {(name,): (name,) for name in ZOO if "-correlated" in name}
    print(grow(out or zoo_dir() / "pairs.csv", ("name",), wanted, row, jobs, ("name",)).to_string())


if __name__ == "__main__":
    typer.run(main)
