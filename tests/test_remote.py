"""Encoders that can be asked but not loaded: queries go out in a file, answers come back, the audit is the same."""

import json

import numpy as np
import pytest
import torch

import partcrop_lab as pl
from partcrop_lab.attacks import write_queries
from partcrop_lab.encoders.recorded import read_recorded
from partcrop_lab.errors import BadInput


@pytest.fixture(scope="module")
def split():
    return pl.member_split(pl.load_images("partshapes", n=60, size=32, seed=11), members=20, seed=1)


def answer(path, encoder, how="vectors"):
    """What whoever can ask the encoder does: read the queries, add the answers."""
    arrays = dict(np.load(path))
    for name in [name for name in arrays if name.startswith("queries_")]:
        images = torch.from_numpy(arrays[name])
        answers = encoder.vectors(images, "mean") if how == "vectors" or images.shape[-1] < 32 else None
        answers = encoder.feature_map(images) if answers is None else answers
        arrays[name.replace("queries", "answers")] = answers.numpy()
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("attack", "how"),
    [
        (pl.attacks.EncoderMI(views=3, pooling="mean"), "vectors"),
        (pl.attacks.PartCosine(crops=3, pooling="mean"), "vectors"),
        (pl.attacks.PartCrop(crops=4, pooling="mean"), "maps"),
    ],
)
def test_the_answers_of_a_remote_encoder_give_the_features_it_would_give_here(
    attack, how, tiny_encoder, split, tmp_path
):
    path = tmp_path / "queries.npz"
    counts = write_queries(path, attack, split, patch=8, seed=3, progress=False)
    assert set(counts) <= {16, 32} and sum(counts.values()) <= attack.queries * 40 + 2
    answer(path, tiny_encoder, how)
    remote, about = read_recorded(path)
    assert about["attack"] == attack.label and remote.split.digest == split.digest
    found = attack.features(remote, split.images, 3, progress=False)
    direct = attack.features(tiny_encoder, split.images, 3, progress=False)
    np.testing.assert_allclose(found, direct, atol=0.03 * direct.std() + 1e-3)  # queries are rounded to 8 bits


def test_crops_are_asked_at_the_side_of_the_views_in_training(tiny_encoder, split, tmp_path):
    attack, path = pl.attacks.PartCosine(crops=3, pooling="mean"), tmp_path / "queries.npz"
    assert set(write_queries(path, attack, split, patch=8, view_side=16, progress=False)) == {16, 32}
    answer(path, tiny_encoder)
    remote, about = read_recorded(path)
    assert remote.view_side == about["view_side"] == 16
    assert np.isfinite(attack.features(remote, split.images, 0, progress=False)).all()
    assert set(write_queries(path, attack, split, patch=8, progress=False)) == {32}


def test_membership_on_file_is_a_claim(tiny_encoder, split, tmp_path):
    attack, path = pl.attacks.EncoderMI(views=2), tmp_path / "queries.npz"
    given = pl.member_split(split.members, split.nonmembers)
    write_queries(path, attack, given, progress=False)
    answer(path, tiny_encoder)
    remote, _ = read_recorded(path)
    result = pl.audit(remote, remote.split, attack, "logistic", permutations=1, progress=False)
    assert result.settings["membership"] == "given" and result.settings["encoder"]["name"] == "remote"
    assert list(result.controls.index) == ["untrained", "pixels", "permuted"]


def test_other_queries_than_those_on_file_are_refused(tiny_encoder, split, tmp_path):
    path = tmp_path / "queries.npz"
    write_queries(path, pl.attacks.EncoderMI(views=2), split, progress=False)
    answer(path, tiny_encoder)
    remote, _ = read_recorded(path)
    with pytest.raises(BadInput, match="no answer for a query of this audit; its queries were made for attack 'encod"):
        pl.attacks.EncoderMI(views=2).features(remote, split.images, seed=9, progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("answers_32"), "has no answers_32; add an array"),
        (lambda a: a.update(answers_32=a["answers_32"][1:]), r"it must be float \(\d+, D\)"),
        (lambda a: a.update(answers_32=a["answers_32"].astype(int)), "it must be float"),
        (lambda a: a["answers_32"].__setitem__((2, 1), np.nan), "1 of the .* rows of answers_32 hold NaN"),
        (lambda a: a.update(about=np.array(json.dumps({"format": "x"}))), "not a file of queries"),
        (lambda a: a.pop("about"), "not a file of queries"),
    ],
)
def test_a_damaged_file_of_answers_is_one_clear_sentence(change, message, tiny_encoder, split, tmp_path):
    path = tmp_path / "queries.npz"
    write_queries(path, pl.attacks.EncoderMI(views=2), split, progress=False)
    answer(path, tiny_encoder)
    arrays = dict(np.load(path))
    change(arrays)
    np.savez(path, **arrays)
    with pytest.raises(BadInput, match=message):
        read_recorded(path)


def test_what_is_no_npz_is_refused_and_no_pickle_is_read(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK nonsense")
    np.savez(tmp_path / "b.npz", about=np.array({"a": 1}, dtype=object))
    for name in ("a.npz", "b.npz"):
        with pytest.raises(BadInput, match="not a file of queries"):
            read_recorded(tmp_path / name)


def test_images_that_could_not_be_loaded_again_are_refused_before_any_work(split, tmp_path):
    arrays = pl.ImageSet(split.members.batch(slice(None)), split.members.names)
    loose = pl.member_split(arrays, split.nonmembers)
    with pytest.raises(BadInput, match="handed over as arrays"):
        write_queries(tmp_path / "queries.npz", pl.attacks.EncoderMI(), loose)


def test_from_the_shell_queries_are_written_and_their_answers_audited(shell, tiny_encoder, tmp_path):
    path = tmp_path / "queries.npz"
    drawing = ["--images", "partshapes", "--members", 16, "--size", 32, "--seed", 5]
    status, out, _ = shell("queries", "--out", path, *drawing, "--attack", "encodermi kind=T views=2", "--name", "ours")
    assert status == 0 and "add answers_32, float (" in out and f"partcrop-lab audit --features {path}" in out
    answer(path, tiny_encoder)
    status, out, _ = shell("audit", "--features", path, "--permutations", 1)
    assert status == 0 and "null check" in out and "16 members and 16 non-members of ours" in out
