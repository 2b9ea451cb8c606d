"""What defences buy and cost, and forgetting afterwards: `defend`, `unlearn`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

import partcrop_lab as pl
from partcrop_lab import Encoder, ImageSet
from partcrop_lab.cli.base import app, echo
from partcrop_lab.cli.options import (
    MemberDir,
    NonmemberDir,
    Option,
    Quiet,
    Sides,
    SplitFile,
    attack_of,
    check_writable,
    defense_of,
    named,
)
from partcrop_lab.cli.words import aligned
from partcrop_lab.defenses.base import DEFENSES
from partcrop_lab.defenses.unlearning import RETRAINED, Unlearning, judge, some_members
from partcrop_lab.encoders.zoo_entries import PROBE
from partcrop_lab.files import read_text
from partcrop_lab.limits import LARGEST_SEED


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
    sides = Sides(split, member_dir, nonmember_dir)
    check_writable(*([out.with_suffix(suffix) for suffix in (".csv", ".png", ".json")] if out else []))
    every = sorted(name for name, kind in DEFENSES.items() if kind.stage == "serving")
    chosen, asked = [defense_of(text) for text in defense or every], attack_of(attack)
    target = pl.load_encoder(encoder)
    common = sides.load(target.image_size) if sides.given else target.split
    known = {"source": labelled} if labelled else PROBE
    images = pl.load_images(**known, size=target.image_size)
    table = pl.defenses.tradeoff(target, chosen, asked, images, common, seeds=seeds, out=runs)
    if out:
        pl.defenses.save_tradeoff(table, out)
    echo(_tradeoff_text(table))


def _tradeoff_text(table: pd.DataFrame) -> str:
    rows = [("defence", "attacker", "queries", "probe", "kNN", "AUC", "95 % interval", "TPR at 1 %", "outcome")]
    for one in table.itertuples():
        rate = "-" if one.tpr_at_1_fpr != one.tpr_at_1_fpr else f"{one.tpr_at_1_fpr:.3f}"
        use, auc = (f"{one.probe:.3f}", f"{one.knn:.3f}"), (f"{one.auc:.3f}", f"{one.low:.3f} to {one.high:.3f}")
        rows.append((one.level, one.attacker, str(one.queries), *use, *auc, rate, one.outcome))
    first = table.iloc[0]
    sizes = f"{first.attack} on {first.members} members + {first.nonmembers} non-members, seeds: {first.seeds}"
    told = [f"{one.level}: {one.guarantee}" for one in table.drop_duplicates("level").itertuples() if one.guarantee]
    return "\n".join([aligned(rows), "", f"{sizes}, matched protocol, attackers fitted on what is served", *told])


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
    seed: Annotated[int, Option(min=0, max=LARGEST_SEED, help="Of views and orders, and of the images drawn.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Make an encoder forget some of its training images (alignment calibration), and check it against retraining."""
    if out.suffix != ".safetensors":
        raise typer.BadParameter(f"--out is {str(out)!r}; it must end in .safetensors, to be loaded again")
    check_writable(out)
    target = pl.load_encoder(encoder)
    drawn = target.split.members.source["source"] == PROBE["source"]
    if unseen is None and not drawn:
        raise typer.BadParameter(f"encoder {target.name} was not trained on drawings; name images with --unseen")
    others = pl.load_images(**({"source": unseen} if unseen else PROBE), size=target.image_size)
    gone = _to_forget(target, forget, seed)
    fitted = Unlearning(**named(epochs=epochs, weight=weight), seed=seed).fit(target, gone, others)
    fitted.save(out)
    echo(f"{out}: {len(gone)} of {len(target.split.members)} images unlearned")
    if retrained:
        encoders = {"as it was": target, "unlearned": fitted, RETRAINED: pl.load_encoder(retrained)}
        table = judge(encoders, gone, target.split.nonmembers, attack_of(attack), others, seed)
        echo(_unlearning_text(table))


def _to_forget(encoder: Encoder, forget: str, seed: int) -> ImageSet:
    """The members that a file names, or so many drawn."""
    if forget.isdigit():
        return some_members(encoder, int(forget), seed)
    path = Path(forget)
    if not path.is_file():
        raise typer.BadParameter(
            f"--forget is {forget!r}; it must be a text file with a name on each line, or a number"
        )
    return encoder.split.members.subset([line.strip() for line in read_text(path).splitlines() if line.strip()])


def _unlearning_text(table: pd.DataFrame) -> str:
    rows = [
        ("encoder", "AUC of the forgotten", "95 % interval", "minus trained without", "95 % interval", "probe", "kNN")
    ]
    for one in table.itertuples():
        auc = f"{one.auc:.3f}", f"{one.low:.3f} to {one.high:.3f}"
        gain = f"{one.gain:+.3f}", f"{one.gain_low:+.3f} to {one.gain_high:+.3f}"
        rows.append((one.encoder, *auc, *gain, f"{one.probe:.3f}", f"{one.knn:.3f}"))
    return aligned(rows)
