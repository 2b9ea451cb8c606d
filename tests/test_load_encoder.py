"""Encoders come from names, files and callables; a wrong or dangerous file is refused in one sentence."""

import argparse
import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from partcrop_lab.encoders import load_encoder, zoo
from partcrop_lab.encoders.backbone import Architecture
from partcrop_lab.errors import BadInput

SMALL = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
MODEL = {"model": "vit_tiny_patch16_224", "image_size": 32, **SMALL}
IMAGES = torch.rand(2, 3, 32, 32)


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("random:vit_tiny_patch16_224", image_size=32, seed=3, precision="fp32", **SMALL)


@pytest.fixture(scope="module")
def weights():
    return Architecture("vit_tiny_patch16_224", 32, SMALL).build(seed=3).state_dict()


def prefixed(weights, prefix):
    return {prefix + name: value for name, value in weights.items()}


def same(loaded, encoder):
    return torch.equal(loaded.feature_map(IMAGES), encoder.feature_map(IMAGES))


def test_our_own_file_needs_nothing_more(encoder, tmp_path):
    encoder.save(tmp_path / "mine.safetensors")
    loaded = load_encoder(tmp_path / "mine.safetensors", precision="fp32")
    assert loaded.card == encoder.card
    assert (loaded.name, loaded.mean, loaded.std, loaded.pooling) == (encoder.name, encoder.mean, encoder.std, "cls")
    torch.testing.assert_close(loaded.feature_map(IMAGES), encoder.feature_map(IMAGES), rtol=0, atol=0.02)


def test_half_precision_survives_a_second_round_unchanged(encoder, tmp_path):
    encoder.save(tmp_path / "one.safetensors")
    load_encoder(tmp_path / "one.safetensors").save(tmp_path / "two.safetensors")
    one, two = (load_encoder(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert one.digest == two.digest


@pytest.mark.parametrize(
    "layout",
    [
        lambda w: w,
        lambda w: {"model": w, "args": argparse.Namespace(lr=1)},
        lambda w: {"state_dict": prefixed(w, "module.base_encoder.") | prefixed(w, "module.predictor.")},
        lambda w: {"state_dict": prefixed(w, "backbone.") | {"projector.0.weight": torch.zeros(2, 2)}},
        lambda w: {
            "teacher": prefixed(w, "backbone."),
            "student": {k: v + 1 for k, v in prefixed(w, "module.backbone.").items()},
        },
        lambda w: {"model": w | {"decoder_pos_embed": torch.zeros(1), "mask_token": torch.zeros(1)}},
    ],
    ids=["bare", "mae", "moco", "lightly", "dino", "mae with decoder"],
)
def test_backbone_is_found_under_the_containers_and_prefixes_of_the_field(layout, weights, encoder, tmp_path):
    torch.save(layout(weights), tmp_path / "released.pth")
    assert same(load_encoder(tmp_path / "released.pth", precision="fp32", **MODEL), encoder)


def test_plain_safetensors_load_with_their_architecture(weights, encoder, tmp_path):
    save_file(weights, tmp_path / "plain.safetensors")
    assert same(load_encoder(tmp_path / "plain.safetensors", precision="fp32", **MODEL), encoder)
    other = load_encoder(tmp_path / "plain.safetensors", mean=(0.1, 0.2, 0.3), std=(0.2, 0.2, 0.2), **MODEL)
    assert other.mean == (0.1, 0.2, 0.3)


def test_a_file_that_does_not_say_what_it_is_needs_a_model(weights, tmp_path):
    save_file(weights, tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match="give model="):
        load_encoder(tmp_path / "plain.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {k: v for k, v in w.items() if "blocks.1" not in k}, r"12 missing: blocks\.1\.norm1\.weight"),
        (lambda w: w | {"blocks.2.norm1.weight": torch.zeros(48)}, r"1 not in the model: blocks\.2\.norm1\.weight"),
        (
            lambda w: w | {"pos_embed": torch.zeros(1, 65, 48)},
            r"1 of another shape: pos_embed \(file 1x65x48, model 1x17x48\)",
        ),
        (lambda w: {"layer1.0.weight": torch.zeros(3)}, "30 missing"),
        (lambda w: [1, 2], "30 missing"),
    ],
    ids=["shallower", "deeper", "other size", "other model", "no weights"],
)
def test_a_wrong_checkpoint_is_refused_with_a_short_list(change, message, weights, tmp_path):
    torch.save(change(weights), tmp_path / "wrong.pth")
    with pytest.raises(BadInput, match=message) as refusal:
        load_encoder(tmp_path / "wrong.pth", **MODEL)
    assert "wrong.pth" in str(refusal.value)
    assert len(str(refusal.value)) < 500


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_code_in_a_pickle_is_refused_and_does_not_run(save, weights, tmp_path):
    save({"model": weights, "bomb": Bomb(tmp_path / "exploded")}, tmp_path / "bomb.pth")
    with pytest.raises(BadInput, match=r"bomb\.pth: refused.*nothing in it was run"):
        load_encoder(tmp_path / "bomb.pth", **MODEL)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pth"])
def test_a_damaged_file_is_one_clear_sentence(name, encoder, weights, tmp_path):
    encoder.save(tmp_path / "whole.safetensors")
    torch.save(weights, tmp_path / "whole.pth")
    whole = (tmp_path / name.replace("cut", "whole")).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match=name):
        load_encoder(tmp_path / name, **MODEL)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"gone\.pth: no such file"):
        load_encoder(tmp_path / "gone.pth", **MODEL)


