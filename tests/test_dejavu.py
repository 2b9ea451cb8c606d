"""Deja vu: backgrounds without objects, neighbours as a literal loop finds them, a score that is 0 where it must be."""

import itertools
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_recipes import TINY_VIT

import partcrop_lab as pl
from partcrop_lab import defenses, plots, tables
from partcrop_lab.dejavu import (
    Backgrounds,
    DejaVu,
    PublicIndex,
    association,
    at_layer,
    confidence,
    deja_vu,
    largest_outside,
    one_model,
    periphery,
    with_controls,
)
from partcrop_lab.dejavu import neighbours as neighbours_module
from partcrop_lab.dejavu.score import public_index
from partcrop_lab.encoders.recipes import make_recipe
from partcrop_lab.encoders.zoo_entries import ZOO, correlated
from partcrop_lab.images import ImageSet

CORNER, LENGTH = st.integers(-2, 10), st.integers(1, 6)
BOX = st.tuples(CORNER, CORNER, LENGTH, LENGTH).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


def overlap(one, two):
    return min(one[2], two[2]) > max(one[0], two[0]) and min(one[3], two[3]) > max(one[1], two[1])


@given(st.lists(BOX, min_size=1, max_size=4))
def test_the_largest_box_outside_equals_a_literal_search(objects):
    side, best = 9, (0, 0)
    for x0, x1 in itertools.combinations(range(side + 1), 2):
        for y0, y1 in itertools.combinations(range(side + 1), 2):
            if not any(overlap((x0, y0, x1, y1), one) for one in objects):
                best = max(best, (min(x1 - x0, y1 - y0), (x1 - x0) * (y1 - y0)))
    x0, y0, x1, y1 = found = largest_outside(objects, side)
    assert (min(x1 - x0, y1 - y0), (x1 - x0) * (y1 - y0)) == best
    assert 0 <= x0 <= x1 <= side and 0 <= y0 <= y1 <= side
    assert best == (0, 0) or not any(overlap(found, one) for one in objects)


def test_boxes_that_end_between_pixels_are_left_out_whole():
    assert largest_outside([(0.0, 2.5, 8.0, 5.2)], 8) in [(0, 0, 8, 2), (0, 6, 8, 8)]


def test_a_periphery_crop_shows_nothing_of_the_objects_and_is_nearly_square():
    images = pl.load_images("partshapes", n=60, size=64, seed=2)
    found = periphery(images)
    assert len(found.images) + len(found.unusable) == 60 and len(found.images) > 20
    assert set(found.kinds) == {"background"} and set(found.unusable).isdisjoint(found.images.names)
    for box, objects in zip(found.boxes.tolist(), found.images.object_boxes):
        assert not any(overlap(box, one) for one in objects)
        width, height = box[2] - box[0], box[3] - box[1]
        assert min(width, height) >= 0.2 * 64 and max(width, height) <= 4 / 3 * min(width, height)
    (crops,) = found.crops(32)
    assert crops.shape == (len(found.images), 3, 32, 32)


def test_images_without_boxes_give_a_corner_and_full_ones_nothing():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 20, 20)).astype(np.uint8)
    plain = periphery(ImageSet(pixels))
    assert set(plain.kinds) == {"corner"} and plain.boxes.tolist() == [[0, 0, 6, 6]] * 3
    boxed = periphery(ImageSet(pixels, object_boxes=[(), ((0, 0, 20, 20),), ((0, 0, 20, 10),)]))
    assert boxed.kinds == ("corner", "background") and boxed.unusable == ("000001",)
    assert boxed.boxes.tolist()[1] == [3, 10, 16, 20]


