"""Whether attackers that say the same on every machine find less than those before them: attackers.csv.

``python benchmarks/attackers.py`` fits both of each pair on the same features of the same images and folds, over three
seeds, and writes their AUCs and the difference with its 95 % interval (DeLong's error, paired by image; seeds are a
random effect). Ten queries an image; about half an hour on two cores.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier

import partcrop_lab as pl
from partcrop_lab.attacks import ATTACKERS, EncoderMI, MLPAttacker, PartCrop, Unified, make_attacker
from partcrop_lab.audit.crossfit import assign_folds, cross_fit
from partcrop_lab.audit.stats import HALF_WIDTH, fold_auc, over_seeds, paired_gains
from partcrop_lab.progress import bar
from partcrop_lab.store import write_csv

AS_PUBLISHED: dict[str, Any] = {"activation": "relu", "schedule": "constant", "lr": 1e-3}
ENCODERS = ("zoo:mae", "zoo:simclr", "zoo:supervised", "zoo:vicreg", "zoo:dino")
ATTACKS = (PartCrop(crops=16), EncoderMI(views=11), Unified(queries=11))
CHANGED = ("mlp", "mlp-wide", "mlp-narrow", "mlp-deep", "mlp-shallow", "mlp-v2", "mlp-256", "deepsets", "boosting")
TABLE = Path(__file__).with_suffix(".csv")


def before(name: str) -> BaseEstimator:
    """The attacker that had this name before, but for the precision it was trained in."""
    if name == "boosting":
        return HistGradientBoostingClassifier(early_stopping=False, learning_rate=0.05)
    now = ATTACKERS[name](0)
    assert isinstance(now, MLPAttacker)
    return now.set_params(**AS_PUBLISHED)


def compared(name: str, X: np.ndarray, member: np.ndarray, seed: int) -> tuple[float, float, float, float]:
    """AUCs by the attacker now and before, their difference and its error."""
    fold = assign_folds(member, 2, seed)
    now, then = (
        cross_fit(X, member, fold, attacker, 100 * seed).scores for attacker in (make_attacker(name), before(name))
    )
    gain, error = np.mean(paired_gains(now, then, member, fold), axis=0)
    return fold_auc(now, member, fold)[0], fold_auc(then, member, fold)[0], gain, error


def main(
    seeds: Annotated[int, typer.Option(min=1, help="Of crops, folds and attackers.")] = 3,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    out: Annotated[Path, typer.Option(help="The table.")] = TABLE,
) -> None:
    torch.set_num_threads(1)
    rows = []
    for encoder in bar(map(pl.load_encoder, ENCODERS), "encoders", total=len(ENCODERS)):
        split = encoder.split
        for attack in ATTACKS:
            features = [attack.features(encoder, split.images, seed) for seed in range(seeds)]
            tasks = [(name, seed) for name in CHANGED for seed in range(seeds)]
            run = delayed(compared)
            found = Parallel(jobs)(run(name, features[seed], split.member, seed) for name, seed in tasks)
            for place, name in enumerate(CHANGED):
                now, then, gains, errors = np.transpose(found[place * seeds : (place + 1) * seeds])
                gain, error = over_seeds(gains, errors)
                row = {"encoder": encoder.name, "attack": attack.label, "attacker": name}
                row |= {"members": len(split.members), "nonmembers": len(split.nonmembers), "seeds": seeds}
                row |= {"auc": now.mean(), "auc_before": then.mean(), "gain": gain}
                rows.append(row | {"low": gain - HALF_WIDTH * error, "high": gain + HALF_WIDTH * error})
            write_csv(out, pd.DataFrame(rows))
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    typer.run(main)
