"""The training loop: what it reads, what it hands on and saves, and how views are drawn. Recipes: test_recipes.py."""

import json
import multiprocessing
import signal
import time

import numpy as np
import pytest
import torch
from small_recipes import losses, settings

from partcrop_lab.encoders import load_encoder, pretrain, training, zoo
from partcrop_lab.encoders.augment import Augmentation, colour_matrix, gaussian_blur
from partcrop_lab.errors import BadInput
from partcrop_lab.images import ImageSet, MembershipSplit, load_images, member_split


@pytest.fixture(scope="module")
def images():
    return load_images("partshapes", n=24, size=32, seed=3)


@pytest.mark.slow
def test_a_run_killed_ten_times_at_random_ends_as_if_it_never_was(images, tmp_path):
    how = {"epochs": 90, "checkpoint_every": 3, "keep": (45,), **settings("mae")}
    out, random = tmp_path / "killed", np.random.default_rng(0)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["partcrop_lab.encoders"])  # imported once for ten processes

    def written():
        return (out / "state.pt").stat().st_mtime_ns if (out / "state.pt").exists() else 0

    reached = []
    for _ in range(10):
        before = written()
        process = context.Process(target=one_threaded, args=(images, out, how))
        process.start()
        while written() == before and process.is_alive():
            time.sleep(0.005)
        lines = (out / "log.jsonl").read_text().splitlines()
        time.sleep(random.uniform(0, 1.5) * json.loads(lines[-1])["seconds"])  # anywhere within a step or an epoch
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        reached.append(len(losses(out)))
    assert 3 <= reached[0] < reached[-1] < 90
    resumed = pretrain("mae", images, out=out, **how)
    whole = pretrain("mae", images, out=tmp_path / "whole", **how)
    assert losses(out) == losses(tmp_path / "whole") and resumed.digest == whole.digest
    kept = [load_encoder(training.kept_path(folder, 45)).digest for folder in (out, tmp_path / "whole")]
    assert kept[0] == kept[1]


def one_threaded(images, out, how):
    torch.set_num_threads(1)
    pretrain("mae", images, out=out, **how)


def test_an_encoder_kept_along_the_way_is_the_run_as_it_was_then(images, tmp_path, monkeypatch):
    final = pretrain("mae", images, epochs=4, out=tmp_path / "run", keep=(1, 3), **settings("mae"))
    early, late = (load_encoder(tmp_path / "run" / f"encoder-00000{epoch}.safetensors") for epoch in (1, 3))
    assert [(one.card["T"], one.card["planned"]) for one in (early, late, final)] == [(1, 4), (3, 4), (4, 4)]
    assert len({one.digest for one in (early, late, final)}) == 3
    assert late.card["final_loss"] == losses(tmp_path / "run")[2] and "T=3" in late.name
    plain = pretrain("mae", images, epochs=4, **settings("mae"))
    assert plain.digest == final.digest  # the schedule and every draw are unchanged


def test_epochs_that_cannot_be_kept_are_refused(images, tmp_path):
    with pytest.raises(ValueError, match="keep= names epoch 5; it must be one from 1 to 2"):
        pretrain("mae", images, epochs=2, out=tmp_path, keep=[5], **settings("mae"))
    with pytest.raises(ValueError, match="keep= needs out="):
        pretrain("mae", images, epochs=2, keep=[1], **settings("mae"))
    pretrain("mae", images, epochs=2, out=tmp_path, **settings("mae"))
    with pytest.raises(BadInput, match="is already at epoch 2 and did not keep epoch 1; choose another out="):
        pretrain("mae", images, epochs=2, out=tmp_path, keep=[1], **settings("mae"))