def test_neighbours_equal_a_literal_loop(monkeypatch):
    monkeypatch.setattr(neighbours_module, "ROWS", 7)
    monkeypatch.setattr(neighbours_module, "QUERIES", 4)
    source = torch.Generator().manual_seed(0)
    public, queries = torch.randn(30, 5, generator=source), torch.randn(9, 5, generator=source)
    found = PublicIndex(public, np.arange(30) % 3).search(queries, 10)
    for query, rows in zip(queries, found.tolist()):
        distances = [math.dist(query.tolist(), one.tolist()) for one in public]
        assert rows == sorted(range(30), key=lambda row: distances[row])[:10]
    on_disk = PublicIndex(public.numpy(), np.arange(30) % 3)
    assert torch.equal(on_disk.search(queries, 10), found)


def test_votes_are_shares_and_confidence_is_minus_their_entropy():
    index = PublicIndex(torch.tensor([[0.0], [1.0], [2.0], [10.0]]), np.array([0, 0, 1, 2]))
    votes = index.votes(torch.tensor([[0.4], [9.0]]), k=3)
    np.testing.assert_allclose(votes, [[2 / 3, 1 / 3, 0], [1 / 3, 1 / 3, 1 / 3]], rtol=1e-6)
    expected = [2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3), -math.log(3)]
    np.testing.assert_allclose(confidence(votes), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("embeddings", "labels", "told"),
    [
        (torch.zeros(0, 3), [], "needs embeddings"),
        (torch.zeros(2, 3), [0, -1], "some of them have none"),
        (torch.full((2, 3), math.nan), [0, 0], "NaN or infinite"),
    ],
)
def test_a_public_set_that_cannot_vote_is_refused(embeddings, labels, told):
    with pytest.raises(pl.BadInput, match=told):
        PublicIndex(embeddings, np.array(labels))


def test_queries_that_do_not_fit_are_refused():
    index = PublicIndex(torch.zeros(2, 3), np.zeros(2, int))
    with pytest.raises(ValueError, match="k is 3; it must be from 1 to the 2 public images"):
        index.search(torch.zeros(1, 3), 3)
    with pytest.raises(pl.BadInput, match=r"queries must be \(q, 3\)"):
        index.search(torch.zeros(1, 4), 1)


def made_up(rights, sures=None):
    """A result for images of set A: for each whether models A and B are right."""
    n = len(rights)
    sures = sures or [(0.0, 0.0)] * n
    return pd.DataFrame(
        {
            "name": [f"{i}" for i in range(n)],
            "set": "A",
            "label": 0,
            "right_A": [a for a, _ in rights],
            "right_B": [b for _, b in rights],
            "sure_A": [a for a, _ in sures],
            "sure_B": [b for _, b in sures],
            "votes_A": [float(a) for a, _ in rights],
            "votes_B": [float(b) for _, b in rights],
        }
    )


def test_the_four_ways_an_image_can_be_are_counted():
    one = made_up([(True, False), (True, True), (True, True), (False, True), (False, False)])
    other = one.assign(set="B", name=[f"b{i}" for i in range(5)])
    found = DejaVu(pd.concat([one, other], ignore_index=True), {}, {})
    assert found.partition().loc["A"].tolist() == [1, 2, 1, 1] and found.partition().loc["B"].tolist() == [1, 2, 1, 1]
    assert found.partition().columns.tolist() == ["memorised", "correlated", "misrepresented", "unassociated"]
    assert found.memorisation()["0"] == 1.0 and found.memorisation()["b0"] == -1.0


def test_the_score_is_that_of_the_most_confident_and_exchange_flips_its_sign():
    rights = [(True, False)] * 10 + [(False, True)] * 30
    sures = [(0.0, -1.0)] * 10 + [(-1.0, -2.0)] * 30
    found = DejaVu(made_up(rights, sures), {}, {})
    table = found.scores((0.25, 1.0)).set_index("share")
    assert (table.trained[0.25], table.other[0.25], table.score[0.25]) == (1.0, 0.0, 1.0)
    assert table.score[1.0] == pytest.approx(0.25 - 0.75) and table.low[1.0] < -0.5 < table.high[1.0]
    swapped = {f"{name}_{m}": f"{name}_{o}" for name in ("right", "sure", "votes") for m, o in ("AB", "BA")}
    turned = DejaVu(found.table.rename(columns=swapped), {}, {})
    np.testing.assert_allclose(turned.scores((1.0,)).score, -table.score[1.0])
    with pytest.raises(ValueError, match="share is 0; it must be above 0"):
        found.scores((0,))


