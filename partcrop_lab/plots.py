"""Tidy tables and results to matplotlib axes; nothing is computed here.

Every figure of a notebook, a widget, a report and of `figures/` is drawn by these functions. Each takes the axes to
draw on (`ax`, or `figure` where it lays out several) and makes its own where they are omitted.
"""

from __future__ import annotations

import contextlib
import functools
import re
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from partcrop_lab.tables import GRID, FeatureSteps, describe, roc_table, target_rates

if TYPE_CHECKING:
    from partcrop_lab.audit import AuditResult
    from partcrop_lab.dejavu import Reconstructions
    from partcrop_lab.images import Box

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


def _styled(draw: Callable) -> Callable:
    @functools.wraps(draw)
    def drawn(*arguments: Any, **keywords: Any) -> Any:
        with style():
            return draw(*arguments, **keywords)

    return drawn


def _new(width: float = 4.6, height: float = 3.4) -> Axes:
    return plt.figure(figsize=(width, height), layout="constrained").add_subplot()


def png(draw: Callable[[Figure], Any], width: float, height: float, dpi: int = 100) -> bytes:
    """Draw on a figure of this size in inches, without a window or a notebook, and give it as PNG."""
    return _file(draw, width, height, dpi=dpi, format="png", metadata={"Software": None})


def svg(draw: Callable[[Figure], Any], width: float, height: float) -> str:
    """As `png`, but as SVG for a page, where what `_hover` marked tells its text under the mouse."""
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


def _hover(ax: Axes, x: float, y: float, text: str) -> None:
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


def _own_axes(ax: Axes | None, text: str, **size: float) -> Axes:
    """The given axes, or new ones on a figure with a caption."""
    if ax is None:
        ax = _new(**size)
        caption(ax.figure, text)
    return ax


