"""The deja vu score: what a background betrays under the encoder trained on it, beyond what any encoder infers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from partcrop_lab.defenses import EarlierLayer
from partcrop_lab.dejavu.neighbours import PublicIndex, confidence
from partcrop_lab.dejavu.periphery import CORNER, LEAST_SHARE, Periphery, periphery
from partcrop_lab.devices import seed_of
from partcrop_lab.encoders import Encoder, zoo
from partcrop_lab.encoders.utility import classifier
from partcrop_lab.errors import BadInput
from partcrop_lab.images import ImageSet
from partcrop_lab.progress import bar
from partcrop_lab.store import cached_arrays, digest, write_csv, write_json

PROJECTOR, BACKBONE = "projector", "backbone"
SETS = ("A", "B", "C")
OWN = {"A": ("A", "B"), "B": ("B", "A")}
"""For each set the model that was trained on it, and the other."""
PARTITION = {(True, False): "memorised", (True, True): "correlated", (False, True): "misrepresented"}
UNASSOCIATED = "unassociated"
SHARES = (0.05, 0.1, 0.2, 0.5, 1.0)
DRAWS = 1000
KINDS = {"dial": "dejavu", "growth": "dejavu_growth", "painted": "reconstruction"}
"""The tables kept with the zoo, by what they hold, each made by the benchmark of its name."""


@dataclass(frozen=True)
class DejaVu:
    """What two encoders say of the backgrounds of images that either, or neither, was trained on.

    Attributes:
        table: one row per image: name, set ("A", "B" or "C"), kind of its crop, label; of each model guess_A, guess_B,
            sure_A, sure_B (minus the entropy of the votes, nats), right_A, right_B, top5_A, top5_B, and votes_A and
            votes_B, the share of votes for the right class.
        unusable: names of images without a usable crop, by set.
        settings: what made it, JSON-able.
    """

    table: pd.DataFrame
    unusable: dict[str, tuple[str, ...]]
    settings: dict[str, Any]

    def accuracy(self, which: str, model: str, share: float = 1.0, top5: bool = False) -> float:
        """Accuracy in [0, 1] of a model, "A" or "B", on the `share` of a set of which it is most confident."""
        some = self.table[self.table["set"] == which]
        chosen = _most(some[f"sure_{model}"].to_numpy(), share)
        return float(some[f"{'top5' if top5 else 'right'}_{model}"].to_numpy()[chosen].mean())

    def scores(self, shares: Sequence[float] = SHARES, seed: int = 0) -> pd.DataFrame:
        """The deja vu score at several shares of most confident images, with 95 % bootstrap intervals over images.

        Returns:
            One row per share and direction: share, direction, images, trained, other (accuracies, each at the images of
            which that model is itself most confident), score (their difference), low, high. Directions: "A" and "B", of
            the model trained on that set over the other; "both", their mean, in which it cancels that one model may be
            the better one; "C", the same as "both" for the third set, every second image of which counts as A's and
            the others as B's, so that 0 is right; where there is one model, on A and C over the classifier.
        """
        source = np.random.default_rng(seed_of("dejavu", seed))
        sides = {name: some for name in SETS if len(some := self.table[self.table["set"] == name])}
        directions = {name: [(sides[name], *models)] for name, models in OWN.items() if name in sides}
        if {"A", "B"} <= directions.keys():
            directions["both"] = [*directions["A"], *directions["B"]]
        if "C" in sides:
            halves = [(sides["C"][0::2], "A", "B"), (sides["C"][1::2], "B", "A")]
            directions["C"] = halves if "both" in directions else [(sides["C"], "A", "B")]
        drawn = {id(some): _bootstrap_rows(len(some), source) for parts in directions.values() for some, *_ in parts}
        rows = []
        for share in shares:
            for name, parts in directions.items():
                trained, other = np.mean([_both(*part, share) for part in parts], axis=0)
                gains = np.mean([_resampled(*part, share, drawn[id(part[0])]) for part in parts], axis=0)
                low, high = np.quantile(gains, (0.025, 0.975))
                n = sum(len(some) for some, *_ in parts)
                rows.append((share, name, n, trained, other, trained - other, low, high))
        names = ["share", "direction", "images", "trained", "other", "score", "low", "high"]
        return pd.DataFrame(rows, columns=names)

    def save(self, path: str | Path, scores: pd.DataFrame) -> list[Path]:
        """Write the table of images to a .csv, and beside it the scores and what made them; returns the paths."""
        path = Path(path)
        paths = [path, path.with_name(f"{path.stem}-scores.csv"), path.with_suffix(".json")]
        for place, table in zip(paths, (self.table, scores)):
            write_csv(place, table)
        unusable = {name: list(names) for name, names in self.unusable.items()}
        write_json(paths[2], {**self.settings, "unusable": unusable, "data": digest(paths[0].read_bytes())})
        return paths

    def partition(self) -> pd.DataFrame:
        """How many images of A and of B are memorised, correlated, misrepresented and unassociated, by set.

        Memorised: the model trained on the image is right and the other wrong; correlated: both right;
        misrepresented: only the other is right; unassociated: both wrong.
        """
        some = self.table[self.table["set"].isin(["A", "B"])]
        counts = pd.crosstab(some["set"], self.association().loc[some.index])
        return counts.reindex(columns=[*PARTITION.values(), UNASSOCIATED], fill_value=0)

    def association(self) -> pd.Series:
        """For each row of the table of A and B what `partition` counts it as; of C None."""
        rights = zip(*self._rights(self.table), strict=True)
        named = [association(own, other) for own, other in rights]
        return pd.Series(named, self.table.index).where(self.table["set"] != "C", None)

    @staticmethod
    def _rights(some: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
        """Whether the model trained on each image of A or B is right, and whether the other is."""
        in_a = some["set"] == "A"
        return some["right_A"].where(in_a, some["right_B"]), some["right_B"].where(in_a, some["right_A"])

    def memorisation(self) -> pd.Series:
        """For each image by name: votes for its class under the model trained on it minus under the other, in [-1, 1].

        Of the third set: under model A minus under model B.
        """
        gain = self.table["votes_A"] - self.table["votes_B"]
        return pd.Series(gain.where(self.table["set"] != "B", -gain).to_numpy(), self.table["name"])

    def by_class(self) -> pd.DataFrame:
        """The score of each class over all of its images in A and B: label, images, trained, other, score."""
        some = self.table[self.table["set"].isin(["A", "B"])]
        own, other = self._rights(some)
        grouped = pd.DataFrame({"label": some["label"], "trained": own, "other": other}).groupby("label")
        table = grouped.mean().assign(images=grouped.size())
        return table.assign(score=table["trained"] - table["other"]).reset_index()


def deja_vu(
    encoder_a: Encoder,
    encoder_b: Encoder,
    public: ImageSet,
    third: ImageSet | None = None,
    *,
    set_a: ImageSet | None = None,
    set_b: ImageSet | None = None,
    layer: str | int = PROJECTOR,
    k: int = 100,
    least: float = LEAST_SHARE,
    permute: int | None = None,
    progress: bool = True,
) -> DejaVu:
    """What the background of an image says of its class under two encoders, one of which was trained on it.

    Each background is embedded, its nearest public images are found and vote with their labels. What the encoder that
    never saw the image infers is correlation; what the other infers beyond that is memory (METHODS 5). With untrained
    encoders, with permuted public labels and on images of a third set the difference must be 0.

    Args:
        encoder_a, encoder_b: trained by the same recipe on disjoint sets.
        public: images with labels that neither was trained on.
        third: images that neither was trained on and that are not public, as a control.
        set_a, set_b: what they were trained on; their own members where None. All sets need labels.
        layer: "projector", "backbone" or a number of blocks of a ViT, after which embeddings are taken.
        k: neighbours that vote.
        least: shorter side that a background must have, as a share of the image's.
        permute: a seed, to shuffle the public labels: the control in which nothing can be inferred.
        progress: show a bar.

    Raises:
        ValueError: an unknown layer, or more neighbours than public images.
        BadInput: sets that share images or have none with a background, or images without labels.
    """
    members = (set_a or encoder_a.split.members, set_b or encoder_b.split.members)
    sets = {name: images for name, images in zip(SETS, (*members, third), strict=True) if images is not None}
    models = {name: partial(_voter, one, layer, public, k) for name, one in (("A", encoder_a), ("B", encoder_b))}
    settings = {"encoders": [_named(encoder_a), _named(encoder_b)], "layer": layer, "k": k}
    return _judge(models, sets, public, encoder_a.image_size, least, permute, settings, progress)


def one_model(
    encoder: Encoder,
    reference: Encoder,
    public: ImageSet,
    third: ImageSet | None = None,
    *,
    members: ImageSet | None = None,
    layer: str | int = PROJECTOR,
    k: int = 100,
    least: float = LEAST_SHARE,
    permute: int | None = None,
    progress: bool = True,
) -> DejaVu:
    """As `deja_vu` with one encoder: in place of the second stands a classifier of backgrounds (arXiv 2504.05651).

    It is a logistic regression on what `reference` makes of the public images' own backgrounds, and so learns what a
    background says of a class where there is no memory of its image.

    Args:
        encoder: the encoder asked about, "A".
        reference: an encoder that was not trained on its members, best on the public images, with their labels.
        public, third, layer, k, least, permute, progress: as for `deja_vu`.
        members: what the encoder was trained on; its own where None.

    Returns:
        As `deja_vu`, with sets A and, where `third` is given, C; model B is the classifier.

    Raises:
        BadInput: as `deja_vu`, or public images without backgrounds.
    """
    sets = {"A": members or encoder.split.members} | ({} if third is None else {"C": third})
    models = {
        "A": partial(_voter, encoder, layer, public, k),
        "B": partial(_classifier, reference, public, least),
    }
    settings = {"encoders": [_named(encoder), _named(reference)], "layer": layer, "k": k, "one_model": True}
    return _judge(models, sets, public, encoder.image_size, least, permute, settings, progress)


def with_controls(
    encoder_a: Encoder,
    encoder_b: Encoder,
    public: ImageSet,
    third: ImageSet,
    *,
    set_a: ImageSet | None = None,
    set_b: ImageSet | None = None,
    layer: str | int = PROJECTOR,
    k: int = 100,
    least: float = LEAST_SHARE,
    shares: Sequence[float] = SHARES,
    seed: int = 0,
    progress: bool = True,
) -> tuple[DejaVu, pd.DataFrame]:
    """`deja_vu`, and the same where nothing can be remembered: of untrained encoders, and with permuted labels.

    Args:
        encoder_a, encoder_b, public, third, set_a, set_b, layer, k, least, progress: as for `deja_vu`.
        shares: of the most confident images that are scored.
        seed: of untrained weights, permutation and resampling.

    Returns:
        The result, and the scores in both directions as `DejaVu.scores` gives them, with a column `what`: "deja vu",
        "third set", "untrained" (encoders, and projectors, of the same architecture) and "permuted" (public labels).
    """
    sets = {"set_a": set_a or encoder_a.split.members, "set_b": set_b or encoder_b.split.members}
    how = {**sets, "k": k, "least": least, "progress": progress}
    found = deja_vu(encoder_a, encoder_b, public, third, layer=layer, **how)
    seeds = [seed_of("dejavu untrained", seed, place) % 2**31 for place in range(2)]
    untrained = [one.untrained(its) for one, its in zip((encoder_a, encoder_b), seeds, strict=True)]
    controls = {
        "untrained": deja_vu(*untrained, public, layer=layer, **how),
        "permuted": deja_vu(encoder_a, encoder_b, public, layer=layer, permute=seed, **how),
    }
    scores, named = found.scores(shares, seed), {"both": "deja vu", "C": "third set"}
    tables = [scores[scores["direction"] == direction].assign(what=what) for direction, what in named.items()]
    for what, control in controls.items():
        one = control.scores(shares, seed)
        tables.append(one[one["direction"] == "both"].assign(what=what))
    return found, pd.concat(tables, ignore_index=True)


def measured(kind: str = "dial") -> pd.DataFrame:
    """What was measured of pairs of encoders and is kept with the zoo.

    Args:
        kind: "dial", over the correlation of backgrounds with classes; "growth", along the epochs, over layers and
            numbers of training images; "painted", how near reconstructions come, one row per image.

    Returns:
        As the benchmark of `KINDS` writes it.

    Raises:
        ValueError: another kind.
        BadInput: the table is not there.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")
    return zoo.measured(KINDS[kind], f"python benchmarks/{KINDS[kind]}.py")


