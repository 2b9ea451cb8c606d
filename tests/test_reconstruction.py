"""Pictures from embeddings: what a painter learns, what it refuses, and when two of them differ."""

import numpy as np
import pytest
import torch

import partcrop_lab as pl
from partcrop_lab.dejavu import Backgrounds, load_reconstructor, painted_gain, reconstruct, train_reconstructor
from partcrop_lab.dejavu import reconstruction as module

SMALL = {"size": 16, "channels": (8, 16, 16), "batch": 20, "momentum": 0.9}
RED, BLUE = (220, 30, 30), (30, 30, 220)


def plain(colours):
    """Images of one colour each, 16 px."""
    return pl.ImageSet(np.stack([np.full((16, 16, 3), one, np.uint8) for one in colours]).transpose(0, 3, 1, 2))


def means(images):
    """An encoder that gives the mean colour of each quarter."""
    return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(2).transpose(1, 2)


@pytest.fixture(scope="module")
def encoder():
    return pl.load_encoder(means, name="means", image_size=16, digest="means of quarters")


@pytest.fixture(scope="module")
def public():
    noise = np.random.default_rng(0).integers(-20, 20, (80, 3))
    return plain(np.array([RED, BLUE] * 40) + noise)


@pytest.fixture(scope="module")
def painter(encoder, public):
    return train_reconstructor(encoder, public, "backbone", progress=False, epochs=40, lr=3e-3, **SMALL)


def test_a_painter_paints_what_its_embedding_says(painter, encoder):
    given = encoder.vectors(plain([RED, BLUE]).batch(slice(None)))
    painted = painter.paint(given, samples=6, seed=1)
    assert painted.shape == (2, 6, 3, 16, 16) and painted.dtype == torch.uint8
    red, blue = painted.float().mean((1, 3, 4))
    assert red[0] - red[2] > 60 and blue[2] - blue[0] > 60


def test_paintings_depend_on_seed_and_embedding_alone(painter, encoder):
    given = encoder.vectors(plain([RED, BLUE, RED]).batch(slice(None)))
    one, again, other = (painter.paint(given, 2, seed) for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)
    torch.testing.assert_close(one[0].float(), one[2].float(), atol=1, rtol=0)
    with pytest.raises(pl.BadInput, match=r"must be \(n, 3\)"):
        painter.paint(torch.zeros(2, 5))


def test_a_painter_that_was_saved_paints_the_same_and_for_its_encoder_alone(painter, encoder, tmp_path):
    painter.save(tmp_path / "one.safetensors")
    given = encoder.vectors(plain([RED]).batch(slice(None)))
    assert torch.equal(load_reconstructor(tmp_path / "one.safetensors", encoder).paint(given), painter.paint(given))
    with pytest.raises(pl.BadInput, match="paints from embeddings of means, not of untrained"):
        load_reconstructor(tmp_path / "one.safetensors", encoder.untrained(0))
    (tmp_path / "two.safetensors").write_text("no weights")
    for name, told in {"two.safetensors": "no file of a reconstructor", "none": "no such file"}.items():
        with pytest.raises(pl.BadInput, match=told):
            load_reconstructor(tmp_path / name)


def test_a_run_that_was_stopped_ends_as_if_it_never_was(encoder, public, tmp_path, monkeypatch):
    whole = train_reconstructor(encoder, public, "backbone", progress=False, epochs=3, **SMALL)
    epochs, bar = [], module.bar
    monkeypatch.setattr(module, "bar", lambda some, *a, **k: epochs.append(list(some)) or bar(some[:2], *a, **k))
    train_reconstructor(encoder, public, "backbone", tmp_path, progress=False, epochs=3, **SMALL)
    again = train_reconstructor(encoder, public, "backbone", tmp_path, progress=False, epochs=3, **SMALL)
    assert epochs == [[0, 1, 2], [2]]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    with pytest.raises(pl.BadInput, match="is of another encoder, other images or settings"):
        train_reconstructor(encoder, public, "backbone", tmp_path, progress=False, epochs=4, **SMALL)


