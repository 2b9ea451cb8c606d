"""What a background alone betrays: `dejavu`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

import partcrop_lab as pl
from partcrop_lab import Encoder, ImageSet
from partcrop_lab.cli.base import app, echo
from partcrop_lab.cli.options import Option, Quiet, check_writable
from partcrop_lab.cli.words import aligned
from partcrop_lab.dejavu import DejaVu, with_controls
from partcrop_lab.images.sources import load_again
from partcrop_lab.limits import LARGEST_SEED


@app.command()
def dejavu(
    encoder: Annotated[str, Option(help="Trained on set A; as for audit.")],
    other: Annotated[str, Option(help="Trained by the same recipe on as many other images, set B.")],
    public: Annotated[str | None, Option(help="Images with classes for the vote; default those on the card.")] = None,
    third: Annotated[str | None, Option(help="Images that neither was trained on; default those on the card.")] = None,
    layer: Annotated[str, Option(help="projector, backbone, or a number of blocks.")] = "projector",
    neighbours: Annotated[int, Option(min=1, help="Public images that vote.")] = 100,
    seed: Annotated[int, Option(min=0, max=LARGEST_SEED, help="Of controls and resampling.")] = 0,
    out: Annotated[Path | None, Option(help="Write the table of images as .csv, with provenance beside it.")] = None,
    quiet: Quiet = False,
) -> None:
    """What the background of a training image alone betrays of its class (deja vu, arXiv 2304.13850).

    Both encoders carry the split they were trained on. The same is done with untrained encoders, with permuted public
    labels and on a third set: all three must score 0.
    """
    check_writable(*([out, out.with_name(f"{out.stem}-scores.csv"), out.with_suffix(".json")] if out else []))
    one, two = pl.load_encoder(encoder), pl.load_encoder(other)
    named = {"public": public, "third": third}
    sets = {name: _pair_images(one, two, name, source) for name, source in named.items()}
    how = {"layer": int(layer) if layer.isdigit() else layer, "k": neighbours, "seed": seed}
    found, scores = with_controls(one, two, sets["public"], sets["third"], **how)
    if out:
        found.save(out, scores)
    echo(_dejavu_text(found, scores))


def _pair_images(one: Encoder, two: Encoder, name: str, source: str | None) -> ImageSet:
    """The public images or the third set of a pair: those named, else those on the card of the second encoder."""
    if source:
        return pl.load_images(source, size=one.image_size)
    pair = two.card.get("pair")
    if not pair:
        raise typer.BadParameter(f"encoder {two.name} is no twin of the zoo; name the images with --{name}")
    if name == "public":
        return pl.load_images(**{**pair["public"], "size": one.image_size})
    return load_again(two.split.nonmembers.source, pair["held_out"])


def _dejavu_text(found: DejaVu, scores: pd.DataFrame) -> str:
    rows = [("confident", "score of", "images", "trained", "other", "score", "95 % interval")]
    for one in scores.itertuples():
        score = f"{one.trained:.3f}", f"{one.other:.3f}", f"{one.score:+.3f}", f"{one.low:+.3f} to {one.high:+.3f}"
        rows.append((f"{one.share:.0%}", one.what, str(one.images), *score))
    parts = found.partition()
    table = [("set", *parts.columns), *((name, *map(str, row)) for name, row in zip(parts.index, parts.to_numpy()))]
    left = ", ".join(f"{len(names)} of {name}" for name, names in found.unusable.items())
    return "\n".join([aligned(rows), "", aligned(table), "", f"without a background wide enough: {left}"])
