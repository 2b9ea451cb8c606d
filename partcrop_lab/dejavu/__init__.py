"""Deja vu memorisation: what the background of a training image alone betrays of it (arXiv 2304.13850)."""

from partcrop_lab.dejavu.background import Backgrounds, Inference
from partcrop_lab.dejavu.neighbours import PublicIndex, confidence
from partcrop_lab.dejavu.periphery import Periphery, largest_outside, periphery
from partcrop_lab.dejavu.reconstruction import (
    Reconstructions,
    Reconstructor,
    load_reconstructor,
    painted_gain,
    reconstruct,
    train_reconstructor,
    zoo_reconstructors,
)
from partcrop_lab.dejavu.score import DejaVu, association, at_layer, deja_vu, measured, one_model, with_controls

__all__ = [
    "Backgrounds",
    "DejaVu",
    "Inference",
    "Periphery",
    "PublicIndex",
    "Reconstructions",
    "Reconstructor",
    "association",
    "at_layer",
    "confidence",
    "deja_vu",
    "largest_outside",
    "load_reconstructor",
    "measured",
    "one_model",
    "painted_gain",
    "periphery",
    "reconstruct",
    "train_reconstructor",
    "with_controls",
    "zoo_reconstructors",
]
