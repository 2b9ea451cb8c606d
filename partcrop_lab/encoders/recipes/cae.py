"""CAE: guess what the encoder says of hidden patches, then their pixels (Chen et al., IJCV 2023, arXiv 2202.03026).

Two things differ from the paper: the decoder's targets are the patches' normalised pixels, not the tokens of DALL-E's
tokeniser, which was trained on images of its own; and patches are hidden one by one, not in blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from lightly.models import utils
from timm.layers import Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from partcrop_lab.encoders.recipes.base import Objective, register
from partcrop_lab.encoders.recipes.masked import MaskedObjective, MaskedRecipe, Masks


@register
@dataclass(frozen=True, kw_only=True)
class CAE(MaskedRecipe):
    """Settings of CAE, see `MaskedRecipe`; regressor and decoder have the encoder's width and heads.

    Attributes:
        regressor_depth, decoder_depth: their blocks.
        alignment: weight of the distance between guessed and encoded representations.
        normalise_pixels: predict each patch after removing its own mean and variance.
    """

    name: ClassVar[str] = "cae"
    regressor_depth: int = 2
    decoder_depth: int = 2
    alignment: float = 2.0
    normalise_pixels: bool = True

    def build(self, image_size: int, seed: int) -> Objective:
        """Encoder, regressor, decoder and their two losses."""
        return CAEObjective(self, image_size, seed)


class CAEObjective(MaskedObjective):
    """Encoder of the visible patches, regressor of the hidden ones' representations, decoder of their pixels."""

    def __init__(self, recipe: CAE, image_size: int, seed: int) -> None:
        super().__init__(recipe, image_size, seed)
        width, heads = self.backbone.embed_dim, self.backbone.blocks[0].attn.num_heads
        places = utils.get_2d_sine_cosine_positional_embedding(width, math.isqrt(self.positions), cls_token=False)
        self.register_buffer("places", torch.from_numpy(places).float()[None], persistent=False)
        self.query_token = nn.Parameter(torch.zeros(1, 1, width))
        self.regressor = nn.ModuleList(CrossBlock(width, heads) for _ in range(recipe.regressor_depth))
        self.norm = nn.LayerNorm(width)
        blocks = (Block(width, heads, qkv_bias=True) for _ in range(recipe.decoder_depth))
        self.decoder = nn.Sequential(*blocks, nn.LayerNorm(width), nn.Linear(width, 3 * self.patch**2))

    def losses(self, views: Tensor, masks: Masks) -> Tensor:
        """The mean squared error of each view's hidden patches, plus that of their representations, weighted; (B,)."""
        _, hidden = masks
        guessed, places = self.guess(views, masks)
        predicted = self.decoder(guessed + places).float()
        pixels = self.hidden_pixels(views, hidden, self.recipe.normalise_pixels)
        misaligned = (guessed.float() - self.targets(views, masks)).square().mean((1, 2))
        return (predicted - pixels).square().mean((1, 2)) + self.recipe.alignment * misaligned

    def guess(self, views: Tensor, masks: Masks) -> tuple[Tensor, Tensor]:
        """The hidden patches' representations, guessed from the visible ones, and their places; (B, hidden, D) each."""
        keep, hidden = masks
        visible = self.encoder.encode(views, idx_keep=keep)
        places = utils.get_at_index(self.places.expand(len(views), -1, -1), hidden - self.prefix)
        guessed = self.query_token.expand_as(places)
        for block in self.regressor:
            guessed = block(guessed, places, visible)
        return self.norm(guessed), places

    @torch.no_grad()
    def targets(self, views: Tensor, masks: Masks) -> Tensor:
        """What the encoder makes of the hidden patches alone, (B, hidden, D) float32, without gradient."""
        keep, hidden = masks
        tokens = self.encoder.encode(views, idx_keep=torch.cat([keep[:, : self.prefix], hidden], 1))
        return tokens[:, self.prefix :].float()


class CrossBlock(nn.Module):
    """Hidden patches attend to the visible ones and to each other; the visible ones stay as they are."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_query, self.norm_context, self.norm_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, hidden: Tensor, places: Tensor, visible: Tensor) -> Tensor:
        """The next (B, hidden, D) of the hidden patches, from theirs, their places and the visible (B, V, D)."""
        placed = hidden + places
        context = self.norm_context(torch.cat([visible, placed], 1))
        hidden = hidden + self.attention(self.norm_query(placed), context, context, need_weights=False)[0]
        return hidden + self.mlp(self.norm_mlp(hidden))
