"""What the figures are drawn from: the zoo's small encoders in the classroom, or encoders trained as in the papers.

A studio is the only thing that a figure function gets. No figure mixes the two presets.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from torch import Tensor

from partcrop_lab.attacks import Attack, EncoderMI, PartCrop, Variance
from partcrop_lab.audit import AuditResult, compare
from partcrop_lab.audit.kept import kept_audit
from partcrop_lab.audit.run import PROTOCOLS
from partcrop_lab.devices import default_device
from partcrop_lab.encoders import Encoder, load_encoder
from partcrop_lab.encoders.training import pretrain
from partcrop_lab.encoders.zoo import measured, trained
from partcrop_lab.encoders.zoo_entries import ZooEntry
from partcrop_lab.images import Box, ImageSet, MembershipSplit, load_images

ZOO = ("zoo:mae", "zoo:dino", "zoo:mocov3")
PARTS = (("chair", "seat"), ("dog", "muzzle"))
TIMED = 64
"""Images that the cost of the paper's preset is estimated on."""


@dataclass
class Illustration:
    """An image and one part of it.

    Attributes:
        title: what they are, as "chair: seat".
        name: of the image in its set.
        pixels: (3, S, S) uint8.
        box: x0, y0, x1, y1 in pixels.
    """

    title: str
    name: str
    pixels: Tensor
    box: Box


@dataclass
class Studio:
    """The classroom's: `partshapes` and the zoo. Encoders are loaded once, and audits are kept in the cache.

    Attributes:
        progress: show progress bars.
        source: of the images, as `load_images` takes it.
        size: their side in pixels.
        crops: numbers of part crops that Fig. 4 compares.
        protocol: "released" for audits as the released code has them, to be compared with the matched ones.
    """

    preset: ClassVar[str] = "classroom"

    progress: bool = True
    source: str = "partshapes"
    size: int = 64
    crops: tuple[int, ...] = (32, 64, 128)
    protocol: str = "matched"
    _loaded: dict[str, Encoder] = field(default_factory=dict)

    @property
    def names(self) -> Sequence[str]:
        """The encoders' names; the sweeps are drawn on the first, which leaks most."""
        return ZOO

    @property
    def pool(self) -> str:
        """What captions call the source: of a path its end."""
        return "/".join(Path(self.source).parts[-2:])

    @property
    def encoders(self) -> dict[str, Encoder]:
        """All encoders by name."""
        return {name: self.encoder(name) for name in self.names}

    @property
    def leaking(self) -> Encoder:
        """The encoder whose leak the sweeps are drawn on."""
        return self.encoder(self.names[0])

    def encoder(self, name: str) -> Encoder:
        """One of them."""
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _load(self, name: str) -> Encoder:
        return load_encoder(name)

    def audit(
        self, encoder: Encoder, split: MembershipSplit, attack: Attack, permutations: int, **options: Any
    ) -> AuditResult:
        """An audit with seed 0, kept in the cache."""
        how = {"permutations": permutations, "protocol": self.protocol} | options
        return kept_audit(encoder, split, attack, self.progress, **how)

    def comparison(self) -> pd.DataFrame:
        """The table of `compare`: attacks on the same images of each encoder."""
        return measured("attacks", "partcrop-lab compare --out data/zoo/attacks.csv")

    def illustrations(self) -> tuple[list[Illustration], str]:
        """Images with a part each, none of them trained on, and where they are from."""
        images, shown = load_images(self.source, n=100, size=self.size, seed=1), []
        for name, part in PARTS:
            i = largest_part(images, name, part)
            shown.append(Illustration(f"{name}: {part}", images.names[i], images[i], images.part_boxes[i][part]))
        text = f"partshapes, {self.size} px, seed 1: the chair with the largest seat and the dog with the largest "
        return shown, text + "muzzle of 100 images that no encoder was trained on."

    @property
    def options(self) -> str:
        """What to add to the command that draws a figure."""
        return "" if self.protocol == "matched" else f" --protocol {self.protocol}"

    def cost(self) -> str:
        """What it takes to draw them all."""
        return "minutes on two cores, seconds where the cache holds the audits"


