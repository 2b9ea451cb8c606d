"""Encoders that cannot be loaded: the images they are to be asked go into a file, their answers come back in it.

The file is a NumPy .npz. ``about`` is JSON; ``queries_<side>`` are (n, 3, side, side) uint8, every image once. Whoever
can ask the encoder adds ``answers_<side>`` beside each, float, in the same order: (n, D) vectors, or (n, L, D) maps.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from partcrop_lab import store
from partcrop_lab.encoders.encoder import Encoder
from partcrop_lab.errors import BadInput

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
    """The encoder that answers from a file, and what the file says its queries are for.

    Its control is a random ViT of the same image side, since its own architecture is not known here.

    Raises:
        BadInput: no such file, another format, answers that are missing, not finite or not one for each query.
    """
    path = Path(path)
    arrays = _read(path)
    about = json.loads(str(arrays.pop("about")))
    answers: dict[int, tuple[dict[bytes, int], Tensor]] = {}
    for name in sorted(arrays):
        if name.startswith("queries_"):
            side = int(name.removeprefix("queries_"))
            known = {row.tobytes(): place for place, row in enumerate(arrays[name])}
            answers[side] = known, _answers(path, arrays, side, len(arrays[name]))

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
    return encoder, about


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        if json.loads(str(arrays["about"]))["format"] != FORMAT:
            raise KeyError("format")
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such file") from error
    except (ValueError, KeyError, TypeError, AttributeError, OSError, zipfile.BadZipFile) as error:
        raise BadInput(f"{path}: not a file of queries; partcrop-lab queries writes one") from error
    return arrays


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
