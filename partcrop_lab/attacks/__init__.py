"""Attacks turn images into membership features; attackers turn those and labels into scores."""

from partcrop_lab.attacks.alignment import Alignment
from partcrop_lab.attacks.attackers import ATTACKERS, MLPAttacker, SetAttacker, make_attacker
from partcrop_lab.attacks.base import ATTACKS, Attack, make_attack, register
from partcrop_lab.attacks.combined import Calibrated, Stacked
from partcrop_lab.attacks.encodermi import EncoderMI
from partcrop_lab.attacks.norms import Norms
from partcrop_lab.attacks.partcosine import PartCosine
from partcrop_lab.attacks.partcrop import PartCrop
from partcrop_lab.attacks.pixels import PixelStatistics
from partcrop_lab.attacks.queries import write_queries
from partcrop_lab.attacks.reconstruction import Reconstruction
from partcrop_lab.attacks.unified import Unified
from partcrop_lab.attacks.variance import Variance

__all__ = [
    "ATTACKERS",
    "ATTACKS",
    "Alignment",
    "Attack",
    "Calibrated",
    "EncoderMI",
    "MLPAttacker",
    "Norms",
    "PartCosine",
    "PartCrop",
    "PixelStatistics",
    "Reconstruction",
    "SetAttacker",
    "Stacked",
    "Unified",
    "Variance",
    "make_attack",
    "make_attacker",
    "register",
    "write_queries",
]
