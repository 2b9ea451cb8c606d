"""Audits of one encoder, and the queries for one that cannot be loaded: `audit`, `queries`."""

from __future__ import annotations

import shlex
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

import partcrop_lab as pl
from partcrop_lab import AuditResult, Encoder, MembershipSplit, store
from partcrop_lab.attacks import Attack, Calibrated, make_attacker
from partcrop_lab.audit import sensitivity as varied
from partcrop_lab.audit.run import threat
from partcrop_lab.cli.base import CONFOUNDED, EXCEEDED, FAULT, app, echo, say
from partcrop_lab.cli.options import (
    AttackText,
    Duplicates,
    Images,
    Links,
    MemberDir,
    Members,
    NonmemberDir,
    Nonmembers,
    Option,
    Quiet,
    Sides,
    Size,
    Skip,
    SplitFile,
    attack_of,
    check_writable,
    keywords,
    named,
)
from partcrop_lab.cli.words import aligned
from partcrop_lab.encoders.recorded import read_recorded
from partcrop_lab.errors import BadInput
from partcrop_lab.limits import LARGEST_SEED

PARTCROP = "partcrop"
"""The attack where none is named."""


def _between(value: float | None) -> float | None:
    if value is not None and not 0 < value < 1:
        raise typer.BadParameter(f"{value:g} is no AUC that a bound could pass; it must be above 0 and below 1")
    return value