@pytest.fixture(scope="module")
def sets():
    pool = pl.load_images("partshapes", n=400, size=32, seed=6)
    a, b, third, public = (pool.subset(slice(start, start + 100)) for start in range(0, 400, 100))
    return {"A": a, "B": b, "C": third, "public": public}


@pytest.fixture(scope="module")
def pair(sets):
    how = {"projector": True, "progress": False, "batch_size": 50, **TINY_VIT, "hidden": 64, "output": 32}
    return [pl.pretrain("simclr", sets[name], 2, seed, **how) for seed, name in enumerate("AB")]


@pytest.fixture(scope="module")
def result(pair, sets):
    return deja_vu(*pair, sets["public"], sets["C"], set_a=sets["A"], set_b=sets["B"], k=20, progress=False)


def test_one_background_is_judged_as_all_are(result, pair, sets):
    asked = Backgrounds(dict(zip("AB", pair, strict=True)), sets["public"], k=20)
    some, table = periphery(sets["A"]), result.table[result.table["set"] == "A"]
    named = result.association()[table.index].tolist()
    for row in range(5):
        inferred = asked.infer(some.images[row], some.boxes[row].tolist())
        for model, one in inferred.items():
            assert one.guess == table[f"guess_{model}"].iloc[row]
            assert one.sure == pytest.approx(table[f"sure_{model}"].iloc[row], abs=1e-6)
            assert len(one.neighbours) == 20 and float(one.votes.sum()) == pytest.approx(1)
        label = int(some.images.labels[row])
        assert association(inferred["A"].guess == label, inferred["B"].guess == label) == named[row]
    votes = asked.votes_table(inferred)
    assert len(votes) == 20 and votes.groupby("model").votes.sum().tolist() == pytest.approx([1, 1])
    assert set(votes["class"]) == set(sets["public"].classes)


def test_a_box_without_any_background_is_refused(pair, sets):
    asked = Backgrounds({"A": pair[0]}, sets["public"], "backbone", k=5)
    for box in (3, 3, 3, 9), (0, 0, 33, 9):
        with pytest.raises(pl.BadInput, match="is empty or leaves the image of 32 px"):
            asked.infer(sets["A"][0], box)
    with pytest.raises(ValueError, match="k is 0; it must be from 1 to the 100"):
        Backgrounds({"A": pair[0]}, sets["public"], "backbone", k=0)


def test_each_image_with_a_background_is_judged_by_both_models(result, pair, sets):
    table = result.table
    assert set(table["set"]) == {"A", "B", "C"}
    for name in "ABC":
        assert (table["set"] == name).sum() + len(result.unusable[name]) == 100
    some = periphery(sets["A"])
    (crops,) = some.crops(32)
    index = PublicIndex(pair[1].projections(sets["public"].batch(slice(None))), sets["public"].labels)
    votes = index.votes(pair[1].projections(crops), 20, 10)
    own = table[table["set"] == "A"]
    np.testing.assert_allclose(own.votes_B, votes[range(len(own)), own.label], rtol=1e-5)
    assert (own.right_B == (votes.argmax(1).numpy() == own.label)).all() and (own.top5_A >= own.right_A).all()
    assert result.accuracy("A", "B") == own.right_B.mean() and result.accuracy("A", "B", top5=True) == own.top5_B.mean()


def test_exchanging_the_models_flips_the_score(result, pair, sets):
    turned = deja_vu(*pair[::-1], sets["public"], sets["C"], set_a=sets["B"], set_b=sets["A"], k=20, progress=False)
    one, two = (found.scores((1.0,)).set_index("direction").score for found in (result, turned))
    np.testing.assert_allclose([two["C"], two["both"], two["A"]], [-one["C"], one["both"], one["B"]], atol=1e-12)


