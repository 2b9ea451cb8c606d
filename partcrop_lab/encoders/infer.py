"""Which timm model a state dict belongs to, read from the names and shapes of its tensors."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from partcrop_lab.encoders.checkpoint import Weights
from partcrop_lab.errors import BadInput

ANCHORS = frozenset({"patch_embed.proj.weight", "layer1.0.conv1.weight"})
"""The tensors by which a ViT and a ResNet are found, wherever they lie in a file."""

RESNETS = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
"""timm's names by (bottleneck, blocks in each layer)."""

RESNET_DEFAULTS = {"channels": (64, 128, 256, 512), "base_width": 64, "cardinality": 1}
VIT_DEFAULTS = {"mlp_ratio": 4.0, "qkv_bias": True, "class_token": True, "no_embed_class": False, "reg_tokens": 0}
VIT_DEFAULTS |= {"init_values": None, "global_pool": "token", "fc_norm": None}
HEADS = {1280: 16, 1408: 16}
"""Attention heads of the published widths (ViT-H, ViT-g) whose heads are not 64 wide."""


def infer_model(state: Weights, path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model whose weights these are.

    Args:
        state: the state dict of a plain ViT or of a ResNet in timm's names, which torchvision's equal; heads may lie
            beside them.
        path: the file, for errors.

    Returns:
        What the shapes say, as keywords of `load_encoder` (model=, image_size=, options), and what they cannot say and
        is assumed: num_heads= of a ViT (64 channels each, as published), image_size= of a ResNet (224 px).

    Raises:
        BadInput: another kind of model, which needs model=.

    >>> import timm
    >>> infer_model(timm.create_model("resnet18").state_dict(), "r18.pth")
    ({'model': 'resnet18'}, {'image_size': 224})
    """
    try:
        return _vit(state) if "patch_embed.proj.weight" in state else _resnet(state)
    except (KeyError, ValueError) as error:
        raise BadInput(
            f"{path} holds neither a plain ViT nor a plain ResNet that its shapes describe (no {error.args[0]}); give "
            "model= (a timm name), image_size= and the model's options"
        ) from error


def _vit(state: Weights) -> tuple[dict[str, Any], dict[str, Any]]:
    width, _, patch, _ = state["patch_embed.proj.weight"].shape
    class_token, registers = "cls_token" in state, state["reg_token"].shape[1] if "reg_token" in state else 0
    length, prefix = state["pos_embed"].shape[1], class_token + registers
    own_place = math.isqrt(length - prefix) ** 2 == length - prefix
    side = math.isqrt(length - prefix if own_place else length)
    if not own_place and side**2 != length:
        raise ValueError(f"square grid in its {length} position embeddings")
    options = {
        "mlp_ratio": state["blocks.0.mlp.fc1.weight"].shape[0] / width,
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
        "class_token": class_token,
        "no_embed_class": not own_place,
        "reg_tokens": registers,
        "init_values": 1e-5 if "blocks.0.ls1.gamma" in state else None,
        "global_pool": "token" if class_token else "avg",
        "fc_norm": "fc_norm.weight" in state,
    }
    read = {"model": "vit_base_patch16_224", "image_size": side * patch, "patch_size": patch, "embed_dim": width}
    return read | {"depth": _blocks(state, "blocks.")} | _unusual(options, VIT_DEFAULTS), {"num_heads": _heads(width)}


def _heads(width: int) -> int:
    """Heads 64 channels wide, or the next fewer that divide the width."""
    wanted = HEADS.get(width, max(1, width // 64))
    return next(count for count in range(wanted, 0, -1) if width % count == 0)


def _resnet(state: Weights) -> tuple[dict[str, Any], dict[str, Any]]:
    bottleneck = "layer1.0.conv3.weight" in state
    last, expansion = ("conv3", 4) if bottleneck else ("conv2", 1)
    layers = tuple(_blocks(state, f"layer{k}.") for k in range(1, 5))
    channels = tuple(state[f"layer{k}.0.{last}.weight"].shape[0] // expansion for k in range(1, 5))
    options = {"channels": channels}
    if bottleneck:
        width, group = state["layer1.0.conv2.weight"].shape[:2]
        options |= {"cardinality": width // group, "base_width": group * 64 // channels[0]}
    name = RESNETS.get((bottleneck, layers))
    read = {"model": name} if name else {"model": "resnet50" if bottleneck else "resnet18", "layers": layers}
    return read | _unusual(options, RESNET_DEFAULTS), {"image_size": 224}


def _blocks(state: Weights, prefix: str) -> int:
    """How many blocks are numbered under a prefix, "blocks." of a ViT or "layer1." of a ResNet."""
    pattern = re.compile(rf"{re.escape(prefix)}(\d+)\.")
    found = [int(match[1]) for name in state if (match := pattern.match(name))]
    if not found:
        raise KeyError(f"{prefix}0")
    count = len(set(found))
    if max(found) >= count:
        raise KeyError(f"{prefix}{count}, though there is {prefix}{max(found)}")
    return count


def _unusual(options: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value != defaults[name]}
