"""The shell, a thin layer over the package's functions: `partcrop-lab audit|queries|compare|pretrain|figures|...`.

Exit status: 0 done; 2 bad usage or input, with one line on stderr; 3 `--fail-above` exceeded; 4 confounded; 1 a fault
of ours; 130 interrupted.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import platform
import re
import shlex
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from partcrop_lab import store
from partcrop_lab.errors import BadInput
from partcrop_lab.progress import no_bars, speaks

if TYPE_CHECKING:
    import pandas as pd

    from partcrop_lab import AuditResult, Comparison, Encoder, ImageSet, MembershipSplit
    from partcrop_lab.attacks import Attack
    from partcrop_lab.defenses import Defense
    from partcrop_lab.dejavu import DejaVu

FAULT, BAD, EXCEEDED, CONFOUNDED, INTERRUPTED = 1, 2, 3, 4, 130
DEBUG_VARIABLE = "PARTCROP_LAB_DEBUG"
PARTCROP = "partcrop"
RECIPE_FILES = {path.stem for path in Path(__file__).parent.glob("encoders/recipes/[a-z]*.py")}
RECIPE_NAMES = sorted(RECIPE_FILES - {"base", "masked", "siamese"})
"""The names in `RECIPES`, which are those of their files: known without importing torch, for a help that is quick."""

app = typer.Typer(
    name="partcrop-lab",
    help="Membership inference against visual self-supervised encoders. Audit only encoders that you may test.",
    add_completion=False,
    rich_markup_mode=None,
)
zoo_app = typer.Typer(help="The small encoders that come with the package.")
cache_app = typer.Typer(help="Stored features, images and scores; all of it can be made again.")
app.add_typer(zoo_app, name="zoo")
app.add_typer(cache_app, name="cache")

Option = typer.Option
Images = Annotated[str | None, Option(help="A named set, folder or parquet file to draw members and non-members from.")]
Members = Annotated[int | None, Option(min=1, help="How many members to draw from --images.")]
Nonmembers = Annotated[int | None, Option(min=1, help="How many non-members to draw; default as many.")]
Size = Annotated[int | None, Option(min=8, help="Side in pixels to load images at; default the encoder's.")]
MemberDir = Annotated[str | None, Option(help="Folder or parquet file of images it was trained on.")]
NonmemberDir = Annotated[str | None, Option(help="Folder or parquet file of like images it never saw.")]
SplitFile = Annotated[Path | None, Option(help="A split that MembershipSplit.save or pretrain wrote.")]
Skip = Annotated[bool, Option("--skip-unreadable", help="Leave out images that cannot be read, with a warning.")]


def _hide_bars(context: typer.Context, quiet: bool) -> bool:
    if quiet:
        context.with_resource(no_bars())
    return quiet


Quiet = Annotated[bool, Option("--quiet", callback=_hide_bars, help="No progress bars; of an audit only the verdict.")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status.

    Args:
        arguments: without the program's name; those of this process where None. Without any, the help is printed.

    >>> main(["cache", "size", "--nonsense"])
    2
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    command = typer.main.get_command(app)
    usage_error = typer.BadParameter.__base__  # typer names it only from click, which newer versions carry inside
    try:
        with warnings.catch_warnings(), command.make_context("partcrop-lab", [*arguments], obj=arguments) as context:
            warnings.showwarning = _show_warning
            command.invoke(context)
        return 0
    except typer.Exit as ending:
        return ending.exit_code
    except usage_error as error:
        where = f"; see {error.ctx.command_path} --help" if error.ctx else ""
        return _say(error.format_message().rstrip(".") + where, BAD)
    except KeyboardInterrupt:
        told = "interrupted; what is finished is kept, and the same command resumes from it"
        return _say(told, INTERRUPTED) if speaks() else INTERRUPTED
    except OSError as error:
        return _say(f"{error.filename or 'a file'}: {error.strerror or error}", BAD)
    except Exception as error:
        if _about_input(error):
            return _say(str(error), BAD)
        if os.environ.get(DEBUG_VARIABLE):
            traceback.print_exc()
        again = f"; set {DEBUG_VARIABLE}=1 to see where, and please report it"
        return _say(f"a fault of this program, {type(error).__name__}: {error}{again}", FAULT)


def _say(message: str, status: int) -> int:
    print("partcrop-lab:", " ".join(message.split()), file=sys.stderr)
    return status


def _show_warning(message: Warning | str, category: type[Warning], filename: str, *_: Any) -> None:
    if speaks() and Path(filename).is_relative_to(Path(__file__).parent):  # those of other libraries are for developers
        _say(f"note: {message}", 0)


def _about_input(error: Exception) -> bool:
    """Whether it speaks of the user's input: a BadInput, or a ValueError that this package itself raised."""
    frames = list(traceback.walk_tb(error.__traceback__))
    ours = frames[-1][0].f_globals.get("__name__", "").startswith("partcrop_lab")
    return isinstance(error, BadInput) or (isinstance(error, ValueError) and ours)


