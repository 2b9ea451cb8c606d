"""Encoders that cannot be loaded: the images they are to be asked go into a file, their answers come back in it.

The file is a NumPy .npz. ``about`` is JSON; ``queries_<side>`` are (n, 3, side, side) uint8, every image once. Whoever
can ask the encoder adds ``answers_<side>`` beside each, float, in the same order: (n, D) vectors, or (n, L, D) maps.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from partcrop_lab import store
from partcrop_lab.encoders.encoder import Encoder
from partcrop_lab.errors import BadInput
from partcrop_lab.files import parse_json, read_npz
from partcrop_lab.schemas import Queries, checked

FORMAT = "partcrop-lab queries 1"


def as_bytes(images: Tensor) -> Tensor:
    """Images, uint8 or float in [0, 1], as they are sent to a service: uint8, of the same shape."""
    return images if images.dtype == torch.uint8 else (images.clamp(0, 1) * 255).round().to(torch.uint8)


class Recorder:
    """Stands in for an encoder: keeps every different image it is asked, and answers ones.

    Args:
        patch: pixels between neighbouring positions of the encoder that will be asked.
    """

    def __init__(self, patch: int) -> None:
        self.patch = patch
        self.images: dict[int, dict[bytes, np.ndarray]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Note the images (B, 3, S, S) float32 in [0, 1]; returns ones (B, L, 1)."""
        kept = self.images.setdefault(images.shape[-1], {})
        for row in as_bytes(images).numpy(force=True):
            kept[row.tobytes()] = row
        return torch.ones(len(images), (images.shape[-1] // self.patch) ** 2, 1)

    def save(self, path: Path, about: dict[str, Any]) -> None:
        """Write the queries and what they are for."""
        arrays = {f"queries_{side}": np.stack(list(kept.values())) for side, kept in sorted(self.images.items())}
        with store.atomic(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, about=np.array(json.dumps({"format": FORMAT, **about})), **arrays)


def read_recorded(path: str | Path) -> tuple[Encoder, dict[str, Any]]:
    """The encoder that answers from a file, and what the file says its queries are for, with "held", how many they are.

    Its control is a random ViT of the same image side, since its own architecture is not known here.

    Raises:
        BadInput: no such file, another format, answers that are missing, not finite or not one for each query.
    """
    path = Path(path)
    arrays, about = _read(path)
    answers: dict[int, tuple[dict[bytes, int], Tensor]] = {}
    for side in sorted(_sides(path, arrays)):
        queries = arrays[f"queries_{side}"]
        known = {row.tobytes(): place for place, row in enumerate(queries)}
        answers[side] = known, _answers(path, arrays, side, len(queries))
    _refuse_alike(path, answers)

    def answer(images: Tensor) -> Tensor:
        known, values = answers.get(images.shape[-1], ({}, torch.empty(0)))
        places = [known.get(row.tobytes()) for row in as_bytes(images).numpy(force=True)]
        if None in places:
            told = f"attack {about['attack']!r}, seed {about['seed']} and the split in it"
            raise BadInput(f"{path} holds no answer for a query of this audit; its queries were made for {told}")
        return values[places]

    encoder = Encoder(
        answer,
        name=about["name"],
        image_size=about["image_size"],
        view_side=about.get("view_side"),
        patch=about["patch"],
        card={"split": about["split"]},
        digest=store.digest(*(arrays[name] for name in sorted(arrays))),
    )
    return encoder, about | {"held": sum(len(known) for known, _ in answers.values())}


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a file, read after their declared sizes were checked, and what it says of itself."""
    unreadable = f"{path}: not a file of queries; partcrop-lab queries writes one"
    try:
        arrays = read_npz(path)
        text = arrays.pop("about")
        if text.shape or text.dtype.kind != "U":
            raise KeyError("about")
    except BadInput:
        raise
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OSError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise BadInput(unreadable) from error
    about = parse_json(str(text), f"{path}: about")
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise BadInput(unreadable)
    return arrays, checked(Queries, about, f"{path}: about")


def _sides(path: Path, arrays: dict[str, np.ndarray]) -> list[int]:
    """The sides in pixels of the queries that a file holds, each array of the form its name says."""
    sides = []
    for name, values in arrays.items():
        if name.startswith("queries_"):
            side = re.fullmatch(r"queries_([1-9]\d{0,4})", name)
            if not side or values.dtype != np.uint8 or values.shape[1:] != (3, int(side[1]), int(side[1])):
                raise BadInput(
                    f"{path}: {name[:60]} is {values.dtype} {values.shape}; it must be uint8 (n, 3, SIDE, SIDE)"
                )
            if not len(values):
                raise BadInput(f"{path}: {name} is empty; it must hold a query at least")
            sides.append(int(side[1]))
    if not sides:
        raise BadInput(f"{path}: holds no queries; partcrop-lab queries writes them")
    return sides


def _refuse_alike(path: Path, answers: dict[int, tuple[dict[bytes, int], Tensor]]) -> None:
    """Refuse answers that are the same for every image: an encoder that looks at none of them."""
    asked = [values for known, values in answers.values() if len(known) > 1]
    if asked and all(bool((values == values[:1]).all()) for values in asked):
        raise BadInput(f"{path}: its answers do not depend on the image: all are the same; ask the encoder again")


def _answers(path: Path, arrays: dict[str, np.ndarray], side: int, count: int) -> Tensor:
    """The answers to the queries of one side, checked."""
    name = f"answers_{side}"
    if name not in arrays:
        raise BadInput(f"{path} has no {name}; add an array of the encoder's answers to queries_{side}, in its order")
    values = arrays[name]
    if not np.issubdtype(values.dtype, np.floating) or values.ndim not in (2, 3) or len(values) != count:
        wanted = f"float ({count}, D), or ({count}, L, D) for feature maps"
        raise BadInput(f"{path}: {name} is {values.dtype} {values.shape}; it must be {wanted}")
    bad = int((~np.isfinite(values)).reshape(count, -1).any(1).sum())
    if bad:
        raise BadInput(f"{path}: {bad} of the {count} rows of {name} hold NaN or infinite numbers")
    return torch.from_numpy(values.astype(np.float32))
