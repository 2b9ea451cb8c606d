"""DP-SGD: clipped gradients against a loop, epsilon against another accountant, and no epsilon where there is none."""

import math

import numpy as np
import pytest
import torch
from dp_accounting import DpEvent, PoissonSampledDpEvent, SelfComposedDpEvent, pld, rdp
from dp_accounting.dp_event import GaussianDpEvent
from small_recipes import losses, settings

import partcrop_lab as pl
from partcrop_lab.encoders import training
from partcrop_lab.encoders.checkpoint import read_weights
from partcrop_lab.encoders.encoder import Encoder
from partcrop_lab.encoders.privacy import ORDERS, Privacy, clipped_sum, noise_like, not_separable
from partcrop_lab.encoders.recipes import RECIPES, make_recipe

SEPARABLE = ["cae", "mae", "simmim", "supervised"]


@pytest.fixture(scope="module")
def images():
    return pl.load_images("partshapes", n=24, size=32, seed=3)


def seeded():
    return torch.Generator().manual_seed(0)


def small(recipe):
    own = {name: value for name, value in settings(recipe).items() if name != "progress"}
    return make_recipe(recipe, **own).objective(32, seed=0)


def trained(objective):
    return [value for value in objective.parameters() if value.requires_grad]


@pytest.mark.parametrize("recipe", SEPARABLE)
def test_the_clipped_sum_equals_a_loop_over_images(recipe, images):
    objective = small(recipe).eval()  # no drop path: chance would differ between the two
    drawn = objective.drawn(images.batch(slice(0, 20)), seeded(), torch.as_tensor(images.labels[:20]))
    grads, norms = [], []
    for i in range(20):
        loss = objective.each(*(part[[i]] for part in drawn))[0]
        own = torch.autograd.grad(loss, trained(objective), allow_unused=True)
        grads.append([torch.zeros_like(p) if g is None else g for p, g in zip(trained(objective), own)])
        norms.append(math.sqrt(sum(float(g.square().sum()) for g in grads[-1])))
    clip = float(np.median(norms))  # half of them are cut
    total, found = clipped_sum(objective, drawn, clip)
    for k, value in enumerate(total):
        expected = sum(min(1, clip / norm) * own[k] for norm, own in zip(norms, grads))
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found, objective.each(*drawn))


def test_one_image_changes_a_step_by_no_more_than_the_clip(images):
    objective = small("mae")
    drawn = objective.drawn(images.batch(slice(0, 8)), seeded())
    whole, _ = clipped_sum(objective, drawn, clip=0.3)
    for i in range(8):
        rest = [j for j in range(8) if j != i]
        without, _ = clipped_sum(objective, tuple(part[rest] for part in drawn), clip=0.3)
        change = math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(whole, without)))
        assert change <= 0.3 * (1 + 1e-4)


def test_a_step_may_draw_no_image(images):
    objective = small("mae")
    drawn = objective.drawn(images.batch(slice(0, 2)), seeded())
    total, found = clipped_sum(objective, tuple(part[:0] for part in drawn), clip=1.0)
    assert len(found) == 0 and not any(value.any() for value in total)


def test_the_noise_is_as_large_as_said(images, monkeypatch):
    """With gradients of nothing, what moves the weights is noise of noise x clip over the expected images of a step."""
    seen = []

    def nothing(objective, drawn, clip):
        return [torch.zeros_like(value) for value in trained(objective)], torch.ones(len(drawn[0]))

    def looked(optimizer, *_):
        seen.append(torch.cat([p.grad.flatten() for group in optimizer.param_groups for p in group["params"]]))

    monkeypatch.setattr(training, "clipped_sum", nothing)
    monkeypatch.setattr(torch.optim.AdamW, "step", looked)
    pl.pretrain("mae", images, 1, privacy=Privacy(noise=3.0, clip=0.5), **settings("mae"))
    assert len(seen) == 2 and abs(float(seen[0].std()) / (3.0 * 0.5 / 12) - 1) < 0.01
    assert not torch.equal(*seen)


def test_images_are_drawn_independently(images):
    run = training._Run(make_recipe("mae"), images, 0, "cpu", "fp32", None, privacy=Privacy(1.0))
    run.batches = 4
    source, counts = seeded(), []
    for _ in range(200):
        counts += [len(rows) for rows in run._drawn(source)]
    assert abs(np.mean(counts) - 6) < 0.3 and abs(np.var(counts) - 24 * 0.25 * 0.75) < 0.6  # binomial (24, 1/4)


def sampled_gaussian(noise: float, rate: float, steps: int) -> DpEvent:
    return SelfComposedDpEvent(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)), steps)


@pytest.mark.parametrize(
    ("noise", "batches", "steps"), [(1.0, 50, 500), (2.08, 3, 90), (8.5, 6, 7200), (40.0, 6, 7200)]
)
def test_epsilon_agrees_with_another_accountant(noise, batches, steps):
    """RDP at equal orders to a thousandth, PRV against privacy loss distributions to a hundredth."""
    event, delta = sampled_gaussian(noise, 1 / batches, steps), 1e-5
    other = rdp.RdpAccountant(ORDERS)
    ours = Privacy(noise, delta=delta, accountant="rdp").epsilon(batches, steps)
    assert ours < 10 and ours == pytest.approx(other.compose(event).get_epsilon(delta), rel=1e-3)
    exact = pld.PLDAccountant().compose(event).get_epsilon(delta)
    assert Privacy(noise, delta=delta).epsilon(batches, steps) == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize(("epsilon", "accountant"), [(1.0, "prv"), (8.0, "prv"), (8.0, "rdp"), (150.0, "rdp")])
