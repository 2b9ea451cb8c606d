"""An encoder gives the same features for the same image, whatever else is in the batch."""

import numpy as np
import pytest
import torch
from timm.layers import resample_abs_pos_embed
from torch import nn

from partcrop_lab.attacks import PartCrop
from partcrop_lab.encoders import Encoder, load_encoder
from partcrop_lab.encoders.recipes import make_recipe
from partcrop_lab.encoders.remembering import Remembering
from partcrop_lab.encoders.utility import knn, linear_probe
from partcrop_lab.errors import BadInput
from partcrop_lab.images import ImageSet, load_images
from partcrop_lab.images.resample import resize

pytestmark = pytest.mark.numeric
VIT = "random:vit_tiny_patch16_224"
SMALL = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}


def pictures(n, side=32, seed=0):
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def vit(request):
    return load_encoder(VIT, image_size=32, precision=request.param, **SMALL)


@pytest.fixture(scope="module")
def plain():
    return load_encoder(VIT, image_size=32, precision="fp32", **SMALL)


def test_map_is_the_final_norm_patch_tokens_without_cls(plain):
    images = pictures(3)
    model = plain.architecture.build(seed=0).eval()
    with torch.no_grad():
        tokens = model.forward_features((images / 255 - 0.5) / 0.5)
    assert plain.feature_map(images).shape == (3, 16, 48)
    torch.testing.assert_close(plain.feature_map(images), tokens[:, 1:], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(plain.vectors(images), tokens[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(plain.vectors(images, "mean"), tokens[:, 1:].mean(1), rtol=1e-5, atol=1e-5)


def test_register_tokens_are_not_positions():
    encoder = load_encoder("random:vit_small_patch14_reg4_dinov2", image_size=28, embed_dim=48, depth=1, num_heads=3)
    fmap, cls = encoder.tokens(pictures(2, 28))
    assert fmap.shape == (2, 4, 48)
    assert cls.shape == (2, 48)


def test_a_row_does_not_depend_on_the_rest_of_the_batch(vit):
    images = pictures(37)
    whole = vit.feature_map(images), vit.vectors(images[..., :16, :16])
    order = torch.randperm(37, generator=torch.Generator().manual_seed(1))
    for part in (slice(5, 6), slice(3, 20), order):
        assert torch.equal(vit.feature_map(images[part]), whole[0][part])
        assert torch.equal(vit.vectors(images[part][..., :16, :16]), whole[1][part])


def test_tokens_are_map_and_vector_of_one_forward(vit):
    images = pictures(5)
    fmap, cls = vit.tokens(images)
    assert torch.equal(fmap, vit.feature_map(images))
    assert torch.equal(cls, vit.vectors(images, "cls"))


def test_features_are_float32_whatever_the_precision(vit):
    assert vit.feature_map(pictures(2)).dtype == vit.vectors(pictures(2)).dtype == torch.float32


def test_bf16_is_close_to_fp32_and_not_the_same(plain):
    images, half = pictures(4), load_encoder(VIT, image_size=32, precision="bf16", **SMALL)
    exact, near = plain.feature_map(images), half.feature_map(images)
    assert not torch.equal(exact, near)
    assert (exact - near).norm() / exact.norm() < 0.03


def test_an_encoder_built_twice_is_the_same(plain):
    again = load_encoder(VIT, image_size=32, precision="fp32", **SMALL)
    assert again.digest == plain.digest
    assert torch.equal(again.feature_map(pictures(3)), plain.feature_map(pictures(3)))


def test_digest_tells_weights_preprocessing_and_architecture_apart(plain):
    others = [
        load_encoder(VIT, image_size=32, precision="fp32", seed=1, **SMALL),
        load_encoder(VIT, image_size=32, precision="fp32", mean=(0, 0, 0), **SMALL),
        load_encoder(VIT, image_size=32, precision="fp32", **SMALL | {"num_heads": 6}),
    ]
    assert len({encoder.digest for encoder in [plain, *others]}) == 4


def test_identity_never_depends_on_precision_device_or_threads_and_the_place_in_the_cache_does(plain, monkeypatch):
    ways = [{"precision": "bf16"}, {"device": "meta"}, {"micro_batch": 1}]
    others = [load_encoder(VIT, image_size=32, **({"precision": "fp32"} | way), **SMALL) for way in ways]
    assert {encoder.digest for encoder in others} == {plain.digest}
    assert {encoder.untrained(3).digest for encoder in others} == {plain.untrained(3).digest}
    assert len({encoder.cache_key for encoder in [plain, *others]}) == 4
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    again = load_encoder(VIT, image_size=32, precision="fp32", **SMALL)
    torch.set_num_threads(threads)
    assert (again.digest, again.cache_key) == (plain.digest, plain.cache_key)
    exact = plain.cache_key
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    assert plain.cache_key != exact and again.digest == plain.digest


def test_a_feature_of_another_precision_is_never_taken_for_ones_own(plain):
    images, attack = load_images("partshapes", n=3, size=32), PartCrop(crops=3)
    half = load_encoder(VIT, image_size=32, precision="bf16", **SMALL)
    one, other, again = (attack.features(encoder, images, progress=False) for encoder in (plain, half, plain))
    assert not np.array_equal(one, other) and np.array_equal(one, again)


def test_auto_is_fp32_unless_the_environment_says_otherwise(monkeypatch):
    monkeypatch.delenv("PARTCROP_LAB_PRECISION", raising=False)
    assert load_encoder(VIT, image_size=32, **SMALL).run["precision"] == "fp32"
    monkeypatch.setenv("PARTCROP_LAB_PRECISION", "bf16")
    assert load_encoder(VIT, image_size=32, **SMALL).run["precision"] == "bf16"
    assert load_encoder(VIT, image_size=32, precision="fp32", **SMALL).run["precision"] == "fp32"
    monkeypatch.setenv("PARTCROP_LAB_PRECISION", "auto")
    with pytest.raises(ValueError, match="PARTCROP_LAB_PRECISION is 'auto'; it must be one of fp32, bf16"):
        load_encoder(VIT, image_size=32, **SMALL)
    with pytest.raises(ValueError, match="precision is 'half'; it must be one of fp32, bf16, auto"):
        load_encoder(VIT, image_size=32, precision="half", **SMALL)


def test_a_part_of_two_by_two_patches_gets_interpolated_positions(plain):
    part = torch.rand(1, 3, 16, 16)
    model = plain.architecture.build(seed=0).eval()
    with torch.no_grad():
        patches = model.patch_embed.proj((part - 0.5) / 0.5).flatten(2).transpose(1, 2)
        positions = resample_abs_pos_embed(model.pos_embed, (2, 2), num_prefix_tokens=1)
        tokens = model.norm(model.blocks(torch.cat([model.cls_token, patches], 1) + positions))
    torch.testing.assert_close(plain.vectors(part), tokens[:, 0], rtol=1e-5, atol=1e-5)


def test_position_grid_is_resized_bicubically(plain):
    model = plain.architecture.build(seed=0)
    grid = model.pos_embed[:, 1:].detach().view(1, 4, 4, 48).permute(0, 3, 1, 2)
    small = nn.functional.interpolate(grid, (2, 2), mode="bicubic", antialias=True)
    resampled = resample_abs_pos_embed(model.pos_embed, (2, 2), num_prefix_tokens=1)
    torch.testing.assert_close(resampled[:, 1:], small.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-6)


def test_bytes_and_floats_of_the_same_image_agree(vit):
    images = pictures(3)
    torch.testing.assert_close(vit.feature_map(images / 255), vit.feature_map(images), rtol=0, atol=1e-6)


def test_whole_images_are_resized_and_parts_are_not(plain):
    large = pictures(2, side=64)
    assert torch.equal(plain.feature_map(large), plain.feature_map(resize(large, 32)))
    assert not torch.equal(plain.vectors(large), plain.vectors(resize(large, 32)))
    assert torch.equal(plain.vectors(large[..., :20, :20]), plain.vectors(resize(large[..., :20, :20], 24)))


@pytest.mark.parametrize(
    ("side", "patch", "part"),
    [(32, 8, 16), (32, 4, 16), (48, 8, 16), (64, 8, 16), (64, 16, 32), (96, 8, 24), (32, 16, 32)],
)
def test_part_size_follows_methods_1(side, patch, part):
    encoder = load_encoder(VIT, image_size=side, **SMALL | {"patch_size": patch, "depth": 1})
    assert encoder.part_size == part


@pytest.mark.parametrize(("share", "side"), [(None, 64), (1.0, 64), (0.5, 32), (0.3, 24)])
def test_the_card_says_how_large_views_were_in_training_and_controls_are_asked_alike(tmp_path, share, side):
    card = {"settings": {"view_size": share}} if share else {}
    encoder = load_encoder(VIT, image_size=64, card=card, **SMALL)
    encoder.save(tmp_path / "one.safetensors")
    again = load_encoder(tmp_path / "one.safetensors")
    assert {one.view_side for one in (encoder, again, again.untrained(0), Remembering(again))} == {side}
    assert load_encoder(tmp_path / "one.safetensors", view_side=16).untrained(0).view_side == 16


def test_views_are_as_large_as_training_made_them_whatever_the_stride():
    recipe = make_recipe("mocov2", view_size=0.5)
    card = {"settings": {"view_size": 0.5}}
    encoder = load_encoder("random:resnet18", image_size=96, card=card)
    assert (encoder.patch, encoder.view_side) == (32, 48) and recipe.side(96, 0.5) == 48


def test_an_encoder_that_is_asked_at_another_side_is_another_and_no_side_is_refused():
    whole, same, half = (load_encoder(VIT, image_size=64, view_side=side, **SMALL) for side in (None, 64, 32))
    assert whole.digest == same.digest != half.digest
    with pytest.raises(ValueError, match="view_side is 0"):
        load_encoder(VIT, image_size=64, view_side=0, **SMALL)


def test_an_encoder_that_pools_in_another_way_is_another_so_that_no_cached_feature_of_it_is_taken():
    plain, same, mean = (load_encoder(VIT, image_size=32, pooling=how, **SMALL) for how in (None, "cls", "mean"))
    assert plain.digest == same.digest != mean.digest
    images, attack = load_images("partshapes", n=3, size=32), PartCrop(crops=2)
    one, other = (attack.features(encoder, images, progress=False) for encoder in (plain, mean))
    assert not np.allclose(one, other)
    callable_ = {"name": "asked", "image_size": 32, "digest": "it"}
    asked = [Encoder(plain.tokens, pooling=how, **callable_).digest for how in (None, "mean", "cls")]
    assert len(set(asked)) == 3  # a callable, which is not asked for it


@pytest.mark.parametrize("model", ["resnet18", "swin_tiny_patch4_window7_224"])
def test_last_stage_of_a_convnet_or_hierarchy_is_its_map(model):
    encoder = load_encoder(f"random:{model}", image_size=64)
    assert (encoder.map_shape, encoder.patch, encoder.part_size, encoder.pooling) == ((2, 2), 32, 32, "mean")
    fmap = encoder.feature_map(pictures(2, 64))
    assert fmap.shape == (2, 4, encoder.width)
    torch.testing.assert_close(encoder.vectors(pictures(2, 64)), fmap.mean(1))


def test_weights_are_counted_of_a_backbone_and_not_of_what_can_only_be_asked(plain):
    assert plain.parameters == sum(value.numel() for value in plain._model.state_dict().values())
    assert Encoder(lambda x: x.mean((2, 3)), name="asked", image_size=16).parameters is None


def test_a_map_of_one_position_is_refused_but_its_vector_is_not():
    encoder = load_encoder("random:resnet18", image_size=32)
    with pytest.raises(BadInput, match="feature map of 1 positions at 32 px; part responses need at least 4"):
        encoder.feature_map(pictures(1))
    assert encoder.vectors(pictures(1)).shape == (1, 512)


def test_cls_of_a_backbone_without_one_is_refused():
    with pytest.raises(ValueError, match="has no CLS token; its pooling must be 'mean'"):
        load_encoder("random:resnet18", image_size=32).vectors(pictures(1), "cls")


def test_evaluation_mode_leaves_batch_statistics_alone():
    encoder = load_encoder("random:resnet18", image_size=64)
    first = encoder.vectors(pictures(4, 64))
    assert torch.equal(encoder.vectors(pictures(4, 64)), first)


def test_untrained_is_the_same_architecture_with_weights_of_the_seed(plain):
    control = plain.untrained(seed=5)
    assert control.architecture == plain.architecture
    assert (control.mean, control.std, control.dtype, control.pooling) == (plain.mean, plain.std, plain.dtype, "cls")
    assert control.digest == plain.untrained(5).digest
    assert len({plain.digest, control.digest, plain.untrained(6).digest}) == 3
    assert control.untrained_note == "the same architecture with fresh weights"


def test_a_remembering_encoder_answers_the_same_to_the_bit_and_asks_its_model_once(vit):
    remembering, asked = Remembering(vit), []
    assert remembering.has_cls  # found by a forward pass of its own
    forward, images = remembering._forward.forward, pictures(5)
    remembering._forward.forward = lambda batch: asked.append(len(batch)) or forward(batch)
    for _ in range(2):
        assert torch.equal(remembering.vectors(images), vit.vectors(images))
        assert torch.equal(remembering.feature_map(images), vit.feature_map(images))
    assert len(asked) == 1 and remembering.digest == vit.digest
    assert remembering.untrained(3) is remembering.untrained(3)
    assert remembering.untrained(3).digest == vit.untrained(3).digest != vit.digest


def test_a_remembering_encoder_keeps_no_more_than_its_limit(vit):
    remembering = Remembering(vit, limit=0)
    assert torch.equal(remembering.vectors(pictures(5)), vit.vectors(pictures(5)))
    assert not remembering._forward.kept


def test_an_encoder_asked_singly_forwards_one_image_and_answers_the_same(vit):
    seen, forward = [], vit._forward
    one = vit.singly()
    one._forward = lambda batch: seen.append(len(batch)) or forward(batch)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(one.vectors(images), vit.vectors(images), atol=1e-4, rtol=1e-3)
    assert seen == [1, 1] and vit.micro_batch(32) > 1 and one.digest == vit.digest


def test_no_split_is_one_clear_sentence(plain):
    assert plain.split_digest is None
    with pytest.raises(BadInput, match="carries no split"):
        _ = plain.split


def test_nan_features_name_the_encoder_and_count_the_images():
    def broken(images):
        features = images.flatten(2).transpose(1, 2)
        features[1:] = torch.nan
        return features

    encoder = Encoder(broken, name="broken", image_size=8)
    with pytest.raises(BadInput, match="encoder broken gives NaN or infinite features for 3 of 4 images"):
        encoder.feature_map(pictures(4, 8))


def test_callable_may_return_map_planes_vector_or_pair():
    planes = Encoder(lambda x: nn.functional.avg_pool2d(x, 4), name="planes", image_size=16)
    assert planes.feature_map(pictures(2, 16)).shape == (2, 16, 3)
    assert (planes.patch, planes.part_size, planes.pooling) == (4, 8, "mean")
    vector = Encoder(lambda x: x.mean((2, 3)), name="vector", image_size=16)
    assert vector.vectors(pictures(2, 16)).shape == (2, 3)
    pair = Encoder(lambda x: (x.flatten(2).transpose(1, 2), x.mean((2, 3))), name="pair", image_size=16)
    assert (pair.pooling, pair.vectors(pictures(2, 16)).shape) == ("cls", (2, 3))


def test_callable_that_returns_something_else_is_named():
    with pytest.raises(BadInput, match="must return a tensor"):
        Encoder(lambda x: x.tolist(), name="list", image_size=8).vectors(pictures(2, 8))


def test_features_of_a_callable_are_never_reused_unless_it_has_a_digest():
    def twice(**keywords):
        return [Encoder(lambda x: x, name="same", image_size=8, **keywords).digest for _ in range(2)]

    first, second = twice()
    assert first != second
    first, second = twice(digest="v1")
    assert first == second


def test_untrained_callable_is_its_factory_or_a_stand_in_that_says_so():
    module = nn.Conv2d(3, 4, 4, 4)
    encoder = Encoder(module, name="mine", image_size=16, untrained=lambda seed: nn.Conv2d(3, 4, 4, 4))
    assert encoder.untrained(0).width == 4
    stand_in = Encoder(module, name="mine", image_size=16).untrained(0)
    assert stand_in.width == 192
    assert "since the callable mine brings no untrained= factory" in stand_in.untrained_note


@pytest.mark.parametrize(
    "images", [torch.zeros(3, 32, 32), torch.zeros(0, 3, 32, 32), torch.full((1, 3, 32, 32), 255.0)]
)
def test_images_of_another_form_are_refused(plain, images):
    with pytest.raises(BadInput, match="images must be"):
        plain.feature_map(images)


@pytest.mark.parametrize(
    "wrong", [{"pooling": "max"}, {"precision": "fp8"}, {"mean": (0.5,)}, {"std": (1.0, 1.0, 0.0)}], ids=str
)
def test_wrong_options_name_the_right_ones(wrong):
    with pytest.raises(ValueError, match="must be"):
        Encoder(lambda x: x, name="x", image_size=8, **wrong) if "precision" not in wrong else load_encoder(
            VIT, image_size=32, **wrong, **SMALL
        )


def coloured(n, seed):
    """Images whose class is their colour, under noise."""
    labels = torch.arange(n) % 3
    images = pictures(n, 16, seed) // 2
    images[torch.arange(n), labels] += 60
    return ImageSet(images, labels=labels.numpy())


def test_probe_and_neighbours_find_what_features_show_and_no_more():
    encoder = Encoder(lambda x: nn.functional.avg_pool2d(x, 4), name="planes", image_size=16)
    assert linear_probe(encoder, coloured(60, 0), coloured(60, 1)) > 0.9
    assert knn(encoder, coloured(60, 0), coloured(60, 1)) > 0.9
    blind = Encoder(lambda x: torch.ones(len(x), 4, 2), name="blind", image_size=16)
    assert linear_probe(blind, coloured(60, 0), coloured(60, 1)) < 0.5
    with pytest.raises(BadInput, match="without a label"):
        knn(encoder, coloured(6, 0), ImageSet(pictures(6, 16)))
