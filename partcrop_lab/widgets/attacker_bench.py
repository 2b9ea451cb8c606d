"""Attacker bench: choose an attack and an attacker, train it with live loss, and see the audit with its controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from partcrop_lab import plots, report
from partcrop_lab.attacks import ATTACKERS, Attack, PartCrop
from partcrop_lab.attacks.attackers import UNSUPERVISED, MLPAttacker, make_attacker
from partcrop_lab.audit import audit
from partcrop_lab.audit.crossfit import assign_folds, cross_fit, share_of_others
from partcrop_lab.audit.result import AuditResult
from partcrop_lab.encoders import Encoder
from partcrop_lab.images import MembershipSplit
from partcrop_lab.widgets.panel import Drawing, Panel, by_name

ATTACKS = {
    "PartCrop, 32 parts": PartCrop(crops=32),
    "PartCrop, 128 parts": PartCrop(),
    "PartCrop, 32 parts, uniform energies": PartCrop(crops=32, kind="uniform"),
    "PartCrop, 32 parts, cosine": PartCrop(crops=32, measure_by="cosine"),
}
MOST = 6
"""Runs that are drawn over each other."""
EVERY = 10
"""Epochs between two drawings of the loss."""


def attacker_bench(
    encoders: Sequence[Encoder],
    split: MembershipSplit | None = None,
    attacks: Mapping[str, Attack] | None = None,
    permutations: int = 3,
) -> Panel:
    """A panel that trains attackers and audits them.

    Args:
        encoders: those one can choose from.
        split: members and non-members; each encoder's own where omitted.
        attacks: those one can choose from, by the name shown; a few settings of PartCrop where omitted.
        permutations: fits with permuted labels.

    Returns:
        A panel with the controls encoder, attack, attacker, folds, known (the share of the images whose membership the
        attacker knows), seed and overlay, and a button. Its attribute `results` holds the results so far, of which the
        last ones are drawn over each other where overlay is ticked.
    """
    named, attacks = by_name(encoders), dict(attacks or ATTACKS)
    panel: Panel | None = None
    results: list[AuditResult] = []

    def show(share: float, text: str, png: bytes | None = None) -> None:
        if panel is not None:
            panel.advance(share, text, png)

    def draw(encoder, attack, attacker, folds, known, seed, overlay) -> Drawing:
        chosen, asked = named[encoder], attacks[attack]
        over = split or chosen.split
        show(0.0, f"{asked.queries} queries for each of {len(over.images)} images ...")
        train_live(asked.features(chosen, over.images, seed), over.member, attacker, folds, seed, show, known)
        show(1.0, "controls: untrained encoder, pixels, permuted labels ...")
        share = None if attacker == UNSUPERVISED else known
        result = audit(chosen, over, asked, attacker, folds, seed, permutations=permutations, known=share)
        results.append(result)
        kept = dict(list(_named(results).items())[-MOST:]) if overlay else {}
        width = 9.2 + 4.6 * bool(kept)
        return Drawing(
            plots.png(lambda figure: _draw_result(result, kept, figure), width, 4.7, 85), report.html_summary(result)
        )

    controls = {
        "encoder": widgets.Dropdown(options=list(named), description="encoder"),
        "attack": widgets.Dropdown(options=list(attacks), description="attack"),
        "attacker": widgets.Dropdown(options=list(ATTACKERS), value="logistic", description="attacker"),
        "folds": widgets.IntSlider(value=2, min=2, max=5, description="folds"),
        "known": widgets.FloatSlider(
            value=0.5, min=0.05, max=0.8, step=0.05, description="known", continuous_update=False
        ),
        "seed": widgets.BoundedIntText(value=0, min=0, max=9999, description="seed"),
        "overlay": widgets.Checkbox(description="overlay the last runs", indent=False),
    }
    panel = Panel("Attacker bench", controls, draw, button="Train and audit")
    panel.results = results
    return panel


def train_live(
    X: np.ndarray,
    member: np.ndarray,
    attacker: str,
    folds: int,
    seed: int,
    show: Callable[..., None],
    known: float = 0.5,
) -> pd.DataFrame:
    """Fit the attacker of every fold, as the audit does, and show its loss on the way.

    Args:
        X: (n, F) membership features.
        member: (n,) bool.
        attacker: its name; one that is not trained in epochs shows nothing.
        folds, seed: of the audit.
        show: called with the share done, a text and a picture.
        known: share of all images that attackers are fitted on.

    Returns:
        Columns fold, epoch, loss.
    """
    made, losses = make_attacker(attacker), []
    if not isinstance(made, MLPAttacker):
        return pd.DataFrame(columns=["fold", "epoch", "loss"])

    def note(epoch: int, loss: float, current: MLPAttacker) -> None:
        fold = sum(row["epoch"] == made.epochs for row in losses)
        losses.append({"fold": fold, "epoch": epoch + 1, "loss": loss})
        if (epoch + 1) % EVERY == 0:
            table = pd.DataFrame(losses)
            png = plots.png(lambda figure: plots.loss_curve(table, figure.subplots()), 4.6, 2.8, 85)
            show(len(losses) / (folds * made.epochs), f"fold {fold}, epoch {epoch + 1}, loss {loss:.3f}", png)

    fraction = share_of_others(known, folds)
    cross_fit(X, member, assign_folds(member, folds, seed), attacker, 100 * seed, None, fraction, on_epoch=note)
    return pd.DataFrame(losses)


def _named(results: Sequence[AuditResult]) -> dict[str, AuditResult]:
    """Results by number, encoder, queries, attacker and seed."""
    about = [one.settings for one in results]
    return {
        f"{k}: {one['encoder']['name']}, {one['queries']} q., {one['attacker']}, seed {one['seed']}": result
        for k, (one, result) in enumerate(zip(about, results, strict=True), start=1)
    }


def _draw_result(result: AuditResult, kept: Mapping[str, AuditResult], figure: Figure) -> None:
    left, right, *more = figure.subplots(1, 2 + bool(kept))
    plots.roc(result, left)
    plots.score_histogram(result, right)
    for ax in more:
        plots.rocs(kept, ax)
