"""Defence bench: train or serve an encoder under a defence, attack it, and see where it lands on the plane."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets
import pandas as pd

from partcrop_lab import plots
from partcrop_lab.attacks import Attack, Unified
from partcrop_lab.defenses import SCSR, Capacity, Defense, EarlyStop, OutputNoise, TopK, tradeoff, with_front
from partcrop_lab.encoders import Encoder
from partcrop_lab.errors import BadInput
from partcrop_lab.images import ImageSet
from partcrop_lab.widgets.defense_explorer import points_html
from partcrop_lab.widgets.panel import Drawing, Panel

DEFENSES = (
    *(EarlyStop(share) for share in (0.5, 0.25)),
    *(SCSR(scale) for scale in ((0.2, 1.0), (0.2, 0.5))),
    Capacity(),
    *(OutputNoise(sigma) for sigma in (0.5, 2.0)),
    TopK(0.1),
)


def defense_bench(
    encoder: Encoder,
    labelled: ImageSet,
    defenses: Sequence[Defense] = DEFENSES,
    attack: Attack | None = None,
) -> Panel:
    """A panel that measures one defence at a time, as it is asked to, beside no defence.

    Args:
        encoder: undefended, with a card and a split; small, where defences of training are to be tried while a class
            waits, since each trains it again.
        labelled: images with classes that it was not trained on, for the probes.
        defenses: those one can choose from.
        attack: what is measured; `Unified()` where omitted.

    Returns:
        A panel with the control defense and a button. Its attribute `table` holds all that was measured so far.

    Raises:
        BadInput: no defence to choose from.
    """
    if not defenses:
        raise BadInput("there are no defences to choose from; the bench needs at least one")
    attack, named = attack or Unified(), {one.label: one for one in defenses}
    undefended = tradeoff(encoder, [], attack, labelled)

    def draw(defense) -> Drawing:
        table = undefended if panel is None else panel.table
        if panel is not None and defense not in set(table["level"]):
            new = tradeoff(encoder, [named[defense]], attack, labelled)
            panel.table = table = with_front(pd.concat([table, new[new["level"] != "none"]], ignore_index=True))
        draw_plane = lambda figure: plots.tradeoff(table, [figure.subplots()], hover=True)  # noqa: E731
        return Drawing(html=points_html(table, "Measured so far"), svg=plots.svg(draw_plane, 7.4, 4.2))

    panel: Panel | None = None
    controls = {"defense": widgets.Dropdown(options=list(named), description="defence")}
    panel = Panel("Defence bench", controls, draw, button="Train and attack")
    panel.table = undefended
    return panel
