"""What the unified attack carries, and why: statistics, summaries and sizes of parts, on encoders of the search alone.

``python benchmarks/unified.py`` measures the statistics of `attacks.Unified` on encoders that benchmarks/memory.py has
trained (train those first; the zoo's and its images are not touched), for several ranges of the parts' area at equal
queries, fits a logistic regression on several choices of them and writes benchmarks/unified.csv. Other attacks stand
beside them, at as many queries, each with its own attacker. Choices for `Unified` are made here (METHODS 3.10).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import memory
import numpy as np
import pandas as pd
import torch
import typer
from tqdm.auto import tqdm

import partcrop_lab as pl
from partcrop_lab.attacks import Attack
from partcrop_lab.attacks.unified import summary
from partcrop_lab.audit.crossfit import assign_folds, cross_fit
from partcrop_lab.audit.metrics import fold_ranks, roc_points, tpr_at
from partcrop_lab.audit.stats import fold_auc_and_error, interval, over_seeds
from partcrop_lab.images import MembershipSplit
from partcrop_lab.store import atomic

CSV = Path(__file__).with_suffix(".csv")
NONMEMBERS, QUERIES, SEEDS, BATCH = 400, 11, 4, 50
SCALES = ((0.08, 0.2), (0.2, 1.0), (0.5, 1.0))
RUNS = {"simclr": memory.SIMCLR, "mae": memory.WIDE_MAE}
FAMILIES = {
    "cosines, cls": ("cls image", "cls pairs"),
    "cosines, cls and mean": ("cls image", "cls pairs", "mean image", "mean pairs"),
    "energies, mean": ("mean energy",),
    "cosines and energies": ("cls image", "cls pairs", "mean image", "mean pairs", "cls energy", "mean energy"),
    "all": (),
}
SUMMARIES = {"means": lambda values: values.mean(1, keepdim=True), "quantiles": summary}
OTHERS = (
    pl.attacks.PartCrop(crops=QUERIES - 1),
    pl.attacks.PartCrop(crops=QUERIES - 1, pooling="mean"),
    pl.attacks.PartCosine(crops=QUERIES - 1),
    pl.attacks.EncoderMI("V", views=QUERIES),
    pl.attacks.EncoderMI("T", views=QUERIES),
)


def subject(run: memory.Run) -> tuple[pl.Encoder, MembershipSplit]:
    """The encoder of a run, and its members beside more non-members than the search has."""
    out = run.folder / "encoder.safetensors"
    if not out.exists():
        raise pl.BadInput(f"{out} is missing; train it first with python benchmarks/memory.py")
    encoder = pl.load_encoder(out)
    members = encoder.split.members
    pool = pl.load_images("partshapes", n=run.members + 2 * NONMEMBERS, size=memory.SIZE, seed=memory.POOL_SEED)
    known = set(members.names)
    others = pool.subset([name for name in pool.names if name not in known][:NONMEMBERS])
    return encoder, pl.member_split(members, others, drop_duplicates=True)


def score(X: np.ndarray, member: np.ndarray, attacker: str) -> dict[str, float]:
    """AUC with its interval over images and fold seeds, and the mean TPR at 1 % FPR."""
    aucs, rates = [], []
    for seed in range(SEEDS):
        fold = assign_folds(member, 2, seed)
        scores = cross_fit(X, member, fold, attacker, 100 * seed).scores
        aucs.append(fold_auc_and_error(scores, member, fold))
        rates.append(tpr_at(0.01, *roc_points(fold_ranks(scores, fold), member)))
    auc, low, high = interval(*over_seeds(*zip(*aucs, strict=True)))
    return {"auc": auc, "low": low, "high": high, "tpr_at_1_fpr": float(np.mean(rates))}


def row_of(encoder: pl.Encoder, split: MembershipSplit, attack: Attack) -> dict[str, Any]:
    """What an attack finds, by its own attacker."""
    found = score(attack.features(encoder, split.images, progress=False), split.member, attack.attacker)
    return {"attack": attack.label, "queries": attack.queries, **found}


def variants(
    encoder: pl.Encoder, split: MembershipSplit, attack: pl.attacks.Unified, families: dict[str, tuple[str, ...]]
) -> list[dict[str, Any]]:
    """What a logistic regression finds in families of an attack's statistics, summed up in each way."""
    images, found, rows = split.images, [], []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            some = slice(start, start + BATCH)
            found.append(attack.statistics(encoder, images.batch(some), images.hashes[some], 0))
    joined = {key: torch.cat([one[key] for one in found]) for key in found[0]}
    for family, keys in families.items():
        for how, summarise in SUMMARIES.items():
            X = torch.cat([summarise(joined[key]) for key in keys or joined], 1).numpy()
            label = f"parts of {attack.scale[0]:g} to {attack.scale[1]:g}: {family}, {how}"
            rows.append({"attack": label, "queries": attack.queries, **score(X, split.member, attack.attacker)})
    return rows


def rows_of(name: str) -> list[dict[str, Any]]:
    """All variants on one encoder."""
    encoder, split = subject(RUNS[name])
    member = split.member
    sizes = {"encoder": name, "members": int(member.sum()), "nonmembers": int((~member).sum()), "seeds": SEEDS}
    rows = [sizes | row_of(encoder, split, attack) for attack in OTHERS]
    for scale in SCALES:
        rows += [sizes | row for row in variants(encoder, split, pl.attacks.Unified(QUERIES, scale), FAMILIES)]
    return rows


def main(out: Annotated[Path, typer.Option(help="CSV of all variants.")] = CSV) -> None:
    torch.set_num_threads(1)
    table = pd.DataFrame([row for name in tqdm(RUNS, desc="encoders") for row in rows_of(name)])
    with atomic(out) as temporary:
        table.to_csv(temporary, index=False, float_format="%.4g", lineterminator="\n")
    print(table.to_string())


if __name__ == "__main__":
    typer.run(main)
