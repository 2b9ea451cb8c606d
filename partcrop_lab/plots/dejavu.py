"""What a background betrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from partcrop_lab.plots.base import BLUE, GREEN, GREY, LINES, RED, own_row, styled
from partcrop_lab.plots.parts import channels_last, image_with_boxes

if TYPE_CHECKING:
    from partcrop_lab.dejavu import Reconstructions


@styled
def deja_vu(
    neighbours: Mapping[str, Tensor],
    votes: pd.DataFrame,
    label: int,
    figure: Figure | SubFigure | None = None,
    painted: Mapping[str, Tensor] | None = None,
) -> Figure | SubFigure:
    """What models infer from a background: for each its nearest public images, and the votes of all that vote.

    Args:
        neighbours: by model, (B, 3, H, W), nearest first.
        votes: columns model, label, class and votes, as `dejavu.Backgrounds.votes_table` gives them.
        label: the image's own class, which is marked.
        figure: where to draw.
        painted: by model, (B, 3, S, S), what a reconstructor paints of it, where there is one.
    """
    figure = figure or plt.figure(figsize=(8.4, 3.6), layout="constrained")
    models = list(neighbours)
    pictures = {f"nearest public images under model {model}": images for model, images in neighbours.items()}
    pictures |= {f"painted under model {model}, mostly prior": images for model, images in (painted or {}).items()}
    grid = figure.add_gridspec(len(pictures), 2, width_ratios=[1.5, 1])
    for place, (head, images) in enumerate(pictures.items()):
        row = figure.add_subplot(grid[place, 0])
        row.imshow(channels_last(_side_by_side(images)))
        row.set_title(head, fontsize=8)
        row.axis("off")
    ax = figure.add_subplot(grid[:, 1])
    looks = ((RED, "//"), (BLUE, ""))
    for place, (model, (colour, hatch)) in enumerate(zip(models, looks, strict=False)):
        own = votes[votes["model"] == model]
        at = own["label"] + 0.4 * (place - (len(models) - 1) / 2)
        ax.barh(at, own["votes"], 0.4, color=colour, alpha=0.75, hatch=hatch, edgecolor="white", label=f"model {model}")
    names = votes.drop_duplicates("label")
    ticks = [f"{name} *" if number == label else name for number, name in zip(names["label"], names["class"])]
    ax.set_yticks(names["label"], ticks)
    ax.invert_yaxis()
    ax.set(xlabel="share of votes (*: its own class)", xlim=(0, min(1, 1.6 * votes["votes"].max())))
    ax.legend(loc="lower right")
    return figure


@styled
def reconstructions(
    found: Reconstructions, rows: Sequence[int], figure: Figure | SubFigure | None = None, shown: int = 3
) -> Figure | SubFigure:
    """Images, their backgrounds, and what is painted from these under both models, beside the nearest public images.

    Args:
        found: of `dejavu.reconstruct`.
        rows: of its table, one image each.
        figure: where to draw.
        shown: paintings of each image under each model.
    """
    figure = figure or plt.figure(figsize=(9.2, 0.95 * len(rows) + 0.4), layout="constrained")
    heads = {"image": found.images[:, None], "its\nbackground": found.crops[:, None]}
    for model in "AB":
        heads[f"nearest\nunder {model}"] = found.nearest[model][:, None]
        heads[f"painted under {model}"] = found.painted[model][:, :shown]
    axes = figure.subplots(len(rows), len(heads), squeeze=False, width_ratios=[one.shape[1] for one in heads.values()])
    for line, row in zip(axes, rows, strict=True):
        for ax, (head, pictures) in zip(line, heads.items(), strict=True):
            image_with_boxes(_side_by_side(pictures[row], 1), (), ax, head if row == rows[0] else "")
        line[0].set_ylabel(f"of {found.table['set'].iloc[row]}")
    return figure


@styled
def joined_scores(table: pd.DataFrame, axes: Sequence[Axes] | None = None) -> np.ndarray:
    """Membership against memory, a dot for each image, one panel per attack.

    Args:
        table: of `tables.joined_scores`.
        axes: one per attack.
    """
    groups = list(table.groupby("attack", sort=False))
    text = f"n = {len(groups[0][1])} images of A. Spearman's rho with its 95 % interval."
    axes = own_row(axes, len(groups), 2.9, 3.2, 0.6, text, sharey=True)
    for ax, (attack, one) in zip(axes, groups, strict=True):
        rho, low, high = one[["rho", "low", "high"]].iloc[0]
        ax.plot(one["rank"], one["memory"], "o", ms=3, alpha=0.5, color=BLUE)
        ax.axhline(0, color="black", lw=0.8, ls=(0, (1, 2)))
        ax.set(title=f"{attack}\nrho {rho:.2f} ({low:.2f} to {high:.2f})", xlabel="membership score (rank in its fold)")
    axes[0].set(ylabel="memory: votes for the class,\ntrained minus other")
    return np.asarray(axes)


DIAL_LOOKS = {
    "memorised": {"color": RED, "marker": "o"},
    "correlated": {"color": BLUE, "marker": "s", "linestyle": "--"},
    "misrepresented": {"color": GREY, "marker": "^", "linestyle": ":"},
    "deja vu": {"color": RED, "marker": "o"},
    "third set": {"color": BLUE, "marker": "s", "linestyle": "--"},
    "untrained": {"color": GREEN, "marker": "D", "linestyle": "-."},
    "permuted": {"color": GREY, "marker": "^", "linestyle": ":"},
}


@styled
def dial(table: pd.DataFrame, axes: np.ndarray | None = None) -> np.ndarray:
    """Shares of images memorised and correlated, and the deja vu score with its controls, along the correlation.

    Args:
        table: of `tables.dial_table`.
        axes: (2, recipes), shares above, scores below.
    """
    recipes = list(dict.fromkeys(table["recipe"]))
    if axes is None:
        figure = plt.figure(figsize=(0.8 + 3.1 * len(recipes), 5.2), layout="constrained")
        axes = figure.subplots(2, len(recipes), sharex=True, sharey="row", squeeze=False)
    for column, recipe in zip(axes.T, recipes, strict=True):
        for ax, kind in zip(column, ("share", "score"), strict=True):
            own = table[(table["recipe"] == recipe) & (table["kind"] == kind)]
            for shift, (name, one) in enumerate(own.groupby("curve", sort=False)):
                reach = np.stack([one["value"] - one["low"], one["high"] - one["value"]]).clip(0)
                x = one["correlation"] + 0.012 * (shift - 1)
                ax.errorbar(x, one["value"], reach, capsize=2, ms=5, label=name, **DIAL_LOOKS[name])
        column[0].set_title(f"{recipe}, {table.loc[table['recipe'] == recipe, 'layer'].iloc[0]}")
        column[1].axhline(0, color="black", lw=0.8, ls=(0, (1, 2)))
        column[1].set(xlabel="correlation of backgrounds with classes", xticks=sorted(set(table["correlation"])))
    axes[0, 0].set(ylabel="share of the images of A and B", ylim=(0, None))  # once all are drawn, or later ones are cut
    axes[1, 0].set(ylabel="deja vu score\n(accuracy, trained minus other)")
    for row in axes:
        row[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return axes


@styled
def dejavu_growth(table: pd.DataFrame, axes: Sequence[Axes] | None = None) -> np.ndarray:
    """The deja vu score along the epochs and over layers, beside the gap of a linear probe; a line for each N.

    Args:
        table: of `tables.dejavu_growth_table`, of one recipe.
        axes: three: along the epochs at the projector, the probe's gap, and over layers at the end.
    """
    text = "Bars: 95 % intervals. Grey: the third set, where 0 is right."
    axes = own_row(axes, 3, 3.2, 3.2, 0.4, text)
    layers = sorted(set(table["layer"]) - {"backbone", "projector"}, key=int)
    places = {name: place for place, name in enumerate([*layers, "backbone", "projector"])}
    table = table.assign(place=table["layer"].map(places))
    looks = {"third set": {"color": GREY, "alpha": 0.5}}
    along, last = table[table["layer"] == "projector"], table[table["T"] == table["T"].max()]
    for number, members in enumerate(sorted(set(table["N"]))):
        marker, line, colour = LINES[number % len(LINES)]
        for ax, some, x, curve in (
            (axes[0], along, "T", "third set"),
            (axes[0], along, "T", "deja vu"),
            (axes[1], along, "T", "gap of the probe"),
            (axes[2], last, "place", "third set"),
            (axes[2], last, "place", "deja vu"),
        ):
            one = some[(some["N"] == members) & (some["curve"] == curve)].sort_values(x)
            reach = np.stack([one["value"] - one["low"], one["high"] - one["value"]])
            look = looks.get(curve, {"color": colour, "label": f"N = {members:,}"})
            at = one[x] + 0.012 * number * some[x].max()  # so that bars stand side by side
            ax.errorbar(at, one["value"], reach, marker=marker, ls=line, ms=5, capsize=2, **look)
    for ax, ylabel in zip(axes, ("deja vu score, projector", "gap of the linear probe", "deja vu score"), strict=True):
        ax.axhline(0, color="black", lw=0.8, ls=(0, (1, 2)))
        ax.set(xlabel="epochs T", ylabel=ylabel)
    names = [f"block {name}" if name in layers else name for name in places]
    axes[2].set_xticks(list(places.values()), names, rotation=30, ha="right")
    axes[2].set_xlabel("layer, at the last epoch")
    axes[0].legend(loc="upper left")
    return np.asarray(axes)


@styled
def dejavu_sweeps(table: pd.DataFrame, axes: Sequence[Axes] | None = None) -> np.ndarray:
    """The deja vu score beside the gap of a linear probe, a row for each recipe or setting.

    Args:
        table: of `tables.dejavu_sweeps`, of one N.
        axes: two, sharing their y axis.
    """
    text = "Bars: 95 % intervals. Grey: the third set, where 0 is right."
    axes = own_row(axes, 2, 3.4, 0.28 * table["recipe"].nunique() + 1.3, 1.4, text, sharey=True)
    order = list(dict.fromkeys(table["recipe"]))
    looks = {
        "third set": (0, 0.2, {"color": GREY, "marker": "s"}),
        "deja vu": (0, 0.0, {"color": RED, "marker": "o"}),
        "gap of the probe": (1, 0.0, {"color": BLUE, "marker": "D"}),
    }
    for curve, (place, shift, look) in looks.items():
        one = table[table["curve"] == curve]
        reach = np.stack([one["value"] - one["low"], one["high"] - one["value"]])
        at = one["recipe"].map(order.index) + shift
        axes[place].errorbar(one["value"], at, xerr=reach, ls="", ms=5, capsize=2, label=curve, **look)
    axes[0].axvline(0, color="black", lw=0.8, ls=(0, (1, 2)))
    axes[0].set(xlabel="deja vu score", yticks=range(len(order)), yticklabels=order, ylim=(len(order) - 0.5, -0.5))
    axes[1].set(xlabel="gap of the linear probe")
    return np.asarray(axes)


def _side_by_side(images: Tensor, gap: int = 3) -> np.ndarray:
    """Images (B, 3, H, W) in one row (3, H, W'), white between them: one axes is drawn far faster than many."""
    wide = np.pad(np.asarray(images), ((0, 0), (0, 0), (0, 0), (0, gap)), constant_values=255)
    return np.concatenate(list(wide), axis=-1)[..., :-gap]
