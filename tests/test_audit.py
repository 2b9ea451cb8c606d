"""audit/: verdicts, controls and protocols on encoders whose truth is known."""

import numpy as np
import pandas as pd
import pytest
import torch

import partcrop_lab as pl
from partcrop_lab.audit import released_images, run
from partcrop_lab.audit.crossfit import assign_folds, cross_fit
from partcrop_lab.audit.verdict import Case, confounders, outcome, sentence
from partcrop_lab.errors import BadInput

ATTACK = pl.attacks.PartCrop(crops=6)
QUICK = {"attack": ATTACK, "attacker": "logistic", "permutations": 3, "progress": False}


@pytest.fixture(scope="module")
def split():
    return pl.member_split(pl.load_images("partshapes", n=260, size=32, seed=11), members=120, seed=1)


def remembering(encoder, split, strength=1.0):
    """An encoder that answers its training images with longer feature vectors: a memory planted on purpose."""
    brightness = {tuple(image[:, ::5, ::5].flatten().tolist()) for image in split.members.batch(slice(None))}

    def forward(images):
        maps, cls = encoder.tokens(images)
        pixels = (images * 255).round().to(torch.uint8)
        known = [tuple(image[:, ::5, ::5].flatten().tolist()) in brightness for image in pixels]
        return maps * (1 + strength * torch.tensor(known, dtype=torch.float32))[:, None, None], cls

    return pl.load_encoder(
        forward,
        image_size=32,
        patch=8,
        name="remembering",
        micro_batch=256,
        card={"split_digest": split.digest, "N": 120, "T": 7},
        untrained=lambda seed: encoder.untrained(seed).tokens,
    )


def test_a_planted_memory_is_evidence(tiny_encoder, split):
    result = pl.audit(remembering(tiny_encoder, split), split, **QUICK)
    assert result.verdict.startswith("Evidence of leakage") and result.metrics.loc["auc", "low"] > 0.8
    assert "120 members and 120 non-members" in result.verdict and "N = 120, T = 7" in result.verdict
    assert result.settings["membership"] == "trained" and result.fault is None


def test_an_encoder_never_trained_is_a_null_check_without_evidence(tiny_encoder, split):
    result = pl.audit(tiny_encoder, split, **QUICK)
    assert result.verdict.startswith("No evidence of leakage: null check")
    assert result.metrics.loc["auc", "low"] < 0.5 < result.metrics.loc["auc", "high"]
    assert "would have been found four times in five" in result.verdict


def test_sets_that_differ_in_pixels_are_confounded(tiny_encoder, split):
    members = split.members.batch(slice(None))
    darker = pl.ImageSet((members.float() * 0.7).to(torch.uint8), split.members.names)
    result = pl.audit(tiny_encoder, pl.member_split(darker, split.nonmembers), **QUICK)
    assert result.verdict.startswith("Confounded: ") and "pixel statistics alone" in result.verdict


@pytest.mark.parametrize(("kind", "attacker"), [("S", "deepsets"), ("T", "logistic")])
def test_an_attack_brings_its_own_attacker_and_pixel_statistics_theirs(
    kind, attacker, tiny_encoder, split, monkeypatch
):
    used = []
    monkeypatch.setattr(run, "cross_fit", lambda X, *rest: used.append((X.shape[1], rest[2])) or cross_fit(X, *rest))
    attack = pl.attacks.EncoderMI(kind, views=3)
    result = pl.audit(tiny_encoder, split, attack, seed=1, permutations=0, progress=False)
    width = {"S": 3, "T": 1}[kind]
    assert used[:2] == [(width, attacker)] * 2 and used[2][0] > 100 and used[2][1] == "mlp"
    assert result.settings["attacker"] == attacker and result.outcome == "No evidence of leakage"


def test_the_released_protocol_is_confounded_and_says_so(tiny_encoder, split):
    result = pl.audit(tiny_encoder, split, ATTACK, "mlp", protocol="released", permutations=1, progress=False)
    assert result.outcome == "Confounded" and "released protocol" in result.verdict
    curve = result.settings["accuracy_by_epoch"]
    assert len(curve) == 100 and max(curve) >= curve[-1]


