"""One file for each recipe; importing this package registers them all. What several share is in `base`, `siamese`
(views of an image are compared) and `masked` (hidden patches are guessed).
"""

from partcrop_lab.encoders.recipes import dino, mae, mocov3
from partcrop_lab.encoders.recipes.base import RECIPES, Objective, Recipe, make_recipe, register

__all__ = ["RECIPES", "Objective", "Recipe", "dino", "mae", "make_recipe", "mocov3", "register"]
