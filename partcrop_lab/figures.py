"""The figures, made headless from what a studio offers: `partcrop-lab figures`, `make figures`.

Every figure is a function from a `Studio` to a `Drawn`; `make_figures` writes each as PNG (300 dpi) and PDF, with the
CSV that drew it and a JSON file that says how it came about and what it shows, for those who cannot see it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from joblib.externals.loky import get_reusable_executor
from matplotlib.figure import Figure

from partcrop_lab import defenses, dejavu, plots, tables
from partcrop_lab.attacks import PartCrop
from partcrop_lab.audit import AuditResult, released_images
from partcrop_lab.audit.kept import code_digest
from partcrop_lab.encoders import Encoder, load_encoder
from partcrop_lab.encoders.zoo import card, measured, zoo_names
from partcrop_lab.encoders.zoo_entries import PROBE
from partcrop_lab.errors import Failure, FiguresFailed
from partcrop_lab.images import load_images, member_split
from partcrop_lab.progress import bar, no_bars
from partcrop_lab.store import atomic, digest, write_csv, write_json
from partcrop_lab.studio import Studio

SCALES = ((0.01, 0.03), (0.08, 0.1), (0.08, 0.2), (0.08, 0.3), (0.5, 1.0))
KNOWN = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
ATTACKERS = ("mlp", "mlp-wide", "mlp-narrow", "mlp-deep", "mlp-shallow", "mlp-v2", "logistic")
DEFENDED = ("zoo:mae", "zoo:simclr", "zoo:supervised", "zoo:vicreg")
"""The encoders that leak most."""
TRAP_IMAGES = 1000
NULL_FITS = 5
PAINTED = 4
BESIDE_THE_GAP = (
    "Grey: images of a third set, where 0 is right. The gap is the linear probe's accuracy on the encoder's own "
    "training images minus that on the third set. Bars: 95 % intervals, over images and pairs, of the gap over pairs."
)
PACKAGES = ("partcrop-lab", "torch", "timm", "scikit-learn", "numpy", "pandas", "matplotlib")


@dataclass
class Drawn:
    """A figure, the table that drew it, and what is said about it.

    Attributes:
        figure: to be saved.
        table: tidy, all numbers in the figure.
        alt: what the figure shows, in words.
        about: seeds, sizes and digests behind it.
    """

    figure: Figure
    table: pd.DataFrame
    alt: str
    about: dict[str, Any] = field(default_factory=dict)


def _canvas(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _panels(count: int, columns: int, width: float, margin: float, height: float, **how: Any) -> tuple[Figure, Any]:
    """A figure, and so many panels of it in rows of at most so many, sizes in inches; places left over stay empty."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = _canvas(width * columns + margin, height * rows + 0.6)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False, **how).ravel()
    for ax in axes[count:]:
        ax.axis("off")
    for ax in axes[max(0, count - columns) : count]:  # the lowest of each column
        ax.tick_params(labelbottom=True)
    return figure, axes[:count]


def _provenance(results: Sequence[AuditResult]) -> dict[str, Any]:
    return {
        "audits": [{**one.settings, "verdict": one.verdict} for one in results],
        "n": sorted({f"{one.settings['members']} + {one.settings['nonmembers']}" for one in results}),
        "seeds": sorted({one.settings["seed"] for one in results}),
        "protocols": sorted({one.settings["protocol"] for one in results}),
    }


def _encoder_digests(encoders: Sequence[Encoder]) -> list[dict[str, Any]]:
    return [{"name": one.name, "digest": one.digest, "split_digest": one.split_digest} for one in encoders]


def partshapes(studio: Studio, per_class: int = 8) -> Drawn:
    """A contact sheet of the embedded data set, the first column with its part boxes."""
    images = load_images("partshapes", n=per_class * 40, size=studio.size)
    rows = [np.flatnonzero(images.labels == label)[:per_class] for label in range(len(images.classes))]
    figure = _canvas(0.95 * per_class, 0.95 * len(rows) + 0.3)
    axes = figure.subplots(len(rows), per_class)
    for line, chosen, name in zip(axes, rows, images.classes, strict=True):
        for ax, i in zip(line, chosen, strict=True):
            boxes = images.part_boxes[i].values() if i == chosen[0] else []
            plots.image_with_boxes(images[i], boxes, ax, linewidth=0.8)
        line[0].set_ylabel(name)
    text = f"partshapes, {studio.size} px, seed 0; the first {per_class} images of each class, the first with its "
    text += "parts' boxes."
    plots.caption(figure, text)
    shown = np.concatenate(rows)
    parts = [" ".join(f"{part}:{','.join(map(str, box))}" for part, box in images.part_boxes[i].items()) for i in shown]
    table = pd.DataFrame({"name": [images.names[i] for i in shown], "class": images.labels[shown], "parts": parts})
    table["class"] = [images.classes[label] for label in table["class"]]
    alt = f"A grid of small drawings, {per_class} of each of ten classes: {', '.join(images.classes)}; on the first of "
    alt += "each row boxes mark its named parts. Backgrounds are textures such as grass, water, brick and sand."
    return Drawn(figure, table, alt, {"n": len(shown), "seeds": [0], "images": images.subset(shown).digest})


