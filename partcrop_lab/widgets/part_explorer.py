"""Part explorer: move a box on an image and see how each encoder's similarity curve and heat map change (Fig. 2)."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets
import numpy as np
import torch

from partcrop_lab import plots, tables
from partcrop_lab.encoders import Encoder
from partcrop_lab.images import Box, ImageSet
from partcrop_lab.images.decode import decode
from partcrop_lab.widgets.box_picker import BoxPicker
from partcrop_lab.widgets.panel import Drawing, Panel, by_name

OWN_BOX = "(a box of your own)"
SIDES = (16, 32, 64, 112, 224)
"""Sides in pixels that a part may be resized to before an encoder sees it, up to that of the images."""


def part_explorer(
    images: ImageSet,
    encoders: Sequence[Encoder],
    member: np.ndarray | None = None,
    shown: int = 24,
    drag: bool = True,
) -> Panel:
    """A panel in which a part of an image is compared with all of the image by several encoders.

    Args:
        images: those one can choose from are its first `shown`; images of one's own join them by uploading.
        encoders: all of them are ticked at first.
        member: (n,) bool, whether each image is a member; None where that is not known.
        shown: how many images; their feature maps are computed beforehand.
        drag: offer a box to drag, where jupyter-bbox-widget is installed.

    Returns:
        A panel with the controls image, part, x, y, encoders, resized, pooling, measure and flip; its attribute `box`
        is the draggable box, or None, and `upload` the button for an image of one's own.
    """
    named = by_name(encoders)
    gallery = Gallery(images, list(named.values()), member, min(shown, len(images)))
    picker = BoxPicker(gallery.size, drag=drag)
    controls = _controls(gallery, picker, list(named))
    upload = widgets.FileUpload(
        accept="image/*", description="your own image", layout=widgets.Layout(width="max-content")
    )
    kept: dict[tuple, plots.MovingResponses] = {}  # the last, by all that its layout depends on

    def draw(image, part, x, y, encoders, resized, pooling, measure, flip) -> Drawing:
        if not encoders:
            raise ValueError("no encoder is ticked; tick at least one")
        options = {"part_size": resized, "pooling": pooling, "measure": measure, "flip": flip}
        chosen, known = [named[name] for name in encoders], [gallery.maps[name][image] for name in encoders]
        whole = gallery.pixels[image]
        table = tables.response_table(chosen, whole, (x[0], y[0], x[1], y[1]), known, **options)
        layout = (image, encoders, pooling, measure)
        if layout not in kept:
            kept.clear()
            kept[layout] = plots.MovingResponses(whole if picker.widget is None else None, table)
        words = f"<small>{gallery.badges[image]}Red box, shading: the part's own place.</small>"
        return Drawing(kept[layout].png(table), words)

    beside = widgets.VBox([*filter(None, [picker.widget]), upload])
    panel = Panel("Part explorer", controls, draw, beside=beside)
    panel.box, panel.upload = picker.widget, upload
    controls["image"].observe(panel.guarded(lambda change: _choose_image(panel, gallery, picker)), "value")
    controls["part"].observe(panel.guarded(lambda change: _choose_part(panel, gallery, picker)), "value")
    upload.observe(panel.guarded(lambda change: _take(panel, gallery, change["new"])), "value")
    picker.link(panel, lambda: setattr(controls["part"], "value", OWN_BOX))
    _choose_image(panel, gallery, picker)
    return panel


class Gallery:
    """The images that one can choose from, and what each encoder makes of them; uploaded ones join at the end.

    Attributes:
        size: side of all images in pixels.
        titles, pixels (3, S, S), boxes (of named parts), badges: of each image.
        maps: by encoder, the feature map (1, L, D) of each image.
    """

    def __init__(self, images: ImageSet, encoders: Sequence[Encoder], member: np.ndarray | None, shown: int) -> None:
        self.size, self.encoders = images.size, encoders
        self.titles = [f"{i}: {images.title(i)}" for i in range(shown)]
        self.pixels = list(images.batch(slice(0, shown)))
        self.boxes = [images.part_boxes[i] if images.part_boxes else {} for i in range(shown)]
        self.badges = [_badge(member, i) for i in range(shown)]
        whole = torch.stack(self.pixels)
        self.maps = {encoder.name: list(encoder.feature_map(whole).cpu().split(1)) for encoder in encoders}

    @property
    def options(self) -> list[tuple[str, int]]:
        """Titles and numbers."""
        return [(title, i) for i, title in enumerate(self.titles)]

    def add(self, name: str, content: bytes) -> None:
        """An image file of any size joins, as a square of theirs.

        Raises:
            BadInput: it is no image that can be used.
        """
        image = torch.tensor(decode(content, name, self.size))
        for encoder in self.encoders:
            self.maps[encoder.name].append(encoder.feature_map(image[None]).cpu())
        self.titles.append(f"{len(self.titles)}: {name}")
        self.pixels.append(image)
        self.boxes.append({})
        self.badges.append("<b>Your own image.</b> ")


def _take(panel: Panel, gallery: Gallery, files: Sequence[dict]) -> None:
    """Uploaded files join the gallery; the last one is shown."""
    for file in files:
        gallery.add(file["name"], bytes(file["content"]))
        with panel.together():
            panel.controls["image"].options = gallery.options
            panel.controls["image"].value = len(gallery.titles) - 1


def _controls(gallery: Gallery, picker: BoxPicker, encoders: list[str]) -> dict[str, widgets.Widget]:
    return {
        "image": widgets.Dropdown(options=gallery.options, description="image"),
        "part": widgets.Dropdown(options=[OWN_BOX], description="part"),
        **picker.controls,
        "encoders": widgets.SelectMultiple(
            options=encoders, value=encoders, rows=min(5, len(encoders)), description="encoders"
        ),
        "resized": widgets.Dropdown(
            options=[("encoder's own", None), *((f"{side} px", side) for side in SIDES if side <= gallery.size)],
            description="resized to",
        ),
        "pooling": widgets.Dropdown(
            options={"encoder's own": None, "cls": "cls", "mean": "mean"}, description="pooling"
        ),
        "measure": widgets.Dropdown(
            options=[("dot product", "dot"), ("cosine / 0.1", "cosine")], description="similarity"
        ),
        "flip": widgets.Checkbox(description="flip the part", indent=False),
    }


def _badge(member: np.ndarray | None, i: int) -> str:
    return "" if member is None else f"<b>{'Member' if member[i] else 'Non-member'}.</b> "


def _choose_image(panel: Panel, gallery: Gallery, picker: BoxPicker) -> None:
    """Offer the image's own parts, the largest first, and begin with that."""
    i = panel.controls["image"].value
    boxes = gallery.boxes[i]
    parts = sorted(boxes, key=lambda part: _area(boxes[part]), reverse=True)
    with panel.together():
        panel.controls["part"].options = [OWN_BOX, *parts]
        panel.controls["part"].value = (parts or [OWN_BOX])[0]
        picker.show(gallery.pixels[i])


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _choose_part(panel: Panel, gallery: Gallery, picker: BoxPicker) -> None:
    part, i = panel.controls["part"].value, panel.controls["image"].value
    if part != OWN_BOX and part is not None:
        with panel.together():
            picker.box = gallery.boxes[i][part]