@pytest.fixture(scope="module")
def pair():
    """Two untrained encoders with disjoint sets, and their painters."""
    images = pl.load_images("partshapes", n=180, size=32)
    public = images.subset(slice(120, 180))
    shape = {"image_size": 32, "patch_size": 8, "depth": 1, "embed_dim": 24, "num_heads": 3, "precision": "fp32"}
    encoders = {}
    for seed, (name, some) in enumerate({"A": slice(0, 60), "B": slice(60, 120)}.items()):
        split = pl.member_split(images.subset(some), members=30)
        card = {"split": split.record(), "split_digest": split.digest}
        encoders[name] = pl.load_encoder("random:vit_tiny_patch16_224", name=name, seed=seed, card=card, **shape)
    how = {"progress": False, "epochs": 2, **SMALL}
    painters = {name: train_reconstructor(one, public, "backbone", **how) for name, one in encoders.items()}
    return Backgrounds(encoders, public, "backbone", k=5), painters


def test_both_models_paint_the_images_of_all_sets_and_nothing_is_gained_untrained(pair):
    backgrounds, painters = pair
    third = pl.load_images("partshapes", n=30, size=32, seed=3)
    found = reconstruct(painters, backgrounds, third, each=12, samples=2, progress=False)
    assert found.table["set"].value_counts().to_dict() == {"A": 12, "B": 12, "C": 12}
    assert found.table.query("set == 'C'")["model"].tolist() == ["A", "B"] * 6
    assert found.painted["A"].shape == (36, 2, 3, 16, 16) == found.painted["B"].shape
    assert found.images.shape == found.crops.shape == found.nearest["A"].shape == (36, 3, 16, 16)
    for control in (False, True):
        value, low, high = painted_gain(found.table, control)
        assert low <= 0 <= high and low < value < high
        swapped = found.table.rename(columns={"own": "other", "other": "own"})
        assert painted_gain(swapped, control)[0] == pytest.approx(-value)


def test_distances_are_those_of_a_loop(pair):
    backgrounds, painters = pair
    found = reconstruct(painters, backgrounds, each=3, samples=2, progress=False)
    for row, one in enumerate(found.table.itertuples()):
        own = found.painted[one.set][row].numpy().astype(float)
        target = found.images[row].numpy().astype(float)
        assert one.own == pytest.approx(np.mean([np.sqrt(((each - target) ** 2).mean()) for each in own]), rel=1e-5)
        near = found.nearest[one.set][row].numpy().astype(float)
        assert one.nearest == pytest.approx(np.sqrt(((near - target) ** 2).mean()), rel=1e-5)


def test_paintings_are_kept_and_belong_to_what_made_them(pair, monkeypatch):
    backgrounds, painters = pair
    first = reconstruct(painters, backgrounds, each=3, samples=2, seed=5, progress=False)
    monkeypatch.setattr(module.Reconstructor, "paint", None)
    again = reconstruct(painters, backgrounds, each=3, samples=2, seed=5, progress=False)
    assert all(torch.equal(first.painted[name], again.painted[name]) for name in "AB")
    for other in ({"each": 2}, {"samples": 1}, {"seed": 6}):
        with pytest.raises(TypeError, match="NoneType"):
            reconstruct(painters, backgrounds, **{"each": 3, "samples": 2, "seed": 5} | other, progress=False)


def test_painters_and_encoders_must_belong_together(pair):
    backgrounds, painters = pair
    with pytest.raises(pl.BadInput, match="the reconstructor A was trained on another encoder's"):
        reconstruct({"A": painters["B"], "B": painters["A"]}, backgrounds)
    projected = Backgrounds(backgrounds.encoders, backgrounds.public, 1, k=5)
    with pytest.raises(pl.BadInput, match="paints from layer='backbone', not from 1"):
        reconstruct(painters, projected)
    with pytest.raises(pl.BadInput, match="name them, and their reconstructors, A and B"):
        reconstruct({"A": painters["A"]}, backgrounds)


def test_without_diffusers_it_is_said_how_to_get_it(monkeypatch, encoder, public):
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(pl.BadInput, match="pip install 'partcrop-lab"):
        train_reconstructor(encoder, public, "backbone", progress=False)