def association(own: bool, other: bool) -> str:
    """Which of the four an image is, by whether the model trained on it and the other are right.

    >>> association(True, False)
    'memorised'
    """
    return PARTITION.get((bool(own), bool(other)), UNASSOCIATED)


Voter = Callable[[Tensor], Tensor]
"""From backgrounds (B, 3, S, S) to shares of votes, or probabilities, of each class (B, C)."""


def _judge(
    models: dict[str, Callable[[np.ndarray, int], Voter]],
    sets: dict[str, ImageSet],
    public: ImageSet,
    size: int,
    least: float,
    permute: int | None,
    settings: dict[str, Any],
    progress: bool,
) -> DejaVu:
    """What models, each made of the public labels and the number of classes, say of backgrounds resized to `size`."""
    _check(sets, public)
    labels, classes = _public_labels(public, permute), _classes(sets, public)
    found = {name: periphery(images, least) for name, images in sets.items()}
    for name, one in found.items():
        if not len(one.images):
            raise BadInput(f"no image of set {name} has a background of {least:g} of its side; lower least=")
    columns: dict[str, dict[str, np.ndarray]] = {name: {} for name in sets}
    for model, make in bar(models.items(), "models", shown=progress):
        vote = make(labels, classes)
        for name, one in found.items():
            votes = torch.cat([vote(batch) for batch in one.crops(size)])
            columns[name] |= _judged(votes, torch.as_tensor(one.images.labels), model)
    tables = [_rows(name, found[name], columns[name]) for name in sets]
    settings = settings | {
        "public": {"images": len(public), "digest": public.digest},
        "sets": {name: {"images": len(images), "digest": images.digest} for name, images in sets.items()},
        "least": least,
        "permute": permute,
        "corners": sum(kind == CORNER for one in found.values() for kind in one.kinds),
    }
    unusable = {name: one.unusable for name, one in found.items()}
    return DejaVu(pd.concat(tables, ignore_index=True), unusable, settings)


