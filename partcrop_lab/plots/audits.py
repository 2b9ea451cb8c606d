"""Audits: ROC, scores, metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from partcrop_lab.plots.base import (
    BLUE,
    GREEN,
    GREY,
    LOOKS,
    NAMES,
    ORANGE,
    PURPLE,
    RED,
    auc_interval,
    mark_released,
    new_axes,
    own_axes,
    styled,
)
from partcrop_lab.tables import GRID, describe, roc_table, target_rates

if TYPE_CHECKING:
    from partcrop_lab.audit import AuditResult


@styled
def roc(result: AuditResult | pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The ROC on logarithmic axes: target with its 95 % band, controls, the band of permuted labels, chance.

    Args:
        result: an audit, or a table of `tables.roc_table`.
        ax: where to draw.
    """
    table, names, protocol, text, least = result, dict(NAMES), "matched", "", 1e-3
    if not isinstance(result, pd.DataFrame):
        table, protocol, text = roc_table(result), result.settings["protocol"], describe(result)
        names |= _names_with_auc(result)
        least = min(0.5, 1 / result.settings["nonmembers"])
    ax = own_axes(ax, f"{text} Band: 95 % by bootstrap. Grey: range of fits with permuted labels.", height=4.6)
    for name, curve in table.groupby("curve", sort=False):
        look = {key: value for key, value in LOOKS[name].items() if key != "marker"}
        if name == "permuted":
            ax.fill_between(curve["fpr"], curve["low"], curve["high"], color=GREY, alpha=0.25, lw=0, label=names[name])
            continue
        ax.fill_between(curve["fpr"], curve["low"], curve["high"], color=look["color"], alpha=0.2, lw=0)
        ax.plot(curve["fpr"], curve["tpr"], label=names[name], **look)
    _logarithmic(ax, least, 1.6 if protocol == "matched" else 8)
    if protocol == "released":
        mark_released(ax)
    return ax


@styled
def rocs(results: Mapping[str, AuditResult], ax: Axes | None = None) -> Axes:
    """The ROCs of several audits on logarithmic axes, each named with its AUC and 95 % interval; no controls.

    Args:
        results: at most six, by the name shown.
        ax: where to draw.
    """
    ax = ax or new_axes(4.6, 4.6)
    colours, lines = (BLUE, RED, GREEN, PURPLE, ORANGE, GREY), ("-", "--", "-.", ":", "-", "--")
    for (name, result), color, line in zip(results.items(), colours, lines, strict=False):
        ax.plot(
            GRID, target_rates(result), color=color, ls=line, label=f"{name}, {auc_interval(result.metrics.loc['auc'])}"
        )
    return _logarithmic(ax, min(0.5, 1 / max(result.settings["nonmembers"] for result in results.values())))


def _logarithmic(ax: Axes, least: float, top: float = 1.6) -> Axes:
    """Rates from `least` on logarithmic axes, the line of chance, and the legend below."""
    ax.plot([1e-4, 1], [1e-4, 1], color="black", lw=0.8, ls=(0, (1, 2)), label="chance")
    ax.set(xscale="log", yscale="log", xlim=(least, 1), ylim=(least, top))
    ax.set(xlabel="false positive rate", ylabel="true positive rate")
    ax.legend(loc="upper left", bbox_to_anchor=(-0.26, -0.17))
    return ax


def _names_with_auc(result: AuditResult) -> dict[str, str]:
    def label(name: str, row: pd.Series) -> str:
        return f"{NAMES[name]}, AUC {auc_interval(row)}"

    controls = result.controls.rename(columns={"auc": "value"})
    rows = {name: controls.loc[name] for name in controls.index if name != "permuted"}
    return {name: label(name, row) for name, row in {"target": result.metrics.loc["auc"], **rows}.items()}