def part_responses(studio: Studio) -> Drawn:
    """How a chair's seat and a dog's muzzle respond in three encoders (the paper's Fig. 2)."""
    (shown, source), encoders = studio.illustrations(), list(studio.encoders.values())
    figure, made = _canvas(9.6, 8.6), []
    for half, one in zip(figure.subfigures(len(shown), 1), shown, strict=True):
        table = tables.response_table(encoders, one.pixels, one.box)
        plots.part_responses(one.pixels, table, one.title, half)
        made.append(table.assign(image=one.name, part=one.title.replace(":", "")))
    table = pd.concat(made, ignore_index=True)
    text = f"{source} One image each, no average: an illustration, not a measurement. "
    text += "Orange: positions at least a quarter covered by the part's box."
    plots.caption(figure, text)
    energies = table.groupby(["part", "encoder"], sort=False)["uniform_energy"].first()
    found = "; ".join(f"{part}, {encoder}: {value:.2f} nats" for (part, encoder), value in energies.items())
    titles = _listed(pd.Series([one.title for one in shown]))
    alt = f"For each of {titles} an image with a box on the part and, for each "
    alt += "of the encoders, a heat map and a curve of the part's similarity to the positions of the image. "
    alt += f"Uniform energies: {found}."
    pictures = digest(*(one.pixels.numpy() for one in shown))
    about = {"n": len(shown), "seeds": [1], "encoders": _encoder_digests(encoders), "images": pictures}
    return Drawn(figure, table, alt, about)


def main_table(studio: Studio) -> Drawn:
    """Attacks side by side on the same images of each encoder, at equal queries where it says so (the main table)."""
    table = studio.comparison()
    encoders = list(dict.fromkeys(table["encoder"]))
    figure, axes = _panels(len(encoders), 5, 2.0, 2.2, 3.0, sharex=True)
    plots.attacks(table, axes)
    queries, members, nonmembers, seeds = (_listed(table[n]) for n in ("queries", "members", "nonmembers", "seeds"))
    text = f"{studio.pool}, {studio.size} px; {members} members + {nonmembers} non-members; {queries} queries an "
    text += f"image; seeds of crops, folds and attackers: {seeds}; 2 folds; matched protocol. Bars: 95 % intervals. "
    text += "Hollow: no evidence of leakage after Holm's correction on that encoder, or a control that rejects."
    plots.caption(figure, text)
    told = "; ".join(f"{one.encoder}, {one.attack}: {_auc(one)}" for one in table.itertuples())
    counts = _whole(table["members"])
    about = {"n": counts, "seeds": list(range(table["seeds"].max())), "protocols": ["matched"]}
    return Drawn(figure, table, f"AUCs of several attacks, a panel for each encoder, with error bars. {told}.", about)


def recipes(studio: Studio) -> Drawn:
    """What the zoo's cards say of every recipe, by the attack that was chosen for it before (generalisation)."""
    table = tables.card_table({name: card(name) for name in zoo_names()})
    figure = _canvas(9.6, 4.6)
    ax = plots.aucs(table, "encoder", figure.subplots(), "encoder of the zoo", join=False)
    ax.tick_params(axis="x", labelrotation=60)
    attacks, members, nonmembers = (_listed(table[name]) for name in ("attack", "members", "nonmembers"))
    text = f"partshapes, {studio.size} px; {members} members + {nonmembers} non-members; one training each; attack "
    text += f"as on the card, {attacks}, seed 0, 2 folds; matched protocol. Bars: 95 % intervals. Each audit stands "
    text += "alone at 5 %."
    plots.caption(figure, text)
    own = table[table["curve"] == "target"]
    told = "; ".join(f"{one.encoder} {_auc(one)}" for one in own.itertuples())
    about = {"n": _whole(table["members"]), "seeds": [0], "protocols": ["matched"]}
    return Drawn(figure, table, f"AUC of each encoder of the zoo, with its controls near one half. {told}.", about)


