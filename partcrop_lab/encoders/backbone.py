"""Backbones: timm models built from a JSON-able description, and anything that can be called on a batch."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import timm
from timm.models.resnet import ResNet
from torch import Tensor, nn

from partcrop_lab.devices import fresh_weights
from partcrop_lab.errors import BadInput
from partcrop_lab.limits import building_at_most

Tokens = tuple[Tensor, Tensor | None]
"""A feature map (B, L, D) and, where the backbone has one, the CLS token (B, D)."""

SIZE_KEYWORDS = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
"""How timm's families are told to take images of any side; the first that a family accepts is used."""

OPENING = (
    "checkpoint_path",
    "cache_dir",
    "scriptable",
    "exportable",
    "no_jit",
    "hf_hub_id",
    "file",
    "url",
    "custom_load",
)
"""Keywords of timm that open a file, fetch one or compile code; so do all that begin with "pretrained"."""


@dataclass(frozen=True)
class Architecture:
    """A timm model without its weights.

    Attributes:
        model: name in timm, without a tag, e.g. "vit_tiny_patch16_224".
        image_size: side of the images in pixels.
        options: further keywords of `timm.create_model`, e.g. {"patch_size": 8, "depth": 4} or, for a narrow ResNet,
            {"channels": (16, 32, 64, 128)}; and "small_stem": whether a ResNet begins as is usual for small images,
            with a 3 x 3 convolution of stride 1 and without max pooling, which makes its total stride 8.

    >>> Architecture("vit_tiny_patch16_224", 32, {"patch_size": 8, "depth": 1}).build(seed=0).embed_dim
    192
    """

    model: str
    image_size: int
    options: dict[str, Any] = field(default_factory=dict)

    def build(self, seed: int | None = None, pretrained: bool = False, most: int | None = None) -> nn.Module:
        """The model with fresh weights that depend on the seed alone, or with timm's pretrained ones.

        Args:
            seed: of the weights, which are then the same on every chip; None where others will take their place.
            pretrained: fetch timm's weights.
            most: bytes that it may take; the limit "model" where None.

        Raises:
            BadInput: an option that would open a file or fetch one, or a model that takes more than `most`.
            ValueError: timm has no such model, it does not take an option, its patch does not divide the side, or
                a small stem for what is no ResNet or is pretrained with another.
        """
        if not timm.is_model(self.model):
            near = difflib.get_close_matches(self.model, timm.list_models(), n=3)
            raise ValueError(f"timm has no model {self.model!r}; did you mean {' or '.join(near) or 'another name'}?")
        self._check_options()
        with building_at_most(most, f"the model {self.model}"):
            if seed is None or pretrained:
                model = self._created(pretrained)
            else:
                with fresh_weights("weights", seed):
                    model = self._created(pretrained).float()
        patch = getattr(getattr(model, "patch_embed", None), "patch_size", (1, 1))[0]
        if self.image_size % patch:
            raise ValueError(f"image_size is {self.image_size}; it must be a multiple of the patch of {patch} px")
        return model

    def _created(self, pretrained: bool) -> nn.Module:
        model = self._create(pretrained)
        if self.options.get("small_stem"):
            self._shrink_stem(model, pretrained)
        return model

    def _check_options(self) -> None:
        """The one place where options are kept from opening files: those of headers, commands and keywords pass it."""
        for name in self.options:
            if name in OPENING or name.startswith("pretrained"):
                raise BadInput(
                    f"{name} is no option of the model {self.model} here: options describe its shape, and open no "
                    "file, folder or address; load weights from their file, or as timm:NAME"
                )

    def _create(self, pretrained: bool) -> nn.Module:
        options = {key: value for key, value in self.options.items() if key != "small_stem"}
        attempts = [{"img_size": self.image_size, **any_size} for any_size in SIZE_KEYWORDS] + [{}]
        for keywords in attempts:
            try:
                return timm.create_model(self.model, pretrained, num_classes=0, **keywords, **options)
            except TypeError as error:  # a keyword this family does not take
                refusal = error
            except (AssertionError, ArithmeticError, LookupError, AttributeError) as error:  # a value that does not fit
                raise ValueError(f"timm's {self.model} cannot be built with the options {options}: {error}") from error
        raise ValueError(f"timm's {self.model} does not take the options {options}: {refusal}") from refusal

    def _shrink_stem(self, model: nn.Module, pretrained: bool) -> None:
        if pretrained or not isinstance(model, ResNet) or not isinstance(model.conv1, nn.Conv2d):
            raise ValueError(
                f"small_stem is for ResNets with one convolution in their stem and fresh weights, e.g. resnet18; "
                f"{self.model} {'is pretrained with its own stem' if pretrained else 'is not one'}"
            )
        model.conv1 = nn.Conv2d(3, model.conv1.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")  # as timm's
        model.maxpool = nn.Identity()

    def side(self, share: float) -> int:
        """This share of the images' side, in pixels: whole patches, or multiples of 8 px where the model has none.

        Raises:
            ValueError: a share outside (0, 1].
        """
        if not 0 < share <= 1:
            raise ValueError(f"a view's side is to be {share:g} of the image's; it must be above 0 and at most 1")
        named = re.search(r"patch(\d+)", self.model)
        step = self.options.get("patch_size") or (int(named[1]) if named else 8)
        return min(self.image_size, math.ceil(self.image_size * share / step) * step)

    @property
    def json(self) -> dict[str, Any]:
        """The fields, JSON-able."""
        return asdict(self)


def explicit_attention(model: nn.Module) -> nn.Module:
    """Let timm's blocks compute attention by plain matrix products, in place.

    For the short sequences here, torch's fused kernel in bf16 on a CPU is slower: measured 1.4 times in the forward
    pass of 5 tokens, and 2 times in a training step.
    """
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    return model


def timm_tokens(model: nn.Module, images: Tensor) -> Tokens:
    """Final-norm patch tokens without CLS and register tokens, or a ConvNet's last stage flattened (METHODS 1).

    Args:
        model: a timm model.
        images: (B, 3, S, S), normalised.

    Returns:
        The feature map (B, L, D), positions row by row, and the CLS token (B, D) or None.
    """
    features = model.forward_features(images)
    if features.ndim == 4:
        last = getattr(model, "output_fmt", "NCHW") == "NHWC"
        return (features.flatten(1, 2) if last else features.flatten(2).transpose(1, 2)), None
    if isinstance(getattr(model, "norm", None), nn.Identity):  # models that pool first norm afterwards
        features = getattr(model, "fc_norm", nn.Identity())(features)
    prefix = getattr(model, "num_prefix_tokens", 0)
    has_cls = prefix and getattr(model, "cls_token", None) is not None
    return features[:, prefix:], features[:, 0] if has_cls else None


def called_tokens(function: Callable[[Tensor], Any], images: Tensor) -> Tokens:
    """What a callable returns, read as tokens.

    Args:
        function: takes (B, 3, S, S) float32 and returns a feature map (B, L, D) or (B, D, h, w), a vector (B, D),
            or a pair of a map and a CLS vector.

    Raises:
        BadInput: it returned something else.
    """
    returned = function(images)
    features, cls = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
    if not isinstance(features, Tensor) or features.ndim not in (2, 3, 4) or len(features) != len(images):
        found = f"shape {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
        raise BadInput(
            f"the callable encoder returned {found} for {len(images)} images; it must return a tensor (B, L, D), "
            "(B, D, h, w) or (B, D), or a pair of a feature map and a vector (B, D)"
        )
    if features.ndim == 4:
        return features.flatten(2).transpose(1, 2), cls
    return (features[:, None] if features.ndim == 2 else features), cls


def grid(positions: int) -> tuple[int, int]:
    """The (h, w) of a square feature map of L positions.

    Raises:
        BadInput: L is not a square number.

    >>> grid(64)
    (8, 8)
    """
    side = math.isqrt(positions)
    if side * side != positions:
        raise BadInput(f"the feature map has {positions} positions, which is not a square number; give (B, D, h, h)")
    return side, side
