"""Attacks side by side on the same encoders, images and folds: one table, paired tests, Holm (METHODS 3.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from partcrop_lab.attacks import Attack
from partcrop_lab.audit import verdict as verdicts
from partcrop_lab.audit.kept import code_digest, kept_audit
from partcrop_lab.audit.result import AuditResult
from partcrop_lab.audit.stats import combine_seeds, fold_auc_and_error, holm, interval, over_seeds, paired_p_value
from partcrop_lab.encoders import Encoder
from partcrop_lab.errors import BadInput
from partcrop_lab.images import MembershipSplit
from partcrop_lab.progress import bar
from partcrop_lab.store import digest, write_csv, write_json


@dataclass(frozen=True)
class Comparison:
    """Several attacks on several encoders.

    Attributes:
        table: one row per encoder and attack: encoder, attack, attacker, queries, members, nonmembers, seeds; auc, low,
            high over the seeds; tpr_at_1_fpr with tpr_low and tpr_high, means over the seeds of rate and bootstrap
            interval; p_value, and p_holm over the attacks on that encoder; p_untrained and p_pixels of the controls;
            outcome, given on p_holm.
        pairs: one row per encoder and ordered pair: encoder, attack, other, gain (of the AUC), p_value of the paired
            test that the attack has the larger AUC on the same images, and p_holm over all pairs on that encoder.
        results: the audits, by (encoder, attack, seed).
    """

    table: pd.DataFrame
    pairs: pd.DataFrame
    results: dict[tuple[str, str, int], AuditResult]

    def save(self, path: str | Path) -> list[Path]:
        """Write the table to a .csv, and beside it the pairs and where all numbers come from; returns the paths."""
        path = Path(path)
        paths = [path, path.with_name(f"{path.stem}-pairs.csv"), path.with_suffix(".json")]
        for place, table in zip(paths, (self.table, self.pairs)):
            write_csv(place, table)
        audits = [{**one.settings, "verdict": one.verdict} for one in self.results.values()]
        write_json(paths[2], {"audits": audits, "code": code_digest(), "data": digest(path.read_bytes())})
        return paths


def compare(
    encoders: Sequence[Encoder],
    attacks: Sequence[Attack],
    split: MembershipSplit | None = None,
    seeds: int = 3,
    *,
    folds: int = 2,
    progress: bool = True,
) -> Comparison:
    """Audit each encoder with each attack and its own attacker, on the same images and folds, for several seeds.

    Seeds decide folds, crops and attackers; they are averaged over, never picked from. Finished audits are kept, so
    that an interrupted grid goes on where it stopped.

    Args:
        encoders: at least one, with different names.
        attacks: at least one, all different; give them equal `queries` for a fair comparison.
        split: members and non-members for all encoders; where None, each encoder's own.
        seeds: how many, from 0 on.
        folds: of the cross-fit.
        progress: show a bar over all audits.

    Raises:
        ValueError: no encoder, attack or seed.
        BadInput: two encoders or two attacks alike; an encoder without a split of its own.
    """
    if not encoders or not attacks or seeds < 1:
        raise ValueError("compare needs at least one encoder, one attack and one seed")
    _check_different("encoders", [one.name for one in encoders])
    _check_different("attacks", [one.label for one in attacks])
    jobs = [(encoder, attack, seed) for encoder in encoders for attack in attacks for seed in range(seeds)]
    results = {}
    for encoder, attack, seed in bar(jobs, "audits", unit="audit", shown=progress):
        result = kept_audit(encoder, split or encoder.split, attack, progress, folds=folds, seed=seed, permutations=0)
        results[encoder.name, attack.label, seed] = result
    rows, pairs = [], []
    for encoder in encoders:
        grid = {attack.label: [results[encoder.name, attack.label, s] for s in range(seeds)] for attack in attacks}
        rows += _rows(encoder.name, grid)
        pairs += _pairs(encoder.name, grid)
    columns = ["encoder", "attack", "other", "gain", "p_value", "p_holm"]
    return Comparison(pd.DataFrame(rows), pd.DataFrame(pairs, columns=columns), results)


def _check_different(what: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"two of the {what} to compare are both {twice[0]}; each must be there once")


def _scores(result: AuditResult) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tuple(result.scores[name].to_numpy() for name in ("score", "member", "fold"))


def _auc(audits: list[AuditResult]) -> tuple[float, float, float]:
    values, errors = zip(*(fold_auc_and_error(*_scores(one)) for one in audits))
    return interval(*over_seeds(values, errors))


def _rows(encoder: str, grid: dict[str, list[AuditResult]]) -> list[dict[str, Any]]:
    """One row per attack on an encoder; evidence is judged after Holm's correction over the attacks."""
    p_values = {attack: combine_seeds([one.p_value for one in audits]) for attack, audits in grid.items()}
    rows = []
    for (attack, audits), p_holm in zip(grid.items(), holm(list(p_values.values())), strict=True):
        auc, low, high = _auc(audits)
        tpr = pd.DataFrame([one.metrics.loc["tpr_at_1_fpr", ["value", "low", "high"]] for one in audits]).mean()
        controls = _controls(audits)
        first = audits[0].settings
        case = verdicts.Case((auc, low, high), p_holm, controls, first["membership"], "", first["detectable_auc"])
        rows.append(
            {
                "encoder": encoder,
                "attack": attack,
                **{name: first[name] for name in ("attacker", "queries", "members", "nonmembers")},
                "seeds": len(audits),
                "auc": auc,
                "low": low,
                "high": high,
                "tpr_at_1_fpr": tpr["value"],
                "tpr_low": tpr["low"],
                "tpr_high": tpr["high"],
                "p_value": p_values[attack],
                "p_holm": p_holm,
                **{f"p_{name}": controls.loc[name, "p_value"] for name in controls.index},
                "outcome": verdicts.outcome(case),
            }
        )
    return rows


def _controls(audits: list[AuditResult]) -> pd.DataFrame:
    """The p-values of the controls over the seeds."""
    columns = {
        column: [combine_seeds([one.controls.loc[name, column] for one in audits]) for name in verdicts.CONTROLS]
        for column in ("p_value", "paired_p")
    }
    return pd.DataFrame(columns, index=list(verdicts.CONTROLS))


def _pairs(encoder: str, grid: dict[str, list[AuditResult]]) -> list[dict[str, Any]]:
    """The paired tests between all attacks on an encoder, seed by seed on the same folds."""
    rows = []
    for attack, other in permutations(grid, 2):
        tests = []
        for one, two in zip(grid[attack], grid[other], strict=True):
            (scores, member, fold), (others, *_) = _scores(one), _scores(two)
            tests.append(paired_p_value(scores, others, member, fold))
        gain = _auc(grid[attack])[0] - _auc(grid[other])[0]
        rows.append(
            {"encoder": encoder, "attack": attack, "other": other, "gain": gain, "p_value": combine_seeds(tests)}
        )
    for row, p_holm in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
        row["p_holm"] = p_holm
    return rows
