"""What a defence buys and what it costs: the leak that attacks still find, beside what features are still good for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from partcrop_lab.attacks import Attack
from partcrop_lab.audit import compare
from partcrop_lab.audit.kept import code_digest
from partcrop_lab.audit.stats import HALF_WIDTH, interval, over_seeds
from partcrop_lab.defenses.base import Defense, defended, spelled
from partcrop_lab.encoders import Encoder, zoo
from partcrop_lab.encoders.privacy import in_short
from partcrop_lab.encoders.remembering import Remembering
from partcrop_lab.encoders.utility import halves, judged
from partcrop_lab.images import ImageSet, MembershipSplit
from partcrop_lab.progress import bar
from partcrop_lab.store import atomic, digest, write_csv, write_json

UNDEFENDED = "none"
CHANCE = {"auc": 0.5, "tpr_at_1_fpr": 0.01, "score": 0.0}
"""What is found where nothing leaks, by the column that tells how much is."""
BARE = ("bare", "bare_low", "bare_high")
"""Columns of what the attack on a defended encoder finds on the undefended one."""
KINDS = {"serving": "defenses.py --serving", "training": "defenses.py"}
"""The trade-offs that are measured and kept with the zoo, and what makes each."""


def tradeoff(
    encoder: Encoder,
    defenses: Sequence[Defense],
    attack: Attack,
    labelled: ImageSet,
    split: MembershipSplit | None = None,
    *,
    seeds: int = 1,
    out: str | Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Attack an encoder and measure its use, without a defence and under each.

    Args:
        encoder: one whose card says how it was trained, where a defence is one of training.
        defenses: any number; each at one setting.
        attack: an attack, always with attackers fitted on the features that are served.
        labelled: images with classes that no encoder was trained on: the first half trains the probes, the second
            tests them.
        split: members and non-members; the encoder's own where None.
        seeds: of crops, folds and attackers, averaged over.
        out: folder for the trainings, to resume them: one folder for each defence.
        progress: show bars.

    Returns:
        A row for each defence, first "none", and, where an attacker who knows it would do otherwise, another: encoder,
        recipe, image_size, N, training_seed, parameters (of the backbone), defense, level, stage, attacker ("as before"
        or "adaptive"), attack, queries; probe with probe_low and probe_high, knn; auc with low and high, tpr_at_1_fpr
        with tpr_low and tpr_high, p_value, p_untrained, p_pixels, outcome; members, nonmembers, seeds; guarantee, of
        DP-SGD alone; bare with bare_low and bare_high, where a defence of training is attacked in another way than no
        defence: the AUC of that very attack on the undefended encoder; front, see `with_front`. Intervals are 95 %.

    Raises:
        BadInput: images without labels, or an encoder that cannot be trained again.
    """
    split, rows = split or encoder.split, []
    sides, encoder = halves(labelled), Remembering(encoder)
    for defense in bar([None, *defenses], "defenses", unit="defence", shown=progress):
        guarded, asked = encoder, [("as before", encoder, attack)]
        if defense is not None:
            place = None if out is None else Path(out) / defense.label.replace(" ", "_")
            guarded, hindered = defended(encoder, defense, place, progress), defense.hindered(attack)
            asked = [("as before", guarded, hindered)]
            through, known = defense.adaptive(guarded, attack)
            if (through, known) != (guarded, hindered):
                asked.append(("adaptive", through, known))
        about = _about(encoder, guarded, defense) | _use(guarded, *sides)
        for attacker, through, one in asked:
            found = compare([through], [one], split, seeds, progress=progress).table.iloc[0]
            times = getattr(through, "times", 1)
            row = about | {"attacker": attacker} | _found(found) | {"queries": found.queries * times}
            row |= dict.fromkeys(BARE, np.nan)
            if one != attack and defense.stage == "training":
                plain = compare([encoder], [one], split, seeds, progress=progress).table.iloc[0]
                row |= dict(zip(BARE, plain[["auc", "low", "high"]], strict=True))
            rows.append(row)
    return with_front(pd.DataFrame(rows))


