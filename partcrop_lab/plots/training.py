"""Losses along a training."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from partcrop_lab.plots.base import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, caption, own_axes, styled


@styled
def loss_curve(table: pd.DataFrame, ax: Axes | None = None, ylabel: str = "binary cross-entropy (nats)") -> Axes:
    """Training loss by epoch, one line per value of the column `fold` or `encoder` where there is one."""
    ax = own_axes(ax, "")
    by = next((name for name in ("fold", "encoder") if name in table), None)
    for number, (name, one) in enumerate(table.groupby(by, sort=False) if by else [("", table)]):
        colour = (BLUE, RED, GREEN, ORANGE, PURPLE)[number % 5]
        ax.plot(one["epoch"], one["loss"], color=colour, lw=1.4, label=f"{by} {name}")
    ax.set(xlabel="epoch", ylabel=ylabel, title="loss on the attacker's own training images")
    if by:
        ax.legend()
    return ax


@styled
def training_curve(table: pd.DataFrame, figure: Figure | SubFigure | None = None, text: str = "") -> Figure | SubFigure:
    """The loss of a pretraining run by epoch, over its learning rate.

    Args:
        table: columns epoch, loss and lr of the `log.jsonl` that `pretrain` writes.
        figure: where to draw.
        text: for the caption: recipe, N, T and seed.
    """
    figure = figure or plt.figure(figsize=(4.6, 3.6), layout="constrained")
    loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=[3.5, 1])
    marker = "o" if len(table) == 1 else ""
    loss.plot(table["epoch"], table["loss"], color=BLUE, lw=1.4, marker=marker)
    loss.set(ylabel="loss, mean over an epoch")
    rate.plot(table["epoch"], table["lr"], color=GREY, lw=1.4, marker=marker)
    rate.set(xlabel="epoch", ylabel="learning rate", ylim=(0, None))
    figure.align_ylabels([loss, rate])
    caption(figure, text)
    return figure
