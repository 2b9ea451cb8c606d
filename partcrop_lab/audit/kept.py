"""Audits kept in the cache: the same code, encoder, split and settings are not audited twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from partcrop_lab.attacks import Attack
from partcrop_lab.audit.result import AuditResult
from partcrop_lab.audit.run import audit
from partcrop_lab.encoders import Encoder
from partcrop_lab.images import MembershipSplit
from partcrop_lab.store import cached_json, digest


def kept_audit(
    encoder: Encoder, split: MembershipSplit, attack: Attack, progress: bool = True, **settings: Any
) -> AuditResult:
    """An audit, read from the cache where the same code has made it before; it holds no attackers to `predict` with.

    Args:
        settings: further arguments of `audit`, JSON-able.
    """
    asked = [one.cache_key for one in (encoder, *attack.references)]
    about = [encoder.card.get("settings"), encoder.split_digest]
    key = digest(code_digest(), asked, about, split.digest, attack.settings, settings)
    make = lambda: audit(encoder, split, attack, progress=progress, **settings).record()  # noqa: E731
    return AuditResult.from_record(cached_json("audits", key, make), f"the kept audit {key}")


def code_digest() -> str:
    """A digest of the code that decides an audit's numbers."""
    rooms = Path(__file__).parents[1]
    return digest(
        *(file.read_bytes() for room in ("parts", "attacks", "audit") for file in sorted((rooms / room).glob("*.py")))
    )