def test_two_models_that_are_the_same_remember_nothing(pair, sets):
    same = deja_vu(pair[0], pair[0], sets["public"], set_a=sets["A"], set_b=sets["B"], k=20, progress=False)
    assert (same.scores().score == 0).all() and (same.memorisation() == 0).all()
    assert same.partition()[["memorised", "misrepresented"]].to_numpy().sum() == 0


def test_permuted_public_labels_say_nothing(pair, sets):
    found = deja_vu(*pair, sets["public"], set_a=sets["A"], set_b=sets["B"], k=20, permute=0, progress=False)
    assert abs(found.table[["right_A", "right_B"]].to_numpy().mean() - 0.1) < 0.06


def test_a_layer_is_the_projector_the_backbone_or_a_block(pair, sets):
    pixels = sets["A"].batch(slice(0, 3))
    assert torch.equal(at_layer(pair[0], "projector")(pixels), pair[0].projections(pixels))
    assert torch.equal(at_layer(pair[0], "backbone")(pixels), at_layer(pair[0], 2)(pixels))
    assert not torch.equal(at_layer(pair[0], 1)(pixels), at_layer(pair[0], 2)(pixels))
    with pytest.raises(ValueError, match="layer is 'head'; it must be 'projector', 'backbone' or a number of blocks"):
        at_layer(pair[0], "head")


def test_one_model_is_compared_with_a_classifier_of_backgrounds(pair, sets):
    reference = pl.pretrain("supervised", sets["public"], 2, progress=False, batch_size=50, **TINY_VIT)
    found = one_model(pair[0], reference, sets["public"], sets["C"], members=sets["A"], k=20, progress=False)
    assert set(found.table["set"]) == {"A", "C"} and set(found.scores((1.0,)).direction) == {"A", "C"}
    assert found.table.votes_B.between(0, 1).all() and found.settings["one_model"]
    assert found.by_class().images.sum() == (found.table["set"] == "A").sum()


def test_sets_must_be_disjoint_and_labelled(pair, sets):
    with pytest.raises(pl.BadInput, match="the sets A and public share an image"):
        deja_vu(*pair, sets["A"], set_a=sets["A"], set_b=sets["B"])
    plain = ImageSet(sets["C"].batch(slice(None)))
    with pytest.raises(pl.BadInput, match="set C has images without a label"):
        deja_vu(*pair, sets["public"], plain, set_a=sets["A"], set_b=sets["B"])
    with pytest.raises(pl.BadInput, match=r"no image of set A has a background of 0\.9 of its side"):
        deja_vu(*pair, sets["public"], set_a=sets["A"], set_b=sets["B"], least=0.9, k=5)


def test_on_the_third_set_the_better_of_two_models_does_not_score():
    """Model A is right everywhere, B nowhere: no image was remembered."""
    table = made_up([(True, False)] * 40).assign(set="C")
    sides = [made_up([(True, False)] * 4), made_up([(True, False)] * 4).assign(set="B")]
    found = DejaVu(pd.concat([*sides, table], ignore_index=True), {}, {}).scores((1.0,)).set_index("direction")
    assert found.score[["A", "B", "both", "C"]].tolist() == [1.0, -1.0, 0.0, 0.0]
    assert found.images[["A", "B", "both", "C"]].tolist() == [4, 4, 8, 40]


def test_the_controls_stand_beside_the_score(pair, sets, tmp_path):
    how = {"set_a": sets["A"], "set_b": sets["B"], "k": 20, "shares": (0.5, 1.0), "progress": False}
    found, scores = with_controls(*pair, sets["public"], sets["C"], **how)
    assert scores.what.tolist() == [w for w in ("deja vu", "third set", "untrained", "permuted") for _ in range(2)]
    both = found.scores((0.5, 1.0)).query("direction == 'both'")
    assert scores[scores.what == "deja vu"].score.tolist() == both.score.tolist()
    paths = found.save(tmp_path / "images.csv", scores)
    assert [path.name for path in paths] == ["images.csv", "images-scores.csv", "images.json"]
    assert len(pd.read_csv(paths[0])) == len(found.table) and len(pd.read_csv(paths[1])) == 8