def _named(encoder: Encoder) -> dict[str, str]:
    return {"name": encoder.name, "digest": encoder.digest}


def _public_labels(public: ImageSet, permute: int | None) -> np.ndarray:
    """The public labels, shuffled by a seed where one is given."""
    labels = np.asarray(public.labels)
    return labels if permute is None else np.random.default_rng(seed_of("public labels", permute)).permutation(labels)


def _classes(sets: dict[str, ImageSet], public: ImageSet) -> int:
    return 1 + max(int(images.labels.max()) for images in (*sets.values(), public))


def _voter(encoder: Encoder, layer: str | int, public: ImageSet, k: int, labels: np.ndarray, classes: int) -> Voter:
    """The votes of the nearest public images."""
    asked, index = at_layer(encoder, layer), public_index(encoder, layer, public, labels)
    return lambda crops: index.votes(asked(crops), k, classes)


def public_index(encoder: Encoder, layer: str | int, public: ImageSet, labels: np.ndarray) -> PublicIndex:
    """The public images as a layer sees them, kept in the cache, with the labels they vote with."""
    asked = at_layer(encoder, layer)
    head = encoder.projector_digest if layer == PROJECTOR else ""

    def make() -> dict[str, np.ndarray]:
        return {"embeddings": torch.cat([asked(batch) for batch in public.batches()]).numpy()}

    key = digest("public", encoder.cache_key, head, layer, public.digest)
    return PublicIndex(cached_arrays("features", key, make)["embeddings"], labels)


