"""The audit: an attack on an encoder over a split, under the matched protocol, with its controls (METHODS 3)."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator

from partcrop_lab.attacks import ATTACKS, Attack, PartCrop, PixelStatistics
from partcrop_lab.attacks.attackers import UNSUPERVISED, log_odds
from partcrop_lab.attacks.pixels import check_side
from partcrop_lab.audit import verdict as verdicts
from partcrop_lab.audit.crossfit import CrossFit, assign_folds, cross_fit, permuted_scores, share_of_others
from partcrop_lab.audit.metrics import fold_ranks, metrics_table, roc_points
from partcrop_lab.audit.released import accuracy_by_epoch, released_images
from partcrop_lab.audit.result import AuditResult
from partcrop_lab.audit.stats import combine, fold_auc, leak_p_value, paired_p_value, smallest_detectable_auc
from partcrop_lab.devices import seed_of
from partcrop_lab.encoders import Encoder
from partcrop_lab.errors import BadInput
from partcrop_lab.images import ImageSet, MembershipSplit
from partcrop_lab.limits import LARGEST_SEED, short

PROTOCOLS = ("matched", "released")
LEAST_KNOWN = 4
"""Members, and non-members, that an attacker must know."""
Fits = list[tuple[np.ndarray, CrossFit]]
"""Features and what was fitted on them, for each repeat."""
GRID = np.concatenate([[0], np.logspace(-4, 0, 200)])


def audit(
    encoder: Encoder,
    split: MembershipSplit,
    attack: Attack | None = None,
    attacker: str | BaseEstimator | None = None,
    folds: int = 2,
    seed: int = 0,
    *,
    repeats: int = 1,
    controls: bool = True,
    permutations: int = 5,
    protocol: str = "matched",
    declared: bool = False,
    shadow: Encoder | None = None,
    known: float | None = None,
    progress: bool = True,
) -> AuditResult:
    """Can this attack tell the encoder's training images from others of the same kind?

    Features are computed by a function that cannot see membership; every image is scored by an attacker that never
    saw it; the same is done with an untrained encoder of the same architecture, with pixel statistics alone and with
    permuted labels, and the verdict weighs all of them (METHODS 3).

    Three attackers can be asked about. By default one who knows the membership of the images of the other folds. With
    `shadow`, one who knows none, but has trained an encoder. With ``attacker="unsupervised"``, one who has only the
    images. The controls keep an attacker that knows the other folds, so that they find whatever tells the sides apart.

    Args:
        encoder: the encoder audited.
        split: members and non-members.
        attack: how images become features; `PartCrop()` where omitted.
        attacker: a name of `attacks.ATTACKERS` or a scikit-learn classifier, for target and controls; where omitted
            the attack's own ("mlp" for PartCrop), and for pixel statistics theirs.
        folds: parts the images are cut into; the attacker of each is fitted on the others.
        seed: of folds, crops, attackers, controls and resampling.
        repeats: crop and attacker seeds averaged over (never picked from).
        controls: run the controls; without them there is no verdict but a number.
        permutations: fits with permuted labels, drawn as the null band; with 999 or more (fast attackers) the
            p-value is theirs, (1 + #) / (B + 1).
        protocol: "matched", or "released" to show what the released code measures.
        declared: the encoder was trained elsewhere on this drawn split's members; their membership is then your
            claim, and the target must also beat the controls.
        shadow: an encoder with a split of its own, on whose images and membership the attackers are fitted instead.
        known: share of all images whose membership the attacker knows, at most (folds - 1) / folds, which it is where
            omitted; controls and permuted labels know as much.
        progress: show progress bars.

    Raises:
        ValueError: an unknown protocol or attacker, fewer than 2 folds or 1 repeat, a shadow under the released
            protocol, "unsupervised" for an attack that does not say which way its features point, or a share known that
            cannot be.
        BadInput: too few images, features that are not finite, or a shadow or reference encoder that was trained on
            images of this split.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol is {protocol!r}; it must be one of {', '.join(PROTOCOLS)}")
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}; it must be at least 1")
    if not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"seed is {short(seed)}; it must be from 0 to {LARGEST_SEED}")
    attack, blind = attack or PartCrop(), PixelStatistics()
    if controls:
        check_side(split.images.size)
    control = None if attacker == UNSUPERVISED else attacker
    attacker = attacker or attack.attacker
    _check_threat(split, attack, attacker, shadow, protocol)
    member = split.member
    fold = assign_folds(member, folds, seed)
    fraction = _fraction(known, folds, split, attacker == UNSUPERVISED or shadow is not None)
    images = released_images(split, seed) if protocol == "released" else split.images

    seeds = [seed + r for r in range(repeats)]

    def fit(one: Attack, using: Encoder, by: str | BaseEstimator, others: Any = None) -> Fits:
        made = [one.features(using, images, s, progress) for s in seeds]
        pairs = zip(made, seeds, others or [None] * repeats, strict=True)
        return [(X, cross_fit(X, member, fold, by, 100 * s, other, fraction)) for X, s, other in pairs]

    own = [(attack.features(shadow, shadow.split.images, s, progress), shadow.split.member) for s in seeds if shadow]
    fits = fit(attack, encoder, attacker, own)
    _refuse_blind(encoder, images, [X for X, _ in fits])
    table = pd.DataFrame({"name": images.names, "member": member, "score": _mean_scores(fits), "fold": fold})
    others = {}
    if controls:
        untrained = encoder.untrained(seed_of("untrained", seed) % 2**31)
        others = {
            "untrained": _mean_scores(fit(attack, untrained, control or attack.attacker)),
            "pixels": _mean_scores(fit(blind, encoder, control or blind.attacker)),
        }
    count = permutations if controls else 0
    first = own[0] if own else None
    permuted = permuted_scores(fits[0][0], member, fold, attacker, count, seed, progress, first, fraction)
    p_value = _p_value(table, permuted)
    control_table = _control_table(table, others, permuted)
    settings = _settings(encoder, split, attack, attacker, folds, seed, repeats, permutations, protocol, declared)
    settings |= threat(attack, attacker, folds, shadow, known)
    if protocol == "released":
        settings["accuracy_by_epoch"] = accuracy_by_epoch(fits[0][0], member, fold, attacker, 100 * seed).tolist()
    metrics = metrics_table(table.score.to_numpy(), member, fold, independent=split.independent, seed=seed)
    settings["detectable_auc"] = smallest_detectable_auc(settings["members"], settings["nonmembers"], folds)
    case = verdicts.case_of(metrics, p_value, control_table, settings)
    return AuditResult(
        metrics=metrics,
        scores=table.assign(**others, label=_labels(images)),
        controls=control_table,
        null_band=_null_band(permuted, fold),
        p_value=p_value,
        verdict=verdicts.sentence(case),
        outcome=verdicts.outcome(case),
        settings=settings,
        fault=_fault(control_table),
        score_images=_scorer(attack, encoder, fits, seed),
    )


