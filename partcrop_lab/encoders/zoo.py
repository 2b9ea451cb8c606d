"""The zoo: small encoders that come with the package, each with its weights, its card and its split."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from partcrop_lab import store
from partcrop_lab.encoders.encoder import Encoder
from partcrop_lab.encoders.load import load_encoder
from partcrop_lab.encoders.training import kept_path, pretrain
from partcrop_lab.encoders.utility import gain, halves, judged
from partcrop_lab.encoders.zoo_entries import PROBE, ZOO, ZooEntry
from partcrop_lab.errors import BadInput
from partcrop_lab.images import load_images
from partcrop_lab.schemas import ZooCard, checked
from partcrop_lab.shipped import ZOO_FOLDER, how_to_restore, shipped

ZOO_VARIABLE = "PARTCROP_LAB_ZOO"
CHECKS = ("weights", "split", "forward")
"""What `verify_zoo` looks at, in this order."""


def zoo_dir() -> Path:
    """Where the zoo lives: ``$PARTCROP_LAB_ZOO``, else where it comes with the package."""
    return Path(os.environ.get(ZOO_VARIABLE) or shipped(ZOO_FOLDER))


def zoo_names() -> list[str]:
    """The encoders whose weights and card are there, by name."""
    return sorted(path.stem for path in zoo_dir().glob("*.safetensors") if path.with_suffix(".json").exists())


def measured(name: str, command: str) -> pd.DataFrame:
    """A table of what was measured on the zoo's encoders and others like them, kept beside them.

    Args:
        name: its file, without .csv.
        command: what makes it.

    Raises:
        BadInput: the table is not there.
    """
    path = zoo_dir() / f"{name}.csv"
    if not path.is_file():
        raise BadInput(f"{path} is missing; {how_to_restore(command)}")
    return pd.read_csv(path)


def card(name: str) -> dict[str, Any]:
    """What is known of an encoder: recipe, data, split, N, T, seeds, utility, audit, sha256 of the weights.

    Raises:
        ValueError: the zoo has no such encoder; those it has are listed.
    """
    path = _path(name).with_suffix(".json")
    return checked(ZooCard, store.read_json(path), path)


def load_zoo(name: str, **keywords: Any) -> Encoder:
    """An encoder of the zoo with its card and split.

    Args:
        name: one of `zoo_names`.
        keywords: precision=, device= or pooling= of `Encoder`.

    Raises:
        ValueError: the zoo has no such encoder; those it has are listed.
        BadInput: the weights are not those of the card.
    """
    path, about = _path(name), card(name)
    if _sha256(path) != about["sha256"]:
        raise BadInput(f"{path} is not the file that its card describes (another sha256); {how_to_restore()}")
    return load_encoder(path, **({"name": f"zoo:{name}", "card": about} | keywords))


def train_zoo(name: str, out: str | Path | None = None, progress: bool = True) -> list[Path]:
    """Train one encoder of the zoo by its entry in `ZOO`; an interrupted run goes on where it stopped.

    Args:
        name: a key of `ZOO`.
        out: folder for NAME.safetensors and NAME.json; the zoo's own where None.
        progress: show a bar.

    Returns:
        The paths of the weights: of the epochs that the entry keeps, then of the end.

    Raises:
        ValueError: an unknown name; the right ones are listed.
    """
    if name not in ZOO:
        raise ValueError(f"the zoo has no entry {name!r}; it must be one of {', '.join(ZOO)}")
    entry, folder = ZOO[name], Path(out or zoo_dir())
    encoders = trained(entry, progress)
    chosen = {f"{name}-T{epoch}": encoders[epoch] for epoch in entry.keep} | {name: encoders[max(encoders)]}
    return [_publish(encoder, folder / f"{each}.safetensors", entry) for each, encoder in chosen.items()]


def trained(entry: ZooEntry, progress: bool = True) -> dict[int, Encoder]:
    """The encoders of an entry by their epochs, along the way and last; those in the cache are not trained again."""
    split, along = entry.split(), sorted({*entry.keep, *entry.along})
    key = store.digest(entry.recipe, entry.settings, split.digest, entry.seed, entry.projector, *along)[:16]
    work = store.cache_dir() / "zoo" / key
    how = {"seed": entry.seed, "out": work, "progress": progress, "keep": along, "projector": entry.projector}
    encoder = pretrain(entry.recipe, split, **how, **entry.settings)
    return {epoch: load_encoder(kept_path(work, epoch)) for epoch in along} | {encoder.card["T"]: encoder}


def _publish(encoder: Encoder, path: Path, entry: ZooEntry) -> Path:
    """Write weights and card."""
    encoder.save(path)
    about = {"name": path.stem, **encoder.card, "pool": entry.pool, "utility": utility(encoder)}
    if entry.pair:
        about["pair"] = entry.about_pair()
    about |= {"sha256": _sha256(path), "features": fingerprint(load_encoder(path, precision="fp32")), "audit": None}
    store.write_json(path.with_suffix(".json"), about)
    return path


def fingerprint(encoder: Encoder, images: int = 2, columns: int = 8) -> list[list[float]]:
    """The first `columns` of the mean vectors of the first members, which any machine should find again in float32."""
    vectors = encoder.vectors(encoder.split.members.batch(slice(0, images)), "mean")[:, :columns]
    return [[round(value, 5) for value in row] for row in vectors.tolist()]


def verify_zoo(name: str) -> dict[str, str | None]:
    """Whether an encoder of the zoo is what its card says.

    Returns:
        What is wrong, or None, by check and in this order, up to the first that fails: weights (their sha256), split
        (its images drawn again, to the byte), forward (the card's features again; where it has none, finite ones of
        the right shape).

    Raises:
        ValueError: the zoo has no such encoder; those it has are listed.
    """
    checks, found = _checked(name), {}
    for check in CHECKS:
        try:
            next(checks)
        except BadInput as error:
            return found | {check: str(error)}
        found[check] = None
    return found


def _checked(name: str) -> Iterator[None]:
    """Yields after each of `CHECKS` that passes; the weights are read and the images drawn once for all."""
    encoder = load_zoo(name, precision="fp32")
    yield
    split, about = encoder.split, encoder.card
    if (split.digest, len(split.members)) != (about.get("split_digest"), about.get("N")):
        raise BadInput(f"zoo:{name}: the split on its card is not the one that it was trained on (digest or N differ)")
    yield
    fmap = encoder.feature_map(split.members.batch(slice(0, 2)))  # refuses values that are not finite
    if fmap.shape != (2, math.prod(encoder.map_shape), encoder.width):
        raise BadInput(f"zoo:{name}: its feature map is {tuple(fmap.shape)}, not as its architecture says")
    wanted, values = about.get("features"), fingerprint(encoder)
    if wanted and not np.allclose(values, wanted, rtol=1e-3, atol=1e-3):
        worst = np.abs(np.subtract(values, wanted)).max()
        raise BadInput(f"zoo:{name}: its features differ from those on its card by up to {worst:.2g}")
    yield


def utility(encoder: Encoder, seed: int = 0) -> dict[str, Any]:
    """Accuracy of linear probe and kNN, the encoder's and that of its untrained twin, on images it never saw.

    "gain" is that of the linear probe over the twin's, as (value, low, high).
    """
    images = load_images(**PROBE, size=encoder.image_size)
    train, test = halves(images)
    untrained = encoder.untrained(seed)
    (right, near), (others, others_near) = (judged(one, train, test) for one in (encoder, untrained))
    return {
        "images": PROBE,
        "train": len(train),
        "test": len(test),
        "linear_probe": float(right.mean()),
        "untrained_linear_probe": float(others.mean()),
        "gain": gain(right, others),
        "knn": near,
        "untrained_knn": others_near,
    }


def update_card(path: str | Path, **fields: Any) -> dict[str, Any]:
    """Set fields of the card beside the weights at `path`, e.g. ``audit=``, atomically; returns the new card."""
    place = Path(path).with_suffix(".json")
    about = store.read_json(place) | fields
    store.write_json(place, about)
    return about


def _path(name: str) -> Path:
    names = zoo_names()
    if name not in names:
        has = ", ".join(names) or f"none, since {zoo_dir()} holds no encoders; set {ZOO_VARIABLE} to a folder that does"
        raise ValueError(f"the zoo has no encoder {name!r}; it has {has}")
    return zoo_dir() / f"{name}.safetensors"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
