"""One harness over every registered attack: shape, determinism, order, batches, label-blindness, cache."""

import copy
import inspect
import io

import numpy as np
import oracles
import pytest
import torch
from PIL import Image, ImageFilter

import partcrop_lab as pl
from partcrop_lab.attacks import (
    ATTACKS,
    Alignment,
    Calibrated,
    EncoderMI,
    Norms,
    PartCosine,
    PartCrop,
    Reconstruction,
    Stacked,
    Unified,
    Variance,
    make_attack,
)
from partcrop_lab.attacks.base import SHARD
from partcrop_lab.attacks.pixels import pixel_statistics
from partcrop_lab.attacks.views import VIEWS
from partcrop_lab.devices import generator
from partcrop_lab.encoders.augment import Augmentation
from partcrop_lab.errors import BadInput
from partcrop_lab.parts import gaussian_target, part_boxes, response_energy
from partcrop_lab.parts.crops import query_parts
from partcrop_lab.store import cache_dir

SMALL = {
    "partcrop": {"crops": 5},
    "partcosine": {"crops": 3},
    "pixels": {},
    "encodermi": {"views": 4},
    "variance": {"count": 4},
    "norms": {},
    "reconstruction": {"masks": 3},
    "alignment": {"views": 3},
    "unified": {"queries": 5},
    "stacked": {"attacks": (PartCosine(crops=2), Norms())},
    "calibrated": {"attack": PartCosine(crops=2)},
}


@pytest.fixture(params=sorted(ATTACKS))
def attack(request):
    return make_attack(request.param, **SMALL[request.param])


@pytest.fixture(scope="module")
def images():
    return pl.load_images("partshapes", n=SHARD + 6, size=32, seed=5)


@pytest.fixture(scope="module")
def masked(images):
    """A tiny encoder with all that any attack asks for."""
    small = {"depth": 2, "embed_dim": 48, "num_heads": 3}
    return pl.pretrain("mae", images, 1, progress=False, decoder=True, precision="fp32", **small)


def test_features_are_finite_and_one_row_per_image(attack, masked, images):
    X = attack.features(masked, images)
    assert X.shape[0] == len(images) and X.dtype == np.float32 and np.isfinite(X).all() and X.std(0).max() > 0


def test_features_do_not_depend_on_order_or_company(attack, masked, images, monkeypatch, tmp_path):
    X = attack.features(masked, images)
    order = np.random.default_rng(0).permutation(len(images))[:40]
    monkeypatch.setenv("PARTCROP_LAB_CACHE", str(tmp_path))
    np.testing.assert_allclose(attack.features(masked, images.subset(order)), X[order], atol=1e-5)


def test_same_seed_same_bytes_from_a_fresh_cache(attack, masked, images, monkeypatch, tmp_path):
    some, made = images.subset(slice(0, 12)), []
    for folder in "ab":
        monkeypatch.setenv("PARTCROP_LAB_CACHE", str(tmp_path / folder))
        made.append(attack.features(masked, some, seed=3).tobytes())
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


def unit(vector):
    return vector / vector.square().sum().sqrt()


@pytest.fixture(scope="module")
def some(images):
    return images.subset(slice(0, 3))


@pytest.fixture(scope="module")
def views(some, tiny_encoder):
    """Vectors of four views of three images, one image and one view at a time."""
    drawn = [VIEWS(some.batch([i]), generator("views", 2, name), 32, 4)[0] for i, name in enumerate(some.hashes)]
    return torch.stack([torch.cat([tiny_encoder.vectors(view[None]) for view in image]) for image in drawn])


def test_encodermi_equals_the_literal_cosines_of_all_pairs(views, some, tiny_encoder):
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    expected = [sorted((float(unit(v[a]) @ unit(v[b])) for a, b in pairs), reverse=True) for v in views]
    found = {kind: EncoderMI(kind, views=4).features(tiny_encoder, some, seed=2) for kind in "VST"}
    np.testing.assert_allclose(found["V"], expected, atol=1e-5)
    np.testing.assert_array_equal(found["S"], found["V"])
    np.testing.assert_allclose(found["T"][:, 0], np.mean(expected, 1), atol=1e-5)
    assert [EncoderMI(kind).attacker for kind in "VST"] == ["mlp-256", "deepsets", "logistic"]


