"""One file for each recipe; importing this package registers them all. What several share is in `base`, `siamese`
(views of an image are compared) and `masked` (hidden patches are guessed).
"""

from partcrop_lab.encoders.recipes import (
    barlowtwins,
    byol,
    cae,
    dino,
    ibot,
    mae,
    mocov2,
    mocov3,
    simclr,
    simmim,
    supervised,
    swav,
    vicreg,
)
from partcrop_lab.encoders.recipes.base import RECIPES, Objective, Recipe, SeparableObjective, make_recipe, register
from partcrop_lab.encoders.recipes.masked import INSIDE, MaskedObjective

__all__ = [
    "INSIDE",
    "RECIPES",
    "MaskedObjective",
    "Objective",
    "Recipe",
    "SeparableObjective",
    "barlowtwins",
    "byol",
    "cae",
    "dino",
    "ibot",
    "mae",
    "make_recipe",
    "mocov2",
    "mocov3",
    "register",
    "simclr",
    "simmim",
    "supervised",
    "swav",
    "vicreg",
]