def membership_features(studio: Studio) -> Drawn:
    """Mean sorted energies of members and of non-members of each zoo encoder."""
    attack, made = PartCrop(), []
    figure = _canvas(7.0, 2.6 * len(studio.encoders) + 0.4)
    rows = figure.subfigures(len(studio.encoders), 1)
    for row, (name, encoder) in zip(rows, studio.encoders.items(), strict=True):
        split = encoder.split
        X = attack.features(encoder, split.images, 0, studio.progress)
        table = tables.energy_table(X, split.member, attack.kind)
        plots.feature_curves(table, row.subplots(1, 2))
        row.suptitle(_trained(encoder), fontsize=9)
        made.append(table.assign(encoder=name))
    text = f"Matched protocol, {attack.crops} parts an image, crop seed 0. Lines: means over images. Bands: 95 % "
    plots.caption(figure, text + "intervals of the means. Members and non-members of each encoder's own split.")
    table = pd.concat(made, ignore_index=True)
    gaps = table[table["kind"] == "uniform"].groupby(["encoder", "side"], sort=False)["mean"].mean().unstack()
    found = "; ".join(
        f"{n}: members {r['members']:.2f}, non-members {r['non-members']:.2f}" for n, r in gaps.iterrows()
    )
    alt = "For each encoder two plots of energies sorted from high to low, a line with a band for members and one for "
    alt += f"non-members. Mean uniform energy in nats: {found}."
    about = {"seeds": [0], "protocols": ["matched"], "encoders": _encoder_digests(list(studio.encoders.values()))}
    return Drawn(figure, table, alt, {"n": _whole(table["n"]), **about})


def _trained(encoder: Encoder) -> str:
    card = encoder.card
    return f"{encoder.name} (N = {card['N']}, T = {card['T']} epochs)" if {"N", "T"} <= card.keys() else encoder.name


def roc_zoo(studio: Studio) -> Drawn:
    """The ROC of PartCrop on each zoo encoder, with its controls."""
    figure, made, results = _canvas(3.5 * len(studio.encoders), 4.7), [], []
    axes = figure.subplots(1, len(studio.encoders), squeeze=False)[0]
    for ax, (name, encoder) in zip(axes, studio.encoders.items(), strict=True):
        result = studio.audit(encoder, encoder.split, PartCrop(), permutations=NULL_FITS)
        plots.roc(result, ax).set_title(f"{_trained(encoder)}\n{result.outcome}")
        made.append(tables.roc_table(result).assign(encoder=name))
        results.append(result)
    plots.caption(
        figure,
        f"{_common(studio, *results)} Band: 95 % by bootstrap. Grey: range of {NULL_FITS} fits with permuted labels.",
    )
    found = " ".join(f"{name}: {one.verdict}" for name, one in zip(studio.encoders, results, strict=True))
    alt = (
        f"One ROC on logarithmic axes for each of {len(results)} encoders, with controls near the chance line. {found}"
    )
    return Drawn(figure, pd.concat(made, ignore_index=True), alt, _provenance(results))


def _common(studio: Studio, *results: AuditResult) -> str:
    """The caption of audits of several encoders or settings, whose members and attackers may differ."""
    s = results[0].settings
    members = s["members"] if len({one.settings["members"] for one in results}) == 1 else "N"
    attacker = s["attacker"] if len({one.settings["attacker"] for one in results}) == 1 else "as shown"
    return (
        f"{studio.pool}, {s['size']} px, {members} members + {s['nonmembers']} non-members; "
        f"attacker {attacker}, {s['folds']} folds, seed {s['seed']}; {s['protocol']} protocol."
    )


def _sweep(studio: Studio, by: str, xlabel: str, settings: dict[str, dict[str, Any]], join: bool = True) -> Drawn:
    """The AUC on the leaking encoder over settings, each the keywords of `Studio.audit`, the attack among them."""
    encoder, split = studio.leaking, studio.leaking.split
    results = {
        setting: studio.audit(encoder, split, permutations=0, **how)
        for setting, how in bar(settings.items(), by, shown=studio.progress)
    }
    table = tables.auc_table(results, by)
    figure = _canvas(6.6, 3.6)
    text = f"{_trained(encoder)}. {_common(studio, *results.values())} Bars: 95 % intervals."
    plots.aucs(table, by, figure.subplots(), xlabel, join=join)
    plots.caption(figure, text)
    target = table[table["curve"] == "target"]
    found = ", ".join(f"{x}: {auc:.3f}" for x, auc in zip(target[by], target["auc"], strict=True))
    alt = f"AUC of PartCrop on {encoder.name} against {xlabel}, with error bars, over two controls near 0.5. {found}."
    return Drawn(figure, table, alt, _provenance(list(results.values())))


def crop_number(studio: Studio) -> Drawn:
    """The AUC against the number of crops (the paper's Fig. 4)."""
    return _sweep(
        studio, "crops", "part crops per image", {str(n): {"attack": PartCrop(crops=n)} for n in studio.crops}
    )


def crop_scale(studio: Studio) -> Drawn:
    """The AUC against the scale of the crops (the paper's Fig. 5)."""
    attacks = {f"{low:g} to {high:g}": PartCrop(crops=64, scale=(low, high)) for low, high in SCALES}
    settings = {scale: {"attack": attack} for scale, attack in attacks.items()}
    return _sweep(studio, "scale", "area of a part as a share of the image (64 parts an image)", settings)