def _refuse_blind(encoder: Encoder, images: ImageSet, features: list[np.ndarray]) -> None:
    """Refuse an encoder that gives every image the same answer: an AUC of 0.5 would be no finding.

    Where features differ by so little that it may be rounding, the encoder itself is asked once more.
    """
    near = all(np.ptp(X, axis=0).max() <= 1e-4 * np.abs(X).max() for X in features)
    if near and (all((X[:1] == X).all() for X in features) or _answers_alike(encoder, images)):
        raise BadInput(
            f"encoder {encoder.name}: its answers do not depend on the image, all are the same; it may have collapsed, "
            "or its weights may be zero"
        )


def _answers_alike(encoder: Encoder, images: ImageSet, count: int = 8) -> bool:
    fmap, cls = encoder.tokens(images.batch(slice(0, count)))
    return all(bool((values == values[:1]).all()) for values in (fmap, cls) if values is not None)


def _check_threat(
    split: MembershipSplit, attack: Attack, attacker: str | BaseEstimator, shadow: Encoder | None, protocol: str
) -> None:
    if attacker == UNSUPERVISED and not attack.rising:
        names = ", ".join(name for name, kind in sorted(ATTACKS.items()) if kind().rising)
        raise ValueError(
            f"attacker is {UNSUPERVISED!r}, but the features of {attack.name} do not all rise with membership; "
            f"the attack must be one of {names}"
        )
    if shadow is not None and protocol != "matched":
        raise ValueError(f"protocol is {protocol!r}; with a shadow encoder it must be matched")
    if shadow is not None:
        _check_disjoint(split, shadow, "shadow", shadow.split.images)
        if shadow.split.images.size != split.images.size:
            sides = f"{shadow.split.images.size} px a side, those audited {split.images.size}"
            raise BadInput(f"the images of the shadow encoder {shadow.name} have {sides}; they must be alike")
    for reference in attack.references:
        if "split" in reference.card:
            _check_disjoint(split, reference, "reference", reference.split.members)