def test_the_released_protocol_crops_members_and_leaves_the_others(split):
    shown = released_images(split, seed=0).batch(slice(None))
    same = (shown == split.images.batch(slice(None))).flatten(1).all(1).numpy()
    assert same[~split.member].all() and not same[split.member].any()


def test_claimed_membership_must_beat_the_controls(tiny_encoder, split):
    given = pl.member_split(split.members, split.nonmembers)
    result = pl.audit(remembering(tiny_encoder, split), given, **QUICK)
    assert result.settings["membership"] == "trained"  # the same images, so the same digest
    function = remembering(tiny_encoder, split).tokens
    claimed = pl.load_encoder(function, image_size=32, name="claimed", patch=8, micro_batch=256)
    result = pl.audit(claimed, given, **QUICK)
    assert result.settings["membership"] == "given" and result.outcome == "Evidence of leakage"
    assert (result.controls.loc[["untrained", "pixels"], "paired_p"] < 0.05).all()


def test_a_declared_split_is_given(tiny_encoder, split):
    assert pl.audit(tiny_encoder, split, declared=True, **QUICK).settings["membership"] == "given"


def test_same_seed_same_numbers(tiny_encoder, split):
    first, second = (pl.audit(tiny_encoder, split, seed=4, **QUICK) for _ in range(2))
    pd.testing.assert_frame_equal(first.metrics, second.metrics)
    pd.testing.assert_frame_equal(first.scores, second.scores)
    assert first.verdict == second.verdict


def test_every_image_is_scored_once_out_of_fold(tiny_encoder, split):
    scores = pl.audit(tiny_encoder, split, **QUICK).scores
    assert list(scores.columns[:4]) == ["name", "member", "score", "fold"] and scores.name.is_unique
    assert scores.groupby(["fold", "member"]).size().tolist() == [60, 60, 60, 60]


def test_scores_come_from_an_attacker_that_never_saw_the_image():
    """Features that identify each image let an attacker score its own training set perfectly, others not at all."""
    member, X = np.arange(80) < 40, np.eye(80)
    fold = assign_folds(member, 2, 0)
    fitted = cross_fit(X, member, fold, "logistic", 0)
    for k in (0, 1):
        assert len(np.unique(np.round(fitted.scores[fold == k], 6))) == 1
        assert (fitted.attackers[k].predict(X[fold != k]) == member[fold != k]).all()


def test_repeats_are_averaged(tiny_encoder, split):
    result = pl.audit(tiny_encoder, split, ATTACK, "logistic", repeats=3, controls=False, progress=False)
    fold, each = assign_folds(split.member, 2, 0), []
    for seed in range(3):
        X = ATTACK.features(tiny_encoder, split.images, seed, progress=False)
        each.append(cross_fit(X, split.member, fold, "logistic", 100 * seed).scores)
    assert not np.allclose(each[0], each[1])
    np.testing.assert_allclose(result.scores.score, np.mean(each, axis=0))


def test_permutation_p_values_come_with_999_refits(tiny_encoder, split):
    result = pl.audit(remembering(tiny_encoder, split), split, ATTACK, "logistic", permutations=999, progress=False)
    assert result.p_value == pytest.approx(1 / 1000)


def test_new_images_can_be_scored(tiny_encoder, split):
    result = pl.audit(remembering(tiny_encoder, split), split, **QUICK)
    members, fresh = result.predict(split.members), result.predict(pl.load_images("partshapes", n=40, size=32, seed=99))
    assert members.nonmembers_above.mean() < 0.2 < fresh.nonmembers_above.mean() < 0.8
    with pytest.raises(BadInput, match="side of 64 px"):
        result.predict(pl.load_images("partshapes", n=4, size=64))


def test_a_result_survives_saving(tiny_encoder, split, tmp_path):
    result = pl.audit(tiny_encoder, split, **QUICK)
    result.save(tmp_path / "result.json")
    loaded = pl.AuditResult.load(tmp_path / "result.json")
    for table in ("metrics", "scores", "controls", "null_band"):
        tables = getattr(loaded, table), getattr(result, table)
        pd.testing.assert_frame_equal(*tables, check_names=False, check_dtype=False)
    assert (loaded.verdict, loaded.p_value, loaded.settings) == (result.verdict, result.p_value, result.settings)
    with pytest.raises(BadInput, match="without its attackers"):
        loaded.predict(split.members)


