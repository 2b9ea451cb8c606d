"""`load_encoder`: one door for every encoder, by name, by file, or any callable."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
from huggingface_hub import constants
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from partcrop_lab.encoders.backbone import Architecture
from partcrop_lab.encoders.checkpoint import (
    Found,
    Weights,
    find_backbone,
    load_weights,
    passed_over,
    read_description,
    read_weights,
)
from partcrop_lab.encoders.encoder import DECODER, PROJECTOR, Encoder
from partcrop_lab.encoders.infer import ANCHORS, infer_model
from partcrop_lab.encoders.recipes import INSIDE, MaskedObjective, make_recipe
from partcrop_lab.errors import BadInput
from partcrop_lab.files import check_regular
from partcrop_lab.limits import SMALL, building_at_most

OURS = (
    "name",
    "mean",
    "std",
    "pooling",
    "precision",
    "device",
    "card",
    "patch",
    "digest",
    "untrained",
    "micro_batch",
    "view_side",
)
"""Keywords of `Encoder`; the others describe the timm model."""
FILES = (".safetensors", ".pth", ".pt", ".tar", ".bin", ".ckpt")


def load_encoder(spec: str | Path | nn.Module | Callable[[Tensor], Any], **keywords: Any) -> Encoder:
    """An encoder, from

    - "random:<timm model>": fresh weights, with seed=, image_size= and any keyword of `timm.create_model`;
    - "timm:<name>": timm's pretrained weights, fetched from their hub;
    - "zoo:<name>": an encoder of this package's zoo, with its card and split;
    - a checkpoint file: our own need nothing more. Of others a plain ViT or ResNet is read from its shapes, and what
      they cannot say is assumed, with a warning: num_heads= of a ViT, image_size= of a ResNet, mean= and std=
      (ImageNet's). Other models need model= (a timm name), image_size= and their options. branch= chooses among
      "teacher", "student", "base" and "momentum" where a file holds several. Only tensors are read, never code;
    - a timm model, or any callable on (B, 3, S, S) float32, with image_size= (see `called_tokens`, `Encoder`).

    Args:
        spec: as above.
        keywords: those of `Encoder` (pooling=, precision=, mean=, std=, device=, ...) in every case.

    Raises:
        BadInput: a file that is missing, damaged, unsafe or of another model; weights that cannot be fetched.
        ValueError: an unknown name or keyword; the right ones are listed.

    >>> load_encoder("random:vit_tiny_patch16_224", image_size=32, patch_size=8, depth=2, precision="fp32")
    Encoder(random:vit_tiny_patch16_224, 32 px, float32, cpu)
    """
    if callable(spec):
        return _from_callable(spec, keywords)
    kind, _, name = str(spec).partition(":")
    if kind in KINDS and name:
        return KINDS[kind](name, keywords)
    if Path(spec).suffix in FILES:
        return _from_file(Path(spec), keywords)
    raise ValueError(
        f"encoder {str(spec)!r} is not known; it must be random:<timm model>, timm:<name>, zoo:<name>, "
        f"a file ({', '.join(FILES)}) or a callable"
    )


def _split(keywords: dict[str, Any], **defaults: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keywords of `Encoder`, with defaults, and those of the model."""
    ours = defaults | {key: value for key, value in keywords.items() if key in OURS}
    return ours, {key: value for key, value in keywords.items() if key not in OURS}


def _described(model: str, options: dict[str, Any]) -> tuple[Architecture, dict[str, Any]]:
    """A timm model at its own or the given side, and its own normalisation."""
    config = timm.get_pretrained_cfg(model)
    config = config.to_dict() if config else {}
    side = options.pop("image_size", None) or config.get("input_size", (3, 224, 224))[-1]
    normal = {"mean": config.get("mean", (0.5,) * 3), "std": config.get("std", (0.5,) * 3)}
    return Architecture(model, side, options), normal


def _random(name: str, keywords: dict[str, Any]) -> Encoder:
    seed = keywords.pop("seed", 0)
    ours, options = _split(keywords, name=f"random:{name}", card={"recipe": "random", "seed": seed})
    architecture, normal = _described(name, options)
    model = architecture.build(seed)
    return Encoder(model, architecture=architecture, image_size=architecture.image_size, **(normal | ours))


def _pretrained(name: str, keywords: dict[str, Any]) -> Encoder:
    recipe = "mae" if name.endswith(".mae") else "timm"
    ours, options = _split(keywords, name=f"timm:{name}", card={"recipe": recipe})
    architecture, normal = _described(name, options)
    try:
        with _hub_asked_once():
            model = architecture.build(pretrained=True)
    except ValueError:
        raise
    except Exception as error:  # the hub's clients raise errors of many libraries
        raise BadInput(
            f"the weights of timm:{name} could not be fetched ({type(error).__name__}); connect to the network, or "
            f"download them elsewhere and load the file with model={name!r}"
        ) from error
    return Encoder(model, architecture=architecture, image_size=architecture.image_size, **(normal | ours))


@contextmanager
def _hub_asked_once() -> Iterator[None]:
    """Without a route to the hub, look for weights in its cache alone instead of retrying for a minute."""
    host = urlsplit(constants.ENDPOINT).hostname
    before = constants.HF_HUB_OFFLINE
    if not getproxies():
        try:
            socket.create_connection((host, 443), timeout=5).close()
        except OSError:
            constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _zoo(name: str, keywords: dict[str, Any]) -> Encoder:
    from partcrop_lab.encoders.zoo import load_zoo

    return load_zoo(name, **keywords)


def _from_file(path: Path, keywords: dict[str, Any]) -> Encoder:
    check_regular(path)
    about = read_description(path)
    if about is None:
        return _foreign_file(path, keywords)
    ours, options = _split(keywords, **{key: about[key] for key in ("name", "mean", "std", "pooling", "card")})
    if options:
        raise ValueError(f"{path} describes its own model; it does not take {', '.join(options)}")
    architecture = Architecture(**about["architecture"])
    model = _built(architecture, path)
    weights = read_weights(path)
    load_weights(model, find_backbone(weights, path, model.state_dict().keys()), path)
    if any(name.startswith(PROJECTOR) for name in weights):
        ours["projector"] = _projector(about["card"], model, weights, path)
    if any(name.startswith(DECODER) for name in weights):
        ours["decoder"] = _decoder(about, model, weights, path)
    encoder = Encoder(model, architecture=architecture, image_size=about["image_size"], **ours)
    with _described_by(path):
        encoder.map_shape  # noqa: B018  a model that cannot take images of its own side is said now
    return encoder


def _built(architecture: Architecture, path: Path) -> nn.Module:
    """The model of a file, which may take a few times as much memory as the file is long: it holds all its weights."""
    with _described_by(path):
        return architecture.build(most=_room(path))


def _room(path: Path) -> int:
    return SMALL + 8 * path.stat().st_size


@contextmanager
def _described_by(path: Path) -> Iterator[None]:
    """What goes wrong within is the fault of what a file says of itself."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
    except (AssertionError, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"{path}: what it says of its model cannot be built ({why})") from error


def _projector(card: dict[str, Any], model: nn.Module, weights: Weights, path: Path) -> nn.Module:
    """The projector that one of our own files holds, built as its recipe builds it."""
    with _described_by(path), building_at_most(_room(path), "the projector"):
        projector = make_recipe(card["recipe"], **card["settings"]).head(model.num_features)
    load_weights(projector, Found("", PROJECTOR, weights), path)
    return projector


def _decoder(about: dict[str, Any], model: nn.Module, weights: Weights, path: Path) -> MaskedObjective:
    """What one of our own files holds around a masked-image model, the model in it."""
    card = about["card"]
    with _described_by(path), building_at_most(_room(path), "the decoder"):
        objective = make_recipe(card["recipe"], **card["settings"]).objective(about["image_size"], card["seed"])
    state = {INSIDE + name: value for name, value in model.state_dict().items()}
    load_weights(objective, Found("", "", state | Found("", DECODER, weights).weights), path)
    return objective


def _foreign_file(path: Path, keywords: dict[str, Any]) -> Encoder:
    ours, options = _split(keywords, name=path.name, card={"recipe": "unknown"})
    content, branch = read_weights(path), options.pop("branch", None)
    assumed, normal = {}, {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD}
    given = keywords.keys()
    if "model" in options:
        architecture, normal = _described(options.pop("model"), options)
        model = architecture.build(most=_room(path))
        found = find_backbone(content, path, model.state_dict().keys(), branch)
    else:
        found = find_backbone(content, path, ANCHORS, branch)
        read, assumed = infer_model(found.weights, path)
        options = read | assumed | options
        architecture = Architecture(options.pop("model"), options.pop("image_size"), options)
        model = architecture.build(most=_room(path))
    load_weights(model, found, path)
    _say_what_is_assumed(path, {name: value for name, value in (assumed | normal).items() if name not in given})
    beside = passed_over(content, found, model.state_dict().keys())
    about = {"checkpoint": {"file": path.name, "branch": found.branch, "passed_over": beside}}
    ours["card"] = ours["card"] | about
    return Encoder(model, architecture=architecture, image_size=architecture.image_size, **(normal | ours))


def _say_what_is_assumed(path: Path, assumed: dict[str, Any]) -> None:
    if assumed:
        values = ", ".join(f"{name}={value}" for name, value in assumed.items())
        warnings.warn(f"{path} does not say {values}; this is assumed, give it where it is wrong", stacklevel=2)


def _from_callable(function: Callable[[Tensor], Any], keywords: dict[str, Any]) -> Encoder:
    ours, rest = _split(keywords, name=getattr(function, "__name__", type(function).__name__))
    if set(rest) != {"image_size"}:
        raise ValueError(
            f"a callable takes image_size= (needed) and {', '.join(OURS)}; found {', '.join(rest) or 'none'}"
        )
    return Encoder(function, **rest, **ours)


KINDS: dict[str, Callable[[str, dict[str, Any]], Encoder]] = {"random": _random, "timm": _pretrained, "zoo": _zoo}
