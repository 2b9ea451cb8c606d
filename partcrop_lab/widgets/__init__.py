"""Panels for notebooks: the package's functions behind ipywidgets, one panel a file; no science inside."""

from partcrop_lab.widgets.attacker_bench import attacker_bench
from partcrop_lab.widgets.correlation_dial import correlation_dial
from partcrop_lab.widgets.defense_bench import defense_bench
from partcrop_lab.widgets.defense_explorer import defense_explorer
from partcrop_lab.widgets.deja_vu import deja_vu
from partcrop_lab.widgets.feature_builder import feature_builder
from partcrop_lab.widgets.panel import BUSY_CLASS, ERROR_CLASS, Drawing, Panel
from partcrop_lab.widgets.part_explorer import part_explorer
from partcrop_lab.widgets.trap_demo import trap_demo

__all__ = [
    "BUSY_CLASS",
    "ERROR_CLASS",
    "Drawing",
    "Panel",
    "attacker_bench",
    "correlation_dial",
    "defense_bench",
    "defense_explorer",
    "deja_vu",
    "feature_builder",
    "part_explorer",
    "trap_demo",
]
