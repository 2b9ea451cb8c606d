"""Defences: ways to train or to serve an encoder that betray less of its training images, and what each costs."""

from partcrop_lab.defenses.base import DEFENSES, Defense, defended, make_defense, spelled
from partcrop_lab.defenses.serving import Averaged, EarlierLayer, OutputNoise, QueryLimit, Rounding, Served, TopK
from partcrop_lab.defenses.tradeoff import (
    measured,
    over_trainings,
    paper_tables,
    pareto,
    save_tradeoff,
    tradeoff,
    with_front,
    worst,
)
from partcrop_lab.defenses.training import DPSGD, SCSR, Capacity, EarlyStop, StrongAugmentation, WeightDecay
from partcrop_lab.defenses.unlearning import Unlearning

__all__ = [
    "DEFENSES",
    "DPSGD",
    "SCSR",
    "Averaged",
    "Capacity",
    "Defense",
    "EarlierLayer",
    "EarlyStop",
    "OutputNoise",
    "QueryLimit",
    "Rounding",
    "Served",
    "StrongAugmentation",
    "TopK",
    "Unlearning",
    "WeightDecay",
    "defended",
    "make_defense",
    "measured",
    "over_trainings",
    "paper_tables",
    "pareto",
    "save_tradeoff",
    "spelled",
    "tradeoff",
    "with_front",
    "worst",
]