def _own_row(
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


@_styled
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
    ax = _own_axes(ax, f"{text} Band: 95 % by bootstrap. Grey: range of fits with permuted labels.", height=4.6)
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


@_styled
def rocs(results: Mapping[str, AuditResult], ax: Axes | None = None) -> Axes:
    """The ROCs of several audits on logarithmic axes, each named with its AUC and 95 % interval; no controls.

    Args:
        results: at most six, by the name shown.
        ax: where to draw.
    """
    ax = ax or _new(4.6, 4.6)
    colours, lines = (BLUE, RED, GREEN, PURPLE, ORANGE, GREY), ("-", "--", "-.", ":", "-", "--")
    for (name, result), color, line in zip(results.items(), colours, lines, strict=False):
        ax.plot(
            GRID, target_rates(result), color=color, ls=line, label=f"{name}, {_interval(result.metrics.loc['auc'])}"
        )
    return _logarithmic(ax, min(0.5, 1 / max(result.settings["nonmembers"] for result in results.values())))


def _logarithmic(ax: Axes, least: float, top: float = 1.6) -> Axes:
    """Rates from `least` on logarithmic axes, the line of chance, and the legend below."""
    ax.plot([1e-4, 1], [1e-4, 1], color="black", lw=0.8, ls=(0, (1, 2)), label="chance")
    ax.set(xscale="log", yscale="log", xlim=(least, 1), ylim=(least, top))
    ax.set(xlabel="false positive rate", ylabel="true positive rate")
    ax.legend(loc="upper left", bbox_to_anchor=(-0.26, -0.17))
    return ax


def _interval(row: pd.Series) -> str:
    return f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def _names_with_auc(result: AuditResult) -> dict[str, str]:
    def label(name: str, row: pd.Series) -> str:
        return f"{NAMES[name]}, AUC {_interval(row)}"

    controls = result.controls.rename(columns={"auc": "value"})
    rows = {name: controls.loc[name] for name in controls.index if name != "permuted"}
    return {name: label(name, row) for name, row in {"target": result.metrics.loc["auc"], **rows}.items()}


def _draw_box(ax: Axes, box: Box, **look: Any) -> None:
    x, y, width, height = _bounds(box)
    ax.add_patch(Rectangle((x, y), width, height, fill=False, **{"edgecolor": RED, "linewidth": 1.8} | look))


def _bounds(box: Box) -> tuple[float, float, float, float]:
    """x, y, width, height."""
    x0, y0, x1, y1 = box
    return x0, y0, x1 - x0, y1 - y0


def _pixels(image: Tensor | np.ndarray) -> np.ndarray:
    """An image (3, H, W), uint8 or float in about [0, 1], as matplotlib wants it."""
    pixels = np.moveaxis(np.asarray(image), 0, -1)
    return pixels if pixels.dtype == np.uint8 else pixels.clip(0, 1)


@_styled
def image_with_boxes(
    image: Tensor | np.ndarray,
    boxes: Sequence[Box] | Tensor | np.ndarray,
    ax: Axes | None = None,
    title: str = "",
    **look: Any,
) -> Axes:
    """An image (3, H, W) with boxes x0, y0, x1, y1 in pixels drawn on it."""
    ax = ax or _new(2.6, 2.6)
    height, width = image.shape[-2:]
    ax.imshow(_pixels(image), extent=(0, width, height, 0))
    for box in boxes:
        _draw_box(ax, [float(edge) for edge in box], **look)
    ax.set(xticks=[], yticks=[], title=title)
    ax.spines[:].set_visible(False)
    return ax


@_styled
def image_grid(
    images: Tensor | np.ndarray,
    titles: Sequence[str] | None = None,
    columns: int = 8,
    figure: Figure | SubFigure | None = None,
    inches: float = 0.85,
) -> Figure | SubFigure:
    """A contact sheet of images (B, 3, H, W), with a title over each where given."""
    rows = -(-len(images) // columns)
    columns = min(columns, len(images))
    size = columns * inches, rows * (inches + 0.2 * bool(titles))
    figure = figure or plt.figure(figsize=size, layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for ax in axes:
        ax.axis("off")
    for i, image in enumerate(images):
        axes[i].imshow(_pixels(image))
        if titles:
            axes[i].set_title(titles[i], fontsize=7, pad=2)
    return figure


@_styled
def heatmaps(table: pd.DataFrame, axes: Sequence[Axes] | None = None) -> np.ndarray:
    """The similarity of a part to every place of its image, one map per encoder, with the part's box.

    Args:
        table: of `tables.response_table`.
        axes: one per encoder.
    """
    groups = list(table.groupby("encoder", sort=False))
    axes = _own_row(axes, len(groups), 2.6, 2.5)
    size = table.attrs["size"]
    for ax, (name, one) in zip(axes, groups, strict=True):
        shown = ax.imshow(_laid_on_places(one), cmap="viridis", extent=(0, size, size, 0))
        _draw_box(ax, table.attrs["box"], edgecolor="white", linewidth=3.4)
        _draw_box(ax, table.attrs["box"])
        ax.set(title=textwrap.fill(name, 22), xlabel="x (px)", ylabel="y (px)")
        ax.set(xticks=[0, size // 2, size], yticks=[0, size // 2, size])
        ax.figure.colorbar(shown, ax=ax, label=_similarity_label(table), shrink=0.9, ticks=MaxNLocator(4))
    return np.asarray(axes)


def _laid_on_places(one: pd.DataFrame) -> np.ndarray:
    """One encoder's similarities (h, w) as its positions lie."""
    return one["similarity"].to_numpy().reshape(one["row"].max() + 1, -1)


def _curve(ax: Axes, one: pd.DataFrame) -> None:
    """One encoder's similarity curve with the part's own place."""
    own = one[one["own"] >= 0.25]
    ax.broken_barh([(0, 0)], (0, 1), transform=ax.get_xaxis_transform(), color=ORANGE, alpha=0.35, lw=0)
    ax.plot(one["position"], one["similarity"], color=BLUE, lw=1.2)
    ax.plot(own["position"], own["similarity"], ls="", marker="o", ms=3.5, color=RED)
    _move_curve(ax, one)


def _move_curve(ax: Axes, one: pd.DataFrame) -> None:
    """Another part's, in its place."""
    position, similarity, own = (one[name].to_numpy() for name in ("position", "similarity", "own"))
    here = own >= 0.25
    ax.collections[0].set_verts([[(x - 0.5, 0), (x - 0.5, 1), (x + 0.5, 1), (x + 0.5, 0)] for x in position[here]])
    ax.lines[0].set_ydata(similarity)
    ax.lines[1].set_data(position[here], similarity[here])
    ax.relim()
    ax.autoscale_view(scalex=False)


def _energies(one: pd.DataFrame) -> str:
    return f"energies u {one['uniform_energy'].iloc[0]:.2f}, g {one['gaussian_energy'].iloc[0]:.2f} nats"


def _similarity_label(table: pd.DataFrame) -> str:
    return "similarity\n(dot product)" if table.attrs.get("measure", "dot") == "dot" else "similarity\n(cosine / 0.1)"


@_styled
def similarity_curves(table: pd.DataFrame, axes: Sequence[Axes] | None = None) -> np.ndarray:
    """Similarity curves over positions, one per encoder; the part's own place is shaded (Fig. 2).

    Args:
        table: of `tables.response_table`.
        axes: one per encoder.
    """
    groups = list(table.groupby("encoder", sort=False))
    if axes is None:
        figure = plt.figure(figsize=(5.2, 1.7 * len(groups)), layout="constrained")
        axes = figure.subplots(len(groups), 1, squeeze=False)[:, 0]
    for ax, (name, one) in zip(axes, groups, strict=True):
        _curve(ax, one)
        width = one["column"].max() + 1
        ax.set(title=name, xlabel="position n (row by row)", ylabel=_similarity_label(table))
        ax.set(xlim=(-0.5, len(one) - 0.5), xticks=range(0, len(one), width * max(1, len(one) // width // 4)))
        ax.yaxis.set_major_locator(MaxNLocator(4))
    return np.asarray(axes)


@_styled
def part_responses(
    image: Tensor | np.ndarray | None,
    table: pd.DataFrame,
    title: str = "",
    figure: Figure | SubFigure | None = None,
) -> Figure | SubFigure:
    """An image with its part's box, and for each encoder the part's heat map above its similarity curve (Fig. 2).

    Args:
        image: (3, S, S); None where it is shown elsewhere.
        table: of `tables.response_table`.
        title: over the image.
        figure: where to draw.
    """
    count = table["encoder"].nunique()
    figure = figure or plt.figure(figsize=(1.9 * (image is not None) + 2.5 * count, 4.0), layout="constrained")
    left = [] if image is None else [0.75]
    grid = figure.add_gridspec(2, len(left) + count, width_ratios=left + [1] * count, height_ratios=[1.15, 1])
    if image is not None:
        image_with_boxes(image, [table.attrs["box"]], figure.add_subplot(grid[0, 0]), textwrap.fill(title, 14))
        _note(figure.add_subplot(grid[1, 0]))
    heatmaps(table, [figure.add_subplot(grid[0, len(left) + k]) for k in range(count)])
    curves = similarity_curves(table, [figure.add_subplot(grid[1, len(left) + k]) for k in range(count)])
    for ax, (_, one) in zip(curves, table.groupby("encoder", sort=False), strict=True):
        ax.set_title(_energies(one))
    for ax in curves[1:]:
        ax.set_ylabel("")
    return figure


class MovingResponses:
    """`part_responses` for a panel in which the part moves: what stays meanwhile is laid out and drawn once.

    Args:
        image, table: as for `part_responses`; the encoders stay the same.
        dpi: of the pictures.
    """

    def __init__(self, image: Tensor | np.ndarray | None, table: pd.DataFrame, dpi: int = 80) -> None:
        count = table["encoder"].nunique()
        with style():
            size = (1.9 * (image is not None) + 2.5 * count, 4.0)
            self._figure = Figure(figsize=size, layout="constrained", dpi=dpi)
            part_responses(image, table, "", self._figure)
            self._pictures = [ax for ax in self._figure.axes if ax.images]  # the image, where it is shown, and the maps
            self._maps, self._curves = self._pictures[-count:], self._figure.axes[-count:]
            self._canvas = FigureCanvasAgg(self._figure)
            self._canvas.draw()
            self._figure.set_layout_engine("none")
            for one in self._moving():
                one.set_animated(True)
            self._canvas.draw()
            self._still = self._canvas.copy_from_bbox(self._figure.bbox)

    def png(self, table: pd.DataFrame) -> bytes:
        """The responses of a part, as PNG: moves what there is of another part, and draws that alone."""
        groups, data = [one for _, one in table.groupby("encoder", sort=False)], BytesIO()
        with style():
            for ax in self._pictures:
                for patch in ax.patches:
                    patch.set_bounds(*_bounds(table.attrs["box"]))
            for ax, one in zip(self._maps, groups, strict=True):
                ax.images[0].set_data(_laid_on_places(one))
                ax.images[0].autoscale()
            for ax, one in zip(self._curves, groups, strict=True):
                _move_curve(ax, one)
                ax.title.set_text(_energies(one))
            self._canvas.restore_region(self._still)
            for one in self._moving():
                self._figure.draw_artist(one)
        Image.fromarray(np.asarray(self._canvas.buffer_rgba())).convert("RGB").save(data, "PNG", compress_level=1)
        return data.getvalue()

    def _moving(self) -> list[Artist]:
        """All that depends on the part, from below to above."""
        found: list[Artist] = []
        for ax in self._pictures:
            found += [*ax.images, *ax.patches]
        for ax in self._maps:
            found.append(ax.images[0].colorbar.ax.yaxis)
        for ax in self._curves:
            found += [*ax.collections, *ax.lines, ax.yaxis, ax.title]
        return found


def _note(ax: Axes) -> None:
    """How the curves beside it are read."""
    ax.axis("off")
    text = "red box, shaded:\nthe part's own place\n\n$s_n = \\langle p, \\chi_n\\rangle$\n$q = \\mathrm{softmax}(s)$"
    ax.text(0, 1, text, va="top", fontsize=8)


@_styled
def feature_curves(table: pd.DataFrame, axes: Sequence[Axes] | None = None, text: str = "") -> np.ndarray:
    """Mean sorted energies of members and of non-members with 95 % bands, one axes per kind of energy.

    Args:
        table: of `tables.energy_table`.
        axes: one per kind.
        text: for the caption of a figure of its own, e.g. the seed.
    """
    groups = list(table.groupby("kind", sort=False))
    axes = _own_row(axes, len(groups), 3.0, 3.0, 0.6, f"Lines: means. Bands: 95 % intervals of the means. {text}")
    for ax, (kind, one) in zip(axes, groups, strict=True):
        for side, curve in one.groupby("side", sort=False):
            ax.fill_between(curve["rank"], curve["low"], curve["high"], color=LOOKS[side]["color"], alpha=0.25, lw=0)
            ax.plot(curve["rank"], curve["mean"], label=f"{side}, n = {curve['n'].iloc[0]}", **LOOKS[side])
        ax.set(title=f"{kind} energy", xlabel="rank of the part", ylabel="energy (nats)", ylim=(0, None))
        ax.legend()
    return np.asarray(axes)


@_styled
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
    axes = _own_row(axes, len(groups), 3.0, 2.8, 0.6)
    if table is not None:
        feature_curves(table[table["kind"].isin([kind for kind, _ in groups])], axes)
    for ax, (kind, one) in zip(axes, groups, strict=True):
        ax.plot(one["rank"], one["energy"], color="black", lw=1.4, marker=".", ms=4, label="this image")
        ax.set(title=f"{kind} energy, sorted", xlabel="rank of the part", ylabel="energy (nats)", ylim=(0, None))
        ax.legend()
    return np.asarray(axes)


@_styled
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


@_styled
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
    _draw_box(ax, steps.boxes[number].tolist(), linewidth=2.5)
    image_grid(steps.parts[:shown], columns=11, figure=right)
    right.suptitle(
        f"2 · the first {min(shown, len(steps.parts))} parts, resized to {steps.parts.shape[-1]} px", fontsize=9
    )
    part_steps(steps, number, rows[1].subplots(1, 2))
    rows[1].suptitle("3 · each part is compared with every position of the image", fontsize=9)
    one_feature(steps.feature, means, rows[2].subplots(1, steps.energies["kind"].nunique(), squeeze=False)[0])
    rows[2].suptitle("4 · the energies, sorted, are the membership feature", fontsize=9)
    return figure


@_styled
def score_histogram(result: AuditResult, ax: Axes | None = None, bins: int = 30) -> Axes:
    """Out-of-fold scores of members and of non-members; the attackers' own threshold is 0.

    The outermost bins also hold the one per cent of scores beyond them on either side.
    """
    ax = _own_axes(ax, f"{describe(result)} The outermost bins also hold the scores beyond them.")
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


@_styled
def metrics_bars(result: AuditResult, ax: Axes | None = None) -> Axes:
    """Every metric with its 95 % interval, and what guessing would give (a small black line)."""
    ax = _own_axes(ax, f"{describe(result)} Bars: 95 % intervals. Black lines: chance.", height=3.2)
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


@_styled
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
    ax = _own_axes(ax, f"{text} Bars: 95 % intervals (permuted labels: range of the fits).")
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
    for place, value in enumerate(order):
        if "released" in set(table.loc[table[by] == value, "protocol"]):
            how = {"color": RED, "ha": "center", "fontsize": 7, "transform": ax.get_xaxis_transform()}
            ax.text(place, 0.015, "members augmented,\nnon-members not", **how)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


@_styled
def attacks(table: pd.DataFrame, axes: Sequence[Axes] | None = None) -> np.ndarray:
    """AUCs of attacks with 95 % intervals, a panel for each encoder and a row for each attack.

    Args:
        table: of `audit.compare.Comparison`.
        axes: one per encoder, sharing their axes.
    """
    groups = list(table.groupby("encoder", sort=False))
    axes = _own_row(axes, len(groups), 2.0, 3.2, 2.2, "Bars: 95 % intervals.", sharex=True, sharey=True)
    order = list(dict.fromkeys(table["attack"]))
    for ax, (name, one) in zip(axes, groups, strict=True):
        for row in one.itertuples():
            look = {"color": BLUE, "mfc": BLUE if row.outcome == "Evidence of leakage" else "white"}
            reach = [[row.auc - row.low], [row.high - row.auc]]
            ax.errorbar(row.auc, order.index(row.attack), xerr=reach, fmt="o", ms=5, capsize=2.5, **look)
        ax.axvline(0.5, color="black", lw=0.8, ls=(0, (1, 2)))
        ax.set(title=name, xlabel="AUC", yticks=range(len(order)), yticklabels=order, ylim=(len(order) - 0.5, -0.5))
    return np.asarray(axes)


@_styled
def growth(table: pd.DataFrame, axes: Sequence[Axes] | None = None) -> np.ndarray:
    """AUCs along the steps of training, one panel per recipe, one line per training.

    Steps, not epochs, since at equal epochs a smaller set also has fewer steps to be learnt in.

    Args:
        table: columns recipe, N, planned (epochs), training_seed, steps, auc, low and high, as data/zoo/growth.csv has
            them.
        axes: one per recipe, in the order in which recipes first appear.
    """
    recipes = list(dict.fromkeys(table["recipe"]))
    axes = _own_row(axes, len(recipes), 3.6, 3.4, sharey=True)
    looks = (("o", "-", RED), ("s", "--", BLUE), ("^", "-.", GREEN), ("D", ":", PURPLE))
    for ax, recipe in zip(axes, recipes, strict=True):
        own = table[table["recipe"] == recipe]
        groups = own.groupby(["N", "planned", "training_seed"])
        step = 0.012 * own["steps"].max()  # so that bars stand side by side
        for number, ((members, planned, seed), one) in enumerate(groups):
            marker, line, colour = looks[number % len(looks)]
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


LEAKS = {
    "auc": ("AUC", "low", "high", 0.5, "AUC of telling members\nfrom non-members"),
    "tpr_at_1_fpr": ("TPR at 1 % FPR", "tpr_low", "tpr_high", 0.01, "TPR at 1 % FPR"),
}
"""Of each measure of a leak its name, its interval's columns, its value by chance, and what an axis calls it."""
USES = {"probe": "accuracy of the linear probe (%)", "knn": "accuracy of nearest neighbours (%)"}


@_styled
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
    axes = _own_row(axes, len(panels), 4.2, 4.2, sharey=True)
    _, low, high, chance, name = LEAKS[leak]
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
                _hover(ax, value, found, _told(row, leak, use))
        front = own[own["front"]].sort_values(use)
        ax.plot(100 * front[use], front[leak], color=GREY, lw=1, zorder=0, label="Pareto front")
        ax.axhline(chance, color="black", lw=0.8, ls=(0, (1, 2)), label="chance")
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
    measure, low, high, *_ = LEAKS[leak]
    name = "no defence" if row.level == "none" else f"{row.level}, attacker {row.attacker}"
    interval = f"{getattr(row, leak):.3f} ({getattr(row, low):.3f} to {getattr(row, high):.3f})"
    return f"{name}: {measure} {interval}, {use} {100 * getattr(row, use):.1f} %, {row.queries} queries an image"


@_styled
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
        row.imshow(_pixels(_side_by_side(images)))
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


@_styled
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
    heads = {"image": found.images[:, None], "its background": found.crops[:, None]}
    for model in "AB":
        heads[f"nearest under {model}"] = found.nearest[model][:, None]
        heads[f"painted under {model}"] = found.painted[model][:, :shown]
    axes = figure.subplots(len(rows), len(heads), squeeze=False, width_ratios=[one.shape[1] for one in heads.values()])
    for line, row in zip(axes, rows, strict=True):
        for ax, (head, pictures) in zip(line, heads.items(), strict=True):
            ax.imshow(_pixels(_side_by_side(pictures[row], 1)))
            ax.set(xticks=[], yticks=[], title=head if row == rows[0] else "")
            ax.spines[:].set_visible(False)
        line[0].set_ylabel(f"of {found.table['set'].iloc[row]}")
    return figure


@_styled
def joined_scores(table: pd.DataFrame, axes: Sequence[Axes] | None = None) -> np.ndarray:
    """Membership against memory, a dot for each image, one panel per attack.

    Args:
        table: of `tables.joined_scores`.
        axes: one per attack.
    """
    groups = list(table.groupby("attack", sort=False))
    text = f"n = {len(groups[0][1])} images of A. Spearman's rho with its 95 % interval."
    axes = _own_row(axes, len(groups), 2.9, 3.2, 0.6, text, sharey=True)
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


@_styled
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
        column[0].set(title=f"{recipe}, {table.loc[table['recipe'] == recipe, 'layer'].iloc[0]}", ylim=(0, None))
        column[1].axhline(0, color="black", lw=0.8, ls=(0, (1, 2)))
        column[1].set(xlabel="correlation of backgrounds with classes", xticks=sorted(set(table["correlation"])))
    axes[0, 0].set(ylabel="share of the images of A and B")
    axes[1, 0].set(ylabel="deja vu score\n(accuracy, trained minus other)")
    for row in axes:
        row[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return axes


def _side_by_side(images: Tensor, gap: int = 3) -> np.ndarray:
    """Images (B, 3, H, W) in one row (3, H, W'), white between them: one axes is drawn far faster than many."""
    wide = np.pad(np.asarray(images), ((0, 0), (0, 0), (0, 0), (0, gap)), constant_values=255)
    return np.concatenate(list(wide), axis=-1)[..., :-gap]


@_styled
def loss_curve(table: pd.DataFrame, ax: Axes | None = None, ylabel: str = "binary cross-entropy (nats)") -> Axes:
    """Training loss by epoch, one line per value of the column `fold` or `encoder` where there is one."""
    ax = _own_axes(ax, "")
    by = next((name for name in ("fold", "encoder") if name in table), None)
    for number, (name, one) in enumerate(table.groupby(by, sort=False) if by else [("", table)]):
        colour = (BLUE, RED, GREEN, ORANGE, PURPLE)[number % 5]
        ax.plot(one["epoch"], one["loss"], color=colour, lw=1.4, label=f"{by} {name}")
    ax.set(xlabel="epoch", ylabel=ylabel, title="loss on the attacker's own training images")
    if by:
        ax.legend()
    return ax


@_styled
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


@_styled
def accuracy_by_epoch(result: AuditResult, ax: Axes | None = None) -> Axes:
    """Held-out accuracy after each epoch of the attacker: what reporting the best epoch would have added.

    Args:
        result: of an audit with ``protocol="released"``.
        ax: where to draw.
    """
    ax = _own_axes(ax, describe(result))
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
