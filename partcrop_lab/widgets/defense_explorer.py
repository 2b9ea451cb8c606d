"""Defence explorer: what each defence buys and costs, as it was measured before, on one plane."""

from __future__ import annotations

from html import escape
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd

from partcrop_lab import plots
from partcrop_lab.defenses import with_front, worst
from partcrop_lab.errors import BadInput
from partcrop_lab.widgets.panel import Drawing, Panel

FRONT = "On the Pareto front, where no other is better in one and no worse in the other"
ALL, HIDDEN = "all levels", "hidden"
ATTACKERS = {"the worse of both": None, "as before": "as before", "adaptive": "adaptive"}
LEAKS = {name: leak for leak, (name, *_) in plots.LEAKS.items()}
USES = {"linear probe": "probe", "nearest neighbours": "knn"}


def defense_explorer(table: pd.DataFrame, by: str = "encoder") -> Panel:
    """A panel over a table of trade-offs: nothing is trained or attacked, only shown.

    Args:
        table: of `defenses.tradeoff`, `defenses.measured` or `defenses.over_trainings`.
        by: the column whose values one can choose from.

    Returns:
        A panel with the controls encoder, attacker, leak and use, and a slider for each defence, by its name: all of
        its levels, one of them, or none.

    Raises:
        BadInput: a table without that column, or without rows.
    """
    if by not in table or table.empty:
        raise BadInput(f"a table of trade-offs needs rows and a column {by!r}; found {len(table)} rows, {list(table)}")
    levels = {name: list(dict.fromkeys(some["level"])) for name, some in table.groupby("defense", sort=False)}
    levels.pop("none", None)

    def draw(encoder, attacker, leak, use, **chosen) -> Drawing:
        own = table[(table[by] == encoder) & table[LEAKS[leak]].notna()]
        if own.empty:
            raise BadInput(f"no point has a {leak}: there were too few non-members to measure it")
        asked = (own["attacker"] == ATTACKERS[attacker]) | (own["level"] == "none")
        some = worst(own, LEAKS[leak]) if ATTACKERS[attacker] is None else own[asked]
        hidden = [name for name, level in chosen.items() if level == HIDDEN]
        some = with_front(some[~some["defense"].isin(hidden)], USES[use], LEAKS[leak], by)
        single = {name: level for name, level in chosen.items() if level not in (ALL, HIDDEN)}
        marked = some["level"].isin(single.values()) | (some["level"] == "none")
        faded = set(some.index[~marked]) if single else ()
        how = {"by": by, "leak": LEAKS[leak], "use": USES[use], "faded": faded, "hover": True}
        svg = plots.svg(lambda figure: plots.tradeoff(some, [figure.subplots()], **how), 7.4, 4.2)
        told, head = (some[marked], "Chosen") if single else (some[some["front"]], FRONT)
        return Drawing(html=points_html(told, head), svg=svg)

    dropdown = lambda name, options: widgets.Dropdown(options=list(options), description=name)  # noqa: E731
    controls = {
        "encoder": dropdown("encoder", dict.fromkeys(table[by])),
        "attacker": dropdown("attacker", ATTACKERS),
        "leak": dropdown("leak", [name for name, leak in LEAKS.items() if leak in table]),
        "use": dropdown("utility", USES),
    }
    controls |= {
        name: widgets.SelectionSlider(options=[HIDDEN, *own, ALL], value=ALL, description=name, continuous_update=False)
        for name, own in levels.items()
    }
    return Panel("Defence explorer", controls, draw)


def points_html(rows: pd.DataFrame, head: str) -> str:
    """Points of a trade-off as a small table with their intervals, under a heading."""
    shown = pd.DataFrame(
        {
            "defence": rows["level"].replace("none", "no defence"),
            "attacker": rows["attacker"],
            "AUC": [f"{r.auc:.3f} ({r.low:.3f} to {r.high:.3f})" for r in rows.itertuples()],
            "TPR at 1 % FPR": [_rate(r) for r in rows.itertuples()],
            "linear probe": [f"{100 * r.probe:.1f} %" for r in rows.itertuples()],
            "kNN": [f"{100 * r.knn:.1f} %" for r in rows.itertuples()],
            "queries": rows["queries"],
        }
    )
    if "trainings" in rows:  # of `over_trainings`
        shown["trainings"] = rows["trainings"]
    guarantees = [f"{r.level}: {r.guarantee}" for r in rows.itertuples() if getattr(r, "guarantee", "")]
    sizes = " / ".join(dict.fromkeys(f"{r.members} members, {r.nonmembers} non-members" for r in rows.itertuples()))
    told = "".join(f"<br>{escape(text)}" for text in guarantees)
    note = f"<small>95 % intervals; {sizes}. Each point was measured alone: what lies within another's interval is "
    table = shown.to_html(index=False, border=0, justify="left").replace("<td>", '<td style="padding-right: 1rem">')
    return f"{head}:{table}{note}not better than it.{told}</small>"


def _rate(row: Any) -> str:
    if np.isnan(row.tpr_at_1_fpr):
        return "too few non-members"
    return f"{row.tpr_at_1_fpr:.2f} ({row.tpr_low:.2f} to {row.tpr_high:.2f})"
