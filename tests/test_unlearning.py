"""Unlearning by alignment calibration: what it does to alignments, what it refuses, and its yardstick."""

import numpy as np
import pytest
import torch
from small_recipes import TINY_VIT

import partcrop_lab as pl
from partcrop_lab.attacks import PartCosine
from partcrop_lab.defenses import Unlearning
from partcrop_lab.defenses.unlearning import _objective, alignments, judge, retained
from partcrop_lab.devices import generator


@pytest.fixture(scope="module")
def split():
    return pl.member_split(pl.load_images("partshapes", n=120, size=32, seed=4), members=40, seed=0)


@pytest.fixture(scope="module")
def encoder(split):
    """Trained until it tells its images from others by their alignment."""
    gentle = {"batch_size": 20, "lr": 5e-3, "jitter": 0.0, "grey": 0.0}
    return pl.pretrain("simclr", split, 150, progress=False, projector=True, **gentle, **TINY_VIT)


@pytest.fixture(scope="module")
def forget(split):
    return split.members.subset(np.arange(0, 40, 2))


@pytest.fixture(scope="module")
def unseen():
    return pl.load_images("partshapes", n=60, size=32, seed=5)


@pytest.fixture(scope="module")
def unlearned(encoder, forget, unseen):
    return Unlearning(epochs=30, lr=1e-3).fit(encoder, forget, unseen, progress=False)


def alignment(encoder, images):
    """The mean over eight draws of views."""
    objective, pixels = _objective(encoder).eval(), images.batch(slice(None))
    with torch.no_grad():
        return float(torch.stack([alignments(objective, pixels, generator("test", k)) for k in range(8)]).mean())


def test_alignments_of_the_forgotten_move_to_those_of_unseen_images(encoder, unlearned, forget, unseen):
    before, after = (alignment(one, forget) - alignment(one, unseen) for one in (encoder, unlearned))
    assert before > 0.03 and abs(after) < before / 2


def test_images_that_are_kept_stay_aligned(encoder, unlearned, forget):
    kept = retained(encoder, forget)
    assert len(kept) == 20 and not set(kept.names) & set(forget.names)
    assert alignment(unlearned, kept) > alignment(unlearned, forget) + 0.01


def test_the_result_says_what_was_done_and_loads_again(unlearned, encoder, forget, tmp_path):
    assert unlearned.card["unlearned"] == {"epochs": 30, "lr": 1e-3, "weight": 20.0, "seed": 0} | {
        "images": 20,
        "digest": forget.digest,
    }
    unlearned.save(tmp_path / "one.safetensors")
    again = pl.load_encoder(tmp_path / "one.safetensors")
    assert again.digest == unlearned.digest != encoder.digest and again.split.digest == encoder.split.digest
    assert again.projector is not None


def test_it_is_the_same_every_time_and_leaves_the_encoder_alone(encoder, forget, unseen):
    before = encoder.digest
    one, two, other = (Unlearning(1, seed=seed).fit(encoder, forget, unseen, progress=False) for seed in (0, 0, 1))
    assert one.digest == two.digest != other.digest
    weights = encoder._model.state_dict()
    fresh = encoder.like(encoder._model, name="again", architecture=encoder.architecture, projector=encoder.projector)
    assert fresh.digest == before and not any(value.requires_grad for value in weights.values())


def test_what_cannot_be_unlearned_is_refused(encoder, split, forget, unseen):
    one = Unlearning(1)
    with pytest.raises(pl.BadInput, match="5 of the 5 images to forget are no members"):
        one.fit(encoder, unseen.subset(slice(0, 5)), unseen)
    with pytest.raises(pl.BadInput, match="no image to forget"):
        one.fit(encoder, forget.subset(slice(0, 0)), unseen)
    with pytest.raises(pl.BadInput, match="all 40 members are to be forgotten"):
        one.fit(encoder, split.members, unseen)
    with pytest.raises(pl.BadInput, match="40 of the unseen images are in the split"):
        one.fit(encoder, forget, split.nonmembers)
    with pytest.raises(pl.BadInput, match="at least two images of 32 px"):
        one.fit(encoder, forget, unseen.subset(slice(0, 1)))
    masked = pl.pretrain("mae", split, 1, progress=False, **TINY_VIT)
    with pytest.raises(pl.BadInput, match="trained by mae; alignment calibration needs"):
        one.fit(masked, forget, unseen)
    bare = pl.pretrain("simclr", split, 1, progress=False, **TINY_VIT)
    with pytest.raises(pl.BadInput, match="carries no projector"):
        one.fit(bare, forget, unseen)
    with pytest.raises(pl.BadInput, match="does not say how"):
        one.fit(encoder.untrained(0), forget, unseen)
    with pytest.raises(ValueError, match="epochs is 0"):
        Unlearning(0)


def test_it_is_judged_beside_an_encoder_trained_without(encoder, unlearned, forget, split, unseen):
    other = pl.pretrain("simclr", retained(encoder, forget), 2, progress=False, batch_size=20, **TINY_VIT)
    encoders = {"as it was": encoder, "unlearned": unlearned, "trained without": other}
    table = judge(encoders, forget, split.nonmembers, PartCosine(crops=4), unseen, progress=False)
    assert list(table.encoder) == list(encoders) and (table.images == 20).all() and (table.nonmembers == 40).all()
    yardstick = table.iloc[2]
    assert yardstick.gain == 0 == yardstick.gain_low
    assert table.iloc[0].gain == pytest.approx(table.iloc[0].auc - yardstick.auc)
    assert {"p_untrained", "p_pixels"} <= set(table) and table.probe.between(0, 1).all()
    with pytest.raises(ValueError, match="name one 'trained without'"):
        judge({"unlearned": unlearned}, forget, split.nonmembers, PartCosine(), unseen)


def test_the_command_forgets_what_a_file_names(encoder, forget, tmp_path, shell):
    encoder.save(tmp_path / "one.safetensors")
    (tmp_path / "names.txt").write_text("\n".join(forget.names) + "\n\n")
    target = "--encoder", tmp_path / "one.safetensors", "--out", tmp_path / "two.safetensors", "--epochs", 1
    status, out, _ = shell("unlearn", *target, "--forget", tmp_path / "names.txt", "--quiet")
    assert status == 0 and "20 of 40 images unlearned" in out
    assert pl.load_encoder(tmp_path / "two.safetensors").card["unlearned"]["digest"] == forget.digest
    one = "--retrained", tmp_path / "one.safetensors", "--attack", "norms"
    status, out, _ = shell("unlearn", *target, "--forget", 20, *one, "--quiet")
    assert status == 0 and "20 of 40" in out and "trained without" in out
    status, _, err = shell("unlearn", *target, "--forget", "nowhere.txt")
    assert status == 2 and "a text file with a name on each line" in err[-1]
