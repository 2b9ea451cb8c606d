"""What masked-image recipes share: a ViT, patches hidden at random, their pixels as the target."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from lightly.models import utils
from lightly.models.modules import MaskedVisionTransformerTIMM
from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor, nn

from partcrop_lab.encoders.recipes.base import Recipe, SeparableObjective

Masks = tuple[Tensor, Tensor]
"""Token indices to keep (n, prefix + kept) and to hide (n, hidden); prefix tokens (CLS) are always kept."""

INSIDE = "encoder.vit."
"""What the names of the backbone's tensors begin with in a `MaskedObjective`."""


@dataclass(frozen=True, kw_only=True)
class MaskedRecipe(Recipe):
    """Settings of masked-image recipes: little augmentation, small batches.

    Attributes:
        mask_ratio: share of the patches that are hidden, in (0, 1).
    """

    batch_size: int = 64
    lr: float = 2e-3
    jitter: float = 0.0
    grey: float = 0.0
    mask_ratio: float = 0.5


class MaskedObjective(SeparableObjective):
    """A ViT some of whose patches are hidden, by lightly's module; subclasses add what guesses them.

    Raises:
        ValueError: the backbone is no ViT.
    """

    def __init__(self, recipe: MaskedRecipe, image_size: int, seed: int) -> None:
        super().__init__(recipe, image_size)
        vit = checked_vit(recipe, recipe.architecture(image_size).build(seed))
        self.patch = vit.patch_embed.patch_size[0]
        self.positions = (self.view_side // self.patch) ** 2
        self.encoder = MaskedVisionTransformerTIMM(vit=vit)

    @property
    def backbone(self) -> nn.Module:
        """The ViT alone."""
        return self.encoder.vit

    @property
    def prefix(self) -> int:
        """Tokens before those of the patches: 1 for CLS."""
        return self.backbone.num_prefix_tokens

    def surroundings(self) -> dict[str, Tensor]:
        """The weights around the backbone, by their names."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith(INSIDE)}

    def drawn(self, images: Tensor, generator: Generator, labels: Tensor | None = None) -> tuple[Tensor, ...]:
        """One normalised view (B, 3, S, S) of each image, and the tokens to keep and to hide."""
        return self.views(images, generator)[:, 0], *self.draw_masks(len(images), generator)

    def each(self, views: Tensor, keep: Tensor, hidden: Tensor) -> Tensor:
        """`losses` with these masks."""
        return self.losses(views, (keep, hidden))

    @abstractmethod
    def losses(self, views: Tensor, masks: Masks) -> Tensor:
        """The loss of each view (B, 3, S, S) by itself; (B,) float32."""

    def draw_masks(self, n: int, generator: Generator) -> Masks:
        """Patches to keep and to hide for n images, each position as likely as any other."""
        order = torch.rand(n, self.positions, generator=generator).argsort(1) + self.prefix
        kept = max(1, round(self.positions * (1 - self.recipe.mask_ratio)))
        first = torch.arange(self.prefix).expand(n, -1)
        return torch.cat([first, order[:, :kept]], 1).to(self.mean.device), order[:, kept:].to(self.mean.device)

    def hidden_pixels(self, views: Tensor, hidden: Tensor, normalise: bool) -> Tensor:
        """The hidden patches' pixels (B, hidden, 3 patch^2), of mean 0 and variance 1 in each where normalised."""
        pixels = utils.get_at_index(utils.patchify(views, self.patch), hidden - self.prefix)
        return utils.normalize_mean_var(pixels, dim=-1) if normalise else pixels


def checked_vit(recipe: Recipe, model: nn.Module) -> VisionTransformer:
    """The model, if it is a ViT.

    Raises:
        ValueError: it is another.
    """
    if not isinstance(model, VisionTransformer):
        raise ValueError(
            f"recipe {recipe.name} hides the patches of a ViT; {recipe.model} is none: choose another model, e.g. "
            "vit_tiny_patch16_224, or a recipe that compares views, e.g. simclr"
        )
    return model
