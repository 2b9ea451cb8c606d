"""Attacks, encoders, trainings and defences side by side."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from partcrop_lab.defenses.tradeoff import CHANCE
from partcrop_lab.plots.base import (
    BLUE,
    GREEN,
    GREY,
    LINES,
    LOOKS,
    NAMES,
    ORANGE,
    PURPLE,
    RED,
    hover_text,
    mark_released,
    own_axes,
    own_row,
    styled,
)


@styled
def aucs(
    table: pd.DataFrame, by: str, ax: Axes | None = None, xlabel: str = "", text: str = "", join: bool = True
) -> Axes:
    """AUCs of an attack and of its controls with 95 % intervals, over settings (Figs. 4 and 5).

    Args:
        table: of `tables.auc_table`, of several audits told apart by the column `by`.
        by: the column that goes along the x axis.
        ax: where to draw.
        xlabel: what `by` is, with its unit.
        text: for the caption of a figure of its own.
        join: whether a line joins the settings, for settings that have an order.
    """
    ax = own_axes(ax, f"{text} Bars: 95 % intervals (permuted labels: range of the fits).")
    order = list(dict.fromkeys(table[by]))
    for shift, (name, one) in enumerate(table.groupby("curve", sort=False)):
        x = np.array([order.index(value) for value in one[by]]) + 0.1 * (shift - 1)
        reach = np.stack([one["auc"] - one["low"], one["high"] - one["auc"]]).clip(0)
        look = LOOKS[name] if join else LOOKS[name] | {"linestyle": ""}
        ax.errorbar(x, one["auc"], reach, capsize=2.5, ms=5, label=NAMES[name], **look)
    ax.axhline(0.5, color="black", lw=0.8, ls=(0, (1, 2)), label="chance")
    ax.set(xticks=range(len(order)), xticklabels=[str(value) for value in order], xlim=(-0.5, len(order) - 0.5))
    ax.set(xlabel=xlabel or by, ylabel="AUC of telling members\nfrom non-members")
    ax.set(ylim=(min(0.35, table["low"].min() - 0.02), 1.02))
    released = list(dict.fromkeys(table.loc[table["protocol"] == "released", by]))
    if released == order:
        mark_released(ax)
        ax.set(yticks=[tick for tick in ax.get_yticks() if tick <= 1], ylim=(None, 1.22))  # the mark lies above all
    else:
        how = {"color": RED, "ha": "center", "fontsize": 7, "transform": ax.get_xaxis_transform()}
        for value in released:
            ax.text(order.index(value), 0.015, "members augmented,\nnon-members not", **how)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


@styled
def attacks(table: pd.DataFrame, axes: Sequence[Axes] | None = None) -> np.ndarray:
    """AUCs of attacks with 95 % intervals, a panel for each encoder and a row for each attack.

    Args:
        table: of `audit.compare.Comparison`.
        axes: one per encoder, sharing their axes.
    """
    groups = list(table.groupby("encoder", sort=False))
    axes = own_row(axes, len(groups), 2.0, 3.2, 2.2, "Bars: 95 % intervals.", sharex=True, sharey=True)
    order = list(dict.fromkeys(table["attack"]))
    for ax, (name, one) in zip(axes, groups, strict=True):
        for row in one.itertuples():
            look = {"color": BLUE, "mfc": BLUE if row.outcome == "Evidence of leakage" else "white"}
            reach = [[row.auc - row.low], [row.high - row.auc]]
            ax.errorbar(row.auc, order.index(row.attack), xerr=reach, fmt="o", ms=5, capsize=2.5, **look)
        ax.axvline(0.5, color="black", lw=0.8, ls=(0, (1, 2)))
        ax.set(title=name, xlabel="AUC", yticks=range(len(order)), yticklabels=order, ylim=(len(order) - 0.5, -0.5))
    return np.asarray(axes)


@styled
def growth(table: pd.DataFrame, axes: Sequence[Axes] | None = None) -> np.ndarray:
    """AUCs along the steps of training, one panel per recipe, one line per training.

    Steps, not epochs, since at equal epochs a smaller set also has fewer steps to be learnt in.

    Args:
        table: columns recipe, N, planned (epochs), training_seed, steps, auc, low and high, as data/zoo/growth.csv has
            them.
        axes: one per recipe, in the order in which recipes first appear.
    """
    recipes = list(dict.fromkeys(table["recipe"]))
    axes = own_row(axes, len(recipes), 3.6, 3.4, sharey=True)
    for ax, recipe in zip(axes, recipes, strict=True):
        own = table[table["recipe"] == recipe]
        groups = own.groupby(["N", "planned", "training_seed"])
        step = 0.012 * own["steps"].max()  # so that bars stand side by side
        for number, ((members, planned, seed), one) in enumerate(groups):
            marker, line, colour = LINES[number % len(LINES)]
            x = one["steps"] + step * (number - (len(groups) - 1) / 2)
            reach = np.stack([one["auc"] - one["low"], one["high"] - one["auc"]]).clip(0)
            how = {"marker": marker, "ls": line, "color": colour, "ms": 5, "capsize": 2.5}
            twins = own[(own["N"] == members) & (own["planned"] == planned)]
            again = f", seed {seed}" if twins["training_seed"].nunique() > 1 else ""
            ax.errorbar(x, one["auc"], reach, label=f"N = {members:,}, {planned:,} epochs{again}", **how)
        ax.axhline(0.5, color="black", lw=0.8, ls=(0, (1, 2)), label="chance")
        ax.set(title=recipe, xlabel="steps of training", xlim=(0, None))
        ax.set(ylim=(table["low"].min() - 0.03, table["high"].max() + 0.18))  # the legend lies above all bars
        ax.legend(loc="upper left")
        if ax.get_subplotspec().is_first_col():
            ax.set_ylabel("AUC of telling members\nfrom non-members")
    return np.asarray(axes)


@styled
def capacity(table: pd.DataFrame, axes: Sequence[Axes] | None = None) -> np.ndarray:
    """What an attack finds, and what features are good for, against the number of weights; a line for each recipe.

    Args:
        table: of `defenses.over_trainings`, the undefended rows and those of smaller capacity alone.
        axes: two, for the AUC and the linear probe.
    """
    text = "Bars: 95 % intervals over images and trainings; the largest is the undefended encoder."
    axes = own_row(axes, 2, 3.6, 3.2, text=text)
    columns = ("auc", "low", "high"), ("probe", "probe_low", "probe_high")
    for number, (recipe, one) in enumerate(table.groupby("recipe", sort=False)):
        one, (marker, line, colour) = one.sort_values("parameters"), LINES[number % len(LINES)]
        for ax, (name, low, high), unit in zip(axes, columns, (1, 100), strict=True):
            reach = unit * np.stack([one[name] - one[low], one[high] - one[name]])
            how = {"marker": marker, "ls": line, "color": colour, "ms": 5, "capsize": 2.5, "label": recipe}
            ax.errorbar(one["parameters"], unit * one[name], reach, **how)
    axes[0].axhline(0.5, color="black", lw=0.8, ls=(0, (1, 2)), label="chance")
    for ax, label in zip(axes, (LEAKS["auc"][-1], USES["probe"]), strict=True):
        ax.set(xscale="log", xlabel="weights of the backbone", ylabel=label)
    axes[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return np.asarray(axes)


LEAKS = {
    "auc": ("AUC", "low", "high", "AUC of telling members\nfrom non-members"),
    "tpr_at_1_fpr": ("TPR at 1 % FPR", "tpr_low", "tpr_high", "TPR at 1 % FPR"),
    "score": ("deja vu score", "low", "high", "deja vu score, all images"),
}
"""Of each measure of a leak its name, its interval's columns, and what an axis calls it."""