def test_an_untrained_pair_has_untrained_projectors(pair, sets):
    pixels, fresh = sets["A"].batch(slice(0, 2)), pair[0].untrained(3)
    assert fresh.projections(pixels).shape == pair[0].projections(pixels).shape
    assert torch.equal(fresh.projections(pixels), pair[0].untrained(3).projections(pixels))
    assert not torch.equal(fresh.projections(pixels), pair[0].untrained(4).projections(pixels))


def test_from_the_shell_two_encoders_are_compared(shell, sets, tmp_path):
    small = {"projector": True, "progress": False, **TINY_VIT}
    for name in "AB":
        split = pl.member_split(sets[name], members=40)
        pl.pretrain("simclr", split, 1, out=tmp_path / name, **small)
    files = ["--encoder", tmp_path / "A" / "encoder.safetensors", "--other", tmp_path / "B" / "encoder.safetensors"]
    public = ["--public", "partshapes", "--third", "partshapes"]
    status, _, err = shell("dejavu", *files, "--quiet")
    assert status == 2 and "is no twin of the zoo; name the images with --public" in err[-1]
    status, _, err = shell("dejavu", *files, *public, "--quiet")
    assert status == 2 and "share an image; they must be disjoint" in err[-1]


def audited(members, others=40, seed=0):
    """A made-up audit whose scores of the members rise with their number."""
    source = np.random.default_rng(seed)
    names = [*members, *(f"other {i}" for i in range(others))]
    member, score = np.arange(len(names)) < len(members), source.normal(size=len(names))
    score[: len(members)] = np.arange(len(members))
    return SimpleNamespace(scores=pd.DataFrame({"name": names, "member": member, "score": score, "fold": 0}))


def test_membership_and_memory_of_the_same_images_are_joined():
    memory = DejaVu(made_up([(False, True)] * 10 + [(True, True)] * 10 + [(True, False)] * 10), {}, {})
    names = [str(i) for i in range(30)]
    table = tables.joined_scores({"one": audited(names), "turned": audited(names[::-1])}, memory)
    assert len(table) == 60 and set(table["memory"]) == {-1.0, 0.0, 1.0} and table["rank"].between(0, 1).all()
    rho = table.groupby("attack")["rho"].first()
    assert rho["one"] > 0.9 and rho["turned"] == pytest.approx(-rho["one"])
    expected = np.tanh(np.arctanh(rho["one"]) + 1.96 * 1.06 / 27**0.5)
    assert table.high[0] == pytest.approx(expected, abs=1e-4) and table.low[0] < rho["one"]
    axes = plots.joined_scores(table)
    assert len(axes) == 2 and "rho" in axes[0].get_title()
    with pytest.raises(pl.BadInput, match="audit 'short' is not of the members of set A"):
        tables.joined_scores({"short": audited(names[1:])}, memory)


def test_the_table_of_the_dial_holds_shares_and_scores_of_the_projector_where_there_is_one():
    rows = [
        {"recipe": recipe, "correlation": c, "layer": layer, "what": what, "share": share, "images": 100}
        | {"memorised": 20, "correlated": int(10 + 60 * c) + (recipe == "supervised") * 20, "misrepresented": 15}
        | {"unassociated": 5}
        | {"score": 0.05, "low": 0.01, "high": 0.09, "N": 300, "public": 2000}
        for recipe, layers in (("simclr", ("backbone", "projector")), ("supervised", ("backbone",)))
        for layer in layers
        for c in (0.5, 0.0)
        for what in ("deja vu", "third set")
        for share in (0.2, 1.0)
    ]
    table = tables.dial_table(pd.DataFrame(rows))
    assert table.groupby("recipe")["layer"].agg(set).to_dict() == {"simclr": {"projector"}, "supervised": {"backbone"}}
    assert len(table) == 2 * 2 * (3 + 2) and (table.low < table.value).all() and (table.value < table.high).all()
    correlated = table[(table.curve == "correlated") & (table.recipe == "simclr")]
    assert correlated.correlation.tolist() == [0.0, 0.5] and correlated.value.tolist() == [0.1, 0.4]
    assert table[table.kind == "score"].curve.unique().tolist() == ["deja vu", "third set"]
    axes = plots.dial(table)
    assert axes.shape == (2, 2) and axes[0, 0].get_title() == "simclr, projector"
    low, high = axes[0, 1].get_ylim()
    assert low == 0 and high > table[table.kind == "share"].high.max()  # also of the recipe that is drawn last


