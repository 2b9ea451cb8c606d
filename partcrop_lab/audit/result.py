"""What an audit leaves behind: metrics, scores, controls, a verdict, and attackers that score new images."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from partcrop_lab.audit.stats import HALF_WIDTH, combine, fold_auc_and_error, paired_gains
from partcrop_lab.audit.verdict import case_of, reasons
from partcrop_lab.errors import BadInput
from partcrop_lab.files import parse_json, read_json
from partcrop_lab.images import ImageSet
from partcrop_lab.schemas import Result, Table, checked
from partcrop_lab.store import atomic, write_json

TABLES = {
    "metrics": ("value", "low", "high", "note"),
    "scores": ("name", "member", "score", "fold"),
    "controls": ("auc", "low", "high", "p_value", "paired_p"),
    "null_band": ("fpr", "low", "high"),
}
"""The tables of a result, and the columns that each must have."""
WORDS = ("name", "note", "label", "index")
"""Columns that may hold text."""


@dataclass
class AuditResult:
    """An audited attack on one encoder and one split.

    Attributes:
        metrics: rows auc, balanced_accuracy, precision, recall, f1, advantage, tpr_at_1_fpr, tpr_at_0.1_fpr,
            epsilon_lower; columns value, low, high (95 %), note.
        scores: one row per image: name, member, score (log-odds, out of fold), fold, each control's
            score, and label: the image's class in words, "" where it is not known.
        controls: rows untrained, pixels, permuted; columns auc, low, high, p_value and
            paired_p (of the test that the target beats it).
        null_band: ROC of permuted labels: columns fpr, low, high.
        p_value: of the target, combined over the folds.
        verdict: one sentence that starts "Evidence of leakage", "No evidence of leakage" or "Confounded".
        outcome: those first words.
        settings: everything that made the numbers: sizes, seeds, digests, attack, attacker, versions.
        fault: set where permuted labels were told apart, which would be an error of this package.
    """

    metrics: pd.DataFrame
    scores: pd.DataFrame
    controls: pd.DataFrame
    null_band: pd.DataFrame
    p_value: float
    verdict: str
    outcome: str
    settings: dict[str, Any]
    fault: str | None = None
    score_images: Callable[[ImageSet], np.ndarray] | None = field(default=None, repr=False)

    def predict(self, images: ImageSet) -> pd.DataFrame:
        """Score images whose membership is asked, by the mean log-odds of the fitted attackers.

        Returns:
            One row per image: name, score, and nonmembers_above, the share of the audited non-members that scored
            as high out of fold (small means member-like).

        Raises:
            BadInput: images of another size, or a result that was loaded from a file, without its attackers.
        """
        if self.score_images is None:
            raise BadInput("this result was loaded from a file, without its attackers; run the audit again to predict")
        if images.size != self.settings["size"]:
            raise BadInput(f"the images have a side of {images.size} px; the audit ran at {self.settings['size']} px")
        scores = self.score_images(images)
        others = self.scores.loc[~self.scores.member, "score"].to_numpy()
        above = (others[None] >= scores[:, None]).mean(1)
        return pd.DataFrame({"name": images.names, "score": scores, "nonmembers_above": above})

    def minus(self, other: AuditResult) -> pd.Series:
        """How much larger this audit's AUC is than another's.

        Where both have scored the same images in the same folds, image by image (DeLong's paired error); else as of
        independent samples.

        Returns:
            gain, low, high (95 %), p_value (two-sided, combined over the folds), and paired, whether it was.
        """
        one, two = self.scores.set_index("name"), other.scores.set_index("name")
        paired = set(one.index) == set(two.index)
        if paired:
            two = two.loc[one.index]
            paired = one.member.equals(two.member) and one.fold.equals(two.fold)
        if paired:
            gains = paired_gains(*(table.to_numpy() for table in (one.score, two.score, one.member, one.fold)))
        else:
            sides = [fold_auc_and_error(*(t[c].to_numpy() for c in ("score", "member", "fold"))) for t in (one, two)]
            gains = [(sides[0][0] - sides[1][0], float(np.hypot(sides[0][1], sides[1][1])))]
        gain, error = np.mean(gains, axis=0)
        p_value = combine([float(2 * norm.sf(abs(g) / e)) if e > 0 else float(g == 0) for g, e in gains])
        half = HALF_WIDTH * error
        return pd.Series(
            {"gain": gain, "low": gain - half, "high": gain + half, "p_value": p_value, "paired": paired}, dtype=object
        )

    def summary(self) -> dict[str, Any]:
        """What a zoo card keeps of an audit, JSON-able: verdict, p-value, metrics, controls, and what made them."""
        tables = {name: json.loads(getattr(self, name).to_json(orient="index")) for name in ("metrics", "controls")}
        kept = ("members", "nonmembers", "attack", "queries", "attacker", "folds", "seed", "repeats", "versions")
        made_by = {name: self.settings[name] for name in kept}
        return {"verdict": self.verdict, "p_value": self.p_value, **tables, **made_by}

    def save(self, path: str | Path) -> None:
        """Write everything but the fitted attackers as one JSON file."""
        write_json(path, self.record())

    @classmethod
    def load(cls, path: str | Path) -> AuditResult:
        """Read a result written by `save`.

        Raises:
            BadInput: the file is not an audit result.
        """
        return cls.from_record(read_json(path), path)

    def record(self) -> dict[str, Any]:
        """Everything but the fitted attackers, JSON-able."""
        tables = {name: getattr(self, name).to_json(orient="table", double_precision=15) for name in TABLES}
        rest = {name: getattr(self, name) for name in ("p_value", "verdict", "outcome", "settings", "fault")}
        return {**rest, **tables}

    @classmethod
    def from_record(cls, record: dict[str, Any], where: object = "this record") -> AuditResult:
        """The result that `record` describes.

        Args:
            record: as `record()` gives it.
            where: the file, for errors.

        Raises:
            BadInput: not such a record.
        """
        checked(Result, record, f"{where}: not an audit result")
        try:
            tables = {name: _table(record[name], TABLES[name], f"{where}: {name}") for name in TABLES}
            return cls(**{name: value for name, value in record.items() if name not in TABLES}, **tables)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput(
                f"{where}: not an audit result; such a file is written by result.save or audit --out"
            ) from error

    @property
    def attack_label(self) -> str:
        """The attack's name and the settings that are not its defaults."""
        return self.settings["label"]

    @property
    def reasons(self) -> list[str]:
        """The steps that lead to the verdict, one sentence each."""
        return reasons(case_of(self.metrics, self.p_value, self.controls, self.settings))

    def to_html(
        self,
        path: str | Path,
        *,
        images: ImageSet | None = None,
        others: Sequence[AuditResult] = (),
        sensitivity: pd.DataFrame | None = None,
    ) -> None:
        """Write a self-contained report that opens offline, and the result as JSON beside it.

        Args:
            path: of the .html file.
            images: those of the split, to show thumbnails of the most and least exposed members; leave them out of
                reports that are shared.
            others: audits of the same split by other attacks, to tell whether they find the same members.
            sensitivity: the table of `partcrop_lab.audit.sensitivity`.

        Raises:
            BadInput: others of another split, images without the members, or a folder that cannot be written.
        """
        from partcrop_lab.report import html_report  # a room below this one; the name users type is here

        page = html_report(self, images, others, sensitivity)
        with atomic(path) as temporary:
            temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
        self.save(Path(path).with_suffix(".json"))

    def _repr_html_(self) -> str:
        from partcrop_lab.report import html_summary

        return html_summary(self)


def _table(text: Any, columns: Sequence[str], where: str) -> pd.DataFrame:
    """A table from its JSON, with the columns it needs, numbers where there must be numbers.

    Raises:
        BadInput: another thing.
    """
    if not isinstance(text, str):
        raise BadInput(f"{where} is not the JSON text of a table")
    checked(Table, parse_json(text, where), where)
    table = pd.read_json(StringIO(text), orient="table")
    missing = [name for name in columns if name not in table]
    if "note" in columns and "auc" not in table.index:
        raise BadInput(f"{where} has no row auc")
    if missing or not table.index.is_unique:
        raise BadInput(f"{where} has {f'no column {missing[0]}' if missing else 'rows of the same name'}")
    for name in table.columns:
        if name not in WORDS and len(table) and not pd.api.types.is_numeric_dtype(table[name]):
            raise BadInput(f"{where} has text in its column {name}; it must hold numbers")
    return table
