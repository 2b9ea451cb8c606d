"""MAE: reconstruct the pixels of masked patches (He et al., CVPR 2022, arXiv 2111.06377)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from lightly.models import utils
from lightly.models.modules import MaskedVisionTransformerTIMM
from lightly.models.modules.masked_vision_transformer_decoder_timm import MaskedVisionTransformerDecoderTIMM
from torch import Generator, Tensor, nn

from partcrop_lab.encoders.recipes.base import Objective, Recipe, register


@register
@dataclass(frozen=True, kw_only=True)
class MAE(Recipe):
    """Settings of MAE; `crop_scale=None, flip=0` trains without augmentation, which memorises (METHODS 8).

    Attributes:
        mask_ratio: share of the patches hidden from the encoder, in (0, 1).
        decoder_width, decoder_depth, decoder_heads: of the decoder.
        normalise_pixels: predict each patch after removing its own mean and variance.
    """

    name: ClassVar[str] = "mae"
    batch_size: int = 64
    lr: float = 2e-3
    jitter: float = 0.0
    grey: float = 0.0
    mask_ratio: float = 0.75
    decoder_width: int = 128
    decoder_depth: int = 2
    decoder_heads: int = 4
    normalise_pixels: bool = True

    def build(self, image_size: int, seed: int) -> Objective:
        """Encoder, decoder and masked reconstruction error."""
        return MAEObjective(self, image_size, seed)


class MAEObjective(Objective):
    """Masked encoder and light decoder; lightly's modules."""

    def __init__(self, recipe: MAE, image_size: int, seed: int) -> None:
        super().__init__(recipe, image_size)
        vit = recipe.architecture(image_size).build(seed)
        self.patch = vit.patch_embed.patch_size[0]
        self.positions = (image_size // self.patch) ** 2
        self.encoder = MaskedVisionTransformerTIMM(vit=vit)
        self.embed = nn.Linear(vit.embed_dim, recipe.decoder_width)
        self.decoder = MaskedVisionTransformerDecoderTIMM(
            num_patches=self.positions,
            embed_dim=recipe.decoder_width,
            depth=recipe.decoder_depth,
            num_heads=recipe.decoder_heads,
            num_prefix_tokens=vit.num_prefix_tokens,
        )
        self.predict = nn.Linear(recipe.decoder_width, 3 * self.patch**2)

    @property
    def backbone(self) -> nn.Module:
        """The ViT without its decoder."""
        return self.encoder.vit

    def forward(self, images: Tensor, generator: Generator, progress: float = 0.0) -> Tensor:
        """The mean reconstruction error of masked patches."""
        return self.losses(self.views(images, generator)[:, 0], self.draw_masks(len(images), generator)).mean()

    def draw_masks(self, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Token indices to keep (n, prefix + kept) and to mask (n, masked); prefix tokens are always kept."""
        prefix = self.backbone.num_prefix_tokens
        order = torch.rand(n, self.positions, generator=generator).argsort(1) + prefix
        kept = max(1, round(self.positions * (1 - self.recipe.mask_ratio)))
        first = torch.arange(prefix).expand(n, -1)
        return torch.cat([first, order[:, :kept]], 1).to(self.mean.device), order[:, kept:].to(self.mean.device)

    def losses(self, views: Tensor, masks: tuple[Tensor, Tensor]) -> Tensor:
        """The mean squared error over the masked patches of each view (B, 3, S, S); (B,)."""
        keep, hidden = masks
        tokens = self.embed(self.encoder.encode(views, idx_keep=keep))
        length = self.positions + self.backbone.num_prefix_tokens
        full = utils.repeat_token(self.decoder.mask_token, (len(views), length)).to(tokens.dtype)
        decoded = self.decoder(utils.set_at_index(full, keep, tokens))
        predicted = self.predict(utils.get_at_index(decoded, hidden)).float()
        patches = utils.patchify(views, self.patch)
        target = utils.get_at_index(patches, hidden - self.backbone.num_prefix_tokens)
        if self.recipe.normalise_pixels:
            target = utils.normalize_mean_var(target, dim=-1)
        return (predicted - target).square().mean((1, 2))