def attacker_structure(studio: Studio) -> Drawn:
    """The AUC against the structure of the attacker (the paper's ablation, and its second version's attacker)."""
    names = [name for name in ATTACKERS if studio.protocol == "matched" or name.startswith("mlp")]  # trained in epochs
    settings = {name: {"attack": PartCrop(crops=64), "attacker": name} for name in names}
    return _sweep(studio, "attacker", "attacker (64 parts an image)", settings, join=False)


def known_fraction(studio: Studio) -> Drawn:
    """The AUC against the share of the images whose membership the attacker knows (the paper's ablation)."""
    settings = {f"{share:.0%}": {"attack": PartCrop(crops=64), "known": share} for share in KNOWN}
    return _sweep(studio, "known", "share of the images whose membership is known (64 parts an image)", settings)


def evaluation_trap(studio: Studio) -> Drawn:
    """The released protocol beside the matched one, on an encoder that was never trained (METHODS 3)."""
    encoder = studio.leaking.untrained(0)
    images = load_images(studio.source, n=2 * TRAP_IMAGES + 100, size=studio.size, seed=2)
    split = member_split(images, members=TRAP_IMAGES)
    attack = PartCrop(crops=16)
    protocols = ("matched", "released")
    results = [studio.audit(encoder, split, attack, permutations=3, protocol=name) for name in protocols]
    table = tables.auc_table(dict(zip(protocols, results, strict=True)), "shown as")
    figure = _canvas(9.6, 5.2)
    left, right = figure.subfigures(1, 2, width_ratios=[1.5, 1])
    plots.aucs(table, "shown as", left.subplots(), "protocol", join=False)
    rows = right.subfigures(2, 1, height_ratios=[1, 1.35])
    rows[0].suptitle("the same members, matched and released", fontsize=9)
    pair = [split.members.batch(slice(0, 5)), released_images(split).batch(slice(0, 5))]
    plots.image_grid(np.concatenate(pair), columns=5, figure=rows[0])
    plots.accuracy_by_epoch(results[1], rows[1].subplots())
    constant = " No bar: the attacker gave all images one score." if (table["low"] == table["high"]).any() else ""
    plots.caption(
        figure,
        f"{_common(studio, results[0]).replace('; matched protocol', '')} Encoder: a ViT that was never trained; "
        f"{attack.crops} parts an image; left, bars: 95 % intervals (permuted labels: range of 3 fits). Nothing can "
        f"leak here: what the released protocol tells apart is augmentation, and the controls say so.{constant}",
    )
    curve = pd.DataFrame({"accuracy": results[1].settings["accuracy_by_epoch"]}).rename_axis("epoch").reset_index()
    curve = curve.assign(**{"shown as": "released", "curve": "accuracy by epoch"})
    table = pd.concat([table, curve], ignore_index=True)
    found = " ".join(f"{one.settings['protocol']}: {one.verdict}" for one in results)
    alt = f"AUCs of an attack on an untrained encoder and of its controls, under two protocols. {found}"
    return Drawn(figure, table, alt, _provenance(results))


def growth(studio: Studio) -> Drawn:
    """The leak along the epochs and over the number of training images, from the table of benchmarks/growth.py."""
    table = measured("growth", "python benchmarks/growth.py")
    recipes = list(dict.fromkeys(table["recipe"]))
    figure, axes = _panels(len(recipes), 2, 4.2, 0.0, 3.4)
    plots.growth(table, axes)
    rejecting = (table[["p_untrained", "p_pixels"]] < 0.01).any(axis=1)
    chosen = table.groupby("recipe")["attack"].first()
    attacks = ", ".join(f"{attack} on {recipe}" for recipe, attack in chosen.items())
    text = f"partshapes, {studio.size} px; N members + {table['nonmembers'].iloc[0]} non-members; one training run for "
    text += f"each line, audited along the way, mid-schedule but for the last; attack: {attacks}; 2 folds, seed 0; "
    text += "matched protocol. Bars: 95 % intervals over images. "
    text += f"A control rejected at 1 % in {rejecting.sum()} of {len(table)} audits."
    plots.caption(figure, text)
    found = "; ".join(f"{one.recipe}, N = {one.N}, T = {one.T}: {_auc(one)}" for one in table.itertuples())
    alt = f"AUC of an attack against the steps of training, a line for each N and number of epochs planned. {found}."
    about = {"n": _whole(table["N"]), "seeds": [0], "protocols": ["matched"]}
    return Drawn(figure, table, alt, about)


