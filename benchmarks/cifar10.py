"""Every attack on encoders of real images, among them those of METHODS 8: SimCLR and MAE, and two other recipes.

``python benchmarks/cifar10.py --images train.parquet --jobs 2`` trains each encoder of `SUBJECTS` on CIFAR-10 images
(what the cache holds is not trained again), then compares attacks on it at equal queries, 11 and 49 an image, in two
folds and, as METHODS 8 did, in ten, and writes figures/cifar10_attacks.csv with the paired tests and provenance beside
it; what other subjects, queries and folds have there stays. Where a subject has reference encoders, trained on other
images, the unified attack is also calibrated by one, and by all; for those of masked images the grey-box attack stands
beside. Nothing of any attack was chosen on these encoders or images.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import joblib
import pandas as pd
import torch
import typer
from tqdm.auto import tqdm

import partcrop_lab as pl
from partcrop_lab.attacks import ATTACKS, Attack, Calibrated, EncoderMI, PartCosine, PartCrop, Reconstruction, Unified
from partcrop_lab.audit.kept import code_digest
from partcrop_lab.store import cache_dir, digest, read_json, write_csv, write_json

OUT = Path(__file__).parents[1] / "figures" / "cifar10_attacks.csv"
SIZE, NONMEMBERS = 32, 1000


@dataclass(frozen=True)
class Subject:
    """An encoder to train and to attack.

    Attributes:
        recipe: its name.
        members: images trained on, N.
        epochs: T.
        settings: of the recipe.
        planned: the epochs of its schedule where it ends before them, mid-schedule, with the learning rate still high.
        references: encoders of the same recipe on as many other images each.
        decoder: whether it keeps what it was trained with, for the grey-box attack.
    """

    recipe: str
    members: int
    epochs: int
    settings: dict[str, Any]
    planned: int | None = None
    references: int = 0
    decoder: bool = False

    def attacks(self, references: list[pl.Encoder], queries: int) -> list[Attack]:
        """Attacks to compare, at so many queries an image each."""
        parts, unified = queries - 1, Unified(queries)
        views = [EncoderMI("V", views=queries), EncoderMI("T", views=queries)]
        if self.settings.get("crop_scale", True):
            views.append(EncoderMI("V", views=queries, augmentation="training"))
        counts = sorted({1, len(references)}) if references else []
        calibrated = [Calibrated(unified, tuple(references[:count])) for count in counts]
        grey = [Reconstruction(queries)] if self.decoder else []
        return [unified, PartCosine(crops=parts), PartCrop(crops=parts), *views, *calibrated, *grey]


VIT = {"embed_dim": 192, "depth": 6, "num_heads": 3, "patch_size": 8, "lr": 1e-3}
VIEWS = VIT | {"batch_size": 300, "hue": 0.0}
"""METHODS 8."""

SUBJECTS = {
    "mae": Subject("mae", 200, 1000, VIT | {"batch_size": 50, "crop_scale": None, "flip": 0.0}, decoder=True),
    "mae-midway": Subject("mae", 200, 1000, VIT | {"batch_size": 50, "crop_scale": None, "flip": 0.0}, planned=8000),
    "simclr": Subject("simclr", 300, 900, VIEWS, references=2),
    "simclr-midway": Subject("simclr", 300, 900, VIEWS, planned=3000, references=4),
    "supervised": Subject("supervised", 300, 900, VIEWS),
    "vicreg": Subject("vicreg", 300, 900, VIEWS),
}


def data(images: str, subject: Subject) -> tuple[pl.MembershipSplit, list[pl.ImageSet]]:
    """Members and non-members, drawn from one pool, and the images of the references, disjoint from both."""
    wanted = subject.members * (1 + subject.references) + NONMEMBERS
    pool = pl.load_images(images, n=wanted + 100, size=SIZE, seed=0)
    split = pl.member_split(pool, members=subject.members, nonmembers=NONMEMBERS, seed=0)
    taken = set(split.images.hashes)
    left = [name for name, pixels in zip(pool.names, pool.hashes) if pixels not in taken]
    size = subject.members
    return split, [pool.subset(left[k * size : (k + 1) * size]) for k in range(subject.references)]


def trained(images: str, name: str, number: int) -> pl.Encoder:
    """The subject, number 0, or one of its references."""
    subject = SUBJECTS[name]
    split, others = data(images, subject)
    on = others[number - 1] if number else split
    key = digest(subject.recipe, subject.epochs, subject.planned, subject.settings, subject.decoder, on.digest)[:16]
    how = {"seed": number, "out": cache_dir() / "cifar10" / key, "progress": False, "decoder": subject.decoder}
    how |= {"epochs": subject.planned or subject.epochs, "stop": subject.epochs}
    encoder = pl.pretrain(subject.recipe, on, **how, **subject.settings)
    encoder.name = name if not number else f"{name}, reference {number}"
    return encoder


def train(images: str, name: str, number: int) -> str:
    """`trained`, on one thread."""
    torch.set_num_threads(1)
    return trained(images, name, number).name


def keep(out: Path, found: pl.Comparison, queries: int, folds: int) -> None:
    """Write a comparison into the table, the paired tests and the provenance, in the place of its earlier rows."""
    key = {"encoder": found.table.encoder[0], "queries": queries, "folds": folds}

    def joined(path: Path, new: pd.DataFrame) -> None:
        new = new.assign(**key)
        if path.exists():
            old = pd.read_csv(path)
            new = pd.concat([old[(old[list(key)] != pd.Series(key)).any(axis=1)], new])
        write_csv(path, new.sort_values(list(key), kind="stable"))

    joined(out, found.table)
    joined(out.with_name(f"{out.stem}-pairs.csv"), found.pairs)
    beside = out.with_suffix(".json")
    audits = read_json(beside)["audits"] if beside.exists() else []
    others = [one for one in audits if (one["encoder"]["name"], one["queries"], one["folds"]) != tuple(key.values())]
    new = [{**one.settings, "verdict": one.verdict, "code": code_digest()} for one in found.results.values()]
    write_json(beside, {"audits": others + new, "data": digest(out.read_bytes())})


def main(
    images: Annotated[str, typer.Option(help="CIFAR-10: a parquet file, or cifar10 for torchvision's.")] = "cifar10",
    only: Annotated[str, typer.Option(help="Subjects, separated by commas.")] = ",".join(SUBJECTS),
    seeds: Annotated[int, typer.Option(help="Of crops, folds and attackers, averaged over.")] = 3,
    folds: Annotated[str, typer.Option(help="Of the cross-fit, separated by commas.")] = "2,10",
    references: Annotated[int, typer.Option(help="At most so many for each subject.")] = 4,
    queries: Annotated[str, typer.Option(help="Queries an image, separated by commas.")] = "11,49",
    attacks: Annotated[str, typer.Option(help="Names of attacks, separated by commas; all.")] = ",".join(ATTACKS),
    jobs: Annotated[int, typer.Option(help="Trainings at a time, on one thread each.")] = 1,
    out: Annotated[Path, typer.Option(help="CSV of all subjects and attacks.")] = OUT,
) -> None:
    numbers = {name: range(1 + min(references, SUBJECTS[name].references)) for name in only.split(",")}
    wanted = [(name, number) for name, chosen in numbers.items() for number in chosen]
    parallel = joblib.Parallel(jobs, return_as="generator_unordered", pre_dispatch=jobs)
    for _ in tqdm(parallel(joblib.delayed(train)(images, *one) for one in wanted), "trainings", len(wanted)):
        pass
    for name, some in numbers.items():
        encoder, *others = (trained(images, name, number) for number in some)
        split, _ = data(images, SUBJECTS[name])
        for count, cut in product(map(int, queries.split(",")), map(int, folds.split(","))):
            chosen = [one for one in SUBJECTS[name].attacks(others, count) if one.name in attacks.split(",")]
            found = pl.compare([encoder], chosen, split, seeds, folds=cut)
            keep(out, found, count, cut)
    print(pd.read_csv(out).to_string())


if __name__ == "__main__":
    typer.run(main)