def test_only_members_are_read(images, monkeypatch):
    split = MembershipSplit(images, ImageSet(np.full((4, 3, 32, 32), 9, np.uint8)), "given")
    digest = split.digest

    def forbidden(indices):
        raise AssertionError("a non-member was read")

    monkeypatch.setattr(split.nonmembers, "batch", forbidden)
    encoder = pretrain("mae", split, epochs=1, **settings("mae"))
    assert (encoder.split_digest, encoder.card["N"]) == (digest, len(images))
    assert encoder.digest == pretrain("mae", images, epochs=1, **settings("mae")).digest


def test_the_encoder_carries_its_split_and_what_it_was_trained_with(tmp_path):
    split = member_split(load_images("partshapes", n=16, size=32, seed=1), members=8, seed=0)
    pretrain("mae", split, epochs=2, seed=4, out=tmp_path, crop_scale=None, flip=0.0, **settings("mae"))
    encoder = load_encoder(tmp_path / "encoder.safetensors")
    assert encoder.split.digest == split.digest == encoder.split_digest
    assert encoder.split.members.names == split.members.names
    assert {key: encoder.card[key] for key in ("recipe", "N", "T", "seed")} == {
        "recipe": "mae",
        "N": 8,
        "T": 2,
        "seed": 4,
    }
    assert encoder.card["settings"]["crop_scale"] is None
    assert encoder.pooling == "mean"


def test_the_encoder_returned_is_the_one_saved(images, tmp_path):
    encoder = pretrain("dino", images, epochs=1, out=tmp_path, **settings("dino"))
    assert load_encoder(tmp_path / "encoder.safetensors").digest == encoder.digest


def test_seed_decides_the_weights(images):
    one, again, other = (pretrain("mocov3", images, epochs=1, seed=s, **settings("mocov3")) for s in (0, 0, 1))
    assert one.digest == again.digest != other.digest


def test_a_folder_with_another_run_is_refused(images, tmp_path):
    pretrain("mae", images, epochs=1, out=tmp_path, **settings("mae"))
    with pytest.raises(BadInput, match="holds another run"):
        pretrain("mae", images, epochs=1, seed=1, out=tmp_path, **settings("mae"))


def test_a_finished_run_is_not_trained_again(images, tmp_path, monkeypatch):
    first = pretrain("mae", images, epochs=1, out=tmp_path, **settings("mae"))
    monkeypatch.setattr(training._Run, "_epoch", None)
    assert pretrain("mae", images, epochs=1, out=tmp_path, **settings("mae")).digest == first.digest


def test_a_loss_that_is_no_number_stops_the_run_and_says_where(images):
    with pytest.raises(BadInput, match=r"no longer finite in epoch \d of 9 \(recipe mae, lr 1e\+20\)"):
        pretrain("mae", images, epochs=9, lr=1e20, warmup=0.0, clip=1e9, **settings("mae"))


def test_unknown_recipes_and_settings_list_the_right_ones(images):
    with pytest.raises(ValueError, match=r"must be one of .*dino, .*mae, .*simclr"):
        pretrain("mea", images)
    with pytest.raises(ValueError, match=r"recipe mae has no setting mask; its settings are .*mask_ratio"):
        pretrain("mae", images, mask=0.5)


def test_another_backbone_begins_with_its_own_options(images):
    own = {key: value for key, value in settings("mocov3").items() if key not in ("embed_dim", "depth", "num_heads")}
    encoder = pretrain("mocov3", images, epochs=1, model="resnet18", **own)
    assert (encoder.architecture.model, encoder.architecture.options) == ("resnet18", {})


def test_views_differ_by_image_and_repeat_with_the_generator(images):
    augmentation = Augmentation((0.2, 1), 0.5, 0.8, grey=0.2, blur=0.5, solarise=0.2)
    batch = images.batch([0, 0, 1])
    one, again = (augmentation(batch, torch.Generator().manual_seed(7), 24, 2) for _ in range(2))
    assert one.shape == (3, 2, 3, 24, 24)
    assert torch.equal(one, again)
    assert not torch.equal(one[0], one[1])
    assert 0 <= one.min() <= one.max() <= 1