@app.command()
def audit(
    context: typer.Context,
    encoder: Annotated[str | None, Option(help="zoo:NAME, random:TIMM_MODEL, timm:NAME or a checkpoint file.")] = None,
    features: Annotated[Path | None, Option(help="Instead: what a remote encoder answered; see `queries`.")] = None,
    split: SplitFile = None,
    member_dir: MemberDir = None,
    nonmember_dir: NonmemberDir = None,
    images: Images = None,
    members: Members = None,
    nonmembers: Nonmembers = None,
    size: Size = None,
    skip_unreadable: Skip = False,
    follow_links: Links = False,
    drop_duplicates: Duplicates = False,
    declared: Annotated[bool, Option("--declared", help="You claim that it was trained on this drawn split.")] = False,
    model: Annotated[str | None, Option(help="timm model of a checkpoint whose shapes do not tell it.")] = None,
    branch: Annotated[str | None, Option(help="Of a checkpoint: teacher, student, base or momentum.")] = None,
    image_size: Annotated[int | None, Option(help="Side in pixels of the encoder's input.")] = None,
    patch_size: Annotated[int | None, Option(help="Patch of a ViT in pixels.")] = None,
    depth: Annotated[int | None, Option(help="Blocks of a ViT.")] = None,
    mean: Annotated[tuple[float, float, float] | None, Option(help="Normalisation, for pixels in [0, 1].")] = None,
    std: Annotated[tuple[float, float, float] | None, Option(help="Normalisation, for pixels in [0, 1].")] = None,
    encoder_option: Annotated[list[str] | None, Option(help="key=value for load_encoder or timm; repeatable.")] = None,
    attack: AttackText = PARTCROP,
    crops: Annotated[int | None, Option(min=1, help="Parts per image; default 128.")] = None,
    scale: Annotated[tuple[float, float] | None, Option(help="Area of a part, default 0.08 0.2 of the image.")] = None,
    kind: Annotated[str | None, Option(help="Energies: uniform, gaussian or both (default).")] = None,
    pooling: Annotated[str | None, Option(help="Part vectors: cls or mean; default the encoder's.")] = None,
    measure: Annotated[str | None, Option(help="Part responses: dot (default, as published) or cosine.")] = None,
    attacker: Annotated[
        str | None, Option(help="mlp, logistic, boosting, ..., unsupervised; default the attack's.")
    ] = None,
    reference: Annotated[list[str] | None, Option(help="Encoders trained on other images, to calibrate by.")] = None,
    shadow: Annotated[
        str | None, Option(help="Encoder with a split of its own to fit the attacker on instead.")
    ] = None,
    folds: Annotated[int, Option(min=2, help="Folds of the cross-fit.")] = 2,
    known: Annotated[
        float | None, Option(help="Share of the images whose membership the attacker knows; default 1 - 1/folds.")
    ] = None,
    repeats: Annotated[int, Option(min=1, help="Crop and attacker seeds averaged over.")] = 1,
    permutations: Annotated[int, Option(min=0, help="Fits with permuted labels; from 999 on the test is theirs.")] = 5,
    seed: Annotated[int, Option(min=0, max=LARGEST_SEED, help="Of drawing, folds, crops, attackers and controls.")] = 0,
    protocol: Annotated[str, Option(help="matched; or released, to show the published code's flaw.")] = "matched",
    out: Annotated[Path | None, Option(help="Write the whole result as JSON.")] = None,
    html: Annotated[Path | None, Option(help="Write a report that opens offline, and the result as JSON.")] = None,
    thumbnails: Annotated[bool, Option("--thumbnails", help="Show images in the report; not for sharing.")] = False,
    also: Annotated[list[str] | None, Option(help="Other attacks, for their agreement in the report.")] = None,
    sensitivity: Annotated[bool, Option("--sensitivity", help="Vary queries and seeds in the report.")] = False,
    fail_above: Annotated[
        float | None, Option(callback=_between, help="Exit 3 where the AUC's lower bound is above this.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Can an attack tell an encoder's training images from others of the same kind?

    Members and non-members are those of --split; of --member-dir and --nonmember-dir; of the encoder's own training
    (zoo encoders, and what pretrain wrote) where nothing is given; or are drawn from --images, which is a null check.
    With --features attack, seed, repeats and, where nothing is given, the split are those that `queries` wrote it for.
    """
    drawing = {"images": images, "members": members, "nonmembers": nonmembers, "seed": seed}
    loading = {"size": size, "drop_duplicates": drop_duplicates, "skip_unreadable": skip_unreadable}
    loading |= {"follow_links": follow_links}
    sides = Sides(split, member_dir, nonmember_dir, **drawing, **loading)
    reported = html and html.with_suffix(".json")  # the result beside the report, which may be --out itself
    check_writable(out, html, reported if out != reported else None)
    settings = named(crops=crops, scale=scale, kind=kind, pooling=pooling, measure_by=measure)
    if (encoder is None) == (features is None):
        raise typer.BadParameter("give either --encoder or --features")
    if features:
        if settings or attack != PARTCROP:
            raise typer.BadParameter("--features holds the answers to one attack's queries; leave out its settings")
        target, about = read_recorded(features)
        attack, seed, repeats = about["attack"], about["seed"], about["repeats"]
    chosen, compared = attack_of(attack, **settings), [attack_of(text) for text in also or ()]
    if features and chosen.queries > about["held"]:
        told = f"{about['held']} different queries, fewer than the {chosen.queries} that its attack asks of one image"
        raise BadInput(f"{features} holds {told}; write its queries again")
    if html is None and (thumbnails or compared or sensitivity):
        raise typer.BadParameter("--thumbnails, --also and --sensitivity are for the report; name its file with --html")
    make_attacker(attacker or chosen.attacker)  # a wrong name is said before long work
    if encoder:
        described = named(model=model, branch=branch, image_size=image_size, patch_size=patch_size, depth=depth)
        described |= named(mean=mean, std=std)
        target = pl.load_encoder(encoder, **described, **keywords(encoder_option))
    audited = sides.load(target.image_size) if sides.given else target.split
    own = pl.load_encoder(shadow) if shadow else None
    if reference:
        chosen = calibrated(chosen, [pl.load_encoder(name) for name in reference])
    if not quiet:
        by = attacker or chosen.attacker
        _print_plan(target, audited, chosen, by, folds, repeats, permutations, own, seed, known)
    how = {"repeats": repeats, "permutations": permutations, "protocol": protocol, "declared": declared}
    how |= {"shadow": own, "known": known}
    result = pl.audit(target, audited, chosen, attacker, folds, seed, **how)
    result.settings["command"] = shlex.join(["partcrop-lab", *context.obj])
    try:
        _save(result, out, reported)
        if html:
            with_others = [pl.audit(target, audited, one, folds=folds, seed=seed, controls=False) for one in compared]
            table = varied(target, audited, chosen, attacker, folds=folds) if sensitivity else None
            shown = audited.images if thumbnails else None
            result.to_html(html, images=shown, others=with_others, sensitivity=table)
    finally:  # whatever becomes of the files, what was found is said
        _print_result(result, quiet)
    raise typer.Exit(_status(result, fail_above))


def _save(result: AuditResult, *places: Path | None) -> None:
    """Write a result where it was asked for; where that fails after all, keep it in the cache and say so."""
    for place in filter(None, places):
        try:
            result.save(place)
        except BadInput as error:
            kept = store.cache_dir() / "results" / f"{store.digest(result.record())[:16]}.json"
            result.save(kept)
            raise BadInput(f"{error}; the result is kept in {kept}") from error


def calibrated(attack: Attack, references: list[Encoder]) -> Attack:
    """The attack measured against references: its own way where it has one."""
    if any(one.name == "references" for one in fields(attack)):
        return replace(attack, references=tuple(references))
    return Calibrated(attack, tuple(references))


def _print_plan(
    encoder: Encoder,
    split: MembershipSplit,
    attack: Attack,
    attacker: str,
    folds: int,
    repeats: int,
    permutations: int,
    shadow: Encoder | None,
    seed: int,
    known: float | None,
) -> None:
    """What is about to run, what it costs in queries and about how long it takes."""
    card, count = encoder.card, len(split.member)
    needs = "; ".join(threat(attack, attacker, folds, shadow, known)["needs"])
    trained = f", {card['recipe']}, N = {card['N']}, T = {card['T']} epochs" if {"N", "T"} <= card.keys() else ""
    queries = 2 * repeats * attack.expected_seconds(encoder, split.images, seed)
    fits = folds * (3 * repeats + permutations)  # of the target, two controls and permuted labels
    width = attack.features(encoder, split.images.subset(slice(0, 4)), seed, progress=False).shape[1]
    fitting = fits * _fit_seconds(attacker, count - count // folds, width)
    rows = [
        ("encoder", f"{encoder.name}{trained}, {encoder.image_size} px, {encoder.device}"),
        ("split", f"{len(split.members)} members + {len(split.nonmembers)} non-members, {_origin(encoder, split)}"),
        ("needs", needs),
        ("queries", f"{attack.queries} an image, {attack.queries * count * repeats:,} in all, twice with the control"),
        ("expected", f"{_duration(queries)} for the queries, less where the cache has their answers"),
        ("", f"{_duration(fitting)} for {fits} fits of the attacker"),
    ]
    echo(aligned(rows))


def _fit_seconds(attacker: str, rows: int, columns: int) -> float:
    """Seconds of one fit, judged on noise; an attacker that counts epochs is timed on a few of them."""
    made = make_attacker(attacker)
    epochs = made.get_params().get("epochs", 1)
    some = max(1, epochs // 20)
    made.set_params(**({"epochs": some} if epochs > 1 else {}))
    features = np.random.default_rng(0).normal(size=(rows, columns))
    start = time.perf_counter()
    made.fit(features, np.arange(rows) % 2)
    return (time.perf_counter() - start) * epochs / some


def _origin(encoder: Encoder, split: MembershipSplit) -> str:
    if encoder.split_digest == split.digest:
        return "which it was trained on"
    return f"{split.origin}, not linked to its training"


def _duration(seconds: float) -> str:
    """Roughly how long, in words.

    >>> _duration(3), _duration(100), _duration(9000)
    ('under 10 s', 'about 2 min', 'about 2.5 h')
    """
    if seconds < 10:
        return "under 10 s"
    if seconds < 60:
        return f"about {round(seconds, -1):.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def _print_result(result: AuditResult, quiet: bool) -> None:
    """Metrics, controls and, as the last line, the verdict."""
    if not quiet:
        echo(f"\n{_metrics_text(result.metrics)}\n\n{_controls_text(result.controls)}\n")
    echo(result.verdict)


def _metrics_text(metrics: pd.DataFrame) -> str:
    rows = [("metric", "value", "95 % interval")]
    for name, row in metrics.iterrows():
        known = row.value == row.value
        rows.append((name, f"{row.value:.3f}", f"{row.low:.3f} to {row.high:.3f}") if known else (name, "-", row.note))
    return aligned(rows)


def _controls_text(controls: pd.DataFrame) -> str:
    rows = [("control", "AUC", "low", "high", "p", "p (target beats it)")]
    for name, row in controls.iterrows():
        paired = "-" if row.paired_p != row.paired_p else f"{row.paired_p:.2g}"
        rows.append((name, f"{row.auc:.3f}", f"{row.low:.3f}", f"{row.high:.3f}", f"{row.p_value:.2g}", paired))
    return aligned(rows)


def _status(result: AuditResult, fail_above: float | None) -> int:
    if result.fault:
        return say(result.fault, FAULT)
    if result.outcome == "Confounded":
        return CONFOUNDED
    low = result.metrics.loc["auc", "low"]
    return EXCEEDED if fail_above is not None and low > fail_above else 0


@app.command()
def queries(
    out: Annotated[Path, Option(help="Write the queries to this .npz file.")],
    split: SplitFile = None,
    member_dir: MemberDir = None,
    nonmember_dir: NonmemberDir = None,
    images: Images = None,
    members: Members = None,
    nonmembers: Nonmembers = None,
    size: Size = None,
    skip_unreadable: Skip = False,
    follow_links: Links = False,
    drop_duplicates: Duplicates = False,
    attack: AttackText = "encodermi",
    name: Annotated[str, Option(help="What reports call the encoder.")] = "remote",
    image_size: Annotated[int | None, Option(min=8, help="Side in pixels of its input; default the images'.")] = None,
    view_side: Annotated[int | None, Option(min=1, help="That of its views in training; default the same.")] = None,
    patch_size: Annotated[int, Option(min=1, help="Its patch in pixels, which decides the size of parts.")] = 16,
    repeats: Annotated[int, Option(min=1, help="Crop seeds averaged over.")] = 1,
    seed: Annotated[int, Option(min=0, max=LARGEST_SEED, help="Of drawing and crops.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Write the images that an audit must ask an encoder which cannot be loaded here; see audit --features."""
    drawing = {"images": images, "members": members, "nonmembers": nonmembers, "seed": seed}
    loading = {"size": size, "drop_duplicates": drop_duplicates, "skip_unreadable": skip_unreadable}
    loading |= {"follow_links": follow_links}
    sides = Sides(split, member_dir, nonmember_dir, **drawing, **loading)
    if not sides.given:
        raise typer.BadParameter("say whose membership is asked: --split, --member-dir or --images")
    check_writable(out)
    how = {"name": name, "image_size": image_size, "view_side": view_side, "patch": patch_size}
    how |= {"seed": seed, "repeats": repeats}
    counts = pl.attacks.write_queries(out, attack_of(attack), sides.load(image_size), **how)
    for side, count in counts.items():
        wanted = f"add answers_{side}, float ({count}, D) or ({count}, L, D), in the same order"
        echo(f"queries_{side}: {count} images of {side} px; {wanted}")
    echo(f"then: partcrop-lab audit --features {out}")
