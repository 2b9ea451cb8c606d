"""What all figures share: colours, style, captions, and their files."""

from __future__ import annotations

import contextlib
import functools
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

BLUE, ORANGE, GREEN, PURPLE, GREY, RED = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#7F7F7F", "#D55E00"
"""Okabe and Ito's colours, which colour-blind readers tell apart."""

LOOKS: dict[str, dict[str, Any]] = {
    "target": {"color": BLUE, "linestyle": "-", "marker": "o", "linewidth": 2},
    "untrained": {"color": GREEN, "linestyle": "--", "marker": "s"},
    "pixels": {"color": ORANGE, "linestyle": "-.", "marker": "^"},
    "permuted": {"color": GREY, "linestyle": ":", "marker": "x"},
    "members": {"color": RED, "linestyle": "-"},
    "non-members": {"color": BLUE, "linestyle": "--"},
}

LINES = (("o", "-", RED), ("s", "--", BLUE), ("^", "-.", GREEN), ("D", ":", PURPLE))
"""Marker, line and colour of several trainings in one panel."""

NAMES = {
    "target": "attack",
    "untrained": "control: untrained",
    "pixels": "control: pixels",
    "permuted": "control: permuted",
}

HOVER = "hover: "
"""What the id of a point that tells something begins with, in an SVG."""

RELEASED = "RELEASED PROTOCOL: members were augmented, non-members were not"

STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "partcrop-lab",
    "image.interpolation": "nearest",
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The figures' style within the context.

    Unlike `matplotlib.rc_context` it puts back the style's own settings alone: the first figure in a notebook turns on
    interactive mode, which must stay on.
    """
    before = {name: mpl.rcParams[name] for name in STYLE}
    mpl.rcParams.update(STYLE)
    try:
        yield
    finally:
        mpl.rcParams.update(before)


def styled(draw: Callable) -> Callable:
    """Have a function draw in the figures' style."""

    @functools.wraps(draw)
    def drawn(*arguments: Any, **keywords: Any) -> Any:
        with style():
            return draw(*arguments, **keywords)

    return drawn


def new_axes(width: float = 4.6, height: float = 3.4) -> Axes:
    """Axes on a figure of their own, of this size in inches."""
    return plt.figure(figsize=(width, height), layout="constrained").add_subplot()


def png(draw: Callable[[Figure], Any], width: float, height: float, dpi: int = 100) -> bytes:
    """Draw on a figure of this size in inches, without a window or a notebook, and give it as PNG."""
    return _file(draw, width, height, dpi=dpi, format="png", metadata={"Software": None})


def svg(draw: Callable[[Figure], Any], width: float, height: float) -> str:
    """As `png`, but as SVG for a page, where what `hover_text` marked tells its text under the mouse."""
    picture = _file(draw, width, height, format="svg", metadata={"Date": None, "Creator": None}).decode()
    picture = picture[picture.index("<svg") :].replace("<svg ", '<svg style="max-width: 100%; height: auto" ', 1)
    return re.sub(rf'<g id="{HOVER}([^"]*)">', r"<g><title>\1</title>", picture)


def _file(draw: Callable[[Figure], Any], width: float, height: float, **how: Any) -> bytes:
    data = BytesIO()
    with style():
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        figure.savefig(data, **how)
    return data.getvalue()


def hover_text(ax: Axes, x: float, y: float, text: str) -> None:
    """Have an SVG tell a text where the mouse is over a point."""
    ax.plot(x, y, "o", ms=11, alpha=0, gid=HOVER + text)


def caption(figure: Figure | SubFigure, text: str, width: int | None = None) -> None:
    """Write a caption below a figure, wrapped to its width."""
    inches = figure.get_figure(root=True).get_size_inches()[0]
    figure.supxlabel(textwrap.fill(text, width or int(inches * 17)), x=0.01, ha="left", fontsize=7, color="#404040")


def mark_released(ax: Axes) -> None:
    """Say on the face of a plot that it was made with the released protocol."""
    box = {"facecolor": "white", "edgecolor": RED, "boxstyle": "round,pad=0.5"}
    text = RELEASED.replace(": ", ":\n")
    ax.text(0.5, 0.985, text, transform=ax.transAxes, ha="center", va="top", fontsize=7, color=RED, bbox=box, zorder=9)


def own_axes(ax: Axes | None, text: str, **size: float) -> Axes:
    """The given axes, or new ones on a figure with a caption."""
    if ax is None:
        ax = new_axes(**size)
        caption(ax.figure, text)
    return ax


def own_row(
    axes: Sequence[Axes] | None,
    count: int,
    width: float,
    height: float,
    margin: float = 0.0,
    text: str = "",
    **how: Any,
) -> Sequence[Axes]:
    """The given axes, or a row of new ones, each so many inches wide, on a figure with a caption where there is one."""
    if axes is not None:
        return axes
    figure = plt.figure(figsize=(margin + width * count, height), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False, **how)[0]
    if text:
        caption(figure, text)
    return axes


def auc_interval(row: pd.Series) -> str:
    """A row's value with its interval, in words."""
    return f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
