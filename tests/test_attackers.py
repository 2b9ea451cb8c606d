"""attacks/attackers.py: every attacker learns, is deterministic and obeys scikit-learn's conventions."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from partcrop_lab.attacks import ATTACKERS, MLPAttacker, make_attacker
from partcrop_lab.attacks.attackers import RMSNorm, log_odds
from partcrop_lab.errors import BadInput

pytestmark = pytest.mark.numeric


def task(n=120, features=24, gap=1.5, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    return np.sort(rng.normal(size=(n, features)), axis=1) + gap * y[:, None] * rng.random((n, 1)), y


@pytest.mark.parametrize("name", sorted(ATTACKERS))
def test_an_attacker_separates_what_can_be_separated(name):
    (X, y), (X2, y2) = task(seed=1), task(seed=2)
    assert np.mean((log_odds(make_attacker(name, 0).fit(X, y), X2) > 0) == y2) > 0.6


@pytest.mark.parametrize("name", sorted(ATTACKERS))
def test_the_last_bit_of_a_feature_stays_the_last_bit_of_a_score(name):
    X, y = task(n=240, gap=0.6)
    held_out = task(n=240, gap=0.6, seed=1)[0]
    noise = np.random.default_rng(2).normal(scale=1e-7, size=X.shape)
    one, other = (log_odds(make_attacker(name, 0).fit(inputs, y), held_out) for inputs in (X, X * (1 + noise)))
    assert np.abs(one - other).max() < 0.003 * one.std()


def test_training_as_published_magnifies_the_last_bit():
    X, y = task(n=240, gap=0.6)
    published = MLPAttacker(activation="relu", schedule="constant")
    noise = np.random.default_rng(2).normal(scale=1e-7, size=X.shape)
    one, other = (log_odds(clone(published).fit(inputs, y), X) for inputs in (X, X * (1 + noise)))
    assert np.abs(one - other).max() > 0.003 * one.std()


@pytest.mark.parametrize("name", sorted(ATTACKERS))
def test_same_seed_same_scores(name):
    X, y = task()
    first, second = (log_odds(make_attacker(name, 3).fit(X, y), X) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("name", "hidden"),
    [("mlp", [512, 256, 128]), ("mlp-wide", [1024, 512, 256]), ("mlp-narrow", [256, 128, 64]),
     ("mlp-deep", [512, 256, 256, 128]), ("mlp-shallow", [512, 128])],
)  # fmt: skip
def test_the_five_structures_have_the_published_widths(name, hidden):
    X, y = task(40, 16)
    layers = [m for m in make_attacker(name).set_params(epochs=1).fit(X, y).network_ if isinstance(m, torch.nn.Linear)]
    assert [layer.in_features for layer in layers] == [16, *hidden] and layers[-1].out_features == 1


@pytest.mark.parametrize(
    ("how", "spread"), [({"activation": "relu"}, 0.01), ({"variant": "v2"}, 0.01), ({}, 0.01 * 2**0.5)]
)
def test_weights_start_as_published_or_so_that_as_much_gets_through(how, spread):
    layers = MLPAttacker(**how)._network(256, torch.Generator().manual_seed(0))
    first, *_, last = [layer for layer in layers if isinstance(layer, torch.nn.Linear)]
    assert first.weight.std().item() == pytest.approx(spread, rel=0.02) and not first.bias.any() and not last.bias.any()


def test_v2_normalises_its_input_and_every_hidden_layer():
    X, y = task()
    network = MLPAttacker(variant="v2", epochs=1).fit(X, y).network_
    kinds = [type(m).__name__ for m in network]
    assert kinds == ["RMSNorm", *["Linear", "Tanh", "RMSNorm"] * 3, "Linear"]
    x, ones = torch.randn(5, 7), torch.ones(1, 24)
    torch.testing.assert_close(RMSNorm()(x), x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt())
    torch.testing.assert_close(network(ones), network(3 * ones), atol=1e-5, rtol=1e-5)


def test_batches_hold_as_many_members_as_non_members():
    seen, X = [], np.random.default_rng(0).normal(size=(330, 4))
    y = (np.arange(330) < 110).astype(int)

    class Watching(MLPAttacker):
        def _epoch(self, inputs, targets, sides, adam, generator):
            seen.append([len(side) for side in sides])
            return super()._epoch(inputs, targets, sides, adam, generator)

    losses = []
    Watching(epochs=3, hidden=(8,)).fit(X, y, on_epoch=lambda epoch, loss, attacker: losses.append(loss))
    assert seen == [[220, 110]] * 3 and len(losses) == 3


def test_the_loss_falls():
    losses = []
    MLPAttacker(epochs=30).fit(*task(), on_epoch=lambda epoch, loss, attacker: losses.append(loss))
    assert losses[-1] < 0.7 * losses[0]


def test_attackers_can_be_cloned_and_keep_their_settings():
    attacker = MLPAttacker(hidden=(8,), epochs=3, variant="v2")
    assert clone(attacker).get_params() == attacker.get_params()


def test_a_classifier_of_ones_own_is_welcome_and_gets_the_seed():
    own = make_attacker(LogisticRegression(), seed=7)
    assert own.random_state == 7 and log_odds(own.fit(*task()), task()[0]).shape == (120,)
    assert log_odds(make_attacker(SVC()).fit(*task()), task()[0]).shape == (120,)


def test_unknown_attackers_are_refused_with_the_right_ones():
    with pytest.raises(ValueError, match="boosting, deepsets, likelihood-ratio, logistic, mlp"):
        make_attacker("forest")
    with pytest.raises(BadInput, match="scikit-learn classifier"):
        make_attacker(object())
    with pytest.raises(ValueError, match="variant is 'v3'; it must be one of v1, v2"):
        MLPAttacker(variant="v3").fit(*task())
    with pytest.raises(ValueError, match="activation is 'elu'; it must be one of gelu, relu"):
        MLPAttacker(activation="elu").fit(*task())
    with pytest.raises(ValueError, match="schedule is 'step'; it must be one of cosine, constant"):
        MLPAttacker(schedule="step").fit(*task())


def test_one_class_and_nan_are_refused():
    X, y = task()
    with pytest.raises(ValueError, match="members and non-members"):
        MLPAttacker().fit(X, np.zeros_like(y))
    X[3, 4] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        MLPAttacker().fit(X, y)
