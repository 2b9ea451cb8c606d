"""Do intervals cover and tests hold their level? Simulated features through the whole cross-fit (METHODS 3.5).

``python benchmarks/simulation.py --jobs 2`` draws normal features whose means differ between members and non-members
by a known amount, or not at all, and cross-fits an attacker in two folds as an audit does. Does the AUC's interval hold
the true AUC of the two attackers, that on endless new images, known in closed form for a linear one? Does that of the
TPR at 1 % FPR? Is the p-value below 5 %? One row per scenario goes to benchmarks/simulation.csv; rates, which need the
bootstrap, are asked of fewer audits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import joblib
import numpy as np
import pandas as pd
import typer
from scipy.stats import binomtest, norm
from tqdm.auto import tqdm

from partcrop_lab.audit.crossfit import assign_folds, cross_fit
from partcrop_lab.audit.metrics import metrics_table
from partcrop_lab.audit.stats import fold_auc, leak_p_value
from partcrop_lab.store import atomic

CSV = Path(__file__).with_suffix(".csv")
FEATURES, ATTACKER = 20, "logistic"
SCENARIOS = [(m, n, gap) for m, n in ((100, 100), (100, 500), (300, 500)) for gap in (0.0, 0.5, 1.5)]
"""Members, non-members, and the distance of their means in standard deviations."""
FEWEST = 500
"""Non-members from which a rate at 1 % FPR is reported."""


def distance(attacker: Any, gap: float) -> float:
    """How far apart a linear attacker's scores of members and non-members are, in their standard deviation."""
    scaler, model = attacker[0], attacker[-1]
    weights = model.coef_[0] / scaler.scale_
    return float(weights[0] * gap / np.linalg.norm(weights))


def simulate(members: int, nonmembers: int, gap: float, seed: int, rates: bool) -> dict[str, Any]:
    """One audit: whether its intervals hold the truth, and what its p-value said. One feature carries the leak."""
    rng = np.random.default_rng([members, nonmembers, round(100 * gap), seed])
    member = np.arange(members + nonmembers) < members
    X = rng.normal(size=(len(member), FEATURES))
    X[member, 0] += gap
    fold = assign_folds(member, 2, seed)
    fitted = cross_fit(X, member, fold, ATTACKER, seed)
    distances = np.array([distance(attacker, gap) for attacker in fitted.attackers])
    (auc, low, high), truth = fold_auc(fitted.scores, member, fold), norm.cdf(distances / np.sqrt(2)).mean()
    row = {"auc": auc, "truth": truth, "width": high - low, "coverage": low <= truth <= high}
    row["rejected"] = leak_p_value(fitted.scores, member, fold) < 0.05
    if rates:
        rate = metrics_table(fitted.scores, member, fold, seed=seed).loc["tpr_at_1_fpr"]
        row["tpr_coverage"] = rate.low <= norm.sf(norm.isf(0.01) - distances).mean() <= rate.high
    return row


def summarise(scenario: tuple[int, int, float], audits: list[dict[str, Any]]) -> dict[str, Any]:
    """One row: means, and rates with their Clopper-Pearson intervals."""
    table, row = pd.DataFrame(audits), dict(zip(("members", "nonmembers", "gap"), scenario, strict=True))
    row |= {"attacker": ATTACKER, "features": FEATURES}
    row |= {"mean_auc": table.auc.mean(), "mean_true_auc": table.truth.mean(), "mean_width": table.width.mean()}
    for name in [name for name in ("coverage", "rejected", "tpr_coverage") if name in table]:
        asked = table[name].dropna().astype(bool)  # a column with gaps holds objects, whose sum is their "or"
        k, n = int(asked.sum()), len(asked)
        low, high = binomtest(k, n).proportion_ci()  # Clopper-Pearson
        row |= {name: k / n, f"{name}_low": low, f"{name}_high": high, f"{name}_audits": n}
    return row


def main(
    out: Annotated[Path, typer.Option(help="CSV, one row per scenario.")] = CSV,
    audits: Annotated[int, typer.Option(help="Simulated audits of each scenario.")] = 2000,
    rates: Annotated[int, typer.Option(help="Of these, how many also tell the TPR at 1 % FPR.")] = 300,
    jobs: Annotated[int, typer.Option(help="Processes.")] = 1,
) -> None:
    rows = []
    for scenario in tqdm(SCENARIOS, desc="scenarios"):
        told = scenario[1] >= FEWEST
        found = joblib.Parallel(jobs)(
            joblib.delayed(simulate)(*scenario, seed, told and seed < rates) for seed in range(audits)
        )
        rows.append(summarise(scenario, found))
        with atomic(out) as temporary:
            pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.4g", lineterminator="\n")
    print(pd.DataFrame(rows).to_string())


if __name__ == "__main__":
    typer.run(main)
