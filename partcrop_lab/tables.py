"""Results and responses as tidy tables: what every plot draws and every figure's CSV holds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from partcrop_lab.audit.metrics import fold_ranks, roc_points
from partcrop_lab.audit.stats import HALF_WIDTH, LEVEL, interval, over_seeds
from partcrop_lab.errors import BadInput
from partcrop_lab.parts import cut_parts, gaussian_target, part_boxes, part_response, response_energy, similarity
from partcrop_lab.parts.crops import covered_cells

if TYPE_CHECKING:
    from partcrop_lab.attacks import PartCrop
    from partcrop_lab.audit import AuditResult
    from partcrop_lab.dejavu import DejaVu
    from partcrop_lab.encoders import Encoder
    from partcrop_lab.images import Box, ImageSet

GRID = np.logspace(-4, 0, 161)
"""False positive rates at which ROC curves are tabulated."""

CONTROLS = ("untrained", "pixels")


def own_place(box: Box, size: int, shape: tuple[int, int]) -> np.ndarray:
    """The share of each position's cell that a box covers, (h, w) in [0, 1].

    Args:
        box: x0, y0, x1, y1 in pixels.
        size: the image's side in pixels.
        shape: (h, w) of the feature map.

    >>> own_place((0, 0, 32, 16), 64, (2, 2))
    array([[0.5, 0. ],
           [0. , 0. ]])
    """
    return covered_cells(torch.tensor(box, dtype=torch.float64), size, shape).numpy()


def response_table(
    encoders: Sequence[Encoder],
    image: Tensor,
    box: Box,
    feature_maps: Sequence[Tensor] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """How several encoders respond to one part of one image (Fig. 2).

    Args:
        encoders: whose responses are compared.
        image: (3, S, S) uint8.
        box: the part's x0, y0, x1, y1 in pixels.
        feature_maps: (1, L, D) of the image for each encoder, where they are known already.
        options: pooling, measure, part_size, flip of `part_response`.

    Returns:
        One row per encoder and position: encoder, position, row, column, similarity, response, own (the share of
        the position's cell that the box covers), and the energies uniform_energy and gaussian_energy in nats.
        Its `attrs` hold the box, the image's size and the measure.
    """
    maps, parts = feature_maps or [None] * len(encoders), []
    for encoder, feature_map in zip(encoders, maps, strict=True):
        found = part_response(encoder, image, box, feature_map=feature_map, **options)
        rows, columns = np.indices(found.heatmap.shape)
        count = found.heatmap.size
        parts.append(
            {
                "encoder": np.full(count, encoder.name, object),
                "position": np.arange(count),
                "row": rows.ravel(),
                "column": columns.ravel(),
                "similarity": found.similarity,
                "response": found.response,
                "own": own_place(found.box, image.shape[-1], found.heatmap.shape).ravel(),
                "uniform_energy": np.full(count, found.uniform_energy),
                "gaussian_energy": np.full(count, found.gaussian_energy),
            }
        )
    table = pd.DataFrame({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    table.attrs = {"box": found.box, "size": image.shape[-1], "measure": options.get("measure", "dot")}
    return table


def energy_table(features: np.ndarray, member: np.ndarray, kind: str = "both") -> pd.DataFrame:
    """Mean sorted energies of members and of non-members, each with the 95 % interval of the mean.

    Args:
        features: (n, N) energies of one kind, or (n, 2N) of "both", sorted in descending order.
        member: (n,) bool.
        kind: "uniform", "gaussian" or "both".

    Returns:
        One row per kind, side and rank: kind, side, rank (from 1), mean, low, high (nats), n.
    """
    kinds = ("uniform", "gaussian") if kind == "both" else (kind,)
    rows = []
    for name, block in zip(kinds, np.split(np.asarray(features, float), len(kinds), axis=1), strict=True):
        for side, chosen in (("members", member), ("non-members", ~member)):
            here = block[chosen]
            mean, half = here.mean(0), HALF_WIDTH * here.std(0, ddof=1) / np.sqrt(len(here))
            columns = {"mean": mean, "low": mean - half, "high": mean + half, "n": len(here)}
            rows.append(pd.DataFrame({"kind": name, "side": side, "rank": np.arange(1, len(mean) + 1), **columns}))
    return pd.concat(rows, ignore_index=True)


def auc_table(results: Mapping[Any, AuditResult], by: str = "setting") -> pd.DataFrame:
    """The AUCs of several audits and of their controls, with intervals.

    Args:
        results: audits by the setting that tells them apart.
        by: what that setting is; the name of its column.

    Returns:
        Columns `by`, curve ("target", "untrained", "pixels", "permuted"), auc, low, high, p_value, and protocol; the
        interval of "permuted" is the range of its fits.
    """
    return pd.concat([_aucs(one).assign(**{by: name}) for name, one in results.items()], ignore_index=True)


def card_table(cards: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """What the audits on cards of the zoo say, by their encoders' names.

    Returns:
        Columns encoder, recipe, curve ("target", "untrained", "pixels"), auc, low, high, attack, queries, members,
        nonmembers, protocol; without encoders that were not audited.
    """
    rows = []
    for name, card in cards.items():
        audit = card["audit"]
        if audit is None:
            continue
        about = {"attack": audit["attack"]["attack"], "protocol": "matched"}
        about |= {key: audit[key] for key in ("queries", "members", "nonmembers")}
        target = audit["metrics"]["auc"]
        curves = {"target": target | {"auc": target["value"]}, **{key: audit["controls"][key] for key in CONTROLS}}
        for curve, found in curves.items():
            values = {key: found[key] for key in ("auc", "low", "high")}
            rows.append({"encoder": name, "recipe": card["recipe"], "curve": curve, **values, **about})
    return pd.DataFrame(rows)


def _aucs(result: AuditResult) -> pd.DataFrame:
    value, low, high = result.metrics.loc["auc", ["value", "low", "high"]].astype(float)
    target = {"curve": "target", "auc": value, "low": low, "high": high, "p_value": result.p_value}
    controls = result.controls.rename_axis("curve").reset_index()[[*target]] if len(result.controls) else None
    table = pd.concat([pd.DataFrame([target]), controls], ignore_index=True)
    return table.assign(protocol=result.settings["protocol"])


def roc_table(result: AuditResult, bootstraps: int = 200, seed: int = 0) -> pd.DataFrame:
    """ROC curves of within-fold ranks (METHODS 3.5), at `GRID`.

    Args:
        result: an audit.
        bootstraps: resamples, within each fold and side, for the target's pointwise 95 % band.
        seed: of the resamples.

    Returns:
        One row per curve and false positive rate: curve ("target", "untrained", "pixels", "permuted"), fpr, tpr, low,
        high. The controls have no band; "permuted" has the lowest and highest curve of its fits and no tpr.
    """
    scores, rng = result.scores, np.random.default_rng(seed)
    member, fold = scores["member"].to_numpy(bool), scores["fold"].to_numpy()
    strata = [np.flatnonzero((fold == k) & (member == side)) for k in np.unique(fold) for side in (True, False)]
    tables = []
    for curve in ("target", *(name for name in CONTROLS if name in scores)):
        ranks = _ranks(result, curve)
        table = pd.DataFrame({"curve": curve, "fpr": GRID, "tpr": _steps(ranks, member), "low": np.nan, "high": np.nan})
        if curve == "target":
            draws = [np.concatenate([rng.choice(rows, len(rows)) for rows in strata]) for _ in range(bootstraps)]
            curves = [_steps(ranks[rows], member[rows]) for rows in draws]
            table["low"], table["high"] = np.quantile(curves, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        tables.append(table)
    if len(result.null_band):
        tables.append(result.null_band.assign(curve="permuted", tpr=np.nan)[["curve", "fpr", "tpr", "low", "high"]])
    return pd.concat(tables, ignore_index=True)


def target_rates(result: AuditResult) -> np.ndarray:
    """The true positive rates of the attack alone at each of `GRID`, as in `roc_table`, without band or controls."""
    return _steps(_ranks(result, "target"), result.scores["member"].to_numpy(bool))


def _ranks(result: AuditResult, curve: str) -> np.ndarray:
    scores = result.scores["score" if curve == "target" else curve].to_numpy()
    return fold_ranks(scores, result.scores["fold"].to_numpy())


def _steps(ranks: np.ndarray, member: np.ndarray) -> np.ndarray:
    """The ROC's true positive rate at each of `GRID`: of the best threshold that keeps to it, never interpolated."""
    fpr, tpr = roc_points(ranks, member)
    return tpr[np.searchsorted(fpr, GRID + 1e-12, side="right") - 1]


def describe(result: AuditResult) -> str:
    """What a figure's caption says of an audit: sizes, encoder, attack, attacker, folds, seeds, protocol."""
    s = result.settings
    encoder, seeds = s["encoder"], f"seed {s['seed']}" + (f", {s['repeats']} repeats" if s["repeats"] > 1 else "")
    trained = f" (N = {encoder['N']}, T = {encoder['T']} epochs)" if {"N", "T"} <= encoder.keys() else ""
    return (
        f"{s['members']} members + {s['nonmembers']} non-members of {s['size']} px; "
        f"encoder {encoder['name']}{trained}; attack {s['attack']['attack']}, {s['queries']} queries an image; "
        f"attacker {s['attacker']}, {s['threat']}, {s['folds']} folds, {seeds}; {s['protocol']} protocol."
    )


@dataclass(frozen=True)
class FeatureSteps:
    """How one image becomes a membership feature, step by step (METHODS 1, 2).

    Attributes:
        image: (3, S, S) uint8.
        boxes: (N, 4) the parts' x0, y0, x1, y1 in pixels.
        parts: (N, 3, p, p) float32, the resized parts as the encoder gets them.
        curves: (N, L) similarity curves s_i.
        gaussian: (N, L) Gaussian targets G_i.
        energies: columns kind, part (in the order of `boxes`), energy in nats.
    """

    image: Tensor
    boxes: Tensor
    parts: Tensor
    curves: Tensor
    gaussian: Tensor
    energies: pd.DataFrame

    @property
    def feature(self) -> pd.DataFrame:
        """The energies of each kind in descending order: columns kind, rank (from 1), energy."""
        ordered = self.energies.sort_values(["kind", "energy"], ascending=[False, False], ignore_index=True)
        rank = ordered.groupby("kind", sort=False).cumcount() + 1
        return ordered.assign(rank=rank)[["kind", "rank", "energy"]]

    def part(self, number: int) -> pd.DataFrame:
        """One part's step from curve to energy: columns position, similarity, response, uniform, gaussian."""
        curve = self.curves[number]
        return pd.DataFrame(
            {
                "position": np.arange(len(curve)),
                "similarity": curve.numpy(),
                "response": curve.softmax(-1).numpy(),
                "uniform": 1 / len(curve),
                "gaussian": self.gaussian[number].numpy(),
            }
        )


def feature_steps(encoder: Encoder, images: ImageSet, index: int, attack: PartCrop, seed: int = 0) -> FeatureSteps:
    """The steps of `attack` on one image of a set: the same crops and energies as `attack.features`.

    Args:
        encoder: the encoder attacked.
        images: where the image is.
        index: which one.
        attack: its settings; of `kind` "both", both kinds are given.
        seed: of crops and Gaussian targets.
    """
    image = images[index]
    hashed = hashlib.sha256(image.numpy().data).hexdigest()
    crops = part_boxes([hashed], attack.crops, images.size, attack.scale, seed=seed)
    parts = cut_parts(image[None], crops, attack.part_size or encoder.part_size)[0]
    vectors = encoder.vectors(parts, attack.pooling).cpu()
    curves = similarity(vectors[None], encoder.feature_map(image[None]).cpu(), attack.measure_by)[0]
    gaussian = gaussian_target(*curves.shape, seed)
    found = {"uniform": response_energy(curves), "gaussian": response_energy(curves, gaussian)}
    number = np.arange(attack.crops)
    kinds = found if attack.kind == "both" else [attack.kind]
    energies = [pd.DataFrame({"kind": kind, "part": number, "energy": found[kind].numpy()}) for kind in kinds]
    return FeatureSteps(image, crops.boxes[0], parts, curves, gaussian, pd.concat(energies, ignore_index=True))


def joined_scores(audits: Mapping[str, AuditResult], memory: DejaVu) -> pd.DataFrame:
    """Membership and memory of the same images: does an attack find those that are remembered?

    Args:
        audits: of the encoder that `memory` calls A, on its own split, by the name of the attack.
        memory: of `dejavu.deja_vu`.

    Returns:
        One row per attack and image of A with a background: attack, name, rank of the membership score within its
        fold, in (0, 1), and memory, see `DejaVu.memorisation`, in [-1, 1]; with rho, Spearman's, and its 95 % interval
        low to high by Fisher's transformation, of standard error 1.06 / sqrt(n - 3).

    Raises:
        BadInput: an audit of other images.
    """
    own = memory.table["set"].to_numpy() == "A"
    remembered, tables = memory.memorisation()[own], []
    for attack, result in audits.items():
        scores = result.scores.assign(rank=_ranks(result, "target"))
        ranks = scores[scores["member"]].set_index("name")["rank"]
        if not set(remembered.index) <= set(ranks.index):
            raise BadInput(f"the audit {attack!r} is not of the members of set A; audit encoder A on its own split")
        rank = ranks[remembered.index].to_numpy()
        rho = stats.spearmanr(rank, remembered).statistic
        reach = HALF_WIDTH * 1.06 / np.sqrt(len(rank) - 3)
        low, high = np.tanh(np.arctanh(rho) + np.array([-reach, reach]))
        one = {"attack": attack, "name": remembered.index, "rank": rank, "memory": remembered.to_numpy()}
        tables.append(pd.DataFrame(one).assign(rho=rho, low=low, high=high))
    return pd.concat(tables, ignore_index=True)


def dial_table(table: pd.DataFrame) -> pd.DataFrame:
    """What the correlation of backgrounds with classes does to deja vu, over all images, with 95 % intervals.

    Args:
        table: of `dejavu.measured`.

    Returns:
        Columns recipe, layer (the projector where the recipe has one), correlation, kind, curve, value, low, high, n.
        Of kind "share": the shares of images of A and B that are memorised, correlated and misrepresented, with
        Wilson's intervals; of kind "score": the deja vu score and its controls, with bootstrap intervals.
    """
    rows, last = [], "projector"
    for _, own in table[table["share"] == 1.0].groupby("recipe", sort=False):
        own = own[own["layer"] == (last if last in set(own["layer"]) else own["layer"].iloc[0])]
        for one in own.sort_values("correlation", kind="stable").itertuples():
            about = {"recipe": one.recipe, "layer": one.layer, "correlation": one.correlation, "n": one.images}
            for name in ("memorised", "correlated", "misrepresented") if one.what == "deja vu" else ():
                count = getattr(one, name)
                low, high = stats.binomtest(int(count), int(one.images)).proportion_ci(method="wilson")
                value = count / one.images
                rows.append(about | {"kind": "share", "curve": name, "value": value, "low": low, "high": high})
            score = {"value": one.score, "low": one.low, "high": one.high}
            rows.append(about | {"kind": "score", "curve": one.what} | score)
    return pd.DataFrame(rows)


def dejavu_growth_table(table: pd.DataFrame) -> pd.DataFrame:
    """The deja vu score along the epochs and over layers and numbers of images, over all images and several trainings.

    Args:
        table: of `dejavu.measured("growth")`.

    Returns:
        One row per recipe, N, T, layer and curve: "deja vu", "third set" (where 0 is right) and "gap of the probe" (of
        a linear probe, between the encoder's own training images and the third set); columns value, low, high, n
        (images of each training), trainings, and probe with probe_low and probe_high, what the layer is good for on
        public images. Intervals hold the images' share and the spread over trainings; the gap's this spread alone.
    """
    rows, names = [], ["recipe", "N", "T", "layer"]
    for key, own in table[table["share"] == 1.0].groupby([*names, "what"], sort=False):
        about = dict(zip(names, key, strict=False)) | {"n": int(own["images"].iloc[0]), "trainings": len(own)}
        spread = np.sqrt(own["probe"] * (1 - own["probe"]) / (own["public"] / 2))  # tested on half of the public images
        use = interval(*over_seeds(own["probe"], spread))
        about |= dict(zip(("probe", "probe_low", "probe_high"), use, strict=True))
        curves = {key[-1]: (own["score"], (own["high"] - own["low"]) / (2 * HALF_WIDTH))}
        if key[-1] == "deja vu":
            curves["gap of the probe"] = (own["probe_members"] - own["probe_third"], [0.0] * len(own))
        for curve, (values, errors) in curves.items():
            value, error = over_seeds(values, errors)
            reach = HALF_WIDTH * error
            rows.append(about | {"curve": curve, "value": value, "low": value - reach, "high": value + reach})
    return pd.DataFrame(rows)


def dejavu_tradeoff(table: pd.DataFrame) -> pd.DataFrame:
    """What stopping earlier, or serving an earlier layer, does to the deja vu score and to use, for `plots.tradeoff`.

    Args:
        table: of `dejavu_growth_table`.

    Returns:
        Columns recipe, N, defense ("none": the projector after the last epoch, "early-stop" or "guillotine"), level,
        attacker, score, low, high, probe, probe_low, probe_high, trainings.
    """
    some = table[table["curve"] == "deja vu"].rename(columns={"value": "score"})
    last, top = some["T"] == some.groupby(["recipe", "N"])["T"].transform("max"), some["layer"] == "projector"
    stopped, cut = "early-stop at " + some["T"].astype(str), "guillotine at " + some["layer"].astype(str)
    defense = np.select([last & top, top], ["none", "early-stop"], "guillotine")
    level = np.select([last & top, top], ["none", stopped], cut)
    kept = ["recipe", "N", "defense", "level", "attacker", "score", "low", "high", "probe", "probe_low", "probe_high"]
    return some.assign(defense=defense, level=level, attacker="as before")[[*kept, "trainings"]].reset_index(drop=True)


def dejavu_sweeps(table: pd.DataFrame) -> pd.DataFrame:
    """Deja vu of one recipe or setting after another, each where its training ended and memory is looked for first.

    Args:
        table: of `dejavu_growth_table`.

    Returns:
        Its rows of the last epoch, at the projector, or at the backbone where an encoder has no projector.
    """
    last = table["T"] == table.groupby(["recipe", "N"])["T"].transform("max")
    has = (table["layer"] == "projector").groupby([table["recipe"], table["N"]]).transform("any")
    return table[last & (table["layer"] == np.where(has, "projector", "backbone"))].reset_index(drop=True)


def foretold(table: pd.DataFrame, draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Whether the gap of a linear probe foretells deja vu: Spearman's rank correlation over recipes and settings.

    Args:
        table: of `dejavu_sweeps`, of one N.
        draws, seed: of the bootstrap over recipes and settings.

    Returns:
        Rows "deja vu" and "third set" (whose scores are noise): columns curve, correlation, and its 95 % interval low
        and high.
    """
    wide, source, rows = table.pivot(index="recipe", columns="curve", values="value"), np.random.default_rng(seed), []
    drawn = source.integers(0, len(wide), (draws, len(wide)))
    for curve in ("deja vu", "third set"):
        pairs = wide[["gap of the probe", curve]].to_numpy()
        again = [stats.spearmanr(*pairs[some].T).statistic for some in drawn if len(set(some)) > 1]
        low, high = np.quantile(again, (0.025, 0.975))
        rows.append({"curve": curve, "correlation": stats.spearmanr(*pairs.T).statistic, "low": low, "high": high})
    return pd.DataFrame(rows)
