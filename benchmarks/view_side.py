"""How large should crops be when they are sent? Half of the image's side, or all of it, as the views were in training.

``python benchmarks/view_side.py --images train.parquet`` asks two encoders of CIFAR-10 images that no other table
reports on: a SimCLR, the first reference of `cifar10.SUBJECTS`, and a masked autoencoder trained on images of its own.
The unified attack is measured at each side and range of the parts' area as in benchmarks/unified.py, EncoderMI beside
it. One row per variant goes to benchmarks/view_side.csv. `Encoder.view_side` was chosen by it (METHODS 3.10).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import cifar10
import pandas as pd
import torch
import typer
from tqdm.auto import tqdm
from unified import FAMILIES, QUERIES, SCALES, row_of, variants

import partcrop_lab as pl
from partcrop_lab.images import MembershipSplit
from partcrop_lab.store import cache_dir, write_csv

CSV = Path(__file__).with_suffix(".csv")
SIDES = (16, 32)
CHOSEN = {name: FAMILIES[name] for name in ("cosines, cls and mean", "all")}


def others(images: str, count: int, seed: int, taken: list[pl.ImageSet]) -> pl.ImageSet:
    """Images that are not among those taken."""
    known = {pixels for one in taken for pixels in one.hashes}
    pool = pl.load_images(images, n=1500, size=cifar10.SIZE, seed=seed)
    return pool.subset([name for name, pixels in zip(pool.names, pool.hashes) if pixels not in known][:count])


def simclr(images: str) -> tuple[pl.Encoder, MembershipSplit]:
    """The first reference of the SimCLR, its images and others."""
    split, references = cifar10.data(images, cifar10.SUBJECTS["simclr"])
    nonmembers = others(images, 600, 77, [split.images, *references])
    return cifar10.trained(images, "simclr", 1), pl.member_split(references[0], nonmembers, drop_duplicates=True)


def mae(images: str) -> tuple[pl.Encoder, MembershipSplit]:
    """A masked autoencoder as that of `cifar10.SUBJECTS`, of other images."""
    subject = cifar10.SUBJECTS["mae"]
    split, references = cifar10.data(images, subject)
    pool = others(images, 1000, 78, [split.images, *references])
    split = pl.member_split(pool, members=subject.members, nonmembers=700, seed=5)
    out = cache_dir() / "cifar10" / f"mae-{split.digest[:16]}"
    return pl.pretrain("mae", split, subject.epochs, seed=9, out=out, progress=False, **subject.settings), split


def rows_of(encoder: pl.Encoder, split: MembershipSplit) -> list[dict[str, Any]]:
    """EncoderMI, and the unified attack at every side and area."""
    views = [pl.attacks.EncoderMI(kind, views=QUERIES) for kind in "VT"]
    rows = [{"side": encoder.view_side, **row_of(encoder, split, attack)} for attack in views]
    for side in SIDES:
        for scale in SCALES:
            attack = pl.attacks.Unified(QUERIES, scale, side)
            rows += [{"side": side, **row} for row in variants(encoder, split, attack, CHOSEN)]
    return rows


def main(
    images: Annotated[str, typer.Option(help="CIFAR-10: a parquet file, or cifar10 for torchvision's.")] = "cifar10",
    out: Annotated[Path, typer.Option(help="CSV of all variants.")] = CSV,
) -> None:
    torch.set_num_threads(1)
    rows = []
    for name, subject in tqdm({"simclr": simclr, "mae": mae}.items(), desc="encoders"):
        encoder, split = subject(images)
        sizes = {"members": int(split.member.sum()), "nonmembers": int((~split.member).sum())}
        rows += [{"encoder": name, **sizes, **row} for row in rows_of(encoder, split)]
    table = pd.DataFrame(rows)
    write_csv(out, table.round(4))
    print(table.to_string())


if __name__ == "__main__":
    typer.run(main)