def test_encodermi_draws_views_as_in_training_where_the_card_tells_how(some, tiny_encoder):
    settings = {"crop_scale": (0.5, 0.6), "jitter": 0.0, "flip": 0.0, "grey": 0.0, "blur": 0.0}
    told = copy.copy(tiny_encoder)
    told.card = {"recipe": "simclr", "settings": settings}
    attack = EncoderMI("T", views=4, augmentation="training")
    found = attack.features(told, some, seed=2)
    for i, name in enumerate(some.hashes):
        drawn = Augmentation(crop_scale=(0.5, 0.6))(some.batch([i]), generator("views", 2, name), 32, 4)[0]
        one, two, three, four = map(unit, tiny_encoder.vectors(drawn))
        pairs = [one @ two, one @ three, one @ four, two @ three, two @ four, three @ four]
        assert found[i, 0] == pytest.approx(float(sum(pairs)) / 6, abs=1e-5)
    assert "augmentation" in " ".join(attack.needs) and "augmentation" not in " ".join(EncoderMI().needs)
    assert attack.features(told.untrained(1), some, seed=2).shape == (3, 1)
    with pytest.raises(BadInput, match="does not say how its views were drawn"):
        attack.features(tiny_encoder, some, seed=2)
    told.card = {"recipe": "mae", "settings": {"crop_scale": None, "flip": 0.0}}
    with pytest.raises(BadInput, match="whole images"):
        attack.features(told, some, seed=2)
    with pytest.raises(ValueError, match="augmentation is 'none'"):
        EncoderMI(augmentation="none")


def test_variance_is_that_of_each_dimension_over_views_or_parts(views, some, tiny_encoder):
    expected = np.sort(np.var(views.numpy(), axis=1, ddof=1))[:, ::-1]
    np.testing.assert_allclose(Variance(count=4).features(tiny_encoder, some, seed=2), expected, rtol=1e-3, atol=1e-6)
    boxes = part_boxes(some.hashes, 4, 32, seed=2)
    for i, image in enumerate(some.batch(slice(None))):
        parts = [
            oracles.crop(image.float() / 255, box.tolist(), tiny_encoder.part_size, bool(flip))
            for box, flip in zip(boxes.boxes[i], boxes.flip[i])
        ]
        vectors = torch.cat([tiny_encoder.vectors(part[None]) for part in parts]).numpy()
        found = Variance("parts", count=4).features(tiny_encoder, some, seed=2)[i]
        np.testing.assert_allclose(found, np.sort(vectors.var(0, ddof=1))[::-1], rtol=1e-3, atol=1e-6)


def test_alignment_is_the_mean_distance_to_views_against_references(views, some, tiny_encoder):
    def distance(encoder, vectors):
        images = encoder.vectors(some.batch(slice(None)))
        return [np.mean([float((unit(f) - unit(v)).norm()) for v in vs]) for f, vs in zip(images, vectors)]

    plain = Alignment(views=4).features(tiny_encoder, some, seed=2)[:, 0]
    np.testing.assert_allclose(plain, -np.array(distance(tiny_encoder, views)), atol=1e-5)
    other = tiny_encoder.untrained(5)
    against = Alignment(views=4, references=(other, tiny_encoder)).features(tiny_encoder, some, seed=2)[:, 0]
    under_other = -Alignment(views=4).features(other, some, seed=2)[:, 0]
    np.testing.assert_allclose(against, (under_other + -plain) / 2 + plain, atol=1e-5)
    assert Alignment(references=(other,)).settings["references"] == [other.digest]


def test_partcosine_is_the_literal_cosines_with_the_image_and_of_all_pairs(some, tiny_encoder):
    boxes = part_boxes(some.hashes, 3, 32, (0.2, 1.0), seed=2)
    found = {kind: PartCosine(kind, crops=3).features(tiny_encoder, some, seed=2) for kind in ("mean", "sorted")}
    for i, image in enumerate(some.batch(slice(None))):
        parts = [
            oracles.crop(image.float() / 255, box.tolist(), 32, bool(flip))
            for box, flip in zip(boxes.boxes[i], boxes.flip[i])
        ]
        vectors = [unit(tiny_encoder.vectors(part[None])[0]) for part in parts]
        whole = unit(tiny_encoder.vectors(image[None])[0])
        with_image = sorted((float(v @ whole) for v in vectors), reverse=True)
        pairs = sorted((float(vectors[a] @ vectors[b]) for a, b in ((0, 1), (0, 2), (1, 2))), reverse=True)
        np.testing.assert_allclose(found["sorted"][i], with_image + pairs, atol=1e-5)
        np.testing.assert_allclose(found["mean"][i], [np.mean(with_image), np.mean(pairs)], atol=1e-5)