def test_two_results_are_compared_image_by_image_where_they_can_be(tiny_encoder, split, tmp_path, shell):
    leaky = pl.audit(remembering(tiny_encoder, split), split, controls=False, **QUICK)
    clean = pl.audit(tiny_encoder, split, controls=False, **QUICK)
    found = leaky.minus(clean)
    aucs = [each.metrics.loc["auc", "value"] for each in (leaky, clean)]
    assert found.paired and found.gain == pytest.approx(aucs[0] - aucs[1]) and found.low > 0.2 and found.p_value < 1e-6
    back = clean.minus(leaky)
    assert (back.gain, back.low, back.high) == pytest.approx((-found.gain, -found.high, -found.low))
    assert leaky.minus(leaky)[["gain", "p_value"]].tolist() == [0, 1]
    other = pl.audit(tiny_encoder, split, seed=1, controls=False, **QUICK)
    assert not leaky.minus(other).paired and 0.2 < leaky.minus(other).low < leaky.minus(other).gain
    for name, result in (("a.json", leaky), ("b.json", clean)):
        result.save(tmp_path / name)
    status, out, _ = shell("difference", tmp_path / "a.json", tmp_path / "b.json")
    assert status == 0 and f"{found.gain:+.3f} (95 % interval" in out and "the same images in the same folds" in out


def test_a_file_that_is_no_result_is_refused(tmp_path):
    (tmp_path / "x.json").write_text('{"a": 1}')
    with pytest.raises(BadInput, match=r"x\.json: not an audit result"):
        pl.AuditResult.load(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"protocol": "loose"}, "matched, released"), ({"folds": 1}, "at least 2"), ({"repeats": 0}, "at least 1")],
)
def test_wrong_options_are_refused(tiny_encoder, split, wrong, message):
    with pytest.raises(ValueError, match=message):
        pl.audit(tiny_encoder, split, **{**QUICK, **wrong})


def test_too_few_images_are_refused(tiny_encoder, split):
    few = pl.member_split(split.members.subset(slice(0, 6)), split.nonmembers.subset(slice(0, 6)))
    with pytest.raises(BadInput, match="at least 8"):
        pl.audit(tiny_encoder, few, **QUICK)


def case(p=0.5, untrained=0.5, pixels=0.5, paired=0.01, membership="trained"):
    rows = {"untrained": (0.5, 0.4, 0.6, untrained, paired), "pixels": (0.5, 0.4, 0.6, pixels, paired)}
    controls = pd.DataFrame.from_dict(rows, orient="index", columns=["auc", "low", "high", "p_value", "paired_p"])
    return Case((0.7, 0.6, 0.8), p, controls, membership, "9 members and 9 non-members of x", 0.8)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (case(), "No evidence of leakage"),
        (case(p=0.049), "Evidence of leakage"),
        (case(p=0.001, untrained=0.0049), "Confounded"),
        (case(p=0.001, untrained=0.0051), "Evidence of leakage"),
        (case(p=0.9, pixels=0.0001), "Confounded"),
        (case(p=0.001, paired=0.2), "Evidence of leakage"),
        (case(p=0.001, paired=0.2, membership="given"), "No evidence of leakage"),
        (case(p=0.001, paired=0.01, membership="given"), "Evidence of leakage"),
        (case(p=0.001, membership="null check"), "Evidence of leakage"),
    ],
)
def test_the_verdict_follows_the_rules_of_methods_3_6(given, expected):
    assert outcome(given) == expected and sentence(given).startswith(expected)


def test_confounders_are_named_and_a_false_alarm_is_called_one():
    assert confounders(case(untrained=0.001, pixels=0.006)) == ["untrained", "pixels"]
    assert "false alarm" in sentence(case(p=0.001, membership="null check"))
    assert "not better than" in sentence(case(p=0.001, paired=0.2, membership="given"))
