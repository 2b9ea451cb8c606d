"""An audit run again by its summary, to see whether its number holds."""

from __future__ import annotations

from typing import Any

from partcrop_lab.attacks.base import attack_from
from partcrop_lab.audit.run import audit
from partcrop_lab.encoders import Encoder
from partcrop_lab.errors import BadInput


def repeat_audit(encoder: Encoder, summary: dict[str, Any] | None, progress: bool = True) -> float:
    """The AUC of the audit that a card sums up, run again on the encoder's own split, without the controls.

    Args:
        encoder: the encoder of the card.
        summary: as `AuditResult.summary` gave it, with the interval that the AUC must lie in.
        progress: show progress bars.

    Raises:
        BadInput: there is no summary, or the AUC now lies outside its interval.
    """
    if not summary:
        raise BadInput(f"{encoder.name}: its card has no audit; run partcrop-lab audit --encoder {encoder.name}")
    attack = attack_from(summary["attack"])
    how = {name: summary[name] for name in ("attacker", "folds", "seed", "repeats")}
    result = audit(encoder, encoder.split, attack, **how, controls=False, progress=progress)
    auc, (low, high) = result.metrics.loc["auc", "value"], (summary["metrics"]["auc"][end] for end in ("low", "high"))
    if not low <= auc <= high:
        told = f"outside the card's {low:.3f} to {high:.3f}"
        raise BadInput(f"{encoder.name}: the audit of its card, run again, gives an AUC of {auc:.3f}, {told}")
    return float(auc)
