"""From curves to the membership feature, step by step."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from partcrop_lab.plots.base import BLUE, GREEN, LOOKS, ORANGE, own_row, styled
from partcrop_lab.plots.parts import draw_box, image_grid, image_with_boxes
from partcrop_lab.tables import FeatureSteps


@styled
def feature_curves(table: pd.DataFrame, axes: Sequence[Axes] | None = None, text: str = "") -> np.ndarray:
    """Mean sorted energies of members and of non-members with 95 % bands, one axes per kind of energy.

    Args:
        table: of `tables.energy_table`.
        axes: one per kind.
        text: for the caption of a figure of its own, e.g. the seed.
    """
    groups = list(table.groupby("kind", sort=False))
    axes = own_row(axes, len(groups), 3.0, 3.0, 0.6, f"Lines: means. Bands: 95 % intervals of the means. {text}")
    for ax, (kind, one) in zip(axes, groups, strict=True):
        for side, curve in one.groupby("side", sort=False):
            ax.fill_between(curve["rank"], curve["low"], curve["high"], color=LOOKS[side]["color"], alpha=0.25, lw=0)
            ax.plot(curve["rank"], curve["mean"], label=f"{side}, n = {curve['n'].iloc[0]}", **LOOKS[side])
        ax.set(title=f"{kind} energy", xlabel="rank of the part", ylabel="energy (nats)", ylim=(0, None))
        ax.legend()
    return np.asarray(axes)


@styled
def one_feature(
    energies: pd.DataFrame, table: pd.DataFrame | None = None, axes: Sequence[Axes] | None = None
) -> np.ndarray:
    """One image's sorted energies, over the mean members' and non-members'.

    Args:
        energies: columns kind, rank, energy (nats).
        table: of `tables.energy_table`, drawn behind it.
        axes: one per kind.
    """
    groups = list(energies.groupby("kind", sort=False))
    axes = own_row(axes, len(groups), 3.0, 2.8, 0.6)
    if table is not None:
        feature_curves(table[table["kind"].isin([kind for kind, _ in groups])], axes)
    for ax, (kind, one) in zip(axes, groups, strict=True):
        ax.plot(one["rank"], one["energy"], color="black", lw=1.4, marker=".", ms=4, label="this image")
        ax.set(title=f"{kind} energy, sorted", xlabel="rank of the part", ylabel="energy (nats)", ylim=(0, None))
        ax.legend()
    return np.asarray(axes)


@styled
def part_steps(steps: FeatureSteps, number: int = 0, axes: Sequence[Axes] | None = None) -> np.ndarray:
    """One part from its similarity curve to its response and the targets that its energies compare it with.

    Args:
        steps: of `tables.feature_steps`.
        number: which part.
        axes: two.
    """
    if axes is None:
        axes = plt.figure(figsize=(6.6, 2.6), layout="constrained").subplots(1, 2)
    one, energies = steps.part(number), steps.energies[steps.energies["part"] == number]
    axes[0].plot(one["position"], one["similarity"], color=BLUE, lw=1.2)
    axes[0].set(title=f"part {number}: similarity curve s", xlabel="position n (row by row)", ylabel="similarity")
    axes[1].plot(one["position"], one["response"], color=BLUE, lw=1.2, label="response\nq = softmax(s)")
    looks = {"uniform": (ORANGE, "--"), "gaussian": (GREEN, "-.")}
    for kind, energy in zip(energies["kind"], energies["energy"], strict=True):
        colour, line = looks[kind]
        axes[1].plot(
            one["position"], one[kind], color=colour, ls=line, lw=1.2, label=f"{kind} target\nenergy {energy:.2f} nats"
        )
    axes[1].set(title="response and targets", xlabel="position n (row by row)", ylabel="probability")
    axes[1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return np.asarray(axes)


@styled
def feature_steps(
    steps: FeatureSteps,
    number: int = 0,
    means: pd.DataFrame | None = None,
    figure: Figure | SubFigure | None = None,
    shown: int = 32,
) -> Figure | SubFigure:
    """Every step from an image to its membership feature: parts, one part's response, sorted energies.

    Args:
        steps: of `tables.feature_steps`.
        number: the part whose response is drawn; its box is the thick red one.
        means: of `tables.energy_table`, drawn behind the feature.
        figure: where to draw.
        shown: at most so many parts in the contact sheet.
    """
    figure = figure or plt.figure(figsize=(8.6, 6.6), layout="constrained")
    rows = figure.subfigures(3, 1, height_ratios=[1.15, 1, 1.1])
    left, right = rows[0].subfigures(1, 2, width_ratios=[1, 2.6])
    ax = image_with_boxes(steps.image, steps.boxes, left.subplots(), f"1 · {len(steps.boxes)} parts cut", linewidth=0.5)
    draw_box(ax, steps.boxes[number].tolist(), linewidth=2.5)
    image_grid(steps.parts[:shown], columns=11, figure=right)
    right.suptitle(
        f"2 · the first {min(shown, len(steps.parts))} parts, resized to {steps.parts.shape[-1]} px", fontsize=9
    )
    part_steps(steps, number, rows[1].subplots(1, 2))
    rows[1].suptitle("3 · each part is compared with every position of the image", fontsize=9)
    one_feature(steps.feature, means, rows[2].subplots(1, steps.energies["kind"].nunique(), squeeze=False)[0])
    rows[2].suptitle("4 · the energies, sorted, are the membership feature", fontsize=9)
    return figure
