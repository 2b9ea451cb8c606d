"""Tidy tables and results to matplotlib axes; nothing is computed here.

Every figure of a notebook, a widget, a report and of `figures/` is drawn by these functions. Each takes the axes to
draw on (`ax`, or `figure` where it lays out several) and makes its own where they are omitted.
"""

from partcrop_lab.plots.audits import accuracy_by_epoch, metrics_bars, roc, rocs, score_histogram
from partcrop_lab.plots.base import RELEASED, caption, mark_released, png, style, svg
from partcrop_lab.plots.comparisons import LEAKS, USES, attacks, aucs, capacity, growth, tradeoff, word_tables
from partcrop_lab.plots.dejavu import deja_vu, dejavu_growth, dejavu_sweeps, dial, joined_scores, reconstructions
from partcrop_lab.plots.features import feature_curves, feature_steps, one_feature, part_steps
from partcrop_lab.plots.parts import (
    MovingResponses,
    heatmaps,
    image_grid,
    image_with_boxes,
    part_responses,
    similarity_curves,
)
from partcrop_lab.plots.training import loss_curve, training_curve

__all__ = [
    "LEAKS",
    "RELEASED",
    "USES",
    "MovingResponses",
    "accuracy_by_epoch",
    "attacks",
    "aucs",
    "capacity",
    "caption",
    "deja_vu",
    "dejavu_growth",
    "dejavu_sweeps",
    "dial",
    "feature_curves",
    "feature_steps",
    "growth",
    "heatmaps",
    "image_grid",
    "image_with_boxes",
    "joined_scores",
    "loss_curve",
    "mark_released",
    "metrics_bars",
    "one_feature",
    "part_responses",
    "part_steps",
    "png",
    "reconstructions",
    "roc",
    "rocs",
    "score_histogram",
    "similarity_curves",
    "style",
    "svg",
    "tradeoff",
    "training_curve",
    "word_tables",
]
