"""A box on an image: two sliders, and where jupyter-bbox-widget is installed, the box itself to drag."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import ipywidgets as widgets
from PIL import Image
from torch import Tensor

from partcrop_lab.images import Box
from partcrop_lab.widgets.panel import Panel

try:
    from jupyter_bbox_widget import BBoxWidget
except ImportError:  # the sliders do everything the dragged box does
    BBoxWidget = None

ZOOM_TO = 192


class BoxPicker:
    """Chooses a box on images of one size; sliders and dragged box follow each other.

    Args:
        size: side of the images in pixels.
        label: what the box is called on the image.
        drag: offer the box to drag, where that is possible.

    Attributes:
        controls: the sliders x and y, for a panel's controls.
        widget: the draggable box, or None.
    """

    def __init__(self, size: int, label: str = "part", drag: bool = True) -> None:
        self.size, self.label, self.zoom = size, label, max(1, ZOOM_TO // size)
        edge = {"min": 0, "max": size, "value": (size // 4, size // 2), "continuous_update": False}
        self.controls = {name: widgets.IntRangeSlider(description=f"{name} (px)", **edge) for name in ("x", "y")}
        self.widget = BBoxWidget(hide_buttons=True, classes=[label]) if BBoxWidget and drag else None

    @property
    def box(self) -> Box:
        """x0, y0, x1, y1 in pixels, ends exclusive."""
        (x0, x1), (y0, y1) = self.controls["x"].value, self.controls["y"].value
        return x0, y0, x1, y1

    @box.setter
    def box(self, box: Box) -> None:
        x0, y0, x1, y1 = box
        self.controls["x"].value, self.controls["y"].value = (x0, x1), (y0, y1)

    def show(self, pixels: Tensor) -> None:
        """Put the box on an image (3, S, S) uint8."""
        if self.widget is not None:
            self.widget.image_bytes = _enlarged(pixels, self.zoom)
            self.widget.bboxes = self._dragged

    def link(self, panel: Panel, on_drag: Callable[[], None] = lambda: None) -> None:
        """In a panel whose controls the sliders are: dragging moves the sliders, and the sliders move the box.

        Args:
            panel: which.
            on_drag: called when the box was dragged, before the panel draws.
        """
        if self.widget is None:
            return

        def dragged(change: dict) -> None:
            boxes = change["new"]
            drawing = any(min(one["width"], one["height"]) == 0 for one in boxes)  # the mouse is still down
            if not boxes or drawing or boxes == self._dragged:
                return
            with panel.together():
                on_drag()
                self.box = self._in_pixels(boxes[-1])
            slid(change)

        def slid(change: dict) -> None:
            self.widget.selected_index, self.widget.bboxes = 0, self._dragged

        self.widget.observe(panel.guarded(dragged), "bboxes")
        for slider in self.controls.values():
            slider.observe(panel.guarded(slid), "value")

    @property
    def _dragged(self) -> list[dict]:
        """The box as the widget has it."""
        x0, y0, x1, y1 = (edge * self.zoom for edge in self.box)
        return [{"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0, "label": self.label}]

    def _in_pixels(self, bbox: dict) -> Box:
        """A dragged box in whole pixels of the image, at least one wide."""
        x0, y0 = (min(max(round(bbox[key] / self.zoom), 0), self.size - 1) for key in ("x", "y"))
        x1, y1 = (
            min(max(low + 1, round((bbox[key] + bbox[extent]) / self.zoom)), self.size)
            for low, key, extent in ((x0, "x", "width"), (y0, "y", "height"))
        )
        return x0, y0, x1, y1


def _enlarged(pixels: Tensor, zoom: int) -> bytes:
    data, side = BytesIO(), pixels.shape[-1] * zoom
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize((side, side), Image.Resampling.NEAREST).save(data, "PNG")
    return data.getvalue()
