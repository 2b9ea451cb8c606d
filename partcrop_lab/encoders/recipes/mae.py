"""MAE: reconstruct the pixels of masked patches (He et al., CVPR 2022, arXiv 2111.06377)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lightly.models import utils
from lightly.models.modules.masked_vision_transformer_decoder_timm import MaskedVisionTransformerDecoderTIMM
from torch import Tensor, nn

from partcrop_lab.encoders.recipes.base import Objective, register
from partcrop_lab.encoders.recipes.masked import MaskedObjective, MaskedRecipe, Masks


@register
@dataclass(frozen=True, kw_only=True)
class MAE(MaskedRecipe):
    """Settings of MAE; `crop_scale=None, flip=0` trains without augmentation, which memorises (METHODS 8).

    Attributes:
        decoder_width, decoder_depth, decoder_heads: of the decoder.
        normalise_pixels: predict each patch after removing its own mean and variance.
    """

    name: ClassVar[str] = "mae"
    mask_ratio: float = 0.75
    decoder_width: int = 128
    decoder_depth: int = 2
    decoder_heads: int = 4
    normalise_pixels: bool = True

    def build(self, image_size: int, seed: int) -> Objective:
        """Encoder, decoder and masked reconstruction error."""
        return MAEObjective(self, image_size, seed)


class MAEObjective(MaskedObjective):
    """Encoder of the patches that are kept, and light decoder; lightly's modules."""

    def __init__(self, recipe: MAE, image_size: int, seed: int) -> None:
        super().__init__(recipe, image_size, seed)
        self.embed = nn.Linear(self.backbone.embed_dim, recipe.decoder_width)
        self.decoder = MaskedVisionTransformerDecoderTIMM(
            num_patches=self.positions,
            embed_dim=recipe.decoder_width,
            depth=recipe.decoder_depth,
            num_heads=recipe.decoder_heads,
            num_prefix_tokens=self.prefix,
        )
        self.predict = nn.Linear(recipe.decoder_width, 3 * self.patch**2)

    def losses(self, views: Tensor, masks: Masks) -> Tensor:
        """The mean squared error over the hidden patches of each view (B, 3, S, S); (B,)."""
        keep, hidden = masks
        tokens = self.embed(self.encoder.encode(views, idx_keep=keep))
        full = utils.repeat_token(self.decoder.mask_token, (len(views), self.positions + self.prefix)).to(tokens.dtype)
        decoded = self.decoder(utils.set_at_index(full, keep, tokens))
        predicted = self.predict(utils.get_at_index(decoded, hidden)).float()
        return (predicted - self.hidden_pixels(views, hidden, self.recipe.normalise_pixels)).square().mean((1, 2))