USES = {"probe": "accuracy of the linear probe (%)", "knn": "accuracy of nearest neighbours (%)"}


@styled
def tradeoff(
    table: pd.DataFrame,
    axes: Sequence[Axes] | None = None,
    *,
    by: str = "recipe",
    leak: str = "auc",
    use: str = "probe",
    faded: Collection[int] = (),
    hover: bool = False,
) -> np.ndarray:
    """What defences buy and cost: the leak that an attack finds against what features are good for.

    Args:
        table: columns defense, level, attacker, the one named by `by`, those of `leak` and `use`, and front (whether
            no other point is better in one and no worse in the other), as `partcrop_lab.defenses` makes them.
        axes: one per panel, in the order in which the values of `by` first appear.
        by: the column that tells panels apart.
        leak: a key of `LEAKS`.
        use: a key of `USES`; the interval of the probe is drawn, too.
        faded: rows, by their index, that are drawn faintly.
        hover: points tell what they are under the mouse, where the drawing becomes an SVG.
    """
    panels, defenses = (list(dict.fromkeys(table[name])) for name in (by, "defense"))
    axes = own_row(axes, len(panels), 4.2, 4.2, sharey=True)
    _, low, high, name = LEAKS[leak]
    looks = _defense_looks(defenses)
    for ax, panel in zip(axes, panels, strict=True):
        own = table[table[by] == panel]
        for row in own.itertuples():
            adaptive = row.attacker == "adaptive"
            value, found = 100 * getattr(row, use), getattr(row, leak)
            reach = [[found - getattr(row, low)], [getattr(row, high) - found]]
            sides = [[value - 100 * row.probe_low], [100 * row.probe_high - value]] if use == "probe" else None
            how = looks[row.defense] | {"elinewidth": 0.8, "alpha": 0.15 if row.Index in faded else 1}
            how |= {"mfc": "none"} if adaptive else {}
            label = f"{'no defence' if row.defense == 'none' else row.defense}{', adaptive' if adaptive else ''}"
            label = f"_{label}" if row.Index in faded else label  # not in the legend
            ax.errorbar(value, found, reach, sides, ls="", label=label, **how)
            if hover and row.Index not in faded:
                hover_text(ax, value, found, _told(row, leak, use))
        front = own[own["front"]].sort_values(use)
        ax.plot(100 * front[use], front[leak], color=GREY, lw=1, zorder=0, label="Pareto front")
        ax.axhline(CHANCE[leak], color="black", lw=0.8, ls=(0, (1, 2)), label="chance")
        ax.set(title=panel, xlabel=USES[use])
    axes[0].set(ylabel=name)
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels())}
    axes[-1].legend(handles.values(), handles.keys(), loc="center left", bbox_to_anchor=(1.02, 0.5))
    return np.asarray(axes)


