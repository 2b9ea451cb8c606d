"""One sentence for an audit: evidence, no evidence, or confounded, and why (METHODS 3.6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from partcrop_lab.audit.stats import holm

EVIDENCE, NONE, CONFOUNDED = "Evidence of leakage", "No evidence of leakage", "Confounded"
ALPHA, CONTROL_ALPHA, FAULT_ALPHA = 0.05, 0.01, 0.001
CONTROLS = {"untrained": "an encoder never trained on anything", "pixels": "pixel statistics alone, with no encoder,"}


@dataclass(frozen=True)
class Case:
    """What a verdict is given on.

    Attributes:
        auc: value, low, high.
        p_value: of the target.
        controls: rows untrained, pixels, permuted; columns auc, low, high, p_value, paired_p.
        membership: "trained" (the encoder carries the split), "given" (membership is claimed by who gives the
            sets) or "null check" (drawn without regard to the encoder's training).
        sizes: members and non-members, for the sentence.
        detectable: the smallest AUC such an audit finds.
        protocol: "matched" or "released".
    """

    auc: tuple[float, float, float]
    p_value: float
    controls: pd.DataFrame
    membership: str
    sizes: str
    detectable: float
    protocol: str = "matched"


def case_of(metrics: pd.DataFrame, p_value: float, controls: pd.DataFrame, settings: dict[str, Any]) -> Case:
    """The case of an audit, from its tables and settings."""
    return Case(
        auc=tuple(metrics.loc["auc", ["value", "low", "high"]]),
        p_value=p_value,
        controls=controls,
        membership=settings["membership"],
        sizes=_sizes(settings),
        detectable=settings["detectable_auc"],
        protocol=settings["protocol"],
    )


def _sizes(settings: dict[str, Any]) -> str:
    encoder = settings["encoder"]
    trained = f" (N = {encoder['N']}, T = {encoder['T']} epochs)" if {"N", "T"} <= encoder.keys() else ""
    queries = f"{settings['queries']} queries an image"
    if settings["threat"] != "partial knowledge":
        queries += f", attacker with {settings['needs'][-1]}"
    images = f"{settings['members']} members and {settings['nonmembers']} non-members"
    return f"{images} of {encoder['name']}{trained}, {queries}"


def outcome(case: Case) -> str:
    """The verdict's first words."""
    if confounders(case):
        return CONFOUNDED
    beaten = case.membership != "given" or not unbeaten(case)
    return EVIDENCE if case.p_value < ALPHA and beaten else NONE


def confounders(case: Case) -> list[str]:
    """The controls that tell members from non-members, at 1 % in all (Holm)."""
    present = [name for name in CONTROLS if name in case.controls.index]
    adjusted = holm([case.controls.loc[name, "p_value"] for name in present])
    return [name for name, p_value in zip(present, adjusted, strict=True) if p_value < CONTROL_ALPHA]


def unbeaten(case: Case) -> list[str]:
    """The controls that the target does not beat in a paired test at 5 %."""
    present = [name for name in CONTROLS if name in case.controls.index]
    return [name for name in present if case.controls.loc[name, "paired_p"] >= ALPHA]


def sentence(case: Case) -> str:
    """The verdict in one sentence."""
    first, (auc, low, high) = outcome(case), case.auc
    found = f"AUC {auc:.3f} (95 % interval {low:.3f} to {high:.3f}, p = {case.p_value:.2g}) on {case.sizes}"
    text = {
        CONFOUNDED: lambda: f"{_confounded(case)}; {found} is no measure of membership",
        EVIDENCE: lambda: f"{found}{_null_check_alarm(case)}{_controls_quiet(case)}",
        NONE: lambda: f"{'null check, ' if case.membership == 'null check' else ''}{found}{_why_none(case)}",
    }[first]()
    flaw = (
        " [released protocol: members and non-members were augmented differently]"
        if case.protocol == "released"
        else ""
    )
    return f"{first}: {text}.{flaw}"


MEMBERSHIPS = {
    "trained": "Membership comes from training: the encoder carries this split.",
    "given": "Membership is claimed by whoever gave the two sets, so the attack must also beat the controls.",
    "null check": "Null check: the split was drawn without regard to the encoder's training, so nothing can be found.",
}


def reasons(case: Case) -> list[str]:
    """The steps that lead to the verdict, one sentence each."""
    steps = [MEMBERSHIPS[case.membership]]
    present = [name for name in CONTROLS if name in case.controls.index]
    adjusted = holm([case.controls.loc[name, "p_value"] for name in present])
    for name, p_value in zip(present, adjusted, strict=True):
        row, rejects = case.controls.loc[name], p_value < CONTROL_ALPHA
        found = f"AUC {row.auc:.3f}, p = {p_value:.2g} after Holm's correction"
        told = "tells the sides apart, so the audit is confounded" if rejects else "does not tell the sides apart"
        steps.append(f"{name} control: {found}; it {told} (level {CONTROL_ALPHA:g}).")
    if not present:
        steps.append("No controls were run.")
    below = "below" if case.p_value < ALPHA else "not below"
    steps.append(f"The attack: p = {case.p_value:.2g}, {below} {ALPHA:g}.")
    if case.membership == "given":
        for name in present:
            p_value = case.controls.loc[name, "paired_p"]
            beats = "beats" if p_value < ALPHA else "does not beat"
            steps.append(f"It {beats} the {name} control in a paired test (p = {p_value:.2g}).")
    steps.append(f"With so many images an AUC of {case.detectable:.3f} is found four times in five.")
    return steps


def _confounded(case: Case) -> str:
    rows = [(CONTROLS[name], case.controls.loc[name]) for name in confounders(case)]
    told = " and ".join(f"{what} (AUC {row.auc:.3f}, p = {row.p_value:.2g})" for what, row in rows)
    return f"{told} tell{'s' if len(rows) == 1 and 'statistics' not in told else ''} members from non-members"


def _controls_quiet(case: Case) -> str:
    return "; no control tells them apart" if len(case.controls) else "; no controls were run"


def _null_check_alarm(case: Case) -> str:
    if case.membership != "null check":
        return ""
    return " in a null check, where it is a false alarm: the split was drawn without regard to the encoder's training"


def _why_none(case: Case) -> str:
    if case.p_value < ALPHA:
        names = " and ".join(CONTROLS[name].rstrip(",") for name in unbeaten(case))
        return f", but not better than {names} in a paired test, as membership that is claimed must be"
    return f"; an AUC of {case.detectable:.3f} would have been found four times in five"