def dial(studio: Studio) -> Drawn:
    """Deja vu while the backgrounds say more and more of the class, from the table of benchmarks/dejavu.py."""
    found = dejavu.measured()
    table = tables.dial_table(found)
    pairs = table[["recipe", "layer"]].drop_duplicates()
    figure = _canvas(1.6 + 3.1 * len(pairs), 5.8)
    plots.dial(table, figure.subplots(2, len(pairs), sharex=True, sharey="row", squeeze=False))
    own, third = (table.loc[table["curve"] == name, "n"] for name in ("deja vu", "third set"))
    backgrounds, others, members, public = map(_listed, (own, third, found["N"], found["public"]))
    text = f"partshapes, {studio.size} px; for each point two encoders trained on disjoint sets of {members} images "
    text += f"each, one training each; {backgrounds} backgrounds of their images, {others} of the third set's; of "
    text += (
        f"{public} public images the nearest 100 vote. Memorised: the encoder trained on the image names its class, "
    )
    text += "the other does not; misrepresented: the reverse; correlated: both do. Bars: 95 % intervals over images."
    plots.caption(figure, text)
    told = "; ".join(
        f"{one.recipe} at {one.correlation:g}: {one.curve} {_interval(one.value, one)}"
        for one in table[table["curve"].isin(["memorised", "correlated", "deja vu"])].itertuples()
    )
    alt = "Above, the share of images whose class is recalled from the background by both encoders, or by one alone; "
    alt += "below, the deja vu score with its controls; both against the correlation of backgrounds with classes. "
    about = {"n": _whole(found["N"]), "seeds": [0]}
    return Drawn(figure, table, f"{alt}{told}.", about)


def _grown(chosen: str = "recipe == 'simclr'", who: str = "SimCLR; ") -> tuple[pd.DataFrame, str, dict[str, Any]]:
    """Of pairs of encoders the table over trainings, what a caption says of them all, and sizes and seeds."""
    found = dejavu.measured("growth").query(chosen)
    table = tables.dejavu_growth_table(found)
    text = f"{who}partshapes; pairs of encoders trained on disjoint sets of N images each, means over "
    text += f"{_listed(table['trainings'])} pairs, each on sets of its own; of {_listed(found['public'])} public "
    text += "images the nearest 100 vote. "
    seeds = _whole(found["training_seed"])
    return table, text, {"n": _whole(found["N"]), "seeds": seeds}


def dejavu_growth(studio: Studio) -> Drawn:
    """Deja vu along the epochs, over layers and numbers of images, from the table of benchmarks/dejavu_growth.py."""
    table, text, about = _grown()
    figure = _canvas(9.8, 4.2)
    plots.dejavu_growth(table, figure.subplots(1, 3))
    text += f"Left and middle: along one training, mid-schedule but for the last epoch. {BESIDE_THE_GAP}"
    plots.caption(figure, text)
    shown = table[(table["layer"] == "projector") & (table["curve"] != "third set")]
    told = "; ".join(f"N = {one.N}, T = {one.T}: {one.curve} {_interval(one.value, one)}" for one in shown.itertuples())
    alt = "The deja vu score against epochs, the gap of a linear probe against epochs, and the score over layers, a "
    return Drawn(figure, table, f"{alt}line for each number of images. At the projector: {told}.", about)


def dejavu_sweeps(studio: Studio) -> Drawn:
    """Deja vu of one recipe or setting after another, beside the gap of a linear probe, from the same table."""
    table, text, about = _grown("N == 50", who="")
    table = tables.dejavu_sweeps(table)
    table = table.assign(recipe=[f"{one.recipe.split(' epochs=')[0]}, T = {one.T:,}" for one in table.itertuples()])
    figure = _canvas(9.6, 0.28 * table["recipe"].nunique() + 1.9)
    plots.dejavu_sweeps(table, figure.subplots(1, 2, sharey=True))
    text += "N = 50; T epochs. Scores at the projector (supervised: at the backbone, it has no other) after the last. "
    text += f"{BESIDE_THE_GAP} "
    foretold = [f"{one.curve} {_interval(one.correlation, one)}" for one in tables.foretold(table).itertuples()]
    text += f"Rank correlation of the gap with the score, over rows: {', '.join(foretold)}."
    plots.caption(figure, text)
    told = "; ".join(f"{one.recipe}: {one.curve} {_interval(one.value, one)}" for one in table.itertuples())
    alt = "The deja vu score, and the gap of a linear probe, a row for each recipe or setting. "
    return Drawn(figure, table, f"{alt}{told}.", about)


def dejavu_tradeoff(studio: Studio) -> Drawn:
    """What stopping earlier and serving an earlier layer do to deja vu and to use, from the same table."""
    table, text, about = _grown()
    table = tables.dejavu_tradeoff(table)
    table = defenses.with_front(table, leak="score", by="N")
    sizes = about["n"]
    figure = _canvas(3.0 * len(sizes) + 1.9, 4.2)
    axes = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
    for ax, members in zip(plots.tradeoff(table, axes, by="N", leak="score"), sizes, strict=True):
        ax.set_title(f"N = {members:,}")
    text += "No defence: the projector after the last epoch is served. Early-stop: the projector after fewer. "
    text += "Guillotine: the backbone, or one of its blocks, after the last. The probe is trained and tested on public "
    text += "images. Bars: 95 % intervals over images and pairs."
    plots.caption(figure, text)
    told = "; ".join(
        f"N = {one.N}, {one.level}: {_interval(one.score, one)}, probe {one.probe:.3f}" for one in table.itertuples()
    )
    alt = "The deja vu score against the accuracy of a linear probe, a plane for each number of images, a point for "
    return Drawn(
        figure, table, f"{alt}each layer or epoch served, with error bars and the Pareto front. {told}.", about
    )


