"""One harness over every registered attack: shape, determinism, order, batches, label-blindness, cache."""

import inspect
import io

import numpy as np
import oracles
import pytest
import torch
from PIL import Image, ImageFilter

import partcrop_lab as pl
from partcrop_lab.attacks import ATTACKS, PartCrop, make_attack
from partcrop_lab.attacks.base import SHARD
from partcrop_lab.attacks.pixels import pixel_statistics
from partcrop_lab.errors import BadInput
from partcrop_lab.parts import gaussian_target, part_boxes
from partcrop_lab.store import cache_dir

SMALL = {"partcrop": {"crops": 5}, "pixels": {}}


@pytest.fixture(params=sorted(ATTACKS))
def attack(request):
    return make_attack(request.param, **SMALL[request.param])


@pytest.fixture(scope="module")
def images():
    return pl.load_images("partshapes", n=SHARD + 6, size=32, seed=5)


def test_features_are_finite_and_one_row_per_image(attack, tiny_encoder, images):
    X = attack.features(tiny_encoder, images)
    assert X.shape[0] == len(images) and X.dtype == np.float32 and np.isfinite(X).all() and X.std(0).max() > 0


def test_features_do_not_depend_on_order_or_company(attack, tiny_encoder, images, monkeypatch, tmp_path):
    X = attack.features(tiny_encoder, images)
    order = np.random.default_rng(0).permutation(len(images))[:40]
    monkeypatch.setenv("PARTCROP_LAB_CACHE", str(tmp_path))
    np.testing.assert_allclose(attack.features(tiny_encoder, images.subset(order)), X[order], atol=1e-5)


def test_same_seed_same_bytes_from_a_fresh_cache(attack, tiny_encoder, images, monkeypatch, tmp_path):
    some, made = images.subset(slice(0, 12)), []
    for folder in "ab":
        monkeypatch.setenv("PARTCROP_LAB_CACHE", str(tmp_path / folder))
        made.append(attack.features(tiny_encoder, some, seed=3).tobytes())
    assert made[0] == made[1]


def test_an_attack_cannot_see_membership(attack):
    for function in (attack.measure, attack.features):
        assert not {"member", "members", "label", "labels", "split", "y"} & set(inspect.signature(function).parameters)


def test_an_attack_states_its_queries_and_settings(attack):
    assert isinstance(attack.queries, int) and attack.settings["attack"] == attack.name


def test_a_second_extraction_asks_the_encoder_nothing(tiny_encoder, images, monkeypatch):
    attack = PartCrop(crops=3)
    X = attack.features(tiny_encoder, images)
    monkeypatch.setattr(PartCrop, "measure", lambda *a: pytest.fail("measured again"))
    np.testing.assert_array_equal(attack.features(tiny_encoder, images), X)
    assert PartCrop(crops=3, kind="uniform").features(tiny_encoder, images).shape == (len(images), 3)


def test_interrupted_work_resumes_by_shard(tiny_encoder, images, monkeypatch, tmp_path):
    monkeypatch.setenv("PARTCROP_LAB_CACHE", str(tmp_path))
    attack, measure, done = PartCrop(crops=3), PartCrop.measure, []

    def interrupted(self, encoder, batch, hashes, seed):
        if done:
            raise KeyboardInterrupt
        done.append(len(batch))
        return measure(self, encoder, batch, hashes, seed)

    monkeypatch.setattr(PartCrop, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        attack.features(tiny_encoder, images)
    assert len(list((cache_dir() / "features").glob("*.safetensors"))) == 1
    resumed = []
    monkeypatch.setattr(PartCrop, "measure", lambda *a: resumed.append(len(a[2])) or measure(*a))
    attack.features(tiny_encoder, images)
    assert done == [SHARD] and resumed == [6]


def test_a_damaged_shard_is_made_again(tiny_encoder, images, monkeypatch, tmp_path):
    monkeypatch.setenv("PARTCROP_LAB_CACHE", str(tmp_path))
    X = PartCrop(crops=3).features(tiny_encoder, images)
    next((tmp_path / "features").glob("*.safetensors")).write_bytes(b"broken")
    np.testing.assert_array_equal(PartCrop(crops=3).features(tiny_encoder, images), X)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("kind", ["uniform", "gaussian", "both"])
def test_partcrop_equals_the_literal_pipeline(tiny_encoder, images, pooling, kind):
    attack, some = PartCrop(crops=4, pooling=pooling, kind=kind), images.subset(slice(0, 3))
    X = attack.features(tiny_encoder, some, seed=2)
    boxes, target = part_boxes(some.hashes, 4, 32, seed=2), gaussian_target(4, 16, 2)
    for i, image in enumerate(some.batch(slice(None))):
        parts = [
            oracles.crop(image.float() / 255, box.tolist(), tiny_encoder.part_size, bool(flip))
            for box, flip in zip(boxes.boxes[i], boxes.flip[i])
        ]
        vectors = torch.cat([tiny_encoder.vectors(part[None], pooling) for part in parts])
        expected = oracles.membership_feature(tiny_encoder.feature_map(image[None])[0], vectors, target, kind)
        np.testing.assert_allclose(X[i], expected, atol=1e-4)


def test_an_encoder_that_gives_nan_is_refused(images):
    broken = pl.load_encoder(lambda x: torch.full((len(x), 16, 8), float("nan")), image_size=32, name="broken")
    with pytest.raises(BadInput, match=r"encoder broken .*NaN"):
        PartCrop(crops=2).features(broken, images)


def jpeg(shot, quality=40):
    shot.save(buffer := io.BytesIO(), "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def redder(shot):
    red, green, blue = shot.split()
    return Image.merge("RGB", [red.point(lambda value: min(255, value + 30)), green, blue])


@pytest.mark.parametrize("change", [jpeg, redder, lambda shot: shot.filter(ImageFilter.GaussianBlur(0.7))])
def test_pixel_statistics_see_compression_colour_and_blur(images, change):
    batch = images.batch(slice(None))
    shots = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in batch]
    changed = torch.stack([torch.from_numpy(np.array(change(shot))).permute(2, 0, 1) for shot in shots])
    plain, moved = (pixel_statistics(some).numpy() for some in (batch, changed))
    assert (np.abs(moved.mean(0) - plain.mean(0)) / (plain.std(0) + 1e-6)).max() > 0.5


def test_unknown_attacks_are_refused_with_the_right_ones():
    with pytest.raises(ValueError, match="partcrop, pixels"):
        make_attack("guess")
