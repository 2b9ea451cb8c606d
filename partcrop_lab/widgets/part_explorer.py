"""Part explorer: move a box on an image and see how each encoder's similarity curve and heat map change (Fig. 2)."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import ipywidgets as widgets
import numpy as np
from PIL import Image

from partcrop_lab import plots, tables
from partcrop_lab.encoders import Encoder
from partcrop_lab.images import Box, ImageSet
from partcrop_lab.widgets.panel import Drawing, Panel

try:
    from jupyter_bbox_widget import BBoxWidget
except ImportError:  # the sliders do everything the dragged box does
    BBoxWidget = None

ZOOM_TO = 192
OWN_BOX = "(a box of your own)"


def part_explorer(
    images: ImageSet,
    encoders: Sequence[Encoder],
    member: np.ndarray | None = None,
    shown: int = 24,
    drag: bool = True,
) -> Panel:
    """A panel in which a part of an image is compared with all of the image by several encoders.

    Args:
        images: those one can choose from are its first `shown`.
        encoders: all of them are ticked at first.
        member: (n,) bool, whether each image is a member; None where that is not known.
        shown: how many images; their feature maps are computed beforehand.
        drag: offer a box to drag, where jupyter-bbox-widget is installed.

    Returns:
        A panel with the controls image, part, x, y, encoders, pooling, measure and flip; its attribute `box` is the
        draggable box, or None.
    """
    shown = min(shown, len(images))
    by_name = {encoder.name: encoder for encoder in encoders}
    maps = {name: encoder.feature_map(images.batch(slice(0, shown))).cpu() for name, encoder in by_name.items()}
    controls = _controls(images, list(by_name), shown)
    box = BBoxWidget(hide_buttons=True, classes=["part"]) if BBoxWidget and drag else None

    def draw(image, part, x, y, encoders, pooling, measure, flip) -> Drawing:
        if not encoders:
            raise ValueError("no encoder is ticked; tick at least one")
        options = {"pooling": pooling, "measure": measure, "flip": flip}
        chosen, known = [by_name[name] for name in encoders], [maps[name][image : image + 1] for name in encoders]
        table = tables.response_table(chosen, images[image], (x[0], y[0], x[1], y[1]), known, **options)
        pixels = images[image] if box is None else None
        width = 1.9 * (pixels is not None) + 2.5 * len(chosen)
        png = plots.png(lambda figure: plots.part_responses(pixels, table, "", figure), width, 4.0, 80)
        return Drawing(png, f"<small>{_badge(member, image)}Red box, shading: the part's own place.</small>")

    panel = Panel("Part explorer", controls, draw, beside=box)
    panel.box = box
    controls["image"].observe(panel.guarded(lambda change: _choose_image(panel, images)), "value")
    controls["part"].observe(panel.guarded(lambda change: _choose_part(panel, images)), "value")
    if box is not None:
        _link_box(panel, images)
    _choose_image(panel, images)
    return panel


def _controls(images: ImageSet, encoders: list[str], shown: int) -> dict[str, widgets.Widget]:
    edge = {"min": 0, "max": images.size, "continuous_update": False}
    quarter, names = images.size // 4, [_title(images, i) for i in range(shown)]
    return {
        "image": widgets.Dropdown(options=[(name, i) for i, name in enumerate(names)], description="image"),
        "part": widgets.Dropdown(options=[OWN_BOX], description="part"),
        "x": widgets.IntRangeSlider(value=(quarter, 2 * quarter), description="x (px)", **edge),
        "y": widgets.IntRangeSlider(value=(quarter, 2 * quarter), description="y (px)", **edge),
        "encoders": widgets.SelectMultiple(
            options=encoders, value=encoders, rows=min(5, len(encoders)), description="encoders"
        ),
        "pooling": widgets.Dropdown(
            options={"encoder's own": None, "cls": "cls", "mean": "mean"}, description="pooling"
        ),
        "measure": widgets.Dropdown(
            options=[("dot product", "dot"), ("cosine / 0.1", "cosine")], description="similarity"
        ),
        "flip": widgets.Checkbox(description="flip the part", indent=False),
    }


def _title(images: ImageSet, i: int) -> str:
    return f"{i}: {images.classes[images.labels[i]]}" if images.classes and images.labels[i] >= 0 else images.names[i]


def _badge(member: np.ndarray | None, i: int) -> str:
    return "" if member is None else f"<b>{'Member' if member[i] else 'Non-member'}.</b> "


def _choose_image(panel: Panel, images: ImageSet) -> None:
    """Offer the image's own parts, the largest first, and begin with that."""
    i = panel.controls["image"].value
    boxes = images.part_boxes[i] if images.part_boxes else {}
    parts = sorted(boxes, key=lambda part: _area(boxes[part]), reverse=True)
    with panel.together():
        panel.controls["part"].options = [OWN_BOX, *parts]
        panel.controls["part"].value = (parts or [OWN_BOX])[0]
        if panel.box is not None:
            panel.box.image_bytes = _enlarged(images, i)
            panel.box.bboxes = _as_bbox(panel, images)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _choose_part(panel: Panel, images: ImageSet) -> None:
    part, i = panel.controls["part"].value, panel.controls["image"].value
    if part != OWN_BOX and part is not None:
        x0, y0, x1, y1 = images.part_boxes[i][part]
        with panel.together():
            panel.controls["x"].value, panel.controls["y"].value = (x0, x1), (y0, y1)


def _enlarged(images: ImageSet, i: int) -> bytes:
    data, zoom = BytesIO(), max(1, ZOOM_TO // images.size)
    picture = Image.fromarray(images[i].permute(1, 2, 0).numpy())
    picture.resize((images.size * zoom,) * 2, Image.Resampling.NEAREST).save(data, format="PNG")
    return data.getvalue()


def _as_bbox(panel: Panel, images: ImageSet) -> list[dict]:
    zoom = max(1, ZOOM_TO // images.size)
    (x0, x1), (y0, y1) = panel.controls["x"].value, panel.controls["y"].value
    return [{"x": x0 * zoom, "y": y0 * zoom, "width": (x1 - x0) * zoom, "height": (y1 - y0) * zoom, "label": "part"}]


def _from_bbox(bbox: dict, images: ImageSet) -> Box:
    """The last box that was dragged, in whole pixels of the image, at least one wide."""
    zoom, side = max(1, ZOOM_TO // images.size), images.size
    x0, y0 = (min(max(round(bbox[key] / zoom), 0), side - 1) for key in ("x", "y"))
    x1, y1 = (
        min(max(low + 1, round((bbox[key] + bbox[extent]) / zoom)), side)
        for low, key, extent in ((x0, "x", "width"), (y0, "y", "height"))
    )
    return x0, y0, x1, y1


def _link_box(panel: Panel, images: ImageSet) -> None:
    """Dragging moves the sliders, and the sliders move the box."""

    def dragged(change) -> None:
        boxes = change["new"]
        drawing = any(min(one["width"], one["height"]) == 0 for one in boxes)  # the mouse is still down
        if not boxes or drawing or boxes == _as_bbox(panel, images):
            return
        x0, y0, x1, y1 = _from_bbox(boxes[-1], images)
        with panel.together():
            panel.controls["part"].value = OWN_BOX
            panel.controls["x"].value, panel.controls["y"].value = (x0, x1), (y0, y1)
        slid(change)

    def slid(change) -> None:
        panel.box.selected_index, panel.box.bboxes = 0, _as_bbox(panel, images)

    panel.box.observe(panel.guarded(dragged), "bboxes")
    for name in ("x", "y"):
        panel.controls[name].observe(panel.guarded(slid), "value")