def reconstruction(studio: Studio) -> Drawn:
    """What is painted of images from their backgrounds alone, by the reconstructors kept with the zoo."""
    table = dejavu.measured("painted")
    painters = dejavu.zoo_reconstructors(table["recipe"].iloc[0])
    encoders = {which: load_encoder(one.about["name"]) for which, one in painters.items()}
    public = load_images(**PROBE, size=studio.size)
    layer = painters["A"].about["layer"]
    backgrounds = dejavu.Backgrounds(encoders, public, layer)
    found = dejavu.reconstruct(painters, backgrounds, each=PAINTED, progress=studio.progress)
    figure = _canvas(9.6, 0.95 * len(found.table) + 1.0)
    plots.reconstructions(found, range(len(found.table)), figure)
    gains = ["{:.2f} ({:.2f} to {:.2f})".format(*dejavu.painted_gain(table, control)) for control in (False, True)]
    counts, side = table["set"].value_counts(), painters["A"].settings.size
    text = f"partshapes; the first {PAINTED} images of A and of B that have a background, none chosen. A diffusion "
    text += f"model of {len(public):,} public images, one for each encoder, paints {side} px from the mean {layer} "
    text += "embedding of the background's 100 nearest public images, both from the same noise. What both paint is the "
    text += f"look of public images, not memory. Over {counts['A']} + {counts['B']} images the encoder trained on one "
    text += f"leads to paintings nearer to it than the other's by {gains[0]} of 255 (root mean square; 95 % interval), "
    text += f"on {counts['C']} images of a third set by {gains[1]}."
    plots.caption(figure, text)
    alt = f"For {len(found.table)} images the image, its background, and under two encoders the nearest public image "
    about = {"n": len(table), "seeds": [0], "encoders": _encoder_digests(list(encoders.values()))}
    return Drawn(figure, table, f"{alt}and three small paintings. {text}", about)


def serving(studio: Studio) -> Drawn:
    """What defences of serving buy and cost on the encoders that leak, from the table of benchmarks/defenses.py."""
    table = defenses.measured("serving")
    table = table[table["encoder"].isin(DEFENDED)].reset_index(drop=True)
    text = "Attackers are always fitted on the features that are served. Hollow: an attacker who knows the defence and "
    text += "averages eight answers to hardly different images. Bars: 95 % intervals over images."
    return _planes(table, "encoder", f"{studio.size} px", text, [0])


def training(studio: Studio) -> Drawn:
    """What defences of training buy and cost over training seeds (the paper's defence tables), from that benchmark."""
    found = defenses.measured("training")
    table, seeds = _trainings(found)
    sides = found.groupby("image_size", sort=False)["recipe"].unique()
    sides = ", ".join(f"{side} px ({', '.join(recipes)})" for side, recipes in sides.items())
    text = f"Means over {_listed(table['trainings'])} trainings, each on a split of its own. Attackers are always "
    text += "fitted on the defended encoder's features. Hollow: an attacker who knows the defence and cuts parts as "
    text += "the crops in training. Bars: 95 % intervals over images and trainings."
    return _planes(table, "recipe", sides, text, seeds)


def _trainings(found: pd.DataFrame) -> tuple[pd.DataFrame, list[int]]:
    """A trade-off over trainings, and their seeds."""
    return defenses.over_trainings(found), _whole(found["training_seed"])


def defence_tables(studio: Studio) -> Drawn:
    """The same defences of training as tables, in the paper's layout."""
    table, seeds = _trainings(defenses.measured("training"))
    words = defenses.paper_tables(table)
    width, height = 2.2 + 1.9 * table["recipe"].nunique(), 0.55 * sum(len(one) + 0.6 for one in words.values()) + 1.2
    figure = _canvas(width, height)
    plots.word_tables(words, figure)
    plain = table[table["level"] == "none"]
    sizes = [_listed(plain[name]) for name in ("members", "nonmembers", "attack", "queries")]
    how = "partshapes; {} members + {} non-members; attack {}, {} queries an image, 2 folds; matched protocol. Means "
    how += "over trainings, each on a split of its own, with 95 % intervals over images and trainings. Adaptive: an "
    how += "attacker who knows the defence; undefended: what that very attack finds without it. Probe: accuracy of a "
    how += "linear probe, where guessing gives 10 %. Differential privacy: of each image, for the weights, against all "
    how += "who do not know the seed, which is published so that the runs can be repeated."
    plots.caption(figure, how.format(*sizes))
    lines = (
        f"{name}, {level}, {recipe}: {text}"
        for name, one in words.items()
        for (level, recipe), text in one.stack().items()
    )
    alt = f"Tables of attack and utility, one for each defence. {'; '.join(lines)}.".replace("\n", ", ")
    about = {"n": _whole(table["members"]), "seeds": seeds, "protocols": ["matched"]}
    return Drawn(figure, table, alt, about)


