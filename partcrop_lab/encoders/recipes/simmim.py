"""SimMIM: a linear head predicts the pixels of masked patches (Xie et al., CVPR 2022, arXiv 2111.09886).

Single patches are masked, where the authors mask squares of 32 px in images of 192 px.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lightly.models import utils
from torch import Tensor, nn

from partcrop_lab.encoders.recipes.base import Objective, register
from partcrop_lab.encoders.recipes.masked import MaskedObjective, MaskedRecipe, Masks


@register
@dataclass(frozen=True, kw_only=True)
class SimMIM(MaskedRecipe):
    """Settings of SimMIM, see `MaskedRecipe`.

    Attributes:
        normalise_pixels: predict each patch after removing its own mean and variance; the authors do not.
    """

    name: ClassVar[str] = "simmim"
    mask_ratio: float = 0.6
    normalise_pixels: bool = False

    def build(self, image_size: int, seed: int) -> Objective:
        """Encoder, linear head and masked absolute error."""
        return SimMIMObjective(self, image_size, seed)


class SimMIMObjective(MaskedObjective):
    """Encoder of all tokens, those of hidden patches replaced by a mask token, and a linear head."""

    def __init__(self, recipe: SimMIM, image_size: int, seed: int) -> None:
        super().__init__(recipe, image_size, seed)
        self.predict = nn.Linear(self.backbone.embed_dim, 3 * self.patch**2)

    def losses(self, views: Tensor, masks: Masks) -> Tensor:
        """The mean absolute error over the hidden patches of each view (B, 3, S, S); (B,)."""
        _, hidden = masks
        tokens = self.encoder.encode(views, idx_mask=hidden)
        predicted = self.predict(utils.get_at_index(tokens, hidden)).float()
        return (predicted - self.hidden_pixels(views, hidden, self.recipe.normalise_pixels)).abs().mean((1, 2))
