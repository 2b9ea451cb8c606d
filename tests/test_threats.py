"""Who attacks: one who knows half of the membership, one with a shadow encoder, one who knows nothing."""

import numpy as np
import pytest
from test_audit import ATTACK, QUICK, remembering

import partcrop_lab as pl
from partcrop_lab.attacks import ATTACKS, PartCosine, make_attacker
from partcrop_lab.attacks.attackers import UNSUPERVISED, log_odds
from partcrop_lab.audit import crossfit
from partcrop_lab.errors import BadInput


class RisingNorms(pl.attacks.Norms):
    """The planted memory makes vectors longer."""

    rising = True


@pytest.fixture(scope="module")
def pool():
    return pl.load_images("partshapes", n=520, size=32, seed=11)


@pytest.fixture(scope="module")
def split(pool):
    return pl.member_split(pool, members=120, seed=1)


@pytest.fixture(scope="module")
def shadow(pool, split, tiny_encoder):
    """Another encoder with a memory of its own images."""
    taken = set(split.images.names)
    rest = pool.subset([name for name in pool.names if name not in taken])
    own = pl.member_split(rest, members=100, seed=2)
    made = remembering(tiny_encoder, own)
    made.name, made.card["split"] = "shadow", own.record()
    return made


def test_an_attacker_with_a_shadow_encoder_needs_no_known_member(tiny_encoder, split, shadow):
    result = pl.audit(remembering(tiny_encoder, split), split, shadow=shadow, **QUICK)
    assert result.outcome == "Evidence of leakage" and result.metrics.loc["auc", "low"] > 0.7
    assert result.settings["threat"] == "shadow encoder" and result.settings["shadow"]["name"] == "shadow"
    assert "attacker with a shadow encoder, shadow, with 100 members and 100 non-members of its own" in result.verdict
    assert result.fault is None and result.predict(split.members).nonmembers_above.mean() < 0.2


def test_the_labels_of_the_audited_images_do_not_reach_an_attacker_with_a_shadow(tiny_encoder, split, shadow):
    target = remembering(tiny_encoder, split)
    swapped = pl.member_split(split.nonmembers, split.members)
    how = QUICK | {"controls": False}
    scores = [pl.audit(target, each, shadow=shadow, **how).scores.set_index("name").score for each in (split, swapped)]
    first, second = (each.rename(lambda name: name.split("/")[-1]) for each in scores)
    np.testing.assert_allclose(first, second[first.index])


def test_shadow_and_audited_images_must_differ(tiny_encoder, split, shadow):
    with pytest.raises(BadInput, match="200 of the 200 images audited are also among those of the shadow encoder shad"):
        pl.audit(tiny_encoder, shadow.split, shadow=shadow, **QUICK)
    with pytest.raises(ValueError, match="with a shadow encoder it must be matched"):
        pl.audit(tiny_encoder, split, shadow=shadow, protocol="released", **QUICK)


def test_shadow_and_audited_images_must_have_one_size(tiny_encoder, shadow):
    larger = pl.member_split(pl.load_images("partshapes", n=90, size=40, seed=3), members=40)
    with pytest.raises(BadInput, match="have 32 px a side, those audited 40"):
        pl.audit(tiny_encoder, larger, shadow=shadow, **QUICK)


def test_a_reference_encoder_must_not_have_seen_the_audited_images(tiny_encoder, shadow):
    attack = pl.attacks.Alignment(references=(shadow,))
    assert attack.needs == ["6 queries an image", "1 reference encoder trained on other images"]
    with pytest.raises(BadInput, match="100 of the 200 images audited are also among those of the reference encoder"):
        pl.audit(tiny_encoder, shadow.split, attack, permutations=0, progress=False)


def test_an_attacker_that_knows_no_member_finds_a_planted_memory(tiny_encoder, split):
    target = remembering(tiny_encoder, split)
    result = pl.audit(target, split, RisingNorms(pooling="mean"), UNSUPERVISED, permutations=3, progress=False)
    assert result.outcome == "Evidence of leakage" and result.metrics.loc["auc", "low"] > 0.8
    assert result.settings["threat"] == "unsupervised" and result.settings["needs"][-1] == "no known membership"
    assert result.metrics.loc["balanced_accuracy", "value"] > 0.8