def _defense_looks(defenses: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A colour and a marker for each defence; no defence is a black star."""
    others = [name for name in defenses if name != "none"]
    looks = {
        name: {"color": (BLUE, RED, GREEN, ORANGE, PURPLE, GREY)[k % 6], "marker": "osD^vPX<>p"[k % 10], "ms": 5}
        for k, name in enumerate(others)
    }
    return looks | {"none": {"color": "black", "marker": "*", "ms": 11}}


def _told(row: Any, leak: str, use: str) -> str:
    """A point of the trade-off in words."""
    measure, low, high, _ = LEAKS[leak]
    name = "no defence" if row.level == "none" else f"{row.level}, attacker {row.attacker}"
    interval = f"{getattr(row, leak):.3f} ({getattr(row, low):.3f} to {getattr(row, high):.3f})"
    return f"{name}: {measure} {interval}, {use} {100 * getattr(row, use):.1f} %, {row.queries} queries an image"


@styled
def word_tables(tables: Mapping[str, pd.DataFrame], figure: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """Tables of words, one below the other, each under its name.

    Args:
        tables: rows and columns as their labels say; cells may have several lines.
        figure: where to draw.
    """
    width, heights = max(one.shape[1] for one in tables.values()), [len(one) + 0.5 for one in tables.values()]
    figure = figure or plt.figure(figsize=(2.0 + 1.9 * width, 0.55 * sum(heights) + 0.4), layout="constrained")
    axes = figure.subplots(len(tables), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, (name, one) in zip(axes, tables.items(), strict=True):
        heads = {"rowLabels": list(one.index), "colLabels": list(one.columns)}
        drawn = ax.table(one.to_numpy().tolist(), **heads, cellLoc="center", bbox=[0, 0, 1, 1])
        drawn.auto_set_font_size(False)
        drawn.set_fontsize(7)
        for (row, _), cell in drawn.get_celld().items():
            cell.set(edgecolor=GREY, linewidth=0.5, height=0.5 if row == 0 else 1.0)
        ax.set_title(name, loc="left")
        ax.axis("off")
    return figure