def _classifier(reference: Encoder, public: ImageSet, least: float, labels: np.ndarray, classes: int) -> Voter:
    """The probabilities of a logistic regression on the public images' backgrounds."""
    own = periphery(public, least)
    if not len(own.images):
        raise BadInput(f"no public image has a background of {least:g} of its side; lower least=")
    label_of = dict(zip(public.names, labels.tolist(), strict=True))
    X = torch.cat([reference.vectors(batch, "mean").cpu() for batch in own.crops(reference.image_size)]).numpy()
    fitted = classifier().fit(X, [label_of[name] for name in own.images.names])

    def vote(crops: Tensor) -> Tensor:
        found = torch.zeros(len(crops), classes)
        found[:, fitted.classes_] = torch.from_numpy(
            fitted.predict_proba(reference.vectors(crops, "mean").cpu())
        ).float()
        return found

    return vote


def at_layer(encoder: Encoder, layer: str | int) -> Voter:
    """The function from images (B, 3, S, S) to embeddings (B, E) on the CPU that a layer of an encoder is.

    Raises:
        ValueError: an unknown layer.
        BadInput: an encoder without its projector, or with fewer blocks.
    """
    if layer == PROJECTOR:
        return lambda images: encoder.projections(images).cpu()
    if layer == BACKBONE:
        return lambda images: encoder.vectors(images).cpu()
    if isinstance(layer, int):
        shorter = EarlierLayer(layer).wrap(encoder)
        return lambda images: shorter.vectors(images).cpu()
    raise ValueError(f"layer is {layer!r}; it must be {PROJECTOR!r}, {BACKBONE!r} or a number of blocks")