def test_its_threshold_parts_two_groups_without_their_labels():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(0, 1, (300, 3)), rng.normal(3, 1, (100, 3))])
    fitted = make_attacker(UNSUPERVISED).fit(X, rng.integers(0, 2, 400))
    assert (fitted.predict(X) == (np.arange(400) >= 300)).mean() > 0.95
    np.testing.assert_array_equal(log_odds(fitted, X) > 0, fitted.predict(X) == 1)


def test_features_without_a_direction_need_known_members(tiny_encoder, split):
    with pytest.raises(ValueError, match="with membership; the attack must be one of alignment, calibrated, enco"):
        pl.audit(tiny_encoder, split, ATTACK, UNSUPERVISED)


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_every_attack_says_what_it_needs(name):
    attack = ATTACKS[name]()
    assert attack.needs[0].startswith(f"{attack.queries} quer")
    assert len(attack.needs) == 1 + (name == "reconstruction")  # which needs the decoder, too


def test_from_the_shell_references_and_a_shadow_are_encoders_with_splits(shell, tmp_path):
    """Two encoders trained on disjoint images, and an audit of one by the other."""
    pool = pl.load_images("partshapes", n=170, size=32, seed=3)
    first = pl.member_split(pool.subset(slice(0, 80)), members=30)
    second = pl.member_split(pool.subset(slice(80, 160)), members=30)
    small = {"embed_dim": 48, "depth": 1, "num_heads": 3, "progress": False}
    for name, own in (("a", first), ("b", second)):
        pl.pretrain("mae", own, 1, out=tmp_path / name, **small)
    files = [tmp_path / name / "encoder.safetensors" for name in "ab"]
    common = ["audit", "--encoder", files[0], "--attack", "partcosine crops=2", "--permutations", 1]
    status, out, _ = shell(*common, "--reference", files[1])
    assert status == 0 and "1 reference encoder trained on other images" in out
    status, out, _ = shell(*common, "--shadow", files[1])
    assert status == 0 and "with 30 members and 30 non-members of its own" in out
    assert shell(*common, "--shadow", files[0])[0] == 2


def test_an_attacker_may_know_fewer_images_and_the_controls_know_as_few(tiny_encoder, split, monkeypatch):
    sizes, make = [], crossfit.make_attacker

    class Counted:
        def __init__(self, attacker, seed):
            self.inner = make(attacker, seed)

        def fit(self, X, y):
            sizes.append((int(y.sum()), int((1 - y).sum())))
            self.inner.fit(X, y)
            return self

        def decision_function(self, X):
            return self.inner.decision_function(X)

    monkeypatch.setattr(crossfit, "make_attacker", Counted)
    how = {"attack": PartCosine(crops=4), "permutations": 2, "progress": False}
    few = pl.audit(tiny_encoder, split, known=0.1, **how)
    members, others = int(split.member.sum()), int((~split.member).sum())
    assert len(sizes) == 2 * (3 + 2), "target, two controls, two permutations; two folds"
    assert set(sizes) <= {(m, n) for m in range(members) for n in range(others) if abs(m - 0.1 * members) <= 1}
    assert few.settings["known"] == 0.1 and few.settings["needs"][-1] == "the membership of 10 % of the images"
    sizes.clear()
    most, plain = (pl.audit(tiny_encoder, split, **(how | more)) for more in ({"known": 0.5}, {}))
    assert len(set(sizes)) <= 2 and most.scores.score.tolist() == plain.scores.score.tolist()


def test_images_known_to_a_weaker_attacker_are_known_to_a_stronger(split):
    allowed = np.arange(len(split.member)) % 2 == 0
    few, many = (set(crossfit._some(split.member, allowed, share, 0)) for share in (0.2, 0.6))
    assert few < many <= set(np.flatnonzero(allowed))
    assert len(few) == sum(round(0.2 * (allowed & side).sum()) for side in (split.member, ~split.member))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"known": 0.6}, "known is 0.6; with 2 folds it must be above 0 and at most 0.5"),
        ({"known": 0.01}, "an attacker needs at least 4"),
        ({"known": 0.5, "attacker": "unsupervised"}, "knows none"),
    ],
)
def test_a_share_known_that_cannot_be_is_refused(more, told, tiny_encoder, split):
    with pytest.raises(ValueError, match=told):
        pl.audit(tiny_encoder, split, PartCosine(crops=4), progress=False, **more)
