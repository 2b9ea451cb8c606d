"""Feature builder: number, scale and kind of the crops, and every step from an image to its membership feature."""

from __future__ import annotations

import ipywidgets as widgets
import numpy as np

from partcrop_lab import plots, tables
from partcrop_lab.attacks import PartCrop
from partcrop_lab.encoders import Encoder
from partcrop_lab.images import MembershipSplit
from partcrop_lab.widgets.panel import Drawing, Panel


def feature_builder(encoder: Encoder, split: MembershipSplit | None = None, sample: int = 60, shown: int = 12) -> Panel:
    """A panel that builds one image's membership feature beside the mean member's and non-member's.

    Args:
        encoder: the encoder attacked.
        split: members and non-members; the encoder's own where omitted.
        sample: so many members and as many non-members are averaged.
        shown: so many images of either side can be chosen.

    Returns:
        A panel with the controls image, crops, scale, kind, seed and part.
    """
    split = split or encoder.split
    members = int(split.member.sum())
    rows = np.r_[: min(sample, members), members : members + min(sample, len(split.nonmembers))]
    images, member = split.images.subset(rows), split.member[rows]
    choices = [*np.flatnonzero(member)[:shown], *np.flatnonzero(~member)[:shown]]
    options = [(f"{'member' if member[i] else 'non-member'} {images.names[i]}", int(i)) for i in choices]

    def draw(image, crops, scale, kind, seed, part) -> Drawing:
        attack = PartCrop(crops=crops, scale=scale, kind=kind)
        steps = tables.feature_steps(encoder, images, image, attack, seed)
        means = tables.energy_table(attack.features(encoder, images, seed), member, kind)
        number = min(part, crops - 1)
        png = plots.png(lambda figure: plots.feature_steps(steps, number, means, figure), 8.6, 6.6, 85)
        sizes = f"{member.sum()} members and {(~member).sum()} non-members"
        return Drawing(png, f"<small>{attack.queries} queries an image; means over {sizes}, bands 95 %.</small>")

    late = {"continuous_update": False}
    controls = {
        "image": widgets.Dropdown(options=options, description="image"),
        "crops": widgets.SelectionSlider(options=[8, 16, 32, 64, 128], value=32, description="crops", **late),
        "scale": widgets.FloatRangeSlider(
            value=(0.08, 0.2), min=0.01, max=1, step=0.01, description="area share", **late
        ),
        "kind": widgets.Dropdown(options=["both", "uniform", "gaussian"], description="energy"),
        "seed": widgets.BoundedIntText(value=0, min=0, max=9999, description="crop seed"),
        "part": widgets.IntSlider(value=0, min=0, max=127, description="part", **late),
    }
    return Panel("Feature builder", controls, draw)
