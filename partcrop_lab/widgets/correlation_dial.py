"""Correlation dial: tie backgrounds to classes, and see what that does to two encoders, as it was measured before."""

from __future__ import annotations

import ipywidgets as widgets
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from partcrop_lab import plots, tables
from partcrop_lab.errors import BadInput
from partcrop_lab.images import ImageSet, load_images
from partcrop_lab.widgets.panel import Drawing, Panel

DRAWN, CLASSES, COLUMNS = 120, 4, 6
SHARES = ("memorised", "correlated", "misrepresented")


def correlation_dial(table: pd.DataFrame, size: int = 64) -> Panel:
    """A panel over scores of pairs that were trained at several correlations: nothing is trained, only shown.

    Args:
        table: of `dejavu.measured`.
        size: of the drawings in pixels; at every correlation they are the same, before other backgrounds.

    Returns:
        A panel with the controls recipe and correlation.

    Raises:
        BadInput: a table that is not of the dial.
    """
    if "correlation" not in table or table.empty:
        raise BadInput(
            f"the dial needs a table of pairs at several correlations; found {len(table)} rows, {list(table)}"
        )
    dial = tables.dial_table(table)

    def draw(recipe, correlation) -> Drawing:
        own = dial[dial["recipe"] == recipe]
        here = own[own["correlation"] == correlation].set_index("curve")
        if here.empty:
            there = ", ".join(f"{level:g}" for level in sorted(set(own["correlation"])))
            raise BadInput(f"no pair of {recipe} was trained at a correlation of {correlation:g}, only at {there}")
        drawings = load_images("partshapes", DRAWN, size=size, background_correlation=correlation)
        png = plots.png(lambda figure: _draw(_by_class(drawings), own, correlation, figure), 9.4, 5.2, 85)
        counts = ", ".join(f"{here.loc[name, 'value'] * here.loc[name, 'n']:.0f} {name}" for name in SHARES)
        score = "{:.3f} ({:.3f} to {:.3f})".format(*here.loc["deja vu", ["value", "low", "high"]])
        words = f"Of {here['n'].iloc[0]} backgrounds {counts}. <b>Deja vu score {score}</b>, 95 % interval."
        return Drawing(png, words)

    options = [(f"{level:g}", level) for level in sorted(set(dial["correlation"]))]
    controls = {
        "recipe": widgets.Dropdown(options=list(dict.fromkeys(dial["recipe"])), description="recipe"),
        "correlation": widgets.SelectionSlider(options=options, description="correlation", continuous_update=False),
    }
    return Panel("Correlation dial", controls, draw)


def _by_class(drawings: ImageSet) -> np.ndarray:
    """The first images of the first classes, a row for each."""
    labels = np.asarray(drawings.labels)
    rows = [np.flatnonzero(labels == label)[:COLUMNS] for label in range(CLASSES)]
    return drawings.batch(np.concatenate(rows)).numpy()


def _draw(images: np.ndarray, dial: pd.DataFrame, correlation: float, figure: Figure) -> None:
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.1])
    plots.image_grid(images, columns=COLUMNS, figure=left)
    left.suptitle(f"a row for each class, correlation {correlation:g}", fontsize=9)
    for ax in plots.dial(dial, right.subplots(2, 1, sharex=True, squeeze=False)).ravel():
        ax.axvspan(correlation - 0.05, correlation + 0.05, color="0.9", zorder=0)