@dataclass
class PaperStudio(Studio):
    """The papers' settings: a ViT-S/8 trained by MAE, DINO and MoCo v3 on the members of a split of real images.

    As the released commands of PartCrop have it where they say: CIFAR-100 at 32 px, 1,600 epochs, batches of 1,024.
    Members and non-members are drawn from one pool, and their numbers are our choice. Everything is kept in the cache:
    a run that was stopped goes on where it was.

    Attributes:
        members: images trained on, N.
        nonmembers: images of the same pool, never trained on.
        epochs: T.
    """

    preset: ClassVar[str] = "paper"

    source: str = "cifar100"
    size: int = 32
    crops: tuple[int, ...] = (32, 64, 128, 256)
    members: int = 25_000
    nonmembers: int = 10_000
    epochs: int = 1600

    @property
    def names(self) -> Sequence[str]:
        """The three recipes of the paper's main table."""
        return ("mae", "dino", "mocov3")

    def entry(self, recipe: str) -> ZooEntry:
        """How one encoder is trained."""
        vit_small = {"patch_size": 8, "embed_dim": 384, "depth": 12, "num_heads": 6}
        settings = vit_small | {"epochs": self.epochs, "batch_size": min(1024, self.members)}
        settings |= {"local_size": 0.5} if recipe == "dino" else {}
        total = self.members + self.nonmembers
        pool = {"source": self.source, "size": self.size, "n": total + total // 50 + 100}  # near duplicates leave
        return ZooEntry(recipe, settings, members=self.members, nonmembers=self.nonmembers, pool=pool)

    def _load(self, recipe: str) -> Encoder:
        encoder = trained(self.entry(recipe), self.progress)[self.epochs]
        encoder.name = recipe
        return encoder

    def comparison(self) -> pd.DataFrame:
        """The attacks of the paper's main table, each with its own attacker and number of queries, by one seed."""
        attacks = [PartCrop(), EncoderMI("V"), EncoderMI("T"), Variance()]
        return compare(list(self.encoders.values()), attacks, self._split, 1, progress=self.progress).table

    def illustrations(self) -> tuple[list[Illustration], str]:
        """The first non-members of two classes, with the middle of the image as their part."""
        images, edge = self._split.nonmembers, self.size // 4
        middle = (edge, edge, self.size - edge, self.size - edge)
        _, first = np.unique(images.labels, return_index=True)
        shown = [
            Illustration(f"{images.title(i)}: middle", images.names[i], images[i], middle) for i in first[:2].tolist()
        ]
        text = f"{self.pool}, {self.size} px: the first non-member of two classes; these images have no part boxes, "
        return shown, text + "so the part is the middle."

    @cached_property
    def _split(self) -> MembershipSplit:
        return self.entry(self.names[0]).split()

    @property
    def options(self) -> str:
        """What to add to the command that draws a figure."""
        sizes = f"--members {self.members} --nonmembers {self.nonmembers} --epochs {self.epochs} --size {self.size}"
        return f" --preset paper --images {self.source} {sizes}{super().options}"

    def cost(self) -> str:
        """What all figures take, roughly: estimated by a short training of each recipe on this machine."""
        images, hours = self.members + self.nonmembers, {}
        for recipe, (per_image, per_query) in self._seconds.items():
            asked = 2 * (sum(self.crops) + 4 * 64) if recipe == self.names[0] else 2 * 128
            hours[recipe] = (per_image * self.members * self.epochs + per_query * asked * images) / 3600
        what = f"{len(hours)} trainings of {self.members:,} images for {self.epochs:,} epochs, audits on {images:,}"
        told = ", ".join(f"{recipe} {value:,.1f}" for recipe, value in hours.items())
        total = f"in all {sum(hours.values()):,.1f}. It may be stopped at any time, and goes on where it was."
        return f"{what} images; estimated hours on {default_device()}: {told}; {total}"

    @cached_property
    def _seconds(self) -> dict[str, tuple[float, float]]:
        """By recipe: seconds for an image of an epoch of training, and for a query of a part."""
        some, found = self._split.members.subset(self._split.members.names[:TIMED]), {}
        for recipe in self.names:
            settings = self.entry(recipe).settings | {"epochs": 2, "batch_size": len(some)}
            with tempfile.TemporaryDirectory() as folder:
                encoder = pretrain(recipe, some, out=folder, progress=False, **settings)
                *_, last = (Path(folder) / "log.jsonl").read_text().splitlines()
            parts = some.batch(slice(0, None))[..., : encoder.part_size, : encoder.part_size]
            start = time.perf_counter()
            encoder.vectors(parts)
            asked = (time.perf_counter() - start) / len(some)
            found[recipe] = json.loads(last)["seconds"] / len(some), asked
        return found


STUDIOS: dict[str, type[Studio]] = {one.preset: one for one in (Studio, PaperStudio)}
"""By the name of the preset."""


def open_studio(preset: str, protocol: str = "matched", **settings: Any) -> Studio:
    """The studio of a preset.

    Raises:
        ValueError: an unknown preset or protocol, or a setting given to the classroom's, which has none.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol is {protocol!r}; it must be one of {', '.join(PROTOCOLS)}")
    if preset not in STUDIOS:
        raise ValueError(f"preset is {preset!r}; it must be one of {', '.join(STUDIOS)}")
    if settings and preset == Studio.preset:
        raise ValueError(f"the classroom's figures have no {', '.join(settings)}; add --preset paper, or leave it out")
    return STUDIOS[preset](protocol=protocol, **settings)


def largest_part(images: ImageSet, name: str, part: str) -> int:
    """The index of the image of class `name` on which `part` covers the largest area."""

    def area(i: int) -> float:
        x0, y0, x1, y1 = images.part_boxes[i].get(part, (0, 0, 0, 0))
        return (x1 - x0) * (y1 - y0)

    return max(np.flatnonzero(images.labels == images.classes.index(name)).tolist(), key=area)
