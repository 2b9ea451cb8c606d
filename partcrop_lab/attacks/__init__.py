"""Attacks turn images into membership features; attackers turn those and labels into scores."""

from partcrop_lab.attacks.attackers import ATTACKERS, MLPAttacker, make_attacker
from partcrop_lab.attacks.base import ATTACKS, Attack, make_attack, register
from partcrop_lab.attacks.partcrop import PartCrop
from partcrop_lab.attacks.pixels import PixelStatistics

__all__ = [
    "ATTACKERS",
    "ATTACKS",
    "Attack",
    "MLPAttacker",
    "PartCrop",
    "PixelStatistics",
    "make_attack",
    "make_attacker",
    "register",
]
