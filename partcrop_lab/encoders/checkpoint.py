"""Weights in files: read without running any code in them, matched to a model, written in half precision."""

from __future__ import annotations

import argparse
import io
import math
import pickle
import re
import zipfile
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from partcrop_lab.errors import BadInput
from partcrop_lab.files import check_regular, parse_json
from partcrop_lab.limits import refuse_bomb
from partcrop_lab.schemas import Header, checked
from partcrop_lab.store import atomic

METADATA = "partcrop_lab"
"""The key of the safetensors header under which our own files describe themselves."""

BRANCHES = {
    "teacher": ("teacher",),
    "base": ("base_encoder", "encoder_q"),
    "student": ("student",),
    "momentum": ("momentum", "encoder_k"),
}
"""Encoders that one file may hold several of, by words in the names of their tensors."""

PREFERENCE = ("teacher", "base", None, "student", "momentum")
"""Which of them is taken where none is asked for: what the authors evaluate."""

SEQUENTIAL = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""A ResNet's children by their places, as in lightly's examples: nn.Sequential(*list(resnet.children())[:-1])."""

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


def in_order(state: Weights) -> list[Any]:
    """Names and arrays in turn, by name, as a digest takes them."""
    return [part for name in sorted(state) for part in (name, state[name].cpu().numpy())]


def write_weights(path: str | Path, state: Weights, metadata: dict[str, str]) -> None:
    """Write a state dict as safetensors, atomically."""
    with atomic(path) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, temporary, metadata)


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write what a training resumes from, atomically; `read_weights` reads it."""
    with atomic(path) as temporary:
        torch.save(state, buffer := io.BytesIO())  # torch's own writer hides the reason when a disk is full
        temporary.write_bytes(buffer.getbuffer())


def read_description(path: str | Path, kind: str = METADATA, schema: type[BaseModel] = Header) -> dict[str, Any] | None:
    """How one of our own files describes itself; None for the file of somebody else, or of another kind.

    Raises:
        BadInput: no readable file, or a description that is not as `schema` says.
    """
    if Path(path).suffix != ".safetensors":
        return None
    check_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path}: not a readable safetensors file ({error})") from error
    if kind not in metadata:
        return None
    return checked(schema, parse_json(metadata[kind], f"{path}: its header"), f"{path}: its header")


def read_weights(path: str | Path) -> Any:
    """What a .safetensors, .pth or .pt file holds; no code in it is run.

    Raises:
        BadInput: no such file, a damaged one, or a pickle that holds more than tensors and plain values.
    """
    path = Path(path)
    check_regular(path)
    _refuse_packed(path)
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


