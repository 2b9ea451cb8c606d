"""Attacks side by side, and two saved audits: `compare`, `difference`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import partcrop_lab as pl
from partcrop_lab import Comparison
from partcrop_lab.cli.base import CONFOUNDED, app, echo
from partcrop_lab.cli.options import (
    Duplicates,
    Images,
    Links,
    Members,
    Nonmembers,
    Option,
    Quiet,
    Sides,
    Size,
    Skip,
    SplitFile,
    attack_of,
    check_writable,
)
from partcrop_lab.cli.words import aligned
from partcrop_lab.encoders.zoo import zoo_names


@app.command()
def compare(
    encoder: Annotated[list[str] | None, Option(help="As for audit; repeatable. Default: the whole zoo.")] = None,
    attack: Annotated[
        list[str] | None, Option(help='"name key=value ...", as "partcrop crops=9"; repeatable. Default: all attacks.')
    ] = None,
    split: SplitFile = None,
    member_dir: Annotated[str | None, Option(help="Folder of images that the encoders were trained on.")] = None,
    nonmember_dir: Annotated[str | None, Option(help="Folder of images of the same kind, not trained on.")] = None,
    images: Images = None,
    members: Members = None,
    nonmembers: Nonmembers = None,
    size: Size = None,
    drop_duplicates: Duplicates = False,
    skip_unreadable: Skip = False,
    follow_links: Links = False,
    seeds: Annotated[int, Option(min=1, help="Seeds of folds, crops and attackers, averaged over.")] = 3,
    folds: Annotated[int, Option(min=2, help="Folds of the cross-fit.")] = 2,
    out: Annotated[
        Path | None, Option(help="Write the table as .csv, with its pairs and provenance beside it.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Attacks side by side on the same encoders, images and folds; evidence is judged after Holm's correction.

    Each encoder is audited on the split it was trained on, or all on the sets that the options name. Attacks are
    compared fairly where they have equal queries. Finished audits are kept: the same command resumes.
    """
    drawing = {"images": images, "members": members, "nonmembers": nonmembers, "seed": 0}
    loading = {"size": size, "drop_duplicates": drop_duplicates, "skip_unreadable": skip_unreadable}
    loading |= {"follow_links": follow_links}
    sides = Sides(split, member_dir, nonmember_dir, **drawing, **loading)
    check_writable(*([out, out.with_name(f"{out.stem}-pairs.csv"), out.with_suffix(".json")] if out else []))
    special = pl.attacks.PixelStatistics, pl.attacks.Calibrated, pl.attacks.Reconstruction  # need more than an encoder
    every = sorted(set(pl.attacks.ATTACKS) - {one.name for one in special})
    attacks = [attack_of(text) for text in attack or every]
    encoders = [pl.load_encoder(name) for name in encoder or [f"zoo:{name}" for name in zoo_names()]]
    common = sides.load(encoders[0].image_size) if sides.given else None
    found = pl.compare(encoders, attacks, common, seeds, folds=folds)
    if out:
        found.save(out)
    echo(_comparison_text(found))
    raise typer.Exit(CONFOUNDED if (found.table.outcome == "Confounded").any() else 0)


def _comparison_text(found: Comparison) -> str:
    rows = [("encoder", "attack", "queries", "AUC", "95 % interval", "TPR at 1 %", "p (Holm)", "outcome")]
    for one in found.table.itertuples():
        rate = "-" if one.tpr_at_1_fpr != one.tpr_at_1_fpr else f"{one.tpr_at_1_fpr:.3f}"
        auc = (f"{one.auc:.3f}", f"{one.low:.3f} to {one.high:.3f}")
        rows.append((one.encoder, one.attack, str(one.queries), *auc, rate, f"{one.p_holm:.2g}", one.outcome))
    better = found.pairs[found.pairs.p_holm < 0.05]
    lines = [f"on {one.encoder}, {one.attack} beats {one.other} by {one.gain:.3f} (p = {one.p_holm:.2g}, Holm)"
             for one in better.itertuples()]  # fmt: skip
    first = found.table.iloc[0]
    sizes = f"{first.members} members + {first.nonmembers} non-members, {first.seeds} seeds, matched protocol"
    return "\n".join([aligned(rows), "", sizes, *(lines or ["no attack beats another in a paired test"])])


@app.command()
def difference(
    first: Annotated[Path, typer.Argument(help="A result that audit --out wrote.")],
    second: Annotated[Path, typer.Argument(help="Another.")],
) -> None:
    """How much more the first of two saved audits finds than the second."""
    results = [pl.AuditResult.load(path) for path in (first, second)]
    found = results[0].minus(results[1])
    for path, result in zip((first, second), results, strict=True):
        echo(f"{path}: {result.verdict}")
    how = "the same images in the same folds" if found.paired else "other images or folds, taken as independent"
    interval = f"95 % interval {found.low:+.3f} to {found.high:+.3f}, p = {found.p_value:.2g}"
    echo(f"AUC of the first minus that of the second: {found.gain:+.3f} ({interval}; {how})")
