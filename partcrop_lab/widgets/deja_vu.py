"""Deja vu: drag a box over the background of a training image and see whose class two encoders recall from it."""

from __future__ import annotations

from collections.abc import Mapping

import ipywidgets as widgets
from torch import Tensor

from partcrop_lab import plots
from partcrop_lab.dejavu import Backgrounds, Inference, Reconstructor, association, periphery
from partcrop_lab.dejavu.reconstruction import check_reconstructors
from partcrop_lab.dejavu.score import PROJECTOR
from partcrop_lab.encoders import Encoder
from partcrop_lab.errors import BadInput
from partcrop_lab.images import Box, ImageSet
from partcrop_lab.widgets.box_picker import BoxPicker
from partcrop_lab.widgets.panel import Drawing, Panel

MEANING = {
    "memorised": "the model trained on the image names its class, the other does not",
    "correlated": "both name its class: such a background says it to any model",
    "misrepresented": "only the model that never saw the image names its class",
    "unassociated": "neither names its class",
}


def deja_vu(
    encoder_a: Encoder,
    encoder_b: Encoder,
    public: ImageSet,
    layer: str | int = PROJECTOR,
    k: int = 100,
    shown: int = 12,
    neighbours: int = 6,
    drag: bool = True,
    reconstructors: Mapping[str, Reconstructor] | None = None,
) -> Panel:
    """A panel that asks two encoders what the background of an image was part of.

    Args:
        encoder_a, encoder_b: trained by the same recipe on disjoint sets, which they carry.
        public: images with classes that neither was trained on; they vote.
        layer: after which embeddings are taken, as for `dejavu.deja_vu`.
        k: neighbours that vote.
        shown: images of each set one can choose from, of those with a background wide enough.
        neighbours: of which the nearest so many are shown.
        drag: offer the box to drag, where that is possible.
        reconstructors: of the encoders, "A" and "B"; they paint from the mean embedding of the neighbours.

    Returns:
        A panel with the controls image, x and y; its attribute `box` is the draggable box, or None.

    Raises:
        BadInput: no image looked at has a background, or reconstructors of other encoders.
    """
    asked = Backgrounds({"A": encoder_a, "B": encoder_b}, public, layer, k)
    options, backgrounds = [], []
    for name, encoder in asked.encoders.items():
        found = periphery(encoder.split.members.subset(slice(0, 3 * shown)))
        for row in range(min(shown, len(found.images))):
            options.append((f"{name} {row}: {found.images.title(row)}", len(options)))
            backgrounds.append((name, found.images, row, tuple(found.boxes[row].tolist())))
    if not options:
        raise BadInput(
            f"none of the first {3 * shown} members of either encoder has a background wide enough; raise shown="
        )
    picker, painters = BoxPicker(encoder_a.image_size, "background", drag), dict(reconstructors or {})
    if painters:
        check_reconstructors(painters, asked)

    def draw(image, x, y) -> Drawing:
        trained, images, row, _ = backgrounds[image]
        label = int(images.labels[row])
        inferred = asked.infer(images[row], picker.box)
        near = {name: public.batch(one.neighbours[:neighbours]) for name, one in inferred.items()}
        table = asked.votes_table(inferred)
        painted = {name: _painted(one, asked.embeddings(name), inferred[name]) for name, one in painters.items()}
        height = 3.6 + 2.2 * bool(painted)
        png = plots.png(lambda figure: plots.deja_vu(near, table, label, figure, painted), 8.4, height, 85)
        (other,) = inferred.keys() - {trained}
        found = association(inferred[trained].guess == label, inferred[other].guess == label)
        words = f"<b>{found.capitalize()}</b>: {MEANING[found]}. Trained on it: {trained}."
        return Drawing(png, words + _warning(picker.box, images.object_boxes[row] if images.object_boxes else None))

    controls = {"image": widgets.Dropdown(options=options, description="image"), **picker.controls}
    panel = Panel("Deja vu", controls, draw, beside=picker.widget)
    panel.box = picker.widget

    def choose(change: dict | None = None) -> None:
        _, images, row, box = backgrounds[controls["image"].value]
        with panel.together():
            picker.box = box
            picker.show(images[row])

    controls["image"].observe(panel.guarded(choose), "value")
    picker.link(panel)
    choose()
    return panel


def _painted(reconstructor: Reconstructor, embeddings: Tensor, inferred: Inference) -> Tensor:
    """Three small pictures (3, 3, S, S) from the mean embedding of the neighbours."""
    return reconstructor.paint(embeddings[inferred.neighbours].mean(0)[None], samples=3, steps=20)[0]


def _warning(box: Box, objects: tuple[Box, ...] | None) -> str:
    """What a reader must know of a box that is not background alone."""
    if objects is None:
        return " <small>Where the object lies is not known: the box may show it.</small>"
    x0, y0, x1, y1 = box
    if any(min(x1, one[2]) > max(x0, one[0]) and min(y1, one[3]) > max(y0, one[1]) for one in objects):
        return " <small>The box shows some of the object: what is named then is seen, not remembered.</small>"
    return " <small>One image proves nothing: the score over all images, with its controls, does.</small>"
