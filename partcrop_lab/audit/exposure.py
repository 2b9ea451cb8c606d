"""Who is exposed: images, classes, whether attacks agree on them; and what an AUC owes to its settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from partcrop_lab.attacks import Attack
from partcrop_lab.audit.metrics import fold_ranks
from partcrop_lab.audit.stats import fold_auc, holm, leak_p_value
from partcrop_lab.errors import BadInput
from partcrop_lab.progress import bar

if TYPE_CHECKING:
    from partcrop_lab.audit.result import AuditResult
    from partcrop_lab.encoders import Encoder
    from partcrop_lab.images import MembershipSplit

LEAST = 5
"""Members, and non-members, that a class must have in every fold for an AUC of its own."""


def exposed_members(result: AuditResult) -> pd.DataFrame:
    """The members, the most exposed first.

    Returns:
        Columns name, score (log-odds), nonmembers_above: the share of the non-members of its fold that scored as high.
    """
    rows = []
    for _, fold in result.scores.groupby("fold"):
        others = np.sort(fold.loc[~fold.member, "score"])
        own = fold.loc[fold.member, ["name", "score"]]
        above = 1 - np.searchsorted(others, own["score"], side="left") / len(others)
        rows.append(own.assign(nonmembers_above=above))
    order = {"by": ["nonmembers_above", "score"], "ascending": [True, False], "kind": "stable"}
    return pd.concat(rows).sort_values(**order).reset_index(drop=True)


def auc_by_class(result: AuditResult) -> pd.DataFrame:
    """The AUC within each class, where images have classes.

    Returns:
        One row per class: label, members, nonmembers, auc, low, high, p_value, and p_holm over the classes; NaN where
        a fold has fewer than `LEAST` on a side. Empty where no image has a class.
    """
    columns = ["label", "members", "nonmembers", "auc", "low", "high", "p_value", "p_holm"]
    rows = []
    for label, one in result.scores[result.scores["label"] != ""].groupby("label"):
        score, member, fold = (one[name].to_numpy() for name in ("score", "member", "fold"))
        counts = one.groupby(["fold", "member"]).size().reindex(
            pd.MultiIndex.from_product([sorted(set(result.scores["fold"])), [False, True]]), fill_value=0
        )  # fmt: skip
        found = (np.nan,) * 4
        if counts.min() >= LEAST:
            found = (*fold_auc(score, member, fold), leak_p_value(score, member, fold))
        rows.append((label, int(member.sum()), int((~member).sum()), *found, np.nan))
    table = pd.DataFrame(rows, columns=columns)
    tested = table["p_value"].notna()
    table.loc[tested, "p_holm"] = holm(table.loc[tested, "p_value"].tolist())
    return table


def agreement(results: Sequence[AuditResult], fpr: float = 0.05) -> pd.DataFrame:
    """Which members several attacks find, each at the threshold that `fpr` of the non-members exceed.

    Args:
        results: audits of one split, at least one.
        fpr: false positive rate, within each fold.

    Returns:
        A square table by attack. On the diagonal the share of the members that an attack finds; elsewhere the share
        of those found by the row's attack that the column's finds too.

    Raises:
        BadInput: audits of other images.
    """
    found, names = {}, None
    for result in results:
        scores = result.scores.sort_values("name")
        rank, member = fold_ranks(scores.score.to_numpy(), scores.fold.to_numpy()), scores.member.to_numpy()
        if names is not None and names != list(zip(scores.name, member, strict=True)):
            raise BadInput("the audits to compare are of different images; agreement needs one split for all")
        names = list(zip(scores.name, member, strict=True))
        hit = np.zeros(len(rank), bool)
        for k in scores.fold.unique():
            here = scores.fold.to_numpy() == k
            hit[here] = rank[here] > np.quantile(rank[here & ~member], 1 - fpr, method="higher")
        found[result.attack_label] = hit[member]
    table = pd.DataFrame(
        {two: [(found[one] & found[two]).sum() / max(1, found[one].sum()) for one in found] for two in found},
        index=list(found),
    )
    for name, hit in found.items():
        table.loc[name, name] = hit.mean()
    return table


def sensitivity(
    encoder: Encoder,
    split: MembershipSplit,
    attack: Attack,
    attacker: str | None = None,
    seeds: int = 3,
    *,
    folds: int = 2,
    progress: bool = True,
) -> pd.DataFrame:
    """The AUC of an attack with half, once and twice its queries, over seeds of crops, folds and attackers.

    Returns:
        One row per number and seed: attack, queries, seed, auc, low, high (95 %, over the images).
    """
    from partcrop_lab.audit.kept import kept_audit

    own = attack.queries
    try:
        variants = [attack.asking(number) for number in sorted({max(3, own // 2), own, 2 * own})]
    except ValueError:  # they are fixed
        variants = [attack]
    rows = []
    for one, seed in bar([(v, s) for v in variants for s in range(seeds)], "sensitivity", shown=progress):
        how = {"attacker": attacker, "folds": folds, "seed": seed, "controls": False}
        auc = kept_audit(encoder, split, one, progress, **how).metrics.loc["auc"]
        rows.append((one.label, one.queries, seed, *auc[["value", "low", "high"]]))
    return pd.DataFrame(rows, columns=["attack", "queries", "seed", "auc", "low", "high"])
