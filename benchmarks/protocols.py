"""What the released protocol measures on an encoder that was never trained on anything (METHODS 3).

``python benchmarks/protocols.py --images train.parquet`` audits a random ViT-Ti/8 on 2,000 + 2,000 CIFAR-10 images
under the matched and under the released protocol and writes benchmarks/protocols.csv. About ten minutes on one core.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer

import partcrop_lab as pl
from partcrop_lab.audit import released_images
from partcrop_lab.audit.crossfit import assign_folds
from partcrop_lab.audit.released import accuracy_by_epoch
from partcrop_lab.store import atomic

CSV = Path(__file__).with_suffix(".csv")


def row(protocol: str, encoder: pl.Encoder, split: pl.MembershipSplit, attack: pl.attacks.PartCrop, seed: int) -> dict:
    """One audit, with the accuracy that picking the best epoch on the reported images would claim."""
    result = pl.audit(encoder, split, attack, seed=seed, permutations=2, protocol=protocol)
    images = released_images(split, seed) if protocol == "released" else split.images
    X = attack.features(encoder, images, seed)
    accuracy = accuracy_by_epoch(X, split.member, assign_folds(split.member, 2, seed), "mlp", 100 * seed)
    values = {"auc": result.metrics.loc["auc"], "balanced_accuracy": result.metrics.loc["balanced_accuracy"]}
    intervals = {
        f"{name}{suffix}": round(metric[column], 4)
        for name, metric in values.items()
        for column, suffix in (("value", ""), ("low", "_low"), ("high", "_high"))
    }
    controls = result.controls.loc[["untrained", "pixels"]]
    return {
        "protocol": protocol,
        "seed": seed,
        **{side: result.settings[side] for side in ("members", "nonmembers", "queries")},
        **intervals,
        "best_epoch_accuracy": round(accuracy.max(), 4),
        "last_epoch_accuracy": round(accuracy[-1], 4),
        **{f"{name}_auc": round(control.auc, 4) for name, control in controls.iterrows()},
        **{f"{name}_p": control.p_value for name, control in controls.iterrows()},
        "outcome": result.outcome,
    }


def main(
    images: Annotated[str, typer.Option(help="CIFAR-10: a parquet file, or cifar10 for torchvision's.")] = "cifar10",
    members: Annotated[int, typer.Option(help="Members, and as many non-members.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the encoder, the split, crops and attackers.")] = 0,
) -> None:
    torch.set_num_threads(1)
    pool = pl.load_images(images, n=2 * members + 100, size=32, seed=seed)
    split = pl.member_split(pool, members=members, seed=seed)
    encoder = pl.load_encoder("random:vit_tiny_patch16_224", image_size=32, patch_size=8, depth=6, seed=seed)
    rows = [row(protocol, encoder, split, pl.attacks.PartCrop(), seed) for protocol in ("matched", "released")]
    with atomic(CSV) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    print(pd.DataFrame(rows).T.to_string())


if __name__ == "__main__":
    typer.run(main)