def test_public_images_are_embedded_once_for_each_encoder_layer_and_projector(pair, monkeypatch):
    one, public = pair[0], pl.load_images("partshapes", n=30, size=32, seed=77)
    asked, stream = [], type(one)._stream
    monkeypatch.setattr(type(one), "_stream", lambda self, *how: asked.append(len(how[0])) or stream(self, *how))
    first, again = (public_index(one, "projector", public, public.labels) for _ in range(2))
    assert sum(asked) == 30 and np.array_equal(first.embeddings, again.embeddings)
    public_index(one, "backbone", public, public.labels)
    other = one.like(one._model, projector=torch.nn.Identity(), card=one.card, name="other")
    assert public_index(other, "projector", public, public.labels).embeddings.shape == (30, one.width)
    public_index(one, "projector", public.subset(slice(0, 20)), public.labels[:20])
    assert sum(asked) == 30 + 30 + 30 + 20
    bare = one.like(one._model, name="bare")
    with pytest.raises(pl.BadInput, match=r"bare has no projector; train it with pretrain\(projector=True\)"):
        public_index(bare, "projector", public, public.labels)


def grown(seeds=3):
    """Scores as benchmarks/dejavu_growth.py writes them: higher with every epoch, lower with more images."""
    return pd.DataFrame(
        {"recipe": "simclr", "N": n, "training_seed": seed, "T": t, "layer": layer, "what": what, "share": share}
        | {"probe": 0.4 + 0.1 * (layer == "backbone") + 0.01 * seed}
        | {"score": (what == "deja vu") * (t / n / 100 + 0.01 * seed), "images": 2 * n, "public": 2000}
        | {"low": (what == "deja vu") * (t / n / 100 + 0.01 * seed) - 0.03, "probe_members": 0.9, "probe_third": 0.6}
        | {"high": (what == "deja vu") * (t / n / 100 + 0.01 * seed) + 0.03}
        for seed in range(seeds)
        for n in (50, 100)
        for t in (150, 300)
        for layer in ("projector", *(("backbone", "1", "2") if t == 300 else ()))
        for what in ("deja vu", "third set")
        for share in (0.2, 1.0)
    )


def test_the_growth_of_deja_vu_is_told_over_pairs_with_images_and_their_spread_in_the_interval():
    table = tables.dejavu_growth_table(grown())
    one = table[(table["N"] == 50) & (table["T"] == 300) & (table["layer"] == "projector")].set_index("curve")
    own = one.loc["deja vu"]
    assert own["value"] == pytest.approx(0.07) and own["trainings"] == 3 and own["n"] == 100
    reach = (0.03**2 + 1.96**2 * 0.01**2 / 3) ** 0.5
    assert own["high"] - own["value"] == pytest.approx(reach, rel=1e-4) == own["value"] - own["low"]
    assert one.loc["third set", "value"] == 0 and one.loc["gap of the probe", "value"] == pytest.approx(0.3)
    axes = plots.dejavu_growth(table)
    assert [text.get_text() for text in axes[2].get_xticklabels()] == ["block 1", "block 2", "backbone", "projector"]
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["N = 50", "N = 100"]