@dataclass(frozen=True)
class Sides:
    """Where members and non-members come from, as options say it: one of four ways.

    Raises:
        typer.BadParameter: options of different ways together, or half of one.
    """

    split: Path | None = None
    member_dir: str | None = None
    nonmember_dir: str | None = None
    images: str | None = None
    members: int | None = None
    nonmembers: int | None = None
    size: int | None = None
    seed: int = 0
    drop_duplicates: bool = False
    skip_unreadable: bool = False

    def __post_init__(self) -> None:
        ways = {
            "--split": self.split,
            "--member-dir with --nonmember-dir": self.member_dir or self.nonmember_dir,
            "--images with --members": self.images or self.members or self.nonmembers,
        }
        given = [way for way, value in ways.items() if value is not None]
        if len(given) > 1:
            raise typer.BadParameter(f"{' and '.join(given)} exclude each other; give one of them")
        if (self.member_dir is None) != (self.nonmember_dir is None):
            raise typer.BadParameter("--member-dir and --nonmember-dir need each other")
        if (self.images is None) != (self.members is None) or (self.nonmembers and not self.members):
            raise typer.BadParameter("--images and --members need each other")

    @property
    def given(self) -> bool:
        """Whether any way was named."""
        return any(value is not None for value in (self.split, self.member_dir, self.images))

    def load(self, size: int | None = None) -> MembershipSplit:
        """The split, its images at `size` px unless the options say another."""
        import partcrop_lab as pl

        size = self.size or size
        if self.split:
            return pl.MembershipSplit.load(self.split)
        if self.images:
            pool = self._pool(size)
            return pl.member_split(pool, members=self.members, nonmembers=self.nonmembers, seed=self.seed)
        sides = (self._load(self.member_dir, size=size), self._load(self.nonmember_dir, size=size))
        return pl.member_split(*sides, drop_duplicates=self.drop_duplicates)

    def _pool(self, size: int | None) -> ImageSet:
        """Some more images than are drawn, since duplicates are dropped; all where there are not so many."""
        wanted = self.members + (self.members if self.nonmembers is None else self.nonmembers)
        try:
            return self._load(self.images, n=wanted + wanted // 10 + 8, size=size)
        except BadInput as error:
            if "choose n from" not in str(error):
                raise
        return self._load(self.images, size=size)

    def _load(self, source: str, **how: Any) -> ImageSet:
        import partcrop_lab as pl

        return pl.load_images(source, seed=self.seed, on_error="skip" if self.skip_unreadable else "raise", **how)


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
    drop_duplicates: Annotated[bool, Option("--drop-duplicates", help="Drop non-members that duplicate one.")] = False,
    declared: Annotated[bool, Option("--declared", help="You claim that it was trained on this drawn split.")] = False,
    model: Annotated[str | None, Option(help="timm model of a checkpoint whose shapes do not tell it.")] = None,
    branch: Annotated[str | None, Option(help="Of a checkpoint: teacher, student, base or momentum.")] = None,
    image_size: Annotated[int | None, Option(help="Side in pixels of the encoder's input.")] = None,
    patch_size: Annotated[int | None, Option(help="Patch of a ViT in pixels.")] = None,
    depth: Annotated[int | None, Option(help="Blocks of a ViT.")] = None,
    mean: Annotated[tuple[float, float, float] | None, Option(help="Normalisation, for pixels in [0, 1].")] = None,
    std: Annotated[tuple[float, float, float] | None, Option(help="Normalisation, for pixels in [0, 1].")] = None,
    encoder_option: Annotated[list[str] | None, Option(help="key=value for load_encoder or timm; repeatable.")] = None,
    attack: Annotated[str, Option(help="Attack by name, with settings as in 'encodermi kind=T'.")] = PARTCROP,
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
    seed: Annotated[int, Option(help="Of drawing, folds, crops, attackers and controls.")] = 0,
    protocol: Annotated[str, Option(help="matched; or released, to show the published code's flaw.")] = "matched",
    out: Annotated[Path | None, Option(help="Write the whole result as JSON.")] = None,
    html: Annotated[Path | None, Option(help="Write a report that opens offline, and the result as JSON.")] = None,
    thumbnails: Annotated[bool, Option("--thumbnails", help="Show images in the report; not for sharing.")] = False,
    also: Annotated[list[str] | None, Option(help="Other attacks, for their agreement in the report.")] = None,
    sensitivity: Annotated[bool, Option("--sensitivity", help="Vary queries and seeds in the report.")] = False,
    fail_above: Annotated[float | None, Option(help="Exit 3 where the AUC's lower bound is above this.")] = None,
    quiet: Quiet = False,
) -> None:
    """Can an attack tell an encoder's training images from others of the same kind?

    Members and non-members are those of --split; of --member-dir and --nonmember-dir; of the encoder's own training
    (zoo encoders, and what pretrain wrote) where nothing is given; or are drawn from --images, which is a null check.
    With --features attack, seed, repeats and, where nothing is given, the split are those that `queries` wrote it for.
    """
    import partcrop_lab as pl
    from partcrop_lab.audit import sensitivity as varied
    from partcrop_lab.encoders.recorded import read_recorded

    drawing = {"images": images, "members": members, "nonmembers": nonmembers, "seed": seed}
    loading = {"size": size, "drop_duplicates": drop_duplicates, "skip_unreadable": skip_unreadable}
    sides = Sides(split, member_dir, nonmember_dir, **drawing, **loading)
    _check_writable(out, html)
    settings = _named(crops=crops, scale=scale, kind=kind, pooling=pooling, measure_by=measure)
    if (encoder is None) == (features is None):
        raise typer.BadParameter("give either --encoder or --features")
    if features:
        if settings or attack != PARTCROP:
            raise typer.BadParameter("--features holds the answers to one attack's queries; leave out its settings")
        target, about = read_recorded(features)
        attack, seed, repeats = about["attack"], about["seed"], about["repeats"]
    chosen, compared = attack_of(attack, **settings), [attack_of(text) for text in also or ()]
    if html is None and (thumbnails or compared or sensitivity):
        raise typer.BadParameter("--thumbnails, --also and --sensitivity are for the report; name its file with --html")
    pl.attacks.make_attacker(attacker or chosen.attacker)  # a wrong name is said before long work
    if encoder:
        described = _named(model=model, branch=branch, image_size=image_size, patch_size=patch_size, depth=depth)
        described |= _named(mean=mean, std=std)
        target = pl.load_encoder(encoder, **described, **_pairs(encoder_option))
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
    if out:
        result.save(out)
    if html:
        with_others = [pl.audit(target, audited, one, folds=folds, seed=seed, controls=False) for one in compared]
        table = varied(target, audited, chosen, attacker, folds=folds) if sensitivity else None
        shown = audited.images if thumbnails else None
        result.to_html(html, images=shown, others=with_others, sensitivity=table)
    _print_result(result, quiet)
    raise typer.Exit(_status(result, fail_above))