def test_no_augmentation_gives_the_image_itself(images):
    batch = images.batch(slice(0, 3))
    assert torch.equal(Augmentation()(batch, torch.Generator())[:, 0], batch / 255)
    flipped = Augmentation(flip=1.0)(batch, torch.Generator())[:, 0]
    assert torch.equal(flipped, batch.flip(-1) / 255)


def test_greyscale_and_jitter_do_what_torchvision_does():
    from torchvision.transforms.v2 import functional

    image = torch.rand(1, 3, 8, 8) * 0.5 + 0.2
    grey = Augmentation(grey=1.0)._affine(image, torch.Generator())
    torch.testing.assert_close(grey, functional.rgb_to_grayscale(image, 3), atol=2e-3, rtol=0)
    half = colour_matrix(torch.tensor([0.5]), torch.zeros(1)) @ image.flatten(2)
    torch.testing.assert_close(half.view_as(image), functional.adjust_saturation(image, 0.5), atol=2e-3, rtol=0)


def test_hue_turns_colours_and_leaves_grey_grey():
    matrix = colour_matrix(torch.ones(2), torch.tensor([0.0, 2.0]))
    torch.testing.assert_close(matrix[0], torch.eye(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(matrix @ torch.ones(3), torch.ones(2, 3), atol=1e-5, rtol=0)
    assert (matrix[1] - torch.eye(3)).abs().max() > 0.5


def test_blur_is_gaussian_and_only_where_asked():
    spot = torch.zeros(2, 3, 9, 9)
    spot[..., 4, 4] = 1
    blurred = gaussian_blur(spot, torch.tensor([0.0, 1.0]))
    assert torch.equal(blurred[0], spot[0])
    assert float(blurred[1, 0, 4, 5] / blurred[1, 0, 4, 4]) == pytest.approx(np.exp(-0.5), rel=1e-3)


def test_large_sets_are_read_batch_by_batch_with_the_same_losses(images, tmp_path, monkeypatch):
    pretrain("mae", images, epochs=2, out=tmp_path / "held", **settings("mae"))
    monkeypatch.setattr(training, "HELD_BYTES", 0)
    pretrain("mae", images, epochs=2, out=tmp_path / "streamed", **settings("mae"))
    assert losses(tmp_path / "streamed") == losses(tmp_path / "held")


def test_a_zoo_entry_trains_with_weights_card_and_split(tmp_path, monkeypatch):
    pool = {"source": "partshapes", "n": 20, "size": 32, "seed": 0}
    small = {"epochs": 2, "embed_dim": 48, "num_heads": 3}
    plan = zoo.ZooEntry("mae", small, members=8, nonmembers=6, pool=pool, keep=(1,))
    monkeypatch.setitem(zoo.ZOO, "tiny", plan)
    monkeypatch.setattr(zoo, "PROBE", {"source": "partshapes", "n": 40, "seed": 9})
    monkeypatch.setenv(zoo.ZOO_VARIABLE, str(tmp_path))
    paths = zoo.train_zoo("tiny", progress=False)
    encoder = load_encoder("zoo:tiny")
    assert paths == [tmp_path / "tiny-T1.safetensors", tmp_path / "tiny.safetensors"]
    assert [(zoo.card(name)["T"], zoo.card(name)["planned"]) for name in ("tiny-T1", "tiny")] == [(1, 2), (2, 2)]
    assert all(zoo.verify_zoo(name) == dict.fromkeys(zoo.CHECKS) for name in ("tiny-T1", "tiny"))
    assert encoder.split.digest == plan.split().digest
    assert (len(encoder.split.members), len(encoder.split.nonmembers)) == (8, 6)
    assert 0 <= zoo.card("tiny")["utility"]["untrained_knn"] <= 1
    with pytest.raises(ValueError, match="no entry 'huge'; it must be one of mae"):
        zoo.train_zoo("huge")