def _refuse_packed(path: Path) -> None:
    """Refuse a checkpoint that is packed so that it unpacks to far more than it is long; torch packs none."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError) as error:
        raise BadInput(f"{path}: not a readable checkpoint ({error})") from error
    size = path.stat().st_size
    if unpacked > size:
        refuse_bomb(path, unpacked, size)


@dataclass(frozen=True, eq=False)
class Found:
    """A backbone in the content of a file.

    Attributes:
        container: the key of the file's dictionary under which it lies, "" where that is the file itself.
        prefix: what the names of its tensors begin with there, e.g. "module.backbone.".
        tensors: all of the container, by their names there.
    """

    container: str
    prefix: str
    tensors: Weights

    @property
    def weights(self) -> Weights:
        """The tensors under the prefix, heads and all, by their names in the backbone."""
        return {
            name.removeprefix(self.prefix): value
            for name, value in self.tensors.items()
            if name.startswith(self.prefix)
        }

    @property
    def branch(self) -> str | None:
        """Which of several encoders it is, a key of `BRANCHES`; None where its names do not say."""
        place = f"{self.container}.{self.prefix}"
        return next((branch for branch, words in BRANCHES.items() if any(word in place for word in words)), None)


def find_backbone(content: Any, path: str | Path, names: Collection[str], branch: str | None = None) -> Found:
    """The backbone in what a file holds, under whatever container and prefix it lies (METHODS 7).

    Args:
        content: of `read_weights`.
        path: the file, for errors.
        names: of tensors by which it is known: some of its own, or all.
        branch: "teacher", "student", "base" or "momentum" of a file that holds several encoders; the best where None.

    Raises:
        BadInput: the file has no such branch.
    """
    counts = {}
    for container, tensors in _containers(content).items():
        for prefix, count in _prefixes(tensors, names).items():
            counts[Found(container, prefix, tensors)] = count
    places = [place for place, count in counts.items() if 2 * count >= max(counts.values())]
    if branch is not None:
        has = sorted({place.branch for place in places if place.branch})
        places = [place for place in places if place.branch == branch]
        if not places:
            raise BadInput(
                f"{path} has no branch {branch!r}; it has {' and '.join(has) or 'none, so leave branch= out'}"
            )
    return min(places, key=lambda place: PREFERENCE.index(place.branch), default=Found("", "", {}))


def _containers(content: Any) -> dict[str, Weights]:
    """The state dicts of a file by their keys, in its order; its own tensors under ""."""
    if not isinstance(content, dict):
        return {}
    boxes = {"": content} | {key: value for key, value in content.items() if isinstance(value, dict)}
    states = {
        str(key): {name: value for name, value in box.items() if isinstance(name, str) and isinstance(value, Tensor)}
        for key, box in boxes.items()
    }
    return {key: _renamed(state) for key, state in states.items() if state}


def _renamed(state: Weights) -> Weights:
    """A state dict whose ResNets name their children, not number them."""
    mark = "4.0.conv1.weight"
    prefixes = {name.removesuffix(mark) for name in state if re.search(rf"(^|\.){re.escape(mark)}$", name)}
    for prefix in prefixes:
        state = {_named(name, prefix): value for name, value in state.items()}
    return state


def _named(name: str, prefix: str) -> str:
    head, dot, rest = name.removeprefix(prefix).partition(".")
    return f"{prefix}{SEQUENTIAL.get(head, head)}{dot}{rest}" if name.startswith(prefix) else name


def _prefixes(state: Weights, names: Collection[str]) -> Counter[str]:
    """How many of `names` lie under each prefix."""
    counts = Counter()
    for name in state:
        ends = [0, *(match.end() for match in re.finditer(r"\.", name))]
        counts.update(name[:end] for end in ends if name[end:] in names)
    return counts


def load_weights(model: nn.Module, found: Found, path: str | Path) -> None:
    """Load a backbone into `model`.

    Raises:
        BadInput: it is not this backbone, all of it and nothing else; heads beside it are passed over.
    """
    _check(model, found.weights, path)
    model.load_state_dict({name: found.weights[name] for name in model.state_dict()})


def passed_over(content: Any, found: Found, names: Collection[str]) -> list[str]:
    """What a file holds beside a backbone, as short as it can be said: "head", "module.predictor", "student".

    Args:
        content: of `read_weights`.
        found: the backbone.
        names: of the tensors that were loaded.
    """
    used = {found.prefix + name for name in names}
    stems = {stem for name in used for stem in _stems(name)}
    beside = {next(stem for stem in _stems(name) if stem not in stems) for name in found.tensors.keys() - used}
    return sorted(beside | (_containers(content).keys() - {found.container, ""}))


def _stems(name: str) -> list[str]:
    """The name cut off at each of its dots, and whole."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _check(model: nn.Module, found: Weights, path: str | Path) -> None:
    wanted = {name: value.shape for name, value in model.state_dict().items()}
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
        table = [(f"{len(names)} {what}", _few(names)) for what, names in troubles.items() if names]
        width = max(len(label) for label, _ in table)
        lines = ";\n".join(f"{label:>{width}}: {names}" for label, names in table)
        hint = _fitting_size(model, found) or "check model=, image_size= and the model's other options"
        raise BadInput(
            f"{path} does not hold the weights of this {type(model).__name__} ({len(wanted)} tensors); {hint}:\n{lines}"
        )


def _fitting_size(model: nn.Module, found: Weights) -> str | None:
    """The image side that the file's position embeddings are for, where the model's are for another."""
    ours, theirs = getattr(model, "pos_embed", None), found.get("pos_embed")
    if not isinstance(ours, Tensor) or theirs is None or ours.shape[1] == theirs.shape[1]:
        return None
    patch, prefix = model.patch_embed.patch_size[0], ours.shape[1] - model.patch_embed.num_patches
    side = math.isqrt(max(0, theirs.shape[1] - prefix))
    return (
        f"its position embeddings are of {side} x {side} patches of {patch} px, so image_size={side * patch} would fit"
    )


def _few(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _shape(shape: torch.Size) -> str:
    return "x".join(map(str, shape)) or "scalar"
