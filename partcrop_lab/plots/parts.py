"""Images, parts, and where encoders see them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

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

from partcrop_lab.plots.base import BLUE, ORANGE, RED, new_axes, own_row, style, styled

if TYPE_CHECKING:
    from partcrop_lab.images import Box


def draw_box(ax: Axes, box: Box, **look: Any) -> None:
    """Outline a part on its image."""
    x, y, width, height = _bounds(box)
    ax.add_patch(Rectangle((x, y), width, height, fill=False, **{"edgecolor": RED, "linewidth": 1.8} | look))


def _bounds(box: Box) -> tuple[float, float, float, float]:
    """x, y, width, height."""
    x0, y0, x1, y1 = box
    return x0, y0, x1 - x0, y1 - y0


def channels_last(image: Tensor | np.ndarray) -> np.ndarray:
    """An image (3, H, W), uint8 or float in about [0, 1], as matplotlib wants it."""
    pixels = np.moveaxis(np.asarray(image), 0, -1)
    return pixels if pixels.dtype == np.uint8 else pixels.clip(0, 1)


@styled
def image_with_boxes(
    image: Tensor | np.ndarray,
    boxes: Sequence[Box] | Tensor | np.ndarray,
    ax: Axes | None = None,
    title: str = "",
    **look: Any,
) -> Axes:
    """An image (3, H, W) with boxes x0, y0, x1, y1 in pixels drawn on it."""
    ax = ax or new_axes(2.6, 2.6)
    height, width = image.shape[-2:]
    ax.imshow(channels_last(image), extent=(0, width, height, 0))
    for box in boxes:
        draw_box(ax, [float(edge) for edge in box], **look)
    ax.set(xticks=[], yticks=[], title=title)
    ax.spines[:].set_visible(False)
    return ax


@styled
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
        axes[i].imshow(channels_last(image))
        if titles:
            axes[i].set_title(titles[i], fontsize=7, pad=2)
    return figure


@styled
def heatmaps(table: pd.DataFrame, axes: Sequence[Axes] | None = None) -> np.ndarray:
    """The similarity of a part to every place of its image, one map per encoder, with the part's box.

    Args:
        table: of `tables.response_table`.
        axes: one per encoder.
    """
    groups = list(table.groupby("encoder", sort=False))
    axes = own_row(axes, len(groups), 2.6, 2.5)
    size = table.attrs["size"]
    for ax, (name, one) in zip(axes, groups, strict=True):
        shown = ax.imshow(_laid_on_places(one), cmap="viridis", extent=(0, size, size, 0))
        draw_box(ax, table.attrs["box"], edgecolor="white", linewidth=3.4)
        draw_box(ax, table.attrs["box"])
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


@styled
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


@styled
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