def _fraction(known: float | None, folds: int, split: MembershipSplit, none: bool) -> float:
    """The share of the other folds that is known, where `known` is that of all images; `none`: the attacker's way."""
    if known is None:
        return 1.0
    if none:
        raise ValueError(f"known is {known:g}, but this attacker, {UNSUPERVISED} or with a shadow encoder, knows none")
    most = (folds - 1) / folds
    fewest = min(int(split.member.sum()), int((~split.member).sum()))
    if not 0 < known <= most:
        raise ValueError(f"known is {known:g}; with {folds} folds it must be above 0 and at most {most:g}")
    if round(known * fewest) < LEAST_KNOWN:
        raise ValueError(
            f"known is {known:g}, which is {round(known * fewest)} of the {fewest} images on the smaller side; "
            f"an attacker needs at least {LEAST_KNOWN}"
        )
    return share_of_others(known, folds)


def _check_disjoint(split: MembershipSplit, other: Encoder, role: str, images: ImageSet) -> None:
    shared = len(set(split.images.hashes) & set(images.hashes))
    if shared:
        raise BadInput(
            f"{shared} of the {len(split.images)} images audited are also among those of the {role} encoder "
            f"{other.name}; it must come from other images, so audit on a split without them"
        )


def threat(
    attack: Attack,
    attacker: str | BaseEstimator,
    folds: int = 2,
    shadow: Encoder | None = None,
    known: float | None = None,
) -> dict[str, Any]:
    """Who is assumed to attack, and what they must have: "threat", "needs" and, of a shadow encoder, its digest."""
    if shadow is not None:
        sides = f"{len(shadow.split.members)} members and {len(shadow.split.nonmembers)} non-members"
        about, knows = "shadow encoder", f"a shadow encoder, {shadow.name}, with {sides} of its own"
    elif attacker == UNSUPERVISED:
        about, knows = "unsupervised", "no known membership"
    else:
        share = f"{folds - 1} in {folds}" if known is None else f"{100 * known:g} %"
        about, knows = "partial knowledge", f"the membership of {share} of the images"
    digest = {} if shadow is None else {"shadow": {"name": shadow.name, "digest": shadow.digest}}
    part = {} if known is None else {"known": known}
    return {"threat": about, "needs": [*attack.needs, knows], **digest, **part}


def _labels(images: ImageSet) -> list[str]:
    """The class of each image in words, "" where it is not known."""
    named = dict(enumerate(images.classes))
    return ["" if label < 0 else str(named.get(label, label)) for label in images.labels.tolist()]


def _mean_scores(fits: Fits) -> np.ndarray:
    return np.mean([fitted.scores for _, fitted in fits], axis=0)