@pytest.mark.parametrize(
    ("spec", "keywords", "message"),
    [
        ("random:vit_tinny_patch16_224", {}, "did you mean .*vit_tiny_patch16_224"),
        ("random:vit_tiny_patch16_224", {"image_size": 32, "dept": 3}, "does not take the options"),
        ("random:vit_tiny_patch16_224", {"image_size": 30, "patch_size": 8}, "must be a multiple of the patch of 8 px"),
        ("clip", {}, "must be random:<timm model>"),
        (lambda x: x, {}, "takes image_size="),
    ],
)
def test_unknown_names_and_options_list_the_right_ones(spec, keywords, message):
    with pytest.raises(ValueError, match=message):
        load_encoder(spec, **keywords)


def test_weights_that_cannot_be_fetched_are_one_clear_sentence(monkeypatch):
    def offline(*arguments, **keywords):
        raise ConnectionError("no route")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(BadInput, match=r"timm:vit_base_patch16_224\.mae could not be fetched \(ConnectionError\)"):
        load_encoder("timm:vit_base_patch16_224.mae")


@pytest.fixture
def small_zoo(encoder, tmp_path, monkeypatch):
    monkeypatch.setenv(zoo.ZOO_VARIABLE, str(tmp_path))
    encoder.save(tmp_path / "tiny.safetensors")
    about = {"recipe": "mae", "N": 4, "T": 2, "sha256": zoo._sha256(tmp_path / "tiny.safetensors")}
    (tmp_path / "tiny.json").write_text(json.dumps(about))
    return tmp_path


def test_zoo_encoder_carries_its_card(small_zoo):
    loaded = load_encoder("zoo:tiny", precision="fp32")
    assert (loaded.name, loaded.card["N"]) == ("zoo:tiny", 4)
    assert zoo.zoo_names() == ["tiny"]


def test_unknown_zoo_name_lists_those_that_are_there(small_zoo):
    with pytest.raises(ValueError, match="no encoder 'huge'; it has tiny"):
        load_encoder("zoo:huge")


def test_zoo_weights_that_are_not_the_cards_are_refused(small_zoo):
    path = small_zoo / "tiny.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(BadInput, match="another sha256"):
        load_encoder("zoo:tiny")


def test_update_card_keeps_the_other_fields(small_zoo):
    zoo.update_card(zoo.zoo_dir() / "tiny.safetensors", audit={"auc": 0.9})
    assert zoo.card("tiny")["audit"] == {"auc": 0.9}
    assert zoo.card("tiny")["recipe"] == "mae"
