"""Tests that hold their level and intervals that cover, for scores out of fold (METHODS 3.5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

LEVEL = 0.95
HALF_WIDTH = float(stats.norm.ppf(0.5 + LEVEL / 2))
"""Of a normal interval at `LEVEL`, in standard errors."""
ARRAY = np.ndarray


def placements(scores: ARRAY, member: ARRAY) -> tuple[ARRAY, ARRAY]:
    """DeLong's placement values: for each member the share of non-members below it, and the reverse."""
    ranks = stats.rankdata(scores)
    m, n = int(member.sum()), int((~member).sum())
    own = np.empty(len(scores))
    own[member], own[~member] = stats.rankdata(scores[member]), stats.rankdata(scores[~member])
    return (ranks - own)[member] / n, 1 - (ranks - own)[~member] / m


def auc_and_error(scores: ARRAY, member: ARRAY) -> tuple[float, float]:
    """The area under the ROC and its standard error (DeLong et al. 1988).

    Where members and non-members are fully separated DeLong's error is 0; it is then taken so that the interval
    reaches as far as the rule of three allows: 3 over the smaller count.

    >>> auc_and_error(np.array([0.1, 0.4, 0.3, 0.9]), np.array([False, False, True, True]))[0]
    0.75
    """
    above, below = placements(scores, member)
    auc = float(above.mean())
    variance = above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below)
    smallest = 3 / min(len(above), len(below)) / HALF_WIDTH if auc in (0.0, 1.0) else 0.0
    return auc, float(max(np.sqrt(variance), smallest))


def fold_auc_and_error(scores: ARRAY, member: ARRAY, fold: ARRAY) -> tuple[float, float]:
    """Mean of the folds' AUCs, and mean of their standard errors.

    Not the pooled error: folds share training images, and this one covers in 95 to 99 % of simulated audits
    (METHODS 3.5).
    """
    pairs = [auc_and_error(scores[fold == k], member[fold == k]) for k in np.unique(fold)]
    value, error = np.mean(pairs, axis=0)
    return float(value), float(error)


def interval(value: float, error: float) -> tuple[float, float, float]:
    """A value in [0, 1] with its normal 95 % interval, cut at 0 and 1: value, low, high."""
    return value, max(0.0, value - HALF_WIDTH * error), min(1.0, value + HALF_WIDTH * error)


def fold_auc(scores: ARRAY, member: ARRAY, fold: ARRAY) -> tuple[float, float, float]:
    """Mean of the folds' AUCs with its 95 % interval: value, low, high."""
    return interval(*fold_auc_and_error(scores, member, fold))


def over_seeds(values: Sequence[float], errors: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and its standard error: images are shared by all seeds, seeds are a random effect.

    The error of the images does not shrink with the number of seeds k, the spread between seeds does:
    sqrt(mean(error)^2 + variance(values) / k).

    >>> over_seeds([0.6], [0.02])
    (0.6, 0.02)
    """
    spread = np.var(values, ddof=1) / len(values) if len(values) > 1 else 0.0
    return float(np.mean(values)), float(np.sqrt(np.mean(errors) ** 2 + spread))


def combine_seeds(p_values: Sequence[float]) -> float:
    """One p-value from one per seed: twice their mean, valid however they depend on each other (Vovk & Wang 2020).

    >>> combine_seeds([0.03]), combine_seeds([0.01, 0.03])
    (0.03, 0.04)
    """
    return float(p_values[0] if len(p_values) == 1 else min(1.0, 2 * np.mean(p_values)))


def combine(p_values: Sequence[float]) -> float:
    """One p-value from one per fold: p = min(1, K min p_k), valid however the folds depend on each other."""
    return float(min(1.0, len(p_values) * min(p_values)))


def leak_p_value(scores: ARRAY, member: ARRAY, fold: ARRAY) -> float:
    """One-sided Mann-Whitney test in each fold that members score higher, combined over the folds."""
    return combine(
        [
            float(stats.mannwhitneyu(s[m], s[~m], alternative="greater", method="asymptotic").pvalue)
            for s, m in ((scores[fold == k], member[fold == k]) for k in np.unique(fold))
        ]
    )


def paired_p_value(scores: ARRAY, others: ARRAY, member: ARRAY, fold: ARRAY) -> float:
    """One-sided DeLong test in each fold that `scores` has the larger AUC on the same images, combined.

    Returns:
        The p-value; 1 where both scores rank a fold alike.
    """
    p_values = [
        float(stats.norm.sf(gain / error)) if error > 0 else float(gain <= 0)
        for gain, error in paired_gains(scores, others, member, fold)
    ]
    return combine(p_values)


def paired_gains(scores: ARRAY, others: ARRAY, member: ARRAY, fold: ARRAY) -> list[tuple[float, float]]:
    """Of each fold, how much larger the AUC of `scores` is than that of `others` on the same images, and its error."""
    gains = []
    for k in np.unique(fold):
        here = fold == k
        (above, below), (above_2, below_2) = (placements(s[here], member[here]) for s in (scores, others))
        variance = (above - above_2).var(ddof=1) / len(above) + (below - below_2).var(ddof=1) / len(below)
        gains.append((float(above.mean() - above_2.mean()), float(np.sqrt(variance))))
    return gains


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: rejecting those below a level keeps the family-wise error at most at that level.

    >>> holm([0.002, 0.03, 0.02])
    [0.006, 0.04, 0.04]
    """
    order = np.argsort(p_values)
    steps = (len(order) - np.arange(len(order))) * np.asarray(p_values, dtype=float)[order]
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted.tolist()


def smallest_detectable_auc(
    members: int, nonmembers: int, folds: int = 2, level: float = 0.05, power: float = 0.8
) -> float:
    """The AUC that the combined test finds with probability `power`, with this many images in all.

    Normal approximation with the Mann-Whitney variance under no leak; each of the folds is tested at level / folds
    and one rejection suffices.

    >>> round(smallest_detectable_auc(500, 500), 3)
    0.554
    """
    m, n = members / folds, nonmembers / folds
    error = np.sqrt((m + n + 1) / (12 * m * n))
    single = 1 - (1 - power) ** (1 / folds)
    return float(min(1.0, 0.5 + error * (stats.norm.ppf(1 - level / folds) + stats.norm.ppf(single))))


def epsilon_lower_bound(correct: int, guesses: int, level: float = LEVEL) -> float:
    """The largest epsilon that one run refutes (Steinke, Nasr & Jagielski 2023, pure differential privacy).

    With independent inclusion by a fair coin, the number of correct guesses of an epsilon-DP training is dominated
    by a Binomial(guesses, e^eps / (1 + e^eps)); the bound is its exact (Clopper-Pearson) lower limit.

    >>> round(epsilon_lower_bound(90, 100), 2), epsilon_lower_bound(50, 100)
    (1.63, 0.0)
    """
    if correct == 0 or guesses == 0:
        return 0.0
    low = stats.beta.ppf(1 - level, correct, guesses - correct + 1)
    return float(max(0.0, np.log(low) - np.log1p(-low))) if low < 1 else float("inf")
