"""Trap demo: the released evaluation beside the matched one; watch what the controls say (METHODS 3)."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure

from partcrop_lab import plots, tables
from partcrop_lab.attacks import MLPAttacker, PartCrop
from partcrop_lab.audit import audit, released_images
from partcrop_lab.encoders import Encoder
from partcrop_lab.images import MembershipSplit
from partcrop_lab.widgets.panel import Drawing, Panel, by_name


def trap_demo(
    encoders: Sequence[Encoder],
    split: MembershipSplit,
    crops: int = 32,
    attacker: str | MLPAttacker = "mlp",
    permutations: int = 0,
) -> Panel:
    """A panel that audits an encoder under both protocols.

    Args:
        encoders: those one can choose from; begin with one that was never trained.
        split: members and non-members; an encoder that carries a split of its own is audited on that.
        crops: parts an image.
        attacker: one that is trained in epochs.
        permutations: fits with permuted labels, none at first: the controls that matter here are the other two.

    Returns:
        A panel with the controls encoder and seed, and a button. Its attribute `results` holds the last two results.
    """
    named = by_name(encoders)
    attack, results = PartCrop(crops=crops), {}

    def draw(encoder, seed) -> Drawing:
        chosen = named[encoder]
        over = chosen.split if chosen.split_digest else split
        for protocol in ("matched", "released"):
            results[protocol] = audit(
                chosen, over, attack, attacker, seed=seed, permutations=permutations, protocol=protocol
            )
        words = "".join(f"<p><b>{name} protocol.</b> {escape(one.verdict)}</p>" for name, one in results.items())
        return Drawing(plots.png(lambda figure: _draw_both(results, over, seed, figure), 9.2, 3.4, 85), words)

    controls = {
        "encoder": widgets.Dropdown(options=list(named), description="encoder"),
        "seed": widgets.BoundedIntText(value=0, min=0, max=9999, description="seed"),
    }
    panel = Panel("Evaluation trap", controls, draw, button="Audit under both protocols")
    panel.results = results
    return panel


def _draw_both(results: dict, split: MembershipSplit, seed: int, figure: Figure) -> None:
    left, right = figure.subfigures(1, 2, width_ratios=[1.7, 1])
    plots.aucs(tables.auc_table(results, "shown as"), "shown as", left.subplots(), "protocol", join=False)
    shown = [split.members.batch(slice(0, 4)), released_images(split, seed).batch(slice(0, 4))]
    plots.image_grid(np.concatenate(shown), columns=4, figure=right)
    right.suptitle("members: matched (above), released (below)", fontsize=9)