def _about(encoder: Encoder, guarded: Encoder, defense: Defense | None) -> dict[str, Any]:
    card = encoder.card
    return {
        "encoder": encoder.name,
        "recipe": card.get("recipe"),
        "image_size": encoder.image_size,
        "N": card.get("N"),
        "training_seed": card.get("seed"),
        "parameters": guarded.parameters,
        "defense": UNDEFENDED if defense is None else defense.name,
        "level": UNDEFENDED if defense is None else defense.label,
        "stage": "" if defense is None else defense.stage,
        "guarantee": guarded.card.get("privacy", {}).get("guarantee", ""),
    }


def _use(encoder: Encoder, train: ImageSet, test: ImageSet) -> dict[str, float]:
    """Accuracies on `test`; the interval of the probe's is the normal one over the images."""
    right, near = judged(encoder, train, test)
    mean, error = float(right.mean()), float(right.std(ddof=1) / len(right) ** 0.5)
    value, low, high = interval(mean, error)
    return {"probe": value, "probe_low": low, "probe_high": high, "knn": near}


def _found(row: pd.Series) -> dict[str, Any]:
    names = [
        "attack",
        "auc",
        "low",
        "high",
        "tpr_at_1_fpr",
        "tpr_low",
        "tpr_high",
        "p_value",
        "p_untrained",
        "p_pixels",
    ]
    return row[[*names, "outcome", "members", "nonmembers", "seeds"]].to_dict()


def save_tradeoff(table: pd.DataFrame, path: str | Path) -> list[Path]:
    """Write a table to a .csv, and beside it its figure (.png) and where its numbers come from (.json).

    Args:
        table: of `tradeoff`.
        path: of the .csv.
    """
    from partcrop_lab import plots  # a room below this one; only its figure is drawn here

    paths = [Path(path).with_suffix(suffix) for suffix in (".csv", ".png", ".json")]
    write_csv(paths[0], table)
    panels = table["recipe"].nunique()
    draw = lambda figure: plots.tradeoff(table, figure.subplots(1, panels, squeeze=False)[0])  # noqa: E731
    with atomic(paths[1]) as temporary:
        temporary.write_bytes(plots.png(draw, 4.2 * panels + 1.6, 4.2, dpi=200))
    write_json(paths[2], {"code": code_digest(), "data": digest(paths[0].read_bytes()), "columns": list(table)})
    return paths


def measured(kind: str = "serving") -> pd.DataFrame:
    """A trade-off that was measured before and is kept with the zoo, as `tradeoff` gives it.

    Args:
        kind: "serving", defences of serving on encoders of the zoo; "training", those of training over several seeds.

    Raises:
        ValueError: another kind.
        BadInput: the table is not there.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")
    words = dict.fromkeys(("guarantee", "stage"), "")
    table = zoo.measured(kind, f"python benchmarks/{KINDS[kind]}").astype(dict.fromkeys(words, object)).fillna(words)
    # without what stands there twice, since kinds of defence were measured one by one
    return with_front(table.drop_duplicates(["encoder", "level", "attacker"]), by="encoder")


def over_trainings(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of several training seeds as one: means, and intervals that hold their spread too.

    Args:
        table: of `tradeoff`, for encoders of one recipe that differ in the seed of split and training.

    Returns:
        One row per recipe, defence, level and attacker, with `trainings`, how many; p-values and outcomes, which each
        audit has of its own, are left out, and the front is drawn again.
    """
    about = ["recipe", "image_size", "N", "parameters", "defense", "level", "stage", "guarantee"]
    kept, rows = [*about, "attacker", "attack", "queries"], []
    for key, some in table.groupby(kept, sort=False, dropna=False):
        row = dict(zip(kept, key, strict=True)) | {"trainings": len(some)}
        for name, low, high in (("auc", "low", "high"), ("probe", "probe_low", "probe_high"), BARE):
            errors, known = (some[high] - some[low]) / (2 * HALF_WIDTH), some[name].notna().all()
            value = interval(*over_seeds(some[name], errors)) if known else [np.nan] * 3
            row |= dict(zip((name, low, high), value, strict=True))
        row |= {name: some[name].mean() for name in ("tpr_at_1_fpr", "tpr_low", "tpr_high", "knn")}
        rows.append(row | {name: some[name].iloc[0] for name in ("members", "nonmembers", "seeds")})
    return with_front(pd.DataFrame(rows))


