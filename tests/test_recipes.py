"""Every recipe learns, does not collapse and resumes exactly where it was stopped; own losses are the papers'."""

import numpy as np
import pytest
import torch
from lightly.loss import DINOLoss
from small_recipes import SMALL, losses, settings

from partcrop_lab.encoders import RECIPES, pretrain, training
from partcrop_lab.encoders.backbone import Architecture
from partcrop_lab.encoders.recipes import make_recipe
from partcrop_lab.encoders.recipes.base import pooled
from partcrop_lab.images import load_images

MASKED = ("mae",)
TAUGHT = ("dino", "mocov3")
PROJECTED = TAUGHT


@pytest.fixture(scope="module")
def images():
    return load_images("partshapes", n=24, size=32, seed=3)


@pytest.fixture(scope="module")
def batch(images):
    return images.batch(slice(0, 12)), torch.as_tensor(images.labels[:12])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small(recipe, **changes):
    """The objective for images of 32 px."""
    return make_recipe(recipe, **(SMALL[recipe] | changes)).objective(32, seed=0)


def hold_still(objective):
    """Stop what is still on its way at first and raises the loss meanwhile: centres."""
    for module in objective.modules():
        if isinstance(module, DINOLoss):
            module.center_momentum = 1.0


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_loss_falls_on_views_drawn_once(recipe, batch):
    objective = small(recipe)
    hold_still(objective)
    optimizer = torch.optim.AdamW([each for each in objective.parameters() if each.requires_grad], lr=2e-3)
    curve = []
    for _ in range(15):
        loss = objective(batch[0], seeded(), labels=batch[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(float(loss.detach()))
    assert curve[-1] < 0.9 * curve[0]


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_features_do_not_collapse(recipe, images):
    encoder = pretrain(recipe, images, epochs=5, **settings(recipe))
    vectors = encoder.vectors(images.batch(slice(None)), "mean")
    shares = torch.linalg.svdvals(vectors - vectors.mean(0))
    shares = shares / shares.sum()
    assert float((-shares * shares.clamp(min=1e-9).log()).sum().exp()) > 3  # effective rank


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_a_resumed_run_has_the_losses_of_an_uninterrupted_one(recipe, images, tmp_path, monkeypatch):
    how = {"epochs": 3, "checkpoint_every": 1, **settings(recipe)}
    whole = pretrain(recipe, images, out=tmp_path / "whole", **how)

    class Killed(BaseException):
        pass

    epoch = training._Run._epoch

    def dying(run):
        if len(run.log) == 2:
            raise Killed
        epoch(run)

    monkeypatch.setattr(training._Run, "_epoch", dying)
    with pytest.raises(Killed):
        pretrain(recipe, images, out=tmp_path / "killed", **how)
    assert len(losses(tmp_path / "killed")) == 2
    monkeypatch.setattr(training._Run, "_epoch", epoch)
    resumed = pretrain(recipe, images, out=tmp_path / "killed", **how)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert resumed.digest == whole.digest


@pytest.mark.parametrize("recipe", TAUGHT)
def test_the_teacher_follows_and_gets_no_gradient(recipe, batch):
    objective = small(recipe, momentum=0.75)
    fast, slow = (
        [each for each in model.parameters() if each.ndim > 1][-1] for model in (objective.student, objective.teacher)
    )
    assert torch.equal(fast, slow)
    objective(batch[0], seeded()).backward()
    assert all(
        each.grad is None for model in (objective.teacher, objective.teacher_head) for each in model.parameters()
    )
    assert any(each.grad is not None and each.grad.any() for each in objective.student.parameters())
    with torch.no_grad():
        fast += 1
    objective.after_step(progress=0.0)
    torch.testing.assert_close(fast - slow, torch.full_like(fast, 0.75))


@pytest.mark.parametrize("recipe", PROJECTED)
def test_the_projector_takes_the_backbones_vectors(recipe, batch):
    objective = small(recipe).eval()
    vectors = pooled(objective.backbone, batch[0].float() / 255)
    outputs = SMALL[recipe].get("output", SMALL[recipe].get("prototypes"))
    assert objective.projector(vectors).shape == (12, outputs)


@pytest.mark.parametrize("recipe", MASKED)
def test_masking_needs_a_vit_and_says_so(recipe):
    with pytest.raises(ValueError, match=f"recipe {recipe} hides the patches of a ViT; resnet18 is none"):
        make_recipe(recipe, model="resnet18").objective(32, seed=0)


def test_a_small_stem_is_for_fresh_resnets():
    with pytest.raises(ValueError, match=r"small_stem is for ResNets.*vit_tiny_patch16_224 is not one"):
        Architecture("vit_tiny_patch16_224", 32, {"small_stem": True}).build()
    with pytest.raises(ValueError, match="resnet18d is not one"):
        Architecture("resnet18d", 32, {"small_stem": True}).build()


def test_masks_hide_the_ratio_and_keep_cls():
    objective = make_recipe("mae", depth=1).objective(64, seed=0)
    keep, hidden = objective.draw_masks(5, seeded())
    assert keep.shape == (5, 17)
    assert hidden.shape == (5, 48)
    assert (keep[:, 0] == 0).all()
    assert torch.equal(torch.cat([keep, hidden], 1).sort(1)[0], torch.arange(65).expand(5, -1))


def test_mae_error_is_that_of_the_normalised_masked_patches():
    objective = make_recipe("mae", depth=1).objective(32, seed=0).eval()
    torch.nn.init.zeros_(objective.predict.weight)
    torch.nn.init.zeros_(objective.predict.bias)
    error = objective.losses(torch.rand(3, 3, 32, 32), objective.draw_masks(3, seeded()))
    torch.testing.assert_close(error, torch.ones(3), atol=0.01, rtol=0)  # a constant guess leaves the variance


def test_moco_v3_loss_is_the_literal_cross_entropy():
    objective = make_recipe("mocov3", depth=1, temperature=0.5).objective(32, seed=0)
    queries, keys = torch.randn(2, 4, 8, generator=seeded())
    literal = 0.0
    for i in range(4):
        cosine = [float(queries[i] @ keys[j] / queries[i].norm() / keys[j].norm()) for j in range(4)]
        literal -= (cosine[i] / 0.5 - np.log(np.exp(np.array(cosine) / 0.5).sum())) / 4
    assert float(objective._contrast(queries, keys)) == pytest.approx(2 * 0.5 * literal, rel=1e-5)