@pytest.mark.parametrize(
    "attack", [PartCosine(crops=3), EncoderMI(views=3), Unified(queries=4)], ids=lambda one: one.name
)
def test_crops_are_sent_as_large_as_the_views_in_training(attack, some, tiny_encoder):
    sides = []

    def asked(batch):
        sides.append(batch.shape[-1])
        return tiny_encoder._forward(batch)[0]

    how = {"name": "asked", "image_size": 32, "patch": 8, "digest": "asked"}
    for view_side in (16, 32):
        encoder = pl.load_encoder(asked, view_side=view_side, **how)
        assert encoder.view_side == view_side == encoder.untrained(0).view_side
        sides.clear()
        attack.measure(encoder, some.batch(slice(None)), some.hashes, 0)
        assert {*sides, 32} == {view_side, 32}
        attack.features(encoder, some, progress=False)
    assert not np.array_equal(*(attack.features(pl.load_encoder(asked, view_side=n, **how), some) for n in (16, 32)))


@pytest.mark.numeric
def test_reconstruction_is_the_training_loss_mask_by_mask(some, masked):
    found = Reconstruction(masks=3).features(masked, some, seed=2)
    pixels = (some.batch(slice(None)).float() / 255 - 0.5) / 0.25
    for i, (view, name) in enumerate(zip(pixels, some.hashes)):
        keep, hidden = masked.decoder.draw_masks(3, generator("masks", 2, name))
        losses = [masked.decoder.losses(view[None], (keep[[j]], hidden[[j]])) for j in range(3)]
        np.testing.assert_allclose(found[i, 0], -np.log(np.mean([float(loss) for loss in losses])), rtol=1e-4)


def test_reconstruction_finds_what_a_small_mae_has_learnt_by_heart(images):
    members, others = images.subset(slice(0, 16)), images.subset(slice(16, 48))
    small = {"depth": 2, "embed_dim": 48, "num_heads": 3, "batch_size": 16, "crop_scale": None, "flip": 0.0}
    encoder = pl.pretrain("mae", members, 500, progress=False, decoder=True, **small)
    scores = [Reconstruction().features(encoder, side)[:, 0] for side in (members, others)]
    assert np.mean(scores[0][:, None] > scores[1]) > 0.8


def test_reconstruction_needs_the_decoder_and_says_so(tiny_encoder, some):
    assert "the decoder" in Reconstruction().needs[1]
    with pytest.raises(BadInput, match=r"no decoder; train a masked-image model with pretrain\(decoder=True\)"):
        Reconstruction().features(tiny_encoder, some)
    with pytest.raises(ValueError, match="masks is 0; at least one"):
        Reconstruction(masks=0)


def test_norms_are_those_of_numpy(some, tiny_encoder):
    vectors = tiny_encoder.vectors(some.batch(slice(None))).numpy()
    expected = [[np.log(np.linalg.norm(v, p)) for p in (1, 2, 4, np.inf)] for v in vectors]
    np.testing.assert_allclose(Norms().features(tiny_encoder, some), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("attack", "settings", "message"),
    [
        (EncoderMI, {"kind": "X"}, "kind is 'X'; it must be one of V, S, T"),
        (EncoderMI, {"views": 1}, "views is 1"),
        (Variance, {"over": "rows"}, "over is 'rows'; it must be one of views, parts"),
        (Variance, {"count": 1}, "count is 1"),
        (Alignment, {"views": 0}, "views is 0"),
        (PartCosine, {"kind": "max"}, "kind is 'max'; it must be one of mean, sorted"),
        (PartCosine, {"crops": 1}, "crops is 1"),
    ],
)
def test_settings_that_make_no_attack_are_refused(attack, settings, message):
    with pytest.raises(ValueError, match=message):
        attack(**settings)


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
    with pytest.raises(ValueError, match="norms, partcosine, partcrop, pixels"):
        make_attack("guess")