def test_stopping_earlier_and_serving_an_earlier_layer_are_points_of_a_tradeoff():
    table = tables.dejavu_tradeoff(tables.dejavu_growth_table(grown()))
    one = table[table["N"] == 50].set_index("level")
    assert one["defense"].tolist() == ["early-stop", "none", *["guillotine"] * 3]
    assert one.index.tolist()[:2] == ["early-stop at 150", "none"] and "guillotine at 2" in one.index
    assert one.loc["none", "score"] == pytest.approx(0.07) and one.loc["none", "probe"] == pytest.approx(0.41)
    assert one.loc["guillotine at backbone", "probe"] == pytest.approx(0.51)
    drawn = plots.tradeoff(defenses.with_front(table, leak="score", by="N"), by="N", leak="score")
    assert [ax.get_title() for ax in drawn] == ["50", "100"] and "deja vu score" in drawn[0].get_ylabel()


def test_recipes_and_settings_are_told_each_where_its_training_ended_at_the_projector_if_it_has_one():
    bare = grown()[lambda table: table["layer"] != "projector"].assign(recipe="supervised")
    swept = pd.concat([grown().assign(recipe="simclr temperature=0.5"), bare])
    table = tables.dejavu_sweeps(tables.dejavu_growth_table(swept[swept["N"] == 50]))
    layers = table.drop_duplicates("recipe").set_index("recipe")["layer"]
    assert layers.to_dict() == {"simclr temperature=0.5": "projector", "supervised": "backbone"}
    assert set(table["T"]) == {300} and len(table) == 6
    axes = plots.dejavu_sweeps(table)
    assert [text.get_text() for text in axes[0].get_yticklabels()] == ["simclr temperature=0.5", "supervised"]
    third, score = ({round(x, 3) for x in bars[0].get_xdata()} for bars in axes[0].containers)
    assert third == {0.0} and score == {0.07} and axes[1].containers[0][0].get_xdata() == pytest.approx([0.3, 0.3])


def test_what_the_gap_foretells_is_a_rank_correlation_over_settings_with_the_third_set_as_control():
    gaps, noise = np.arange(20) / 20, np.random.default_rng(1).normal(size=20)
    curves = {"gap of the probe": gaps, "deja vu": gaps**3, "third set": noise}
    rows = [(f"r{i}", curve, values[i]) for curve, values in curves.items() for i in range(20)]
    found = tables.foretold(pd.DataFrame(rows, columns=["recipe", "curve", "value"])).set_index("curve")
    assert found.loc["deja vu"].tolist() == pytest.approx([1, 1, 1])
    ranks = np.argsort(np.argsort(noise))
    assert found.loc["third set", "correlation"] == pytest.approx(np.corrcoef(np.arange(20), ranks)[0, 1])
    assert found.loc["third set", "low"] < 0 < found.loc["third set", "high"]


def test_kept_tables_of_deja_vu_are_read_by_kind():
    assert set(pl.dejavu.measured()["recipe"]) >= {"simclr", "supervised"}
    with pytest.raises(ValueError, match="kind is 'epochs'; it must be one of dial, growth, painted"):
        pl.dejavu.measured("epochs")


def test_the_benchmark_turns_the_dial_of_the_zoos_own_pairs():
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    import dejavu as benchmark

    for name, correlation in (("simclr-correlated", 0.5), ("simclr-correlated-b", 0.5), ("vicreg", 0.0)):
        assert correlated(ZOO[name.replace("-correlated", "")], correlation) == replace(ZOO[name], keep=())
    import dejavu_growth

    for label in dejavu_growth.SWEEPS:
        one = dejavu_growth.entry(label, 100, 0, "a")
        assert make_recipe(one.recipe, **one.settings) and one.projector == (label != "supervised")
        assert max(one.along) < one.settings["epochs"] and (one.members, one.seed, one.pair) == (100, 0, "a")
    assert benchmark.encoder_of("simclr-b", 0.0).name == "zoo:simclr-b"