def _named(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def _pairs(texts: Iterable[str] | None) -> dict[str, Any]:
    """Keywords from key=value, the value read as a Python or JSON literal where it is one.

    >>> _pairs(["depth=4", "crop_scale=(0.2, 1)", "flip=false", "name=mine"])
    {'depth': 4, 'crop_scale': (0.2, 1), 'flip': False, 'name': 'mine'}
    """
    words = {"true": True, "false": False, "null": None, "none": None}
    pairs = {}
    for text in texts or ():
        key, found, value = text.partition("=")
        if not found or not key.isidentifier():
            raise typer.BadParameter(f"{text!r} is not of the form key=value")
        try:
            pairs[key] = words[value.lower()] if value.lower() in words else ast.literal_eval(value)
        except (ValueError, SyntaxError):
            pairs[key] = value
    return pairs


def _check_writable(*paths: Path | None) -> None:
    """Before long work: whether results can be written where they are asked for."""
    for path in filter(None, paths):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise BadInput(f"{path} cannot be written ({error.strerror}); choose another folder") from error


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
    from partcrop_lab.audit.run import threat

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
    print(_table(rows), flush=True)


def _fit_seconds(attacker: str, rows: int, columns: int) -> float:
    """Seconds of one fit, judged on noise; an attacker that counts epochs is timed on a few of them."""
    from partcrop_lab.attacks import make_attacker

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
        print(f"\n{_metrics_text(result.metrics)}\n\n{_controls_text(result.controls)}\n")
    print(result.verdict)


def _metrics_text(metrics: pd.DataFrame) -> str:
    rows = [("metric", "value", "95 % interval")]
    for name, row in metrics.iterrows():
        known = row.value == row.value
        rows.append((name, f"{row.value:.3f}", f"{row.low:.3f} to {row.high:.3f}") if known else (name, "-", row.note))
    return _table(rows)


def _controls_text(controls: pd.DataFrame) -> str:
    rows = [("control", "AUC", "low", "high", "p", "p (target beats it)")]
    for name, row in controls.iterrows():
        paired = "-" if row.paired_p != row.paired_p else f"{row.paired_p:.2g}"
        rows.append((name, f"{row.auc:.3f}", f"{row.low:.3f}", f"{row.high:.3f}", f"{row.p_value:.2g}", paired))
    return _table(rows)


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def _status(result: AuditResult, fail_above: float | None) -> int:
    if result.fault:
        return _say(result.fault, FAULT)
    if result.outcome == "Confounded":
        return CONFOUNDED
    low = result.metrics.loc["auc", "low"]
    return EXCEEDED if fail_above is not None and low > fail_above else 0


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
    drop_duplicates: Annotated[bool, Option("--drop-duplicates", help="Drop non-members that duplicate one.")] = False,
    skip_unreadable: Skip = False,
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
    import partcrop_lab as pl
    from partcrop_lab.encoders.zoo import zoo_names

    drawing = {"images": images, "members": members, "nonmembers": nonmembers, "seed": 0}
    loading = {"size": size, "drop_duplicates": drop_duplicates, "skip_unreadable": skip_unreadable}
    sides = Sides(split, member_dir, nonmember_dir, **drawing, **loading)
    _check_writable(out)
    special = pl.attacks.PixelStatistics, pl.attacks.Calibrated, pl.attacks.Reconstruction  # need more than an encoder
    every = sorted(set(pl.attacks.ATTACKS) - {one.name for one in special})
    attacks = [attack_of(text) for text in attack or every]
    encoders = [pl.load_encoder(name) for name in encoder or [f"zoo:{name}" for name in zoo_names()]]
    common = sides.load(encoders[0].image_size) if sides.given else None
    found = pl.compare(encoders, attacks, common, seeds, folds=folds)
    if out:
        found.save(out)
    print(_comparison_text(found))
    raise typer.Exit(CONFOUNDED if (found.table.outcome == "Confounded").any() else 0)


def calibrated(attack: Attack, references: list[Encoder]) -> Attack:
    """The attack measured against references: its own way where it has one."""
    from partcrop_lab.attacks import Calibrated

    if any(one.name == "references" for one in fields(attack)):
        return replace(attack, references=tuple(references))
    return Calibrated(attack, tuple(references))


@app.command()
def difference(
    first: Annotated[Path, typer.Argument(help="A result that audit --out wrote.")],
    second: Annotated[Path, typer.Argument(help="Another.")],
) -> None:
    """How much more the first of two saved audits finds than the second."""
    import partcrop_lab as pl

    results = [pl.AuditResult.load(path) for path in (first, second)]
    found = results[0].minus(results[1])
    for path, result in zip((first, second), results, strict=True):
        print(f"{path}: {result.verdict}")
    how = "the same images in the same folds" if found.paired else "other images or folds, taken as independent"
    interval = f"95 % interval {found.low:+.3f} to {found.high:+.3f}, p = {found.p_value:.2g}"
    print(f"AUC of the first minus that of the second: {found.gain:+.3f} ({interval}; {how})")


def attack_of(text: str, **settings: Any) -> Attack:
    """An attack from its name and settings, as "encodermi kind=T views=5", and further settings."""
    from partcrop_lab.attacks import ATTACKS, make_attack

    name, *pairs = _words(text)
    settings = _pairs(pairs) | settings
    if name in ATTACKS:
        _check_settings("attack", name, ATTACKS[name], settings)
    return make_attack(name, **settings)


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
    return "\n".join([_table(rows), "", sizes, *(lines or ["no attack beats another in a paired test"])])


@app.command()
def defend(
    encoder: Annotated[str, Option(help="As for audit; to train it again, one of the zoo or of pretrain.")],
    defense: Annotated[
        list[str] | None,
        Option(help='"name key=value ...", as "noise sigma=0.5"; repeatable. Default: every defence of serving.'),
    ] = None,
    attack: Annotated[str, Option(help="Attack by name, with settings.")] = "unified",
    labelled: Annotated[
        str | None, Option(help="Images with classes, for the probes: a named set, folder or parquet file.")
    ] = None,
    split: SplitFile = None,
    member_dir: MemberDir = None,
    nonmember_dir: NonmemberDir = None,
    seeds: Annotated[int, Option(min=1, help="Seeds of folds, crops and attackers, averaged over.")] = 1,
    runs: Annotated[Path | None, Option(help="Folder for trainings under a defence, to resume them.")] = None,
    out: Annotated[Path | None, Option(help="Write the table as .csv, with a figure and provenance beside it.")] = None,
    quiet: Quiet = False,
) -> None:
    """What defences buy and cost: the leak and the use of an encoder without and under each.

    Defences of serving change what the encoder answers; those of training train it again, on its own members. Each is
    also attacked by someone who knows it, where that would change the attack.
    """
    import partcrop_lab as pl
    from partcrop_lab.defenses.base import DEFENSES
    from partcrop_lab.encoders.zoo_entries import PROBE

    sides = Sides(split, member_dir, nonmember_dir)
    _check_writable(out)
    every = sorted(name for name, kind in DEFENSES.items() if kind.stage == "serving")
    chosen, asked = [defense_of(text) for text in defense or every], attack_of(attack)
    target = pl.load_encoder(encoder)
    common = sides.load(target.image_size) if sides.given else target.split
    known = {"source": labelled} if labelled else PROBE
    images = pl.load_images(**known, size=target.image_size)
    table = pl.defenses.tradeoff(target, chosen, asked, images, common, seeds=seeds, out=runs)
    if out:
        pl.defenses.save_tradeoff(table, out)
    print(_tradeoff_text(table))


@app.command()
def unlearn(
    encoder: Annotated[str, Option(help="As for audit; of simclr, barlowtwins or vicreg, with its projector.")],
    forget: Annotated[
        str, Option(help="Members to forget: a text file with one name on each line, or a number to draw.")
    ],
    out: Annotated[Path, Option(help="Where to write the encoder, as .safetensors.")],
    unseen: Annotated[
        str | None, Option(help="Images of the same kind in neither side of the split; default other drawings.")
    ] = None,
    retrained: Annotated[
        str | None, Option(help="The yardstick: an encoder trained by the same recipe without those images.")
    ] = None,
    attack: Annotated[str, Option(help="Attack by name, with settings, where there is a yardstick.")] = "unified",
    epochs: Annotated[int | None, Option(min=1, help="Passes over the images that are kept.")] = None,
    weight: Annotated[float | None, Option(help="Of forgetting, beside the recipe's loss.")] = None,
    seed: Annotated[int, Option(help="Of views and orders, and of the images drawn.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Make an encoder forget some of its training images (alignment calibration), and check it against retraining."""
    import partcrop_lab as pl
    from partcrop_lab.defenses.unlearning import RETRAINED, Unlearning, judge
    from partcrop_lab.encoders.zoo_entries import PROBE

    _check_writable(out)
    target = pl.load_encoder(encoder)
    drawn = target.split.members.source["source"] == PROBE["source"]
    if unseen is None and not drawn:
        raise typer.BadParameter(f"encoder {target.name} was not trained on drawings; name images with --unseen")
    others = pl.load_images(**({"source": unseen} if unseen else PROBE), size=target.image_size)
    gone = _to_forget(target, forget, seed)
    given = {name: value for name, value in {"epochs": epochs, "weight": weight}.items() if value is not None}
    fitted = Unlearning(**given, seed=seed).fit(target, gone, others)
    fitted.save(out)
    print(f"{out}: {len(gone)} of {len(target.split.members)} images unlearned")
    if retrained:
        encoders = {"as it was": target, "unlearned": fitted, RETRAINED: pl.load_encoder(retrained)}
        table = judge(encoders, gone, target.split.nonmembers, attack_of(attack), others, seed)
        print(_unlearning_text(table))


def _to_forget(encoder: Encoder, forget: str, seed: int) -> ImageSet:
    """The members that a file names, or so many drawn."""
    from partcrop_lab.defenses.unlearning import some_members

    if forget.isdigit():
        return some_members(encoder, int(forget), seed)
    path = Path(forget)
    if not path.is_file():
        raise typer.BadParameter(
            f"--forget is {forget!r}; it must be a text file with a name on each line, or a number"
        )
    return encoder.split.members.subset([line.strip() for line in path.read_text().splitlines() if line.strip()])


def _unlearning_text(table: pd.DataFrame) -> str:
    rows = [
        ("encoder", "AUC of the forgotten", "95 % interval", "minus trained without", "95 % interval", "probe", "kNN")
    ]
    for one in table.itertuples():
        auc = f"{one.auc:.3f}", f"{one.low:.3f} to {one.high:.3f}"
        gain = f"{one.gain:+.3f}", f"{one.gain_low:+.3f} to {one.gain_high:+.3f}"
        rows.append((one.encoder, *auc, *gain, f"{one.probe:.3f}", f"{one.knn:.3f}"))
    return _table(rows)


@app.command()
def dejavu(
    encoder: Annotated[str, Option(help="Trained on set A; as for audit.")],
    other: Annotated[str, Option(help="Trained by the same recipe on as many other images, set B.")],
    public: Annotated[str | None, Option(help="Images with classes for the vote; default those on the card.")] = None,
    third: Annotated[str | None, Option(help="Images that neither was trained on; default those on the card.")] = None,
    layer: Annotated[str, Option(help="projector, backbone, or a number of blocks.")] = "projector",
    neighbours: Annotated[int, Option(min=1, help="Public images that vote.")] = 100,
    seed: Annotated[int, Option(help="Of controls and resampling.")] = 0,
    out: Annotated[Path | None, Option(help="Write the table of images as .csv, with provenance beside it.")] = None,
    quiet: Quiet = False,
) -> None:
    """What the background of a training image alone betrays of its class (deja vu, arXiv 2304.13850).

    Both encoders carry the split they were trained on. The same is done with untrained encoders, with permuted public
    labels and on a third set: all three must score 0.
    """
    import partcrop_lab as pl
    from partcrop_lab.dejavu import with_controls

    _check_writable(out)
    one, two = pl.load_encoder(encoder), pl.load_encoder(other)
    named = {"public": public, "third": third}
    sets = {name: _pair_images(one, two, name, source) for name, source in named.items()}
    how = {"layer": int(layer) if layer.isdigit() else layer, "k": neighbours, "seed": seed}
    found, scores = with_controls(one, two, sets["public"], sets["third"], **how)
    if out:
        found.save(out, scores)
    print(_dejavu_text(found, scores))


def _pair_images(one: Encoder, two: Encoder, name: str, source: str | None) -> ImageSet:
    """The public images or the third set of a pair: those named, else those on the card of the second encoder."""
    import partcrop_lab as pl
    from partcrop_lab.images.sources import load_again

    if source:
        return pl.load_images(source, size=one.image_size)
    pair = two.card.get("pair")
    if not pair:
        raise typer.BadParameter(f"encoder {two.name} is no twin of the zoo; name the images with --{name}")
    if name == "public":
        return pl.load_images(**pair["public"], size=one.image_size)
    return load_again(two.split.nonmembers.source, pair["held_out"])


def _dejavu_text(found: DejaVu, scores: pd.DataFrame) -> str:
    rows = [("confident", "score of", "images", "trained", "other", "score", "95 % interval")]
    for one in scores.itertuples():
        score = f"{one.trained:.3f}", f"{one.other:.3f}", f"{one.score:+.3f}", f"{one.low:+.3f} to {one.high:+.3f}"
        rows.append((f"{one.share:.0%}", one.what, str(one.images), *score))
    parts = found.partition()
    table = [("set", *parts.columns), *((name, *map(str, row)) for name, row in zip(parts.index, parts.to_numpy()))]
    left = ", ".join(f"{len(names)} of {name}" for name, names in found.unusable.items())
    return "\n".join([_table(rows), "", _table(table), "", f"without a background wide enough: {left}"])


def defense_of(text: str) -> Defense:
    """A defence from its name and settings, as "noise sigma=0.5"."""
    from partcrop_lab.defenses.base import DEFENSES, make_defense

    name, *pairs = _words(text)
    settings = _pairs(pairs)
    if name in DEFENSES:
        _check_settings("defence", name, DEFENSES[name], settings)
    return make_defense(name, **settings)


def _words(text: str) -> list[str]:
    """The words of a text, what stands in brackets as one.

    >>> _words("scsr scale=(0.2, 0.6)")
    ['scsr', 'scale=(0.2, 0.6)']
    """
    return re.findall(r"(?:\([^)]*\)|\S)+", text)


def _check_settings(kind: str, name: str, of: type, settings: dict[str, Any]) -> None:
    known = [field.name for field in fields(of)]
    foreign = [key for key in settings if key not in known]
    if foreign:
        raise typer.BadParameter(f"the {kind} {name} has no setting {foreign[0]}; it has {', '.join(known)}")


def _tradeoff_text(table: pd.DataFrame) -> str:
    rows = [("defence", "attacker", "queries", "probe", "kNN", "AUC", "95 % interval", "TPR at 1 %", "outcome")]
    for one in table.itertuples():
        rate = "-" if one.tpr_at_1_fpr != one.tpr_at_1_fpr else f"{one.tpr_at_1_fpr:.3f}"
        use, auc = (f"{one.probe:.3f}", f"{one.knn:.3f}"), (f"{one.auc:.3f}", f"{one.low:.3f} to {one.high:.3f}")
        rows.append((one.level, one.attacker, str(one.queries), *use, *auc, rate, one.outcome))
    first = table.iloc[0]
    sizes = f"{first.attack} on {first.members} members + {first.nonmembers} non-members, seeds: {first.seeds}"
    told = [f"{one.level}: {one.guarantee}" for one in table.drop_duplicates("level").itertuples() if one.guarantee]
    return "\n".join([_table(rows), "", f"{sizes}, matched protocol, attackers fitted on what is served", *told])


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
    drop_duplicates: Annotated[bool, Option("--drop-duplicates", help="Drop non-members that duplicate one.")] = False,
    attack: Annotated[str, Option(help="Attack by name, with settings as in 'encodermi kind=T'.")] = "encodermi",
    name: Annotated[str, Option(help="What reports call the encoder.")] = "remote",
    image_size: Annotated[int | None, Option(min=8, help="Side in pixels of its input; default the images'.")] = None,
    view_side: Annotated[int | None, Option(min=1, help="That of its views in training; default the same.")] = None,
    patch_size: Annotated[int, Option(min=1, help="Its patch in pixels, which decides the size of parts.")] = 16,
    repeats: Annotated[int, Option(min=1, help="Crop seeds averaged over.")] = 1,
    seed: Annotated[int, Option(help="Of drawing and crops.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Write the images that an audit must ask an encoder which cannot be loaded here; see audit --features."""
    import partcrop_lab as pl

    drawing = {"images": images, "members": members, "nonmembers": nonmembers, "seed": seed}
    loading = {"size": size, "drop_duplicates": drop_duplicates, "skip_unreadable": skip_unreadable}
    sides = Sides(split, member_dir, nonmember_dir, **drawing, **loading)
    if not sides.given:
        raise typer.BadParameter("say whose membership is asked: --split, --member-dir or --images")
    _check_writable(out)
    how = {"name": name, "image_size": image_size, "view_side": view_side, "patch": patch_size}
    how |= {"seed": seed, "repeats": repeats}
    counts = pl.attacks.write_queries(out, attack_of(attack), sides.load(image_size), **how)
    for side, count in counts.items():
        wanted = f"add answers_{side}, float ({count}, D) or ({count}, L, D), in the same order"
        print(f"queries_{side}: {count} images of {side} px; {wanted}")
    print(f"then: partcrop-lab audit --features {out}")


@app.command()
def pretrain(
    recipe: Annotated[str, Option(help=f"How to train: {', '.join(RECIPE_NAMES)}.")],
    out: Annotated[Path, Option(help="Folder for the encoder, its split, log and checkpoints.")],
    images: Images = None,
    members: Members = None,
    nonmembers: Nonmembers = None,
    size: Annotated[int | None, Option(min=8, help="Side in pixels to load images and train at.")] = None,
    split: SplitFile = None,
    skip_unreadable: Skip = False,
    epochs: Annotated[int | None, Option(min=1, help="Passes over the members; default the recipe's.")] = None,
    seed: Annotated[int, Option(help="Of drawing, weights and augmentation.")] = 0,
    checkpoint_every: Annotated[int | None, Option(min=1, help="Epochs between states to resume from.")] = None,
    keep: Annotated[list[str] | None, Option(help="Epochs whose encoder is kept too, as 100,300; repeatable.")] = None,
    setting: Annotated[list[str] | None, Option("--set", help="key=value of the recipe; repeatable.")] = None,
    decoder: Annotated[
        bool, Option("--decoder", help="Keep the decoder of MAE, SimMIM or CAE, for grey-box attacks.")
    ] = False,
    devices: Annotated[int, Option(min=1, help="GPUs of each machine to train on, or CPU processes.")] = 1,
    nodes: Annotated[int, Option(min=1, help="Machines, on each of which torchrun or srun starts this.")] = 1,
    quiet: Quiet = False,
) -> None:
    """Draw a split, record it, and train an encoder on its members. The same command resumes an interrupted run.

    Encoders kept along the way are mid-schedule: their learning rate has not come down as at the end of a run.
    """
    import partcrop_lab as pl
    from partcrop_lab.devices import default_device
    from partcrop_lab.encoders import ranks
    from partcrop_lab.encoders.recipes import make_recipe

    drawing = {"images": images, "members": members, "nonmembers": nonmembers}
    sides = Sides(split, **drawing, size=size, seed=seed, skip_unreadable=skip_unreadable)
    if not sides.given:
        raise typer.BadParameter("give --images and --members, or --split")
    overrides, kept = _pairs(setting), _epochs(keep)
    make_recipe(recipe, **overrides)  # wrong names are said before anything is written
    ranks.check_devices(default_device(), devices, nodes)
    drawn = sides.load()
    if ranks.is_first(devices * nodes):
        _record(drawn, out / "split.json")
    how = {"checkpoint_every": checkpoint_every, "keep": kept, "devices": devices, "nodes": nodes, "decoder": decoder}
    encoder = pl.pretrain(recipe, drawn, epochs, seed, out, **how, **overrides)
    if ranks.is_first(devices * nodes):
        _draw_loss(out, encoder.name)
        path = out / "encoder.safetensors"
        print(f"{path}: trained on {len(drawn.members)} images; audit it with partcrop-lab audit --encoder {path}")


def _epochs(texts: Iterable[str] | None) -> list[int]:
    """Numbers from options like "100,300".

    >>> _epochs(["100,300", "500"])
    [100, 300, 500]
    """
    try:
        return [int(number) for text in texts or () for number in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"--keep takes epochs separated by commas; {error}") from error


def _draw_loss(out: Path, name: str) -> None:
    """Draw the log of a training run beside its encoder."""
    import pandas as pd

    from partcrop_lab import plots

    table = pd.read_json(out / "log.jsonl", lines=True)
    with store.atomic(out / "loss.png") as temporary:
        text = f"{name}, trained on its N members."
        temporary.write_bytes(plots.png(lambda figure: plots.training_curve(table, figure, text), 4.6, 3.6, 300))


def _record(split: MembershipSplit, path: Path) -> None:
    """Write the split before training; a folder that holds another one is refused."""
    if path.exists():
        if store.read_json(path).get("digest") != split.digest:
            raise BadInput(f"{path.parent} holds a run on another split; choose another --out, or remove that folder")
        return
    split.save(path)


@app.command()
def figures(
    out: Annotated[Path | None, Option(help="Folder for the files; figures, or figures/paper.")] = None,
    only: Annotated[str | None, Option(help="Just these figures, by name, separated by commas.")] = None,
    preset: Annotated[str, Option(help="classroom: the zoo; paper: as in the papers, long on a GPU.")] = "classroom",
    images: Annotated[str | None, Option(help="Paper: what is trained on; as --images of audit, cifar100.")] = None,
    size: Annotated[int | None, Option(min=16, help="Paper: side of the images in pixels, 32.")] = None,
    members: Annotated[int | None, Option(min=2, help="Paper: images trained on, 25000.")] = None,
    nonmembers: Annotated[int | None, Option(min=2, help="Paper: other images of the same pool, 10000.")] = None,
    epochs: Annotated[int | None, Option(min=1, help="Paper: passes over the members, 1600.")] = None,
    dry: Annotated[bool, Option("--dry", help="Say what it costs, and draw nothing.")] = False,
) -> None:
    """Draw the figures, each as PNG and PDF with its CSV and provenance."""
    from partcrop_lab.figures import make_figures
    from partcrop_lab.studio import open_studio

    settings = {"source": images, "size": size, "members": members, "nonmembers": nonmembers, "epochs": epochs}
    studio = open_studio(preset, **{name: value for name, value in settings.items() if value is not None})
    typer.echo(studio.cost(), err=True)
    if dry:
        return
    out = out or Path("figures") / ("paper" if studio.preset == "paper" else "")
    for path in make_figures(out, only.split(",") if only else None, studio=studio):
        print(path)


@zoo_app.command("list")
def zoo_list() -> None:
    """The encoders of the zoo: what they were trained by, on how much, what they are good for and what they leak."""
    from partcrop_lab.encoders.zoo import card, zoo_dir, zoo_names

    head = ("encoder", "recipe", "N", "T", "linear probe", "attack", "AUC (95 % interval)", "verdict", "size")
    rows = [_zoo_row(name, card(name), zoo_dir() / f"{name}.safetensors") for name in zoo_names()]
    print(_table([head, *rows]) if rows else "the zoo is empty; train one with partcrop-lab zoo train NAME")


def _zoo_row(name: str, about: dict[str, Any], path: Path) -> tuple[str, ...]:
    probe, audit = (about.get("utility") or {}).get("linear_probe"), about.get("audit")
    planned = f" of {about['planned']}" if about.get("planned", about["T"]) != about["T"] else ""
    found = ("-", "-", "not audited")
    if audit:
        found = (
            audit["attack"]["attack"],
            "{value:.3f} ({low:.3f} to {high:.3f})".format(**audit["metrics"]["auc"]),
            audit["verdict"].split(":")[0],
        )
    trained = (f"zoo:{name}", about["recipe"], str(about["N"]), f"{about['T']}{planned}")
    return *trained, "-" if probe is None else f"{probe:.3f}", *found, _megabytes(path.stat().st_size)


@zoo_app.command("verify")
def zoo_verify(
    names: Annotated[list[str] | None, typer.Argument(help="Encoders of the zoo; all where omitted.")] = None,
    audits: Annotated[int, Option(min=0, help="How many of the cards' audits to run again: a minute each.")] = 3,
    quiet: Quiet = False,
) -> None:
    """Are the encoders of the zoo what their cards say? Exit status 2 where one is not.

    The weights, the split and the features of all are looked at, and the audits of the first few are run again.
    """
    from partcrop_lab.encoders.zoo import CHECKS, verify_zoo, zoo_dir, zoo_names

    names = [name.removeprefix("zoo:") for name in names or zoo_names()]
    if not names:
        raise BadInput(f"{zoo_dir()} holds no encoders to verify; train one with partcrop-lab zoo train NAME")
    columns, rows, troubles = [*CHECKS, "audit"] if audits else [*CHECKS], [], []
    for number, name in enumerate(names):
        found = verify_zoo(name)
        if number < audits and not any(found.values()):
            found["audit"] = _audit_again(name)
        words = {check: "ok" if trouble is None else "FAILED" for check, trouble in found.items()}
        rows.append((f"zoo:{name}", *(words.get(column, "-") for column in columns)))
        troubles += filter(None, found.values())
    print(_table([("encoder", *columns), *rows]))
    for trouble in troubles:
        _say(trouble, BAD)
    if troubles:
        raise typer.Exit(BAD)


def _audit_again(name: str) -> str | None:
    """What is wrong with the audit on a card, or None."""
    import partcrop_lab as pl
    from partcrop_lab.audit import repeat_audit

    encoder = pl.load_encoder(f"zoo:{name}")
    try:
        repeat_audit(encoder, encoder.card.get("audit"))
    except BadInput as error:
        return str(error)
    return None


@zoo_app.command("card")
def zoo_card(name: Annotated[str, typer.Argument(help="An encoder of the zoo.")]) -> None:
    """All that is known of one encoder, as JSON, but for the list of its images."""
    from partcrop_lab.encoders.zoo import card

    print(json.dumps({key: value for key, value in card(name).items() if key != "split"}, indent=1))


@zoo_app.command("train")
def zoo_train(
    names: Annotated[list[str], typer.Argument(help="Entries of the zoo, or all.")],
    out: Annotated[Path | None, Option(help="Folder to write to instead of the zoo's own.")] = None,
    quiet: Quiet = False,
) -> None:
    """Train encoders of the zoo again, by the recipe, images and seeds of their entries, and audit them."""
    from partcrop_lab.encoders.zoo import ZOO, train_zoo

    for name in ZOO if names == ["all"] else names:
        for path in train_zoo(name, out=out):
            print(f"{path}\n{_audit_card(path, ZOO[name].attack)}", flush=True)


def _audit_card(path: Path, attack: str) -> str:
    """Audit an encoder by the attack that was chosen for it, write that on its card and return the verdict."""
    import partcrop_lab as pl
    from partcrop_lab.encoders.zoo import update_card

    encoder = pl.load_encoder(path, name=f"zoo:{path.stem}")
    result = pl.audit(encoder, encoder.split, attack_of(attack))
    update_card(path, audit=result.summary())
    return result.verdict


@cache_app.command("size")
def cache_size() -> None:
    """How much each room of the cache holds."""
    sizes = store.cache_sizes()
    rows = [(room, _megabytes(held)) for room, held in sizes.items()]
    print(_table([*rows, ("in all", _megabytes(sum(sizes.values()))), ("folder", str(store.cache_dir()))]))


@cache_app.command("clear")
def cache_clear(room: Annotated[str | None, typer.Argument(help="One room; all where omitted.")] = None) -> None:
    """Delete one room of the cache, or all of it."""
    print(f"freed {_megabytes(store.clear_cache(room))}")


def _megabytes(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"


@app.command()
def doctor() -> None:
    """What is installed, where things run and are kept, and what is missing. Exit status 2 where that stops work."""
    from partcrop_lab.devices import default_device, resolve_precision
    from partcrop_lab.encoders.zoo import zoo_names

    device = default_device()
    precision = str(resolve_precision("auto", device)).removeprefix("torch.")
    problem = _cache_problem()
    held = f"{store.cache_dir()}, {_megabytes(sum(store.cache_sizes().values()))}"
    rows = [
        ("python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"),
        ("device", f"{device}, {precision}, {os.cpu_count()} cores"),
        ("cache", problem or f"{held}, can be written"),
        ("zoo", ", ".join(zoo_names()) or "MISSING: work in a clone of the repository, or set PARTCROP_LAB_ZOO"),
    ]
    needed, optional = _requirements()
    print(_table([*rows, *needed, *optional]))
    if problem or any("MISSING" in found for _, found in needed):
        raise typer.Exit(BAD)


def _cache_problem() -> str | None:
    try:
        _check_writable(store.cache_dir() / "doctor")
    except BadInput as error:
        return f"MISSING: {error}"
    return None


def _requirements() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """What the package needs, and what its extras need, each with the version found or how to get it."""
    from packaging.requirements import Requirement

    needed, optional = [], []
    for text in importlib.metadata.requires("partcrop-lab") or ():
        wanted = Requirement(text)
        extra = str(wanted.marker).rpartition("== ")[2].strip("\"'") if wanted.marker else ""
        try:
            found = importlib.metadata.version(wanted.name)
            good = wanted.specifier.contains(found, prereleases=True)
            state = found if good else f"MISSING: {found} is there, it needs {wanted.specifier}"
        except importlib.metadata.PackageNotFoundError:
            state = f"optional, not installed: pip install -e .[{extra}]" if extra else "MISSING: pip install -e ."
        (optional if extra else needed).append((wanted.name, state))
    return needed, optional


if __name__ == "__main__":
    sys.exit(main())