def _check(sets: dict[str, ImageSet], public: ImageSet) -> None:
    named = {**sets, "public": public}
    for name, images in named.items():
        if (np.asarray(images.labels) < 0).any():
            raise BadInput(f"set {name} has images without a label; deja vu infers the class, so all need one")
    seen: dict[str, str] = {}
    for name, images in named.items():
        for pixels in images.hashes:
            if seen.setdefault(pixels, name) != name:
                raise BadInput(f"the sets {seen[pixels]} and {name} share an image; they must be disjoint")


def _judged(votes: Tensor, labels: Tensor, model: str) -> dict[str, np.ndarray]:
    """What one model says of the images of one set: columns by name."""
    order = votes.argsort(dim=1, descending=True, stable=True)
    found = {
        "guess": order[:, 0],
        "sure": confidence(votes),
        "right": order[:, 0] == labels,
        "top5": (order[:, :5] == labels[:, None]).any(1),
        "votes": votes.gather(1, labels[:, None])[:, 0],
    }
    return {f"{name}_{model}": value.numpy() for name, value in found.items()}


def _rows(name: str, one: Periphery, columns: dict[str, np.ndarray]) -> pd.DataFrame:
    about = {"name": one.images.names, "set": name, "kind": one.kinds, "label": one.images.labels}
    return pd.DataFrame({**about, **columns})


def _most(sure: np.ndarray, share: float) -> np.ndarray:
    """Places (..., k) of the `share` of most confident ones of (..., n), at least one; ties by their order."""
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; it must be above 0 and at most 1")
    return np.argsort(-sure, axis=-1, kind="stable")[..., : max(1, round(share * sure.shape[-1]))]


def _both(some: pd.DataFrame, trained: str, other: str, share: float) -> tuple[float, float]:
    """Accuracies of two models, each on the images of which it is most confident itself."""
    pairs = ((some[f"sure_{one}"].to_numpy(), some[f"right_{one}"].to_numpy()) for one in (trained, other))
    first, second = (float(right[_most(sure, share)].mean()) for sure, right in pairs)
    return first, second


def _bootstrap_rows(n: int, source: np.random.Generator) -> np.ndarray:
    return source.integers(0, n, (DRAWS, n))


def _resampled(some: pd.DataFrame, trained: str, other: str, share: float, drawn: np.ndarray) -> np.ndarray:
    """The score of each resample of the images: (draws,)."""
    gains = []
    for model in (trained, other):
        sure, right = some[f"sure_{model}"].to_numpy()[drawn], some[f"right_{model}"].to_numpy()[drawn]
        gains.append(np.take_along_axis(right, _most(sure, share), 1).mean(1))
    return gains[0] - gains[1]
