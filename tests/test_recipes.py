"""Every recipe learns, does not collapse and resumes exactly where it was stopped; own losses are the papers'."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lightly.loss import DINOLoss
from lightly.models.modules.center import Center
from lightly.models.modules.memory_bank import MemoryBankModule
from small_recipes import SMALL, losses, settings
from timm.layers import DropPath

from partcrop_lab.encoders import RECIPES, load_encoder, pretrain, training
from partcrop_lab.encoders.backbone import Architecture, timm_tokens
from partcrop_lab.encoders.recipes import make_recipe
from partcrop_lab.encoders.recipes.base import pooled
from partcrop_lab.errors import BadInput
from partcrop_lab.images import ImageSet, load_images

MASKED = ("cae", "ibot", "mae", "simmim")
TAUGHT = ("byol", "dino", "ibot", "mocov2", "mocov3")
PROJECTED = ("barlowtwins", *TAUGHT, "simclr", "swav", "vicreg")


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
    """Stop what is still on its way at first and raises the loss meanwhile: centres and a queue."""
    for module in objective.modules():
        if isinstance(module, DINOLoss):
            module.center_momentum = 1.0
        if isinstance(module, Center):
            module.momentum = 1.0
        if isinstance(module, MemoryBankModule):
            module._dequeue_and_enqueue = lambda keys: None


def inputs_of(module):
    """A list to which every later input of the module is added."""
    seen = []
    module.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].detach()))
    return seen


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
def test_views_can_be_smaller_than_the_images_that_the_encoder_takes(recipe, images):
    objective = small(recipe, view_size=0.5)
    first = getattr(objective.backbone, "patch_embed", None) or objective.backbone.conv1
    seen = inputs_of(first)
    objective(images.batch(slice(0, 6)), seeded(), labels=torch.as_tensor(images.labels[:6])).backward()
    assert {tuple(views.shape[1:]) for views in seen} == {(3, 16, 16)}
    encoder = pretrain(recipe, images, epochs=1, view_size=0.5, **settings(recipe))
    assert encoder.feature_map(images.batch(slice(0, 2))).shape[1] == 16


def test_a_view_is_a_share_of_the_image_in_whole_patches():
    recipe = make_recipe("simclr")
    assert [recipe.side(64, share) for share in (1, 0.5, 0.51, 0.01)] == [64, 32, 40, 8]
    assert make_recipe("simclr", model="vit_small_patch16_224").side(64, 0.6) == 48
    assert make_recipe("mocov2").side(36, 1) == 36
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        make_recipe("simclr", view_size=1.5).objective(64, seed=0)


@pytest.mark.parametrize("recipe", PROJECTED)
def test_a_projector_is_kept_and_makes_of_an_image_what_the_loss_saw(recipe, images, tmp_path):
    encoder = pretrain(recipe, images, epochs=1, out=tmp_path, projector=True, **settings(recipe))
    loaded = load_encoder(tmp_path / "encoder.safetensors")
    pixels = images.batch(slice(0, 5))
    vectors = loaded.vectors(pixels, "cls" if loaded.has_cls else "mean")
    torch.testing.assert_close(loaded.projections(pixels), loaded.projector(vectors))
    assert torch.equal(loaded.projections(pixels), encoder.projections(pixels))
    assert loaded.projections(pixels).shape[1] == {"dino": 64, "ibot": 64}.get(recipe, 32)
    assert loaded.digest == encoder.digest == pretrain(recipe, images, epochs=1, **settings(recipe)).digest


@pytest.mark.parametrize("recipe", ["cae", "mae", "simmim"])
def test_a_decoder_is_kept_and_fails_to_guess_as_much_as_before(recipe, images, tmp_path):
    encoder = pretrain(recipe, images, epochs=1, out=tmp_path, decoder=True, **settings(recipe))
    loaded = load_encoder(tmp_path / "encoder.safetensors")
    pixels, plain = images.batch(slice(0, 3)), pretrain(recipe, images, epochs=1, **settings(recipe))
    losses = [one.masked_losses(pixels, [seeded() for _ in pixels], 4) for one in (encoder, loaded)]
    assert losses[0].shape == (3, 4) and torch.equal(*losses)
    assert torch.equal(loaded.vectors(pixels), plain.vectors(pixels))
    assert loaded.digest == encoder.digest != plain.digest
    fresh = loaded.untrained(1)
    backbone = fresh.decoder.backbone.state_dict()
    assert all(torch.equal(value, backbone[name]) for name, value in fresh._model.state_dict().items())
    assert not torch.equal(fresh.masked_losses(pixels, [seeded() for _ in pixels], 4), losses[0])


def test_what_has_no_decoder_says_so(images):
    with pytest.raises(ValueError, match="recipe simclr has no decoder"):
        pretrain("simclr", images, epochs=1, decoder=True, **settings("simclr"))


def test_what_has_no_projector_says_so(images):
    with pytest.raises(ValueError, match="recipe mae has no projector"):
        pretrain("mae", images, epochs=1, projector=True, **settings("mae"))
    encoder = pretrain("simclr", images, epochs=1, **settings("simclr"))
    with pytest.raises(BadInput, match="has no projector; train it with"):
        encoder.projections(images.batch(slice(0, 2)))


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


def test_the_student_drops_paths_and_the_teacher_none():
    objective = small("dino", drop_path_rate=0.5)
    student, teacher = (
        [each for each in model.modules() if isinstance(each, DropPath)]
        for model in (objective.student, objective.teacher)
    )
    assert student and not teacher


@pytest.mark.parametrize("recipe", PROJECTED)
def test_the_projector_takes_the_backbones_vectors(recipe, batch):
    objective = small(recipe).eval()
    vectors = pooled(objective.backbone, batch[0].float() / 255)
    outputs = SMALL[recipe].get("output", SMALL[recipe].get("prototypes"))
    assert objective.projector(vectors).shape == (12, outputs)


@pytest.mark.parametrize("recipe", sorted(set(RECIPES) - set(PROJECTED)))
def test_recipes_without_a_projection_head_have_no_projector(recipe):
    assert small(recipe).projector is None


@pytest.mark.parametrize("recipe", MASKED)
def test_masking_needs_a_vit_and_says_so(recipe):
    with pytest.raises(ValueError, match=f"recipe {recipe} hides the patches of a ViT; resnet18 is none"):
        make_recipe(recipe, model="resnet18").objective(32, seed=0)


def test_another_backbone_begins_without_options_and_a_recipe_keeps_its_own():
    assert make_recipe("mocov2", queue=9).model_options == make_recipe("mocov2").model_options
    assert make_recipe("supervised", depth=2).model_options["drop_path_rate"] == 0.1
    assert make_recipe("mocov2", model="resnet50", small_stem=True).model_options == {"small_stem": True}


def test_a_resnet_with_a_small_stem_is_trained_saved_and_loaded(images, tmp_path):
    encoder = pretrain("mocov2", images, epochs=1, out=tmp_path, small_stem=True, **settings("mocov2"))
    again = load_encoder(tmp_path / "encoder.safetensors")
    assert again.digest == encoder.digest
    assert again.map_shape == (4, 4)  # a total stride of 8, where the usual stem has 32
    assert (encoder.architecture.model, encoder.architecture.options["small_stem"]) == ("resnet18", True)


def test_the_default_resnet_is_small_in_its_file(images, tmp_path):
    load_encoder("random:resnet18", image_size=64, **make_recipe("mocov2").model_options).save(
        tmp_path / "r.safetensors"
    )
    assert (tmp_path / "r.safetensors").stat().st_size < 2e6


def test_a_small_stem_is_for_fresh_resnets():
    with pytest.raises(ValueError, match=r"small_stem is for ResNets.*vit_tiny_patch16_224 is not one"):
        Architecture("vit_tiny_patch16_224", 32, {"small_stem": True}).build()
    with pytest.raises(ValueError, match="resnet18d is not one"):
        Architecture("resnet18d", 32, {"small_stem": True}).build()


def test_a_hierarchical_backbone_trains(tmp_path):
    images = load_images("partshapes", n=12, size=64, seed=3)
    options = {"dims": (8, 16, 32, 48), "depths": (1, 1, 1, 1), "output_stride": 16}
    how = {"model": "convnext_atto", "model_options": options, "epochs": 4, "hidden": 64, "output": 32}
    encoder = pretrain("simclr", images, out=tmp_path, progress=False, **how)
    curve = losses(tmp_path)
    assert curve[-1] < curve[0]
    assert load_encoder(tmp_path / "encoder.safetensors").digest == encoder.digest
    assert encoder.map_shape == (4, 4)


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


def test_simmim_loss_is_the_absolute_error_of_masked_pixels_alone():
    objective = small("simmim").eval()
    torch.nn.init.zeros_(objective.predict.weight)
    torch.nn.init.constant_(objective.predict.bias, 0.25)
    views, masks = torch.rand(2, 3, 32, 32), objective.draw_masks(2, seeded())
    seen = inputs_of(objective.backbone.blocks[0])
    for loss, view, hidden in zip(objective.losses(views, masks).tolist(), views, masks[1] - 1):
        pixels = [view[:, i // 4 * 8 :][:, :8, i % 4 * 8 :][..., :8] for i in hidden.tolist()]
        assert loss == pytest.approx(float(torch.stack(pixels).sub(0.25).abs().mean()), rel=1e-5)
    assert seen[0].shape == (2, 17, 48)  # masked tokens too go through the encoder


def test_cae_regresses_from_visible_patches_towards_targets_without_gradient():
    objective = small("cae").eval()
    views, masks = torch.rand(2, 3, 32, 32, requires_grad=True), objective.draw_masks(2, seeded())
    seen = inputs_of(objective.backbone.blocks[0])
    guessed, _ = objective.guess(views, masks)
    targets = objective.targets(views, masks)
    assert [tokens.shape[1] for tokens in seen] == [1 + 8, 1 + 8]  # CLS with the visible, then with the hidden half
    (gradient,) = torch.autograd.grad((guessed - targets).square().sum(), views)
    patches = gradient.unfold(2, 8, 8).unfold(3, 8, 8).abs().sum((1, 4, 5)).flatten(1)
    keep, hidden = masks
    assert (patches.gather(1, hidden - 1) == 0).all()
    assert (patches.gather(1, keep[:, 1:] - 1) > 0).all()


def test_cae_loss_is_reconstruction_plus_weighted_alignment():
    views = torch.rand(2, 3, 32, 32)
    objectives = [small("cae", alignment=weight).eval() for weight in (0.0, 3.0)]
    masks = objectives[0].draw_masks(2, seeded())
    without, with_alignment = (objective.losses(views, masks) for objective in objectives)
    guessed, targets = objectives[0].guess(views, masks)[0], objectives[0].targets(views, masks)
    literal = [((a - b) ** 2).sum().item() / a.numel() for a, b in zip(guessed, targets)]
    torch.testing.assert_close(with_alignment - without, 3 * torch.tensor(literal), rtol=1e-4, atol=1e-5)


def test_ibot_masks_the_students_large_crops_and_nothing_of_the_teacher(batch):
    objective = small("ibot")
    student, teacher = (inputs_of(model.blocks[0]) for model in (objective.student, objective.teacher))
    masks = objective.draw_masks(24, seeded(5))
    objective.draw_masks = lambda n, generator: masks
    objective(batch[0], seeded())
    (whole,), (masked, small_crops) = teacher, student
    assert torch.equal((masked != whole).any(-1)[:, 1:], masks.flatten(1))  # as student and teacher begin alike
    assert torch.equal(masked[:, 0], whole[:, 0])
    assert small_crops.shape == (24, 1 + 4, 48)
    assert masks.flatten(1).any(1).sum() == 12  # half of the crops


@torch.no_grad()
def test_ibot_patch_loss_is_that_of_the_masked_patches_alone(batch):
    objective = small("ibot", local_crops=0)
    masks = objective.draw_masks(24, seeded(5))
    objective.draw_masks = lambda n, generator: masks
    crops = objective.crops(batch[0], seeded())
    teacher, student = timm_tokens(objective.teacher, crops)[0], objective.masked_tokens(crops, masks)[0]
    literal = 0.0
    for n in range(24):
        picked = masks[n].flatten().nonzero().flatten().tolist()
        for i in picked:
            target = (objective.teacher_head(teacher[n, i]) / 0.04).softmax(0)
            literal -= float(target @ (objective.student_head(student[n, i]) / 0.1).log_softmax(0)) / len(picked) / 24
    whole = float(objective(batch[0], seeded()))
    objective.patch_criterion.forward = lambda *_: 0.0
    objective.criterion.center.zero_()
    assert whole - float(objective(batch[0], seeded())) == pytest.approx(literal, rel=1e-3)


def test_the_queue_holds_the_keys_of_earlier_steps_once(batch):
    objective = small("mocov2", queue=30)
    queue, drawn = objective.criterion.memory_bank.bank.clone(), []
    objective.teacher_head.register_forward_hook(lambda *arguments: drawn.append(arguments[-1].detach()))
    for seed in range(2):
        objective(batch[0], seeded(seed)).backward()
    for step, keys in enumerate(drawn):
        for i, key in enumerate(keys):
            queue[12 * step + i] = key / key.square().sum().sqrt()
    state = objective.state_dict()
    assert len(drawn) == 2
    torch.testing.assert_close(state["criterion.memory_bank.bank"], queue)
    assert state["criterion.memory_bank.bank_ptr"].tolist() == [24]


def test_moco_v3_loss_is_the_literal_cross_entropy():
    objective = make_recipe("mocov3", depth=1, temperature=0.5).objective(32, seed=0)
    queries, keys = torch.randn(2, 4, 8, generator=seeded())
    literal = 0.0
    for i in range(4):
        cosine = [float(queries[i] @ keys[j] / queries[i].norm() / keys[j].norm()) for j in range(4)]
        literal -= (cosine[i] / 0.5 - np.log(np.exp(np.array(cosine) / 0.5).sum())) / 4
    assert float(objective._contrast(queries, keys)) == pytest.approx(2 * 0.5 * literal, rel=1e-5)


def test_byol_compares_each_prediction_with_the_other_views_target(batch):
    objective = small("byol").eval()
    objective.predictor = torch.nn.Identity()
    first, second = (objective.targets(crops) for crops in objective.crops(batch[0], seeded()).chunk(2))
    cosine = [float(a @ b / a.norm() / b.norm()) for a, b in zip(first, second)]  # student and teacher begin alike
    assert float(objective(batch[0], seeded())) == pytest.approx(np.mean([2 - 2 * each for each in cosine]), rel=1e-4)


def test_swavs_prototypes_are_frozen_at_first_and_stay_on_the_sphere(batch):
    objective = small("swav", freeze_prototypes=0.5)
    weight = objective.prototypes.heads[0].weight
    objective(batch[0], seeded(), progress=0.4).backward()
    assert weight.grad is None
    objective(batch[0], seeded(), progress=0.5).backward()
    assert weight.grad.abs().sum() > 0
    with torch.no_grad():
        weight *= 3
    objective.after_step(progress=0.5)
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(8))


def test_labels_are_those_of_the_images_of_the_batch(images, monkeypatch):
    label_of = {
        image.numpy().tobytes(): label for image, label in zip(images.batch(slice(None)), images.labels.tolist())
    }
    objective = type(small("supervised"))
    forward, seen = objective.forward, []

    def watched(self, batch, generator, progress, labels):
        seen.extend(zip((image.numpy().tobytes() for image in batch), labels.tolist()))
        return forward(self, batch, generator, progress, labels)

    monkeypatch.setattr(objective, "forward", watched)
    encoder = pretrain("supervised", images, epochs=1, device="cpu", **(settings("supervised") | {"classes": 1}))
    assert len(seen) == 24 and dict(seen) == label_of
    assert encoder.card["settings"]["classes"] == len(images.classes) == 10


def test_supervised_training_without_labels_is_refused(images):
    bare = ImageSet(images.batch(slice(0, 4)), labels=[0, 1, -1, 0])
    with pytest.raises(BadInput, match="needs a label for every image, but 1 of the 4"):
        pretrain("supervised", bare, epochs=1, **settings("supervised"))


def test_supervised_loss_is_the_smoothed_and_mixed_cross_entropy(batch):
    objective = small("supervised", mixup=0.8).eval()
    objective.recipe = replace(objective.recipe, crop_scale=None, flip=0.0, jitter=0.0, grey=0.0)
    images, labels = batch[0][:4], torch.tensor([0, 1, 2, 3])
    objective.classify = torch.nn.Linear(48, 10)
    torch.nn.init.zeros_(objective.classify.weight)  # the logits are then the bias, whatever was mixed
    logits = objective.classify.bias.log_softmax(0).tolist()
    expected = sum(-0.9 * logits[label] - 0.1 * sum(logits) / 10 for label in range(4)) / 4
    assert objective(images, seeded(), labels=labels).item() == pytest.approx(expected, rel=1e-5)
    seen = inputs_of(objective.encoder.patch_embed)
    objective(images, seeded(), labels=labels)
    views = objective.views(images, seeded())[:, 0]
    share = (seen[0] - views.flip(0))[0].norm() / (views - views.flip(0))[0].norm()
    assert 0 < share < 1
    torch.testing.assert_close(seen[0], share * views + (1 - share) * views.flip(0), atol=1e-4, rtol=1e-4)
