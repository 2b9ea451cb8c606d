"""The zoo: small encoders that come with the package, each with its weights, its card and its split."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from partcrop_lab import store
from partcrop_lab.encoders.encoder import Encoder
from partcrop_lab.encoders.load import load_encoder
from partcrop_lab.encoders.training import pretrain
from partcrop_lab.encoders.utility import knn, linear_probe
from partcrop_lab.errors import BadInput
from partcrop_lab.images import MembershipSplit, load_images, member_split

ZOO_VARIABLE = "PARTCROP_LAB_ZOO"
PROBE = {"source": "partshapes", "n": 2000, "seed": 10_000}
"""Labelled images of which the first half trains the probes of the cards and the second half tests them."""


@dataclass(frozen=True)
class ZooEntry:
    """How one encoder of the zoo is made.

    Attributes:
        recipe: its name.
        members: images trained on, N.
        settings: of the recipe, where they are not its defaults; "epochs" is T.
        nonmembers: images of the same pool that it never sees.
        pool: keywords of `load_images`.
        seed: of the split and of the training.
    """

    recipe: str
    members: int
    settings: dict[str, Any]
    nonmembers: int = 500
    pool: dict[str, Any] = field(default_factory=lambda: {"source": "partshapes", "n": 1000, "size": 64, "seed": 0})
    seed: int = 0

    def split(self) -> MembershipSplit:
        """Members and non-members, drawn before training."""
        images = load_images(**self.pool)
        return member_split(images, members=self.members, nonmembers=self.nonmembers, seed=self.seed)


WEAK_VIEWS = {"crop_scale": (0.6, 1.0), "jitter": 0.0, "grey": 0.0}
"""Augmentation is the strongest lever on memory (METHODS 8): classroom encoders are trained with little of it."""
NO_VIEWS = {"crop_scale": None, "flip": 0.0}
WIDER = {"embed_dim": 192, "depth": 6, "num_heads": 3}
"""2.7 million parameters, which remember far more than the 0.8 million of the classroom's default backbone."""

ZOO: dict[str, ZooEntry] = {
    "mae": ZooEntry("mae", 200, {"epochs": 1000, "batch_size": 50, "lr": 1e-3, **WIDER, **NO_VIEWS}),
    "dino": ZooEntry(
        "dino", 200, {"epochs": 400, "batch_size": 50, "local_crops": 2, "local_scale": (0.2, 0.6), **WEAK_VIEWS}
    ),
    "mocov3": ZooEntry("mocov3", 200, {"epochs": 300, "batch_size": 100, **WEAK_VIEWS}),
}


def zoo_dir() -> Path:
    """Where the zoo lives: ``$PARTCROP_LAB_ZOO``, else ``data/zoo`` beside the package."""
    return Path(os.environ.get(ZOO_VARIABLE) or Path(__file__).resolve().parents[2] / "data" / "zoo")


def zoo_names() -> list[str]:
    """The encoders whose weights and card are there, by name."""
    return sorted(path.stem for path in zoo_dir().glob("*.safetensors") if path.with_suffix(".json").exists())


def card(name: str) -> dict[str, Any]:
    """What is known of an encoder: recipe, data, split, N, T, seeds, utility, audit, sha256 of the weights.

    Raises:
        ValueError: the zoo has no such encoder; those it has are listed.
    """
    return store.read_json(_path(name).with_suffix(".json"))


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
        raise BadInput(f"{path} is not the file that its card describes (another sha256); restore it, e.g. from git")
    return load_encoder(path, **({"name": f"zoo:{name}", "card": about} | keywords))


def train_zoo(name: str, out: str | Path | None = None, progress: bool = True) -> Path:
    """Train one encoder of the zoo by its entry in `ZOO`; an interrupted run goes on where it stopped.

    Args:
        name: a key of `ZOO`.
        out: folder for NAME.safetensors and NAME.json; the zoo's own where None.
        progress: show a bar.

    Returns:
        The path of the weights.

    Raises:
        ValueError: an unknown name; the right ones are listed.
    """
    if name not in ZOO:
        raise ValueError(f"the zoo has no entry {name!r}; it must be one of {', '.join(ZOO)}")
    entry, path = ZOO[name], Path(out or zoo_dir()) / f"{name}.safetensors"
    split = entry.split()
    work = store.cache_dir() / "zoo" / store.digest(name, entry.recipe, entry.settings, split.digest, entry.seed)[:16]
    encoder = pretrain(entry.recipe, split, seed=entry.seed, out=work, progress=progress, **entry.settings)
    encoder.save(path)
    about = {"name": name, **encoder.card, "pool": entry.pool, "utility": utility(encoder), "sha256": _sha256(path)}
    store.write_json(path.with_suffix(".json"), about | {"audit": None})
    return path


def utility(encoder: Encoder, seed: int = 0) -> dict[str, Any]:
    """Accuracy of linear probe and kNN, the encoder's and that of its untrained twin, on images it never saw."""
    images = load_images(**PROBE, size=encoder.image_size)
    train, test = images.subset(slice(0, len(images) // 2)), images.subset(slice(len(images) // 2, None))
    values = {"images": PROBE, "train": len(train), "test": len(test)}
    for prefix, one in (("", encoder), ("untrained_", encoder.untrained(seed))):
        values |= {f"{prefix}linear_probe": linear_probe(one, train, test), f"{prefix}knn": knn(one, train, test)}
    return values


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