def capacity(studio: Studio) -> Drawn:
    """The leak and the use over the number of weights, from the same trainings (the second version's scaling)."""
    table, seeds = _trainings(defenses.measured("training"))
    swept = set(table.loc[table["defense"] == "capacity", "recipe"])
    table = table[table["recipe"].isin(swept) & table["defense"].isin(["none", "capacity"])].reset_index(drop=True)
    figure = _canvas(8.6, 3.8)
    plots.capacity(table, figure.subplots(1, 2))
    sizes = [_listed(table[name]) for name in ("members", "nonmembers", "trainings", "attack", "queries")]
    how = "partshapes; {} members + {} non-members; means over {} trainings, each on a split of its own, of ViTs that "
    how += "differ in width, depth and heads alone; attack {}, {} queries an image, 2 folds; matched protocol. Bars: "
    how += "95 % intervals over images and trainings. Rightmost of each line: the encoder that defences start from."
    plots.caption(figure, how.format(*sizes))
    told = "; ".join(
        f"{one.recipe}, {one.parameters:,.0f} weights: {_auc(one)}, probe {one.probe:.3f}" for one in table.itertuples()
    )
    alt = "AUC of the attack, and accuracy of a linear probe, against the number of weights, a line for each recipe. "
    about = {"n": _whole(table["members"]), "seeds": seeds, "protocols": ["matched"]}
    return Drawn(figure, table, f"{alt}{told}.", about)


def _planes(table: pd.DataFrame, by: str, sides: str, text: str, seeds: list[int]) -> Drawn:
    """A trade-off, one plane for each value of a column."""
    panels = list(dict.fromkeys(table[by]))
    figure = _canvas(3.0 * len(panels) + 1.7, 4.4)
    plots.tradeoff(table, figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], by=by)
    plain = table[table["level"] == "none"]
    sizes = [_listed(plain[name]) for name in ("members", "nonmembers", "attack", "queries", "seeds")]
    how = "partshapes, {}; {} members + {} non-members; attack {}, {} queries an image where no limit is set, {} seed "
    how += "of crops, folds and attackers, 2 folds; matched protocol. "
    plots.caption(figure, how.format(sides, *sizes) + text)
    worst = defenses.worst(table).itertuples()
    told = "; ".join(f"{getattr(one, by)}, {one.level}: {_auc(one)}, probe {one.probe:.3f}" for one in worst)
    alt = f"AUC of the attack against the accuracy of a linear probe, one plane for each {by}, a point for each level "
    alt += f"of each defence, with error bars and the Pareto front. By the worst attacker: {told}."
    about = {"n": _whole(table["members"]), "seeds": seeds, "protocols": ["matched"]}
    return Drawn(figure, table, alt, about)


def _auc(row: Any) -> str:
    """An AUC with its interval, as an alternative text tells it."""
    return _interval(row.auc, row)


def _interval(value: float, row: Any) -> str:
    return f"{value:.3f} ({row.low:.3f} to {row.high:.3f})"


def _whole(column: pd.Series) -> list[int]:
    """The different whole numbers of a column in order, as provenance lists sizes and seeds."""
    return sorted({int(value) for value in column})


def _listed(column: pd.Series) -> str:
    """The different values of a column, as a caption names them."""
    return " or ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in sorted(set(column.tolist())))


FIGURES: dict[str, tuple[str, Callable[[Studio], Drawn]]] = {
    "partshapes": ("partshapes", partshapes),
    "trap": ("evaluation_trap", evaluation_trap),
    "fig2": ("fig2_part_responses", part_responses),
    "features": ("membership_features", membership_features),
    "main": ("main_table", main_table),
    "recipes": ("zoo_recipes", recipes),
    "roc": ("roc_zoo", roc_zoo),
    "fig4": ("fig4_crop_number", crop_number),
    "fig5": ("fig5_crop_scale", crop_scale),
    "attackers": ("attacker_structure", attacker_structure),
    "known": ("known_fraction", known_fraction),
    "growth": ("memory_growth", growth),
    "serving": ("defences_serving", serving),
    "training": ("defences_training", training),
    "defence-tables": ("defence_tables", defence_tables),
    "capacity": ("defence_capacity", capacity),
    "dial": ("dejavu_dial", dial),
    "dejavu-growth": ("dejavu_growth", dejavu_growth),
    "dejavu-sweeps": ("dejavu_sweeps", dejavu_sweeps),
    "dejavu-tradeoff": ("dejavu_tradeoff", dejavu_tradeoff),
    "reconstruction": ("dejavu_reconstruction", reconstruction),
}
"""Figures by the name that `only` takes: the stem of their files, and what draws them."""