@styled
def score_histogram(result: AuditResult, ax: Axes | None = None, bins: int = 30) -> Axes:
    """Out-of-fold scores of members and of non-members; the attackers' own threshold is 0.

    The outermost bins also hold the one per cent of scores beyond them on either side.
    """
    ax = own_axes(ax, f"{describe(result)} The outermost bins also hold the scores beyond them.")
    scores = result.scores
    edges = np.linspace(*scores["score"].quantile([0.01, 0.99]), bins + 1)
    for side, chosen in (("members", scores["member"]), ("non-members", ~scores["member"])):
        look, here = LOOKS[side], scores.loc[chosen, "score"].clip(edges[0], edges[-1])
        shade = {"histtype": "stepfilled", "alpha": 0.25, "color": look["color"]}
        ax.hist(here, edges, **shade, label=f"{side}, n = {len(here)}")
        ax.hist(here, edges, histtype="step", linewidth=1.3, color=look["color"], linestyle=look["linestyle"])
    ax.axvline(0, color="black", lw=0.8, ls=":")
    ax.set(xlabel="score (log-odds of membership, out of fold)", ylabel="images")
    if result.settings["protocol"] == "released":
        ax.set_ylim(0, ax.get_ylim()[1] * 1.3)
        mark_released(ax)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return ax


def _chance(result: AuditResult) -> dict[str, float]:
    share = result.settings["members"] / (result.settings["members"] + result.settings["nonmembers"])
    halves = dict.fromkeys(("auc", "balanced_accuracy"), 0.5)
    return halves | {"precision": share, "advantage": 0.0, "tpr_at_1_fpr": 0.01, "tpr_at_0.1_fpr": 0.001}


@styled
def metrics_bars(result: AuditResult, ax: Axes | None = None) -> Axes:
    """Every metric with its 95 % interval, and what guessing would give (a small black line)."""
    ax = own_axes(ax, f"{describe(result)} Bars: 95 % intervals. Black lines: chance.", height=3.2)
    table = result.metrics.drop(index="epsilon_lower")
    for place, (name, row) in enumerate(table.iterrows()):
        if np.isfinite(row["value"]):
            ax.plot([row["low"], row["high"]], [place, place], color=BLUE, lw=3, alpha=0.4, solid_capstyle="butt")
            ax.plot(row["value"], place, "o", color=BLUE)
            ax.text(1.04, place, f"{row['value']:.3f}", va="center", fontsize=8)
        else:
            ax.text(0.02, place, row["note"], va="center", fontsize=7, color=GREY)
        if name in (chance := _chance(result)) and np.isfinite(row["value"]):
            ax.plot([chance[name]] * 2, [place - 0.3, place + 0.3], color="black", lw=1)
    names = [name.replace("_", " ").replace("tpr at", "TPR at").replace(" fpr", " % FPR") for name in table.index]
    ax.set(yticks=range(len(table)), yticklabels=names)
    ax.set(xlim=(-0.02, 1.18), xlabel="value", xticks=np.arange(0, 1.1, 0.25))
    ax.set_ylim(len(table) - 0.4, -0.6 if result.settings["protocol"] == "matched" else -2.2)
    if result.settings["protocol"] == "released":
        mark_released(ax)
    return ax


@styled
def accuracy_by_epoch(result: AuditResult, ax: Axes | None = None) -> Axes:
    """Held-out accuracy after each epoch of the attacker: what reporting the best epoch would have added.

    Args:
        result: of an audit with ``protocol="released"``.
        ax: where to draw.
    """
    ax = own_axes(ax, describe(result))
    curve = np.asarray(result.settings["accuracy_by_epoch"])
    best = int(curve.argmax())
    ax.plot(np.arange(1, len(curve) + 1), curve, color=BLUE, lw=1.2)
    ax.plot(best + 1, curve[best], "v", color=RED, label=f"best epoch, as the released code reports: {curve[best]:.3f}")
    ax.plot(len(curve), curve[-1], "o", color=BLUE, label=f"last epoch: {curve[-1]:.3f}")
    ax.axhline(0.5, color="black", lw=0.8, ls=(0, (1, 2)), label="chance")
    low, high = min(0.45, curve.min()), curve.max()
    ax.set(xlabel="epoch of the attacker", ylabel="balanced accuracy,\nheld out", ylim=(low, high + 0.7 * (high - low)))
    ax.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.2))
    mark_released(ax)
    return ax
