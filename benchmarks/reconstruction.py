"""What can be painted of an image from its background alone? Reconstructors of the zoo's pair, and what they show.

``python benchmarks/reconstruction.py --jobs 2`` trains a reconstructor on the public images for each encoder of a pair
of the zoo (resumed where it was stopped), writes its weights to data/zoo/reconstructors, paints images of both sets and
of the third under both encoders, and writes data/zoo/reconstruction.csv, one row per image, and beside it a picture of
the first of them. Nothing was tuned on private images: layer and settings were set before.
"""

from __future__ import annotations

from typing import Annotated

import joblib
import torch
import typer

import partcrop_lab as pl
from partcrop_lab.dejavu import Backgrounds, painted_gain, reconstruct, train_reconstructor, zoo_reconstructors
from partcrop_lab.dejavu.reconstruction import reconstructor_path
from partcrop_lab.encoders.zoo import zoo_dir
from partcrop_lab.encoders.zoo_entries import PROBE
from partcrop_lab.store import atomic, cache_dir, write_csv

LAYER, EACH, SHOWN = "backbone", 100, 4


def train(name: str) -> None:
    """The reconstructor of one encoder, to its place in the zoo."""
    torch.set_num_threads(1)
    encoder = pl.load_encoder(f"zoo:{name}")
    public = pl.load_images(**PROBE, size=encoder.image_size)
    out = cache_dir() / "reconstructors" / encoder.digest[:16]
    one = train_reconstructor(encoder, public, LAYER, out)
    one.save(reconstructor_path(name))


def main(
    recipe: Annotated[str, typer.Option(help="Of a pair of the zoo.")] = "simclr",
    jobs: Annotated[int, typer.Option(help="Trainings at a time, on one thread each.")] = 1,
) -> None:
    names = {"A": recipe, "B": f"{recipe}-b"}
    joblib.Parallel(jobs)(joblib.delayed(train)(name) for name in names.values())
    painters = zoo_reconstructors(recipe)
    encoders = {which: pl.load_encoder(f"zoo:{name}") for which, name in names.items()}
    public = pl.load_images(**PROBE, size=encoders["A"].image_size)
    backgrounds = Backgrounds(encoders, public, LAYER)
    found = reconstruct(painters, backgrounds, encoders["B"].split.nonmembers, EACH)
    write_csv(zoo_dir() / "reconstruction.csv", found.table.assign(recipe=recipe))
    first = [row for which in "AB" for row in found.table.index[found.table["set"] == which][:SHOWN]]  # none is chosen
    picture = pl.plots.png(lambda figure: pl.plots.reconstructions(found, first, figure), 9.2, SHOWN * 1.9 + 0.4, 150)
    with atomic(zoo_dir() / "reconstruction.png") as temporary:
        temporary.write_bytes(picture)
    for what, control in {"A and B": False, "third set": True}.items():
        print(what, "gain {:.2f} ({:.2f} to {:.2f})".format(*painted_gain(found.table, control)))


if __name__ == "__main__":
    typer.run(main)