CLASSROOM_ALONE = (
    *("partshapes", "recipes", "growth", "serving", "training", "defence-tables", "capacity"),
    *("dial", "dejavu-growth", "dejavu-sweeps", "dejavu-tradeoff", "reconstruction"),
)
"""Of the embedded images, or of tables kept with the zoo."""


RELEASED = ("roc", "fig4", "fig5", "attackers", "known")
"""Of audits alone, so that they may be drawn under the released protocol too."""


def make_figures(
    out: str | Path = "figures",
    only: Sequence[str] | None = None,
    progress: bool = True,
    studio: Studio | None = None,
    jobs: int = 1,
) -> list[Path]:
    """Draw figures and write them to a folder.

    Args:
        out: the folder; made where it is missing.
        only: names of `FIGURES`; all that the studio can draw where omitted.
        progress: show progress bars.
        studio: what they are drawn from; the classroom's where omitted, `PaperStudio` for the papers' settings.
        jobs: figures at a time; more than one in processes of their own, on one thread each.

    Returns:
        The files written: for each figure a .png, .pdf, .csv and .json.

    Raises:
        ValueError: an unknown name, or one that the studio cannot draw.
        FiguresFailed: some could not be drawn, since a zoo encoder is missing or the folder cannot be written, say; it
            is raised when all others are, and tells which and why.
    """
    studio = studio or Studio()
    studio.progress = progress and jobs == 1
    offered = [name for name in FIGURES if studio.preset == Studio.preset or name not in CLASSROOM_ALONE]
    offered = [name for name in offered if studio.protocol == "matched" or name in RELEASED]
    names = list(dict.fromkeys(offered if only is None else only))
    unknown = [name for name in names if name not in offered]
    if unknown:
        raise ValueError(f"there is no figure {', '.join(unknown)}; there are {', '.join(offered)}")
    with _processes(jobs):
        drawn = dict(bar(_outcomes(names, Path(out), studio), "figures", shown=progress, total=len(names)))
    written = [path for name in names if isinstance(drawn[name], list) for path in drawn[name]]
    failures = [drawn[name] for name in names if isinstance(drawn[name], Failure)]
    if failures:
        raise FiguresFailed(failures, written)
    return written


@contextlib.contextmanager
def _processes(jobs: int) -> Iterator[None]:
    """So many processes for joblib, which are ended before this one goes on: those left to its exit leak semaphores."""
    interrupted = True
    try:
        with joblib.parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1):
            yield
        interrupted = False
    finally:
        if jobs > 1:
            get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=interrupted)


def _outcomes(names: Sequence[str], out: Path, studio: Studio) -> Iterator[tuple[str, list[Path] | Failure]]:
    """What becomes of each figure, in the order in which they are done."""
    parallel = joblib.Parallel(return_as="generator_unordered", pre_dispatch="n_jobs")
    left = dict.fromkeys(names)
    try:
        for name, outcome in parallel(joblib.delayed(_draw)(name, out, studio, os.getpid()) for name in names):
            del left[name]
            yield name, outcome
    except BrokenProcessPool:  # a process died, of memory perhaps, and took the others along: each is drawn alone
        for name in left:
            try:
                yield from parallel([joblib.delayed(_draw)(name, out, studio, os.getpid())])
            except BrokenProcessPool as error:
                yield name, Failure.of(name, error)


def _draw(name: str, out: Path, studio: Studio, asking: int) -> tuple[str, list[Path] | Failure]:
    """The files of a figure that the process `asking` wants, or why there are none."""
    if os.getpid() != asking:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interruption reaches the one that asks, which ends this one
    stem, draw = FIGURES[name]
    with plots.style(), contextlib.nullcontext() if studio.progress else no_bars():
        try:
            return name, _save(draw(studio), out, stem, name, studio)
        except Exception as error:
            return name, Failure.of(name, error)


def _save(drawn: Drawn, out: Path, stem: str, name: str, studio: Studio) -> list[Path]:
    png, pdf, csv, provenance = (out / f"{stem}.{kind}" for kind in ("png", "pdf", "csv", "json"))
    with atomic(png) as file:
        drawn.figure.savefig(file, dpi=300, format="png", metadata={"Software": None})
    with atomic(pdf) as file:
        drawn.figure.savefig(file, format="pdf", metadata={"CreationDate": None})
    write_csv(csv, drawn.table)
    about = {
        "figure": stem,
        "alt": drawn.alt,
        "caption": drawn.figure.get_supxlabel().replace("\n", " "),
        "preset": studio.preset,
        "command": f"partcrop-lab figures --only {name}{studio.options}",
        "versions": {package: version(package) for package in PACKAGES},
        "code": code_digest(),
        "data": digest(csv.read_bytes()),
        **drawn.about,
    }
    write_json(provenance, about)
    return [png, pdf, csv, provenance]