def paper_tables(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """In words, as the paper has them: for each defence a table whose rows are levels and whose columns are recipes.

    Args:
        table: of `over_trainings`.

    Returns:
        By the defence's name; the first row is "none". A cell holds the attack's AUC with its interval, where there is
        one that of an attacker who knows the defence, and what this one finds on the undefended encoder, the linear
        probe's accuracy, the number of trainings, and what is guaranteed, of DP-SGD alone.
    """
    recipes, found = list(dict.fromkeys(table["recipe"])), {}
    rows_of = dict(list(table.groupby(["level", "recipe"])))
    for name in dict.fromkeys(table["defense"]):
        if name == UNDEFENDED:
            continue
        levels = [UNDEFENDED, *dict.fromkeys(table.loc[table["defense"] == name, "level"])]
        cells = [[_cell(rows_of.get((level, recipe))) for recipe in recipes] for level in levels]
        found[name] = pd.DataFrame(cells, index=[spelled(level) for level in levels], columns=recipes)
    return found


def _cell(rows: pd.DataFrame | None) -> str:
    if rows is None:
        return "not trained"
    heads = {"as before": "AUC", "adaptive": "adaptive"}
    lines = [f"{heads[one.attacker]} {one.auc:.3f} ({one.low:.3f} to {one.high:.3f})" for one in rows.itertuples()]
    bare = rows.dropna(subset="bare").itertuples()
    lines += [f"undefended {one.bare:.3f} ({one.bare_low:.3f} to {one.bare_high:.3f})" for one in bare]
    times = rows["trainings"].iloc[0]
    lines.append(f"probe {100 * rows['probe'].iloc[0]:.1f} %, {times} training{'s' * int(times > 1)}")
    guarantee = rows["guarantee"].iloc[0]
    return "\n".join([*lines, in_short(guarantee)] if guarantee else lines)


def worst(table: pd.DataFrame, leak: str = "auc") -> pd.DataFrame:
    """Of the attackers on each defended encoder the one that finds most; the row's `attacker` says which.

    Args:
        leak: the column that tells how much is found; rows without a number there are left out.
    """
    by, known = [name for name in ("encoder", "recipe", "level") if name in table], table[table[leak].notna()]
    return known.loc[known.groupby(by, sort=False)[leak].idxmax()].sort_index()


def with_front(table: pd.DataFrame, use: str = "probe", leak: str = "auc", by: str = "recipe") -> pd.DataFrame:
    """With a column front: whether a row is on the Pareto front, each defence by its worst attacker.

    To be found less than by chance is no merit: such a row counts as one at chance.

    Args:
        use, leak: columns of what features are good for, and of what is found, one of `CHANCE`.
        by: the column that tells fronts apart.
    """
    table = table.reset_index(drop=True).assign(front=False)
    for _, own in table.groupby(by, sort=False, dropna=False):
        some = worst(own, leak)
        table.loc[some.index, "front"] = pareto(some.assign(**{leak: some[leak].clip(lower=CHANCE[leak])}), use, leak)
    return table


def pareto(table: pd.DataFrame, use: str = "probe", leak: str = "auc") -> np.ndarray:
    """Which rows no other row beats, (n,) bool: in utility or in leak, and is no worse in the other.

    >>> pareto(pd.DataFrame({"probe": [0.9, 0.8, 0.7], "auc": [0.8, 0.6, 0.7]})).tolist()
    [True, True, False]
    """
    good, found = table[use].to_numpy(), table[leak].to_numpy()
    better = (good[None] >= good[:, None]) & (found[None] <= found[:, None])
    strictly = (good[None] > good[:, None]) | (found[None] < found[:, None])
    return ~(better & strictly).any(1)