def test_stacked_features_are_those_of_its_attacks_side_by_side(tiny_encoder, images):
    parts = PartCosine(crops=2), Norms()
    stacked = Stacked(parts).features(tiny_encoder, images)
    np.testing.assert_array_equal(stacked, np.hstack([one.features(tiny_encoder, images) for one in parts]))
    assert Stacked(tuple(one.settings for one in parts)) == Stacked(parts)  # as a saved result describes it
    assert Stacked().label == "stacked" and "partcosine crops=2 + norms" in Stacked(parts).label
    with pytest.raises(ValueError, match="at least one is needed"):
        Stacked(())


def test_calibrated_features_are_measured_against_the_references(tiny_encoder, images):
    attack, others = Norms(), [tiny_encoder.untrained(seed) for seed in (1, 2)]
    own, *theirs = (attack.features(one, images) for one in (tiny_encoder, *others))
    found = Calibrated(attack, tuple(others)).features(tiny_encoder, images)
    np.testing.assert_allclose(found, np.hstack([own, own - (theirs[0] + theirs[1]) / 2]), rtol=1e-6)
    alone = Calibrated(attack).features(tiny_encoder, images)
    np.testing.assert_array_equal(alone, own)
    made = Calibrated(attack, tuple(others))
    assert made.needs == ["1 query an image", "2 reference encoders trained on other images"]
    assert made.attacker == "likelihood-ratio" and made.label == "calibrated: norms, 2 references"
    with torch.inference_mode():
        batch = made.measure(tiny_encoder, images.batch(slice(0, 3)), images.hashes[:3], 0)
    np.testing.assert_allclose(batch.numpy(), found[:3], atol=1e-5)


def test_the_unified_attack_says_of_parts_what_plain_loops_say(tiny_encoder, images):
    attack, some = Unified(queries=4), images.subset(slice(0, 2))
    with torch.inference_mode():
        found = attack.statistics(tiny_encoder, some.batch(slice(None)), some.hashes, 3)
    boxes = part_boxes(some.hashes, 3, 32, attack.scale, seed=3)
    fmap = tiny_encoder.feature_map(some.batch(slice(None)))
    vectors = query_parts(tiny_encoder, some.batch(slice(None)), boxes, 32, "mean")
    cosine = torch.nn.functional.cosine_similarity
    for i in range(2):
        for n in range(3):
            part, x = vectors[i, n], boxes.boxes[i, n]
            over_map = torch.stack([cosine(part, position, dim=0) for position in fmap[i]])
            cells = [
                max(0, min(x[2], c + 8) - max(x[0], c)) * max(0, min(x[3], r + 8) - max(x[1], r))
                for r in range(0, 32, 8)
                for c in range(0, 32, 8)
            ]
            place = torch.tensor(cells, dtype=torch.float32) / sum(cells)
            expected = {
                "image": cosine(part, fmap[i].mean(0), dim=0),
                "norm": part.norm().log(),
                "energy": response_energy((fmap[i] @ part)[None])[0],
                "map": over_map.mean(),
                "peak": over_map.max(),
                "place": (over_map * place).sum(),
                "region": cosine(part, place @ fmap[i], dim=0),
            }
            for name, value in expected.items():
                torch.testing.assert_close(found[f"mean {name}"][i, n], value, atol=1e-5, rtol=1e-4, msg=name)
    assert found["mean pairs"].shape == (2, 3) and {name.split()[0] for name in found} >= {"cls", "mean"}


def test_the_unified_attack_works_on_encoders_without_cls_or_without_a_map(tiny_encoder, images):
    some = images.subset(slice(0, 6))
    maps = pl.load_encoder(lambda x: tiny_encoder.tokens(x, resize=False)[0], image_size=32, patch=8, name="maps")
    vectors = pl.load_encoder(lambda x: tiny_encoder.vectors(x), image_size=32, patch=8, name="vectors")
    widths = [Unified(queries=4).features(one, some, progress=False).shape[1] for one in (tiny_encoder, maps, vectors)]
    assert widths == [143, 78, 24]


def test_the_unified_attack_needs_two_parts():
    assert Unified(queries=49).crops == 48 and make_attack("unified", queries=5).queries == 5
    with pytest.raises(ValueError, match="at least 3 are needed"):
        Unified(queries=2)


def test_the_label_of_alignment_counts_its_references(tiny_encoder):
    assert Alignment(views=3).label == "alignment views=3"
    assert Alignment(views=3, references=(tiny_encoder,)).label == "alignment views=3, 1 reference"