def test_the_noise_for_an_epsilon_has_it(epsilon, accountant):
    how = Privacy.for_epsilon(epsilon, images=300, batch_size=50, epochs=100, accountant=accountant)
    assert epsilon * 0.98 < how.epsilon(6, 600) <= epsilon


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_only_losses_of_single_images_get_an_epsilon(recipe):
    assert (not_separable(small(recipe)) is None) == (recipe in SEPARABLE)


def test_mixing_images_takes_the_guarantee_away():
    mixed = make_recipe("supervised", mixup=0.2, classes=10, depth=1).objective(32, seed=0)
    assert not_separable(mixed) == "mixup mixes the images of a batch"


def test_a_coupled_loss_gets_noise_but_no_epsilon(images):
    encoder = pl.pretrain("simclr", images, 1, privacy=Privacy(1.0), **settings("simclr"))
    about = encoder.card["privacy"]
    assert about["epsilon"] is None and about["guarantee"].startswith("no formal guarantee: the loss of simclr")
    assert encoder.digest != pl.pretrain("simclr", images, 1, **settings("simclr")).digest
    again = pl.pretrain("simclr", images, 1, privacy=Privacy(1.0), **settings("simclr"))
    assert again.digest == encoder.digest


def test_the_card_says_what_is_guaranteed_after_how_many_steps(images, tmp_path):
    how = {"privacy": Privacy(2.0), "out": tmp_path, **settings("mae")}
    early = pl.pretrain("mae", images, 4, stop=2, **how).card["privacy"]
    late = pl.pretrain("mae", images, 4, **how).card["privacy"]
    assert (early["steps"], late["steps"]) == (4, 8) and 0 < early["epsilon"] < late["epsilon"]
    assert late["epsilon"] == Privacy(2.0).epsilon(2, 8)
    assert "if nobody knows the seed" in late["guarantee"] and f"({late['epsilon']:.3g}, 1e-05)" in late["guarantee"]


@pytest.mark.parametrize("recipe", ["mae", "simclr", "supervised"])
def test_a_private_run_that_was_stopped_goes_on_as_if_it_had_not_been(recipe, images, tmp_path):
    how = {"privacy": Privacy(1.0), **settings(recipe)}
    whole = pl.pretrain(recipe, images, 4, out=tmp_path / "whole", **how)
    pl.pretrain(recipe, images, 4, out=tmp_path / "parts", stop=1, **how)
    parts = pl.pretrain(recipe, images, 4, out=tmp_path / "parts", **how)
    assert parts.digest == whole.digest and losses(tmp_path / "parts") == losses(tmp_path / "whole")
    with pytest.raises(pl.BadInput, match="holds another run"):
        pl.pretrain(recipe, images, 4, out=tmp_path / "parts", **settings(recipe))


def test_a_secret_run_cannot_be_repeated_from_what_is_published(images, tmp_path):
    how = {"privacy": Privacy(1.0, secret=True), **settings("mae")}
    first, second = (pl.pretrain("mae", images, 2, out=tmp_path / name, **how) for name in "ab")
    assert first.digest != second.digest and "if nobody knows" not in first.card["privacy"]["guarantee"]
    key = read_weights(tmp_path / "a" / "state.pt")["key"]
    assert key and str(key) not in str(first.card)
    resumed = pl.pretrain("mae", images, 2, out=tmp_path / "a", **how)
    assert isinstance(resumed, Encoder) and resumed.digest == first.digest


def test_noise_is_drawn_anew_for_each_tensor():
    one, two = noise_like([torch.zeros(1000), torch.zeros(10, 100)], 2.0, seeded())
    assert abs(float(one.std()) - 2) < 0.2 and two.shape == (10, 100) and not torch.equal(one, two.flatten())


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (lambda: Privacy(0.0), "noise is 0.0; it must be a number above 0"),
        (lambda: Privacy(1.0, clip=math.nan), "clip is nan"),
        (lambda: Privacy(1.0, delta=1.0), "delta is 1.0; it must lie between 0 and 1"),
        (lambda: Privacy(1.0, accountant="gdp"), "must be one of prv, rdp"),
        (lambda: Privacy.for_epsilon(-1, 100, 10, 1), "epsilon is -1"),
        (lambda: Privacy.for_epsilon(0.001, 300, 50, 1200, accountant="rdp"), "which no noise reaches in 1200 epochs"),
    ],
)
def test_wrong_settings_are_refused_with_the_right_ones(bad, told):
    with pytest.raises(ValueError, match=told):
        bad()


def test_privacy_needs_one_device_and_stop_an_epoch_of_the_run(images):
    with pytest.raises(ValueError, match="privacy needs one device; found devices=2"):
        pl.pretrain("mae", images, 1, devices=2, device="cpu", privacy=Privacy(1.0), **settings("mae"))
    with pytest.raises(ValueError, match="stop is 3; it must be an epoch from 1 to 2"):
        pl.pretrain("mae", images, 2, stop=3, **settings("mae"))
