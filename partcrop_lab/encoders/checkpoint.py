"""Weights in files: read without running any code in them, matched to a model, written in half precision."""

from __future__ import annotations

import argparse
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from partcrop_lab.errors import BadInput
from partcrop_lab.store import atomic

METADATA = "partcrop_lab"
"""The key of the safetensors header under which our own files describe themselves."""

CONTAINERS = ("state_dict", "model", "teacher", "student")
PREFIXES = tuple(
    outer + inner for outer in ("", "module.") for inner in ("", "backbone.", "base_encoder.", "momentum_encoder.")
)
HARMLESS = (argparse.Namespace,)
"""Classes beside tensors that released checkpoints hold (MAE keeps its command line) and that run nothing."""

Weights = dict[str, Tensor]


def halved(state: Weights) -> Weights:
    """Matrices in float16; vectors (norms, biases, running statistics) keep their range and precision."""
    return {
        name: value.half() if value.ndim > 1 and value.is_floating_point() else value for name, value in state.items()
    }


def rounded(state: Weights) -> Weights:
    """The weights as they come back from a file written by `halved`, in float32."""
    return {name: value.to(state[name].dtype) for name, value in halved(state).items()}


def write_weights(path: str | Path, state: Weights, metadata: dict[str, str]) -> None:
    """Write a state dict as safetensors, atomically."""
    with atomic(path) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, temporary, metadata)


def read_description(path: str | Path) -> dict[str, Any] | None:
    """How one of our own files describes itself; None for the file of somebody else."""
    if Path(path).suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path}: not a readable safetensors file ({error})") from error
    return json.loads(metadata[METADATA]) if METADATA in metadata else None


def read_weights(path: str | Path) -> Any:
    """What a .safetensors, .pth or .pt file holds; no code in it is run.

    Raises:
        BadInput: no such file, a damaged one, or a pickle that holds more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(list(HARMLESS)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BadInput(
            f"{path}: refused, for it is not a plain PyTorch checkpoint of tensors: it is damaged or its pickle could "
            "run code; nothing in it was run; ask its authors for a .safetensors file"
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, LookupError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"{path}: not a readable checkpoint ({why})") from error


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a file's weights into `model`, finding the backbone under the containers and prefixes of the field.

    Raises:
        BadInput: the file does not hold this backbone, all of it and nothing else; heads beside it are passed over.
    """
    wanted = {name: value.shape for name, value in model.state_dict().items()}

    def fit(state: Weights) -> int:
        return sum(name in wanted and value.shape == wanted[name] for name, value in state.items())

    found = max(_candidates(read_weights(path)), key=fit, default={})  # the first of equally good ones
    _check(model, wanted, found, path)
    model.load_state_dict({name: found[name] for name in wanted})


def _candidates(content: Any) -> Iterator[Weights]:
    """State dicts that the file may mean: of every container, under every prefix."""
    boxes = [content] + [content[key] for key in CONTAINERS if isinstance(content, dict) and key in content]
    for box in boxes:
        tensors = {k: v for k, v in box.items() if isinstance(v, Tensor)} if isinstance(box, dict) else {}
        for prefix in PREFIXES:
            yield {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _check(model: nn.Module, wanted: dict[str, torch.Size], found: Weights, path: str | Path) -> None:
    parts = {name.split(".")[0] for name in wanted}
    troubles = {
        "missing": [name for name in wanted if name not in found],
        "not in the model": [name for name in found if name not in wanted and name.split(".")[0] in parts],
        "of another shape": [
            f"{name} (file {_shape(found[name].shape)}, model {_shape(shape)})"
            for name, shape in wanted.items()
            if name in found and found[name].shape != shape
        ],
    }
    if any(troubles.values()):
        lines = "; ".join(f"{len(names)} {what}: {_few(names)}" for what, names in troubles.items() if names)
        raise BadInput(
            f"{path} does not hold the weights of this {type(model).__name__} ({len(wanted)} tensors): {lines}; "
            "check model=, image_size= and the model's other options"
        )


def _few(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _shape(shape: torch.Size) -> str:
    return "x".join(map(str, shape)) or "scalar"
