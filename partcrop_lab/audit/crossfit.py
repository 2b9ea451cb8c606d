"""Cross-fitting: every image is scored by an attacker that never saw it (METHODS 3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import StratifiedKFold

from partcrop_lab.attacks.attackers import log_odds, make_attacker
from partcrop_lab.devices import seed_of
from partcrop_lab.errors import BadInput
from partcrop_lab.progress import bar

Known = tuple[np.ndarray, np.ndarray]
"""Features (m, F) and membership (m,)."""


@dataclass(frozen=True)
class CrossFit:
    """Out-of-fold scores.

    Attributes:
        scores: (n,) log-odds of membership by the attacker that did not see the image.
        fold: (n,) the fold each image was scored in.
        attackers: one fitted attacker per fold.
    """

    scores: np.ndarray
    fold: np.ndarray
    attackers: list[BaseEstimator]


def assign_folds(member: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """A fold (n,) for every image, members and non-members spread evenly.

    Raises:
        ValueError: fewer than two folds.
        BadInput: too few images on one side.
    """
    if folds < 2:
        raise ValueError(f"folds is {folds}; at least 2 are needed to score images by an attacker that never saw them")
    fewest = min(int(member.sum()), int((~member).sum()))
    if fewest < 4 * folds:
        raise BadInput(f"the smaller side of the split has {fewest} images; {folds} folds need at least {4 * folds}")
    fold = np.empty(len(member), np.int64)
    for k, (_, held_out) in enumerate(StratifiedKFold(folds, shuffle=True, random_state=seed).split(member, member)):
        fold[held_out] = k
    return fold


def cross_fit(
    X: np.ndarray,
    member: np.ndarray,
    fold: np.ndarray,
    attacker: str | BaseEstimator,
    seed: int,
    known: Known | None = None,
    fraction: float = 1.0,
    **fit: Any,
) -> CrossFit:
    """Score each fold by an attacker fitted on the other folds, or on other images altogether.

    Args:
        X: (n, F) membership features.
        member: (n,) bool.
        fold: (n,) from `assign_folds`.
        attacker: a name or a scikit-learn classifier.
        seed: of the attackers; fold k uses seed + k.
        known: features (m, F) and membership (m,) of a shadow encoder's images, on which all attackers are fitted.
        fraction: share of the members and of the non-members of the other folds that attackers are fitted on, drawn by
            the seed; those of a smaller share are among those of a larger one.
        fit: passed on to the attacker's `fit`.
    """
    X = X.astype(np.float64)  # so that what attackers add up does not depend on the chip
    scores, attackers = np.empty(len(member)), []
    for k in np.unique(fold):
        held_out = fold == k
        rows = _some(member, ~held_out, fraction, seed + int(k))
        inputs, labels = known or (X[rows], member[rows])
        fitted = make_attacker(attacker, seed + int(k))
        fitted.fit(inputs.astype(np.float64), labels.astype(int), **fit)
        scores[held_out] = log_odds(fitted, X[held_out])
        attackers.append(fitted)
    return CrossFit(scores, fold, attackers)


def share_of_others(known: float, folds: int) -> float:
    """The `fraction` of `cross_fit` by which an attacker knows a share of all images.

    >>> share_of_others(0.5, folds=2)
    1.0
    """
    return known * folds / (folds - 1)


def _some(member: np.ndarray, allowed: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Rows of the images that are allowed: all, or a share of each side, in their order."""
    if fraction == 1:
        return np.flatnonzero(allowed)
    source, chosen = np.random.default_rng(seed_of("known", seed)), []
    for side in (member, ~member):
        rows = source.permutation(np.flatnonzero(allowed & side))
        chosen.append(rows[: round(fraction * len(rows))])
    return np.sort(np.concatenate(chosen))


def permuted_scores(
    X: np.ndarray,
    member: np.ndarray,
    fold: np.ndarray,
    attacker: str | BaseEstimator,
    count: int,
    seed: int,
    progress: bool = True,
    known: Known | None = None,
    fraction: float = 1.0,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cross-fit `count` times with labels permuted within each fold: pairs of scores (n,) and permuted labels (n,).

    Where attackers are fitted on `known`, those labels are permuted too.
    """
    rng, pairs = np.random.default_rng(seed), []
    for r in bar(range(count), "permuted labels", shown=progress and count > 1):
        permuted = member.copy()
        for k in np.unique(fold):
            permuted[fold == k] = rng.permutation(member[fold == k])
        shuffled = known and (known[0], rng.permutation(known[1]))
        fitted = cross_fit(X, permuted, fold, attacker, seed + 1000 * (r + 1), shuffled, fraction)
        pairs.append((fitted.scores, permuted))
    return pairs
