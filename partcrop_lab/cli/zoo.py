"""The small encoders that come with the package: `zoo list|verify|card|train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

import partcrop_lab as pl
from partcrop_lab.audit import repeat_audit
from partcrop_lab.cli.base import BAD, app, echo, say
from partcrop_lab.cli.options import Option, Quiet, attack_of
from partcrop_lab.cli.words import aligned, megabytes
from partcrop_lab.encoders.zoo import CHECKS, ZOO, card, train_zoo, update_card, verify_zoo, zoo_dir, zoo_names
from partcrop_lab.errors import BadInput

zoo_app = typer.Typer(help="The small encoders that come with the package.")
app.add_typer(zoo_app, name="zoo")


@zoo_app.command("list")
def zoo_list() -> None:
    """The encoders of the zoo: what they were trained by, on how much, what they are good for and what they leak."""
    head = ("encoder", "recipe", "N", "T", "linear probe", "attack", "AUC (95 % interval)", "verdict", "size")
    rows = [_zoo_row(name, card(name), zoo_dir() / f"{name}.safetensors") for name in zoo_names()]
    echo(aligned([head, *rows]) if rows else "the zoo is empty; train one with partcrop-lab zoo train NAME")


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
    return *trained, "-" if probe is None else f"{probe:.3f}", *found, megabytes(path.stat().st_size)


@zoo_app.command("verify")
def zoo_verify(
    names: Annotated[list[str] | None, typer.Argument(help="Encoders of the zoo; all where omitted.")] = None,
    audits: Annotated[int, Option(min=0, help="How many of the cards' audits to run again: a minute each.")] = 3,
    quiet: Quiet = False,
) -> None:
    """Are the encoders of the zoo what their cards say? Exit status 2 where one is not.

    The weights, the split and the features of all are looked at, and the audits of the first few are run again.
    """
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
    echo(aligned([("encoder", *columns), *rows]))
    for trouble in troubles:
        say(trouble, BAD)
    if troubles:
        raise typer.Exit(BAD)


def _audit_again(name: str) -> str | None:
    """What is wrong with the audit on a card, or None."""
    encoder = pl.load_encoder(f"zoo:{name}")
    try:
        repeat_audit(encoder, encoder.card.get("audit"))
    except BadInput as error:
        return str(error)
    return None


@zoo_app.command("card")
def zoo_card(name: Annotated[str, typer.Argument(help="An encoder of the zoo.")]) -> None:
    """All that is known of one encoder, as JSON, but for the list of its images."""
    echo(json.dumps({key: value for key, value in card(name).items() if key != "split"}, indent=1))


@zoo_app.command("train")
def zoo_train(
    names: Annotated[list[str], typer.Argument(help="Entries of the zoo, or all.")],
    out: Annotated[Path | None, Option(help="Folder to write to instead of the zoo's own.")] = None,
    quiet: Quiet = False,
) -> None:
    """Train encoders of the zoo again, by the recipe, images and seeds of their entries, and audit them."""
    for name in ZOO if names == ["all"] else names:
        for path in train_zoo(name, out=out):
            echo(f"{path}\n{_audit_card(path, ZOO[name].attack)}")


def _audit_card(path: Path, attack: str) -> str:
    """Audit an encoder by the attack that was chosen for it, write that on its card and return the verdict."""
    encoder = pl.load_encoder(path, name=f"zoo:{path.stem}")
    result = pl.audit(encoder, encoder.split, attack_of(attack))
    update_card(path, audit=result.summary())
    return result.verdict
