"""How often does each attack raise an alarm where nothing leaks? (METHODS 3.6, for every attack)

``python benchmarks/false_alarms.py --images train.parquet --jobs 2`` cuts CIFAR-10 into 200 disjoint groups, trains a
small masked autoencoder for each on twenty images of no group, and audits it on the group, 100 + 100 images, with every
attack; those that need reference encoders get one that was trained on twenty others. One row per audit goes to
benchmarks/false_alarms.csv, then the summary. It resumes where it was stopped. Audits of one group share encoder,
images and folds, so they are not independent of each other; groups are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer
from calibration import NULL, SPARE, group, row
from grid import grow
from scipy.stats import binomtest

import partcrop_lab as pl
from partcrop_lab import attacks
from partcrop_lab.attacks import Attack

CSV = Path(__file__).with_suffix(".csv")
EACH, TRAINED_ON = 100, 20
SMALL = {"embed_dim": 48, "depth": 2, "num_heads": 3, "batch_size": 10}


def every_attack(reference: pl.Encoder) -> list[Attack]:
    """All attacks at about ten queries an image."""
    unified = attacks.Unified(11)
    kinds = [attacks.EncoderMI(kind) for kind in "VST"]
    alone = [attacks.PartCrop(crops=10), attacks.PartCosine(), *kinds, attacks.Variance(), attacks.Norms(), unified]
    others = [attacks.Stacked((attacks.PartCrop(crops=10), attacks.PartCosine(), attacks.EncoderMI(), attacks.Norms()))]
    compared = [attacks.Alignment(references=(reference,)), attacks.Calibrated(unified, (reference,))]
    return [*alone, *others, *compared, attacks.Reconstruction(11)]


def encoder_of(images: pl.ImageSet, rep: int, number: int) -> pl.Encoder:
    """Trained for a moment on images from the end of the pool; its digest stands for nothing that is kept."""
    last = len(images) - (2 * rep + number) * TRAINED_ON
    some = images.subset(np.arange(last - TRAINED_ON, last))
    how = {"epochs": 3, "decoder": True, "precision": "fp32", "progress": False}
    encoder = pl.pretrain("mae", some, seed=rep, **how, **SMALL)
    encoder.name = f"MAE {rep}.{number}"
    return encoder


def audits(images: pl.ImageSet, rep: int) -> list[dict]:
    """One group, every attack."""
    torch.set_num_threads(1)
    split = pl.member_split(group(images, rep, EACH), members=EACH, nonmembers=EACH, seed=rep)
    encoder, reference = (encoder_of(images, rep, number) for number in range(2))
    found = []
    for attack in every_attack(reference):
        result = pl.audit(encoder, split, attack, seed=rep, permutations=1, progress=False)
        found.append({"attack": attack.label, **row(NULL, rep, result)})
    return found


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Per attack: audits, each verdict's number, and the share of false evidence with its Clopper-Pearson interval."""
    counts = rows.groupby("attack", sort=False).outcome.value_counts().unstack(fill_value=0)
    counts.insert(0, "audits", counts.sum(axis=1))
    bounds = [binomtest(int(k), int(n)).proportion_ci() for k, n in zip(counts["Evidence of leakage"], counts.audits)]
    return counts.assign(low=[each.low for each in bounds], high=[each.high for each in bounds])


def main(
    images: Annotated[str, typer.Option(help="CIFAR-10: a parquet file, or cifar10 for torchvision's.")] = "cifar10",
    groups: Annotated[int, typer.Option(help="Groups of images; CIFAR-10's training set has room for 200.")] = 200,
    jobs: Annotated[int, typer.Option(help="Groups at a time, on one thread each.")] = 1,
    out: Annotated[Path, typer.Option(help="CSV of all audits; finished groups are not audited again.")] = CSV,
) -> None:
    pool = pl.load_images(images, size=32)
    needed = groups * (2 * EACH + SPARE + 2 * TRAINED_ON)
    if needed > len(pool):
        raise typer.BadParameter(f"{groups} groups need {needed} images; {images} holds {len(pool)}")
    rows = grow(out, ("rep",), {(rep,): (pool, rep) for rep in range(groups)}, audits, jobs, ("rep",))
    print(summary(rows).to_string())


if __name__ == "__main__":
    typer.run(main)