def _p_value(table: pd.DataFrame, permuted: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """The combined Mann-Whitney test; with 999 permuted refits or more, theirs."""
    score, member, fold = (table[name].to_numpy() for name in ("score", "member", "fold"))
    if len(permuted) < 999:
        return leak_p_value(score, member, fold)
    found = fold_auc(score, member, fold)[0]
    return (1 + sum(fold_auc(s, labels, fold)[0] >= found for s, labels in permuted)) / (len(permuted) + 1)


def _control_table(
    table: pd.DataFrame, others: dict[str, np.ndarray], permuted: list[tuple[np.ndarray, np.ndarray]]
) -> pd.DataFrame:
    score, member, fold = (table[name].to_numpy() for name in ("score", "member", "fold"))
    rows = {
        name: (*fold_auc(s, member, fold), leak_p_value(s, member, fold), paired_p_value(score, s, member, fold))
        for name, s in others.items()
    }
    if permuted:
        aucs = [fold_auc(s, labels, fold)[0] for s, labels in permuted]
        p_value = combine([leak_p_value(s, labels, fold) for s, labels in permuted])
        rows["permuted"] = (float(np.mean(aucs)), min(aucs), max(aucs), p_value, np.nan)
    columns = ["auc", "low", "high", "p_value", "paired_p"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def _null_band(permuted: list[tuple[np.ndarray, np.ndarray]], fold: np.ndarray) -> pd.DataFrame:
    """Lowest and highest ROC of the permuted fits, on a logarithmic grid of false positive rates."""
    if not permuted:
        return pd.DataFrame(columns=["fpr", "low", "high"], dtype=float)
    curves = np.array([np.interp(GRID, *roc_points(fold_ranks(s, fold), labels)) for s, labels in permuted])
    return pd.DataFrame({"fpr": GRID, "low": curves.min(0), "high": curves.max(0)})


def _fault(controls: pd.DataFrame) -> str | None:
    if "permuted" not in controls.index or controls.loc["permuted", "p_value"] >= verdicts.FAULT_ALPHA:
        return None
    return (
        f"permuted labels were told apart (p = {controls.loc['permuted', 'p_value']:.2g}): "
        "a fault of this package, not of the split; please report it with the settings of this result"
    )


def _membership(encoder: Encoder, split: MembershipSplit, declared: bool) -> str:
    if encoder.split_digest == split.digest:
        return "trained"
    return "given" if declared or split.origin == "given" else "null check"


def _settings(
    encoder: Encoder,
    split: MembershipSplit,
    attack: Attack,
    attacker: str | BaseEstimator,
    folds: int,
    seed: int,
    repeats: int,
    permutations: int,
    protocol: str,
    declared: bool,
) -> dict[str, Any]:
    trained = {key: encoder.card[key] for key in ("recipe", "N", "T") if key in encoder.card}
    settings = {
        "encoder": {"name": encoder.name, "digest": encoder.digest, **trained, "run": encoder.run},
        "split": {"digest": split.digest, "origin": split.origin, "seed": split.seed, "dropped": split.dropped},
        "membership": _membership(encoder, split, declared),
        "members": int(split.member.sum()),
        "nonmembers": int((~split.member).sum()),
        "size": split.images.size,
        "attack": attack.settings,
        "label": attack.label,
        "queries": attack.queries,
        "attacker": attacker if isinstance(attacker, str) else repr(attacker),
        "folds": folds,
        "seed": seed,
        "repeats": repeats,
        "permutations": permutations,
        "protocol": protocol,
        "versions": {name: version(name) for name in ("partcrop-lab", "torch", "timm", "scikit-learn", "numpy")},
        "python": platform.python_version(),
    }
    return json.loads(json.dumps(settings))  # as it will be read again: tuples become lists


def _scorer(attack: Attack, encoder: Encoder, fits: Fits, seed: int) -> Any:
    def score(images: ImageSet) -> np.ndarray:
        columns = []
        for r, (_, fitted) in enumerate(fits):
            X = attack.features(encoder, images, seed + r)
            columns += [log_odds(one, X) for one in fitted.attackers]
        return np.mean(columns, axis=0)

    return score
