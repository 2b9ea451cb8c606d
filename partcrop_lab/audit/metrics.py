"""The numbers of an audit, each with its 95 % interval (METHODS 3.5, 3.7)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from partcrop_lab.audit.stats import LEVEL, epsilon_lower_bound, fold_auc

BOOTSTRAPS = 1000
FPRS = {"tpr_at_1_fpr": 0.01, "tpr_at_0.1_fpr": 0.001}
ROWS = ("auc", "balanced_accuracy", "precision", "recall", "f1", "advantage", *FPRS, "epsilon_lower")


def fold_ranks(scores: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Each score's rank within its fold, in (0, 1]: attackers of different folds have scales of their own."""
    ranks = np.empty(len(scores))
    for k in np.unique(fold):
        here = fold == k
        ranks[here] = stats.rankdata(scores[here]) / here.sum()
    return ranks


def roc_points(ranks: np.ndarray, member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates at every threshold, from (0, 0) to (1, 1)."""
    order = np.argsort(-ranks, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(ranks[order])), len(ranks) - 1)
    tpr = np.append(0, np.cumsum(member[order])[ends] / member.sum())
    fpr = np.append(0, np.cumsum(~member[order])[ends] / (~member).sum())
    return fpr, tpr


def tpr_at(fpr_limit: float, fpr: np.ndarray, tpr: np.ndarray) -> float:
    """The largest true positive rate of a threshold whose false positive rate is at most `fpr_limit`."""
    return float(tpr[fpr <= fpr_limit + 1e-12].max())


def point_metrics(scores: np.ndarray, ranks: np.ndarray, member: np.ndarray) -> dict[str, float]:
    """Metrics at the attackers' own threshold (log-odds 0), and of the ROC of within-fold ranks."""
    guess = scores > 0
    tp, fp = int((guess & member).sum()), int((guess & ~member).sum())
    recall, false = tp / member.sum(), fp / (~member).sum()
    fpr, tpr = roc_points(ranks, member)
    return {
        "balanced_accuracy": (recall + 1 - false) / 2,
        "precision": tp / (tp + fp) if tp + fp else float("nan"),
        "recall": recall,
        "f1": 2 * tp / (tp + fp + member.sum()),
        "advantage": float((tpr - fpr).max()),
        **{name: tpr_at(limit, fpr, tpr) for name, limit in FPRS.items()},
    }


def bootstrap(
    scores: np.ndarray, member: np.ndarray, fold: np.ndarray, seed: int, count: int = BOOTSTRAPS
) -> pd.DataFrame:
    """Point metrics of `count` resamples, drawn within each fold and side; thresholds are found anew in each."""
    rng, draws = np.random.default_rng(seed), []
    ranks = fold_ranks(scores, fold)
    strata = [np.flatnonzero((fold == k) & (member == side)) for k in np.unique(fold) for side in (True, False)]
    for _ in range(count):
        rows = np.concatenate([rng.choice(stratum, len(stratum)) for stratum in strata])
        draws.append(point_metrics(scores[rows], ranks[rows], member[rows]))
    return pd.DataFrame(draws)


def metrics_table(
    scores: np.ndarray, member: np.ndarray, fold: np.ndarray, *, independent: bool = False, seed: int = 0
) -> pd.DataFrame:
    """All metrics of out-of-fold scores.

    Args:
        scores, member, fold: (n,).
        independent: whether each image's membership was decided by a fair coin of its own; without that no
            one-run bound on epsilon is valid.

    Returns:
        Rows `ROWS`, columns value, low, high (95 %), note: why a value is missing.
    """
    table = pd.DataFrame(np.nan, index=list(ROWS), columns=["value", "low", "high"])
    table["note"] = ""
    table.loc["auc", ["value", "low", "high"]] = fold_auc(scores, member, fold)
    points, draws = point_metrics(scores, fold_ranks(scores, fold), member), bootstrap(scores, member, fold, seed)
    tail = (1 - LEVEL) / 2
    for name, value in points.items():
        limit, enough = FPRS.get(name), 5
        if limit and (~member).sum() * limit < enough:
            needed = int(np.ceil(enough / limit))
            table.loc[name, "note"] = f"needs {needed} non-members, there are {(~member).sum()}"
            continue
        table.loc[name, ["value", "low", "high"]] = value, *draws[name].quantile([tail, 1 - tail])
    if independent:
        table.loc["epsilon_lower", ["value", "low", "high"]] = (
            (epsilon := one_run_epsilon(scores, member, fold)),
            epsilon,
            np.inf,
        )
    else:
        table.loc["epsilon_lower", "note"] = "membership was not drawn by independent fair coins"
    return table


def one_run_epsilon(scores: np.ndarray, member: np.ndarray, fold: np.ndarray, share: float = 0.05) -> float:
    """A lower bound on epsilon by one-run auditing (Steinke et al. 2023).

    In each fold the images beyond the other folds' `share` most and least member-like scores are guessed; the
    thresholds come from the other folds, so they do not see the labels they are judged on. The best fold counts,
    each at a level corrected for their number.
    """
    folds = np.unique(fold)
    bounds = []
    for k in folds:
        here = fold == k
        low, high = np.quantile(scores[~here], [share, 1 - share])
        yes, no = here & (scores >= high), here & (scores <= low)
        correct = int(member[yes].sum() + (~member[no]).sum())
        bounds.append(epsilon_lower_bound(correct, int(yes.sum() + no.sum()), 1 - (1 - LEVEL) / len(folds)))
    return max(bounds)
