"""Encoders come from names, files and callables; a wrong or dangerous file is refused in one sentence."""

import argparse
import json
import pickle
import warnings

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from partcrop_lab.encoders import load_encoder, zoo
from partcrop_lab.encoders.backbone import Architecture
from partcrop_lab.encoders.infer import _heads, infer_model
from partcrop_lab.errors import BadInput

SMALL = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
MODEL = {"model": "vit_tiny_patch16_224", "image_size": 32, **SMALL}
HALVES = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
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


OPTIMISER = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []}
VIT_LAYOUTS = {
    "bare": lambda w: w,
    "mae": lambda w: {"model": w | {"decoder_pos_embed": torch.zeros(1), "mask_token": torch.zeros(1)}, "args": ARGS},
    "moco v3": lambda w: {
        "arch": "vit_small",
        "state_dict": prefixed(w | HEAD, "module.base_encoder.")
        | prefixed(shifted(w | HEAD), "module.momentum_encoder.")
        | prefixed(HEAD, "module.predictor."),
        "optimizer": OPTIMISER,
    },
    "dino": lambda w: {
        "student": prefixed(shifted(w), "module.backbone.") | prefixed(HEAD, "module.head."),
        "teacher": prefixed(w, "backbone.") | prefixed(HEAD, "head."),
        "dino_loss": {"center": torch.zeros(1, 4)},
        "optimizer": OPTIMISER,
        "args": ARGS,
    },
    "lightly": lambda w: {"state_dict": prefixed(w, "backbone.vit.") | {"projection_head.layers.0.weight": HEADS}},
}
ARGS = argparse.Namespace(lr=1e-3, output_dir="out")
HEADS = torch.zeros(2, 2)
HEAD = {"head.0.weight": HEADS}
PASSED_OVER = {
    "bare": (None, []),
    "mae": (None, ["decoder_pos_embed", "mask_token"]),
    "moco v3": ("base", ["module.base_encoder.head", "module.momentum_encoder", "module.predictor"]),
    "dino": ("teacher", ["dino_loss", "head", "student"]),
    "lightly": (None, ["projection_head"]),
}


def shifted(weights):
    return {name: value + 1 for name, value in weights.items()}


@pytest.mark.parametrize("layout", VIT_LAYOUTS)
@pytest.mark.parametrize("named", [True, False], ids=["model given", "inferred"])
def test_a_vit_is_found_in_the_layouts_of_the_field(layout, named, weights, encoder, tmp_path):
    torch.save(VIT_LAYOUTS[layout](weights), tmp_path / "released.pth")
    how = MODEL if named else {"num_heads": 3}
    loaded = load_encoder(tmp_path / "released.pth", precision="fp32", **how, **HALVES)
    assert same(loaded, encoder)
    branch, beside = PASSED_OVER[layout]
    assert loaded.card["checkpoint"] == {"file": "released.pth", "branch": branch, "passed_over": beside}


@pytest.mark.filterwarnings("ignore:.*does not say mean=")
@pytest.mark.parametrize(("layout", "branch"), [("dino", "student"), ("moco v3", "momentum")])
def test_the_other_branch_is_loaded_where_it_is_asked_for(layout, branch, weights, encoder, tmp_path):
    torch.save(VIT_LAYOUTS[layout](weights), tmp_path / "released.pth")
    other = load_encoder(tmp_path / "released.pth", branch=branch, **MODEL)
    torch.testing.assert_close(other._model.cls_token, weights["cls_token"] + 1)
    assert other.card["checkpoint"]["branch"] == branch


def test_a_branch_that_is_not_there_is_refused_with_those_that_are(weights, tmp_path):
    for layout, message in (("dino", "it has student and teacher"), ("bare", "it has none")):
        torch.save(VIT_LAYOUTS[layout](weights), tmp_path / "released.pth")
        with pytest.raises(BadInput, match=f"no branch 'base'; {message}"):
            load_encoder(tmp_path / "released.pth", branch="base")


def renamed(state, table):
    heads = [(name, *name.partition(".")) for name in state]
    return {table.get(head, head) + dot + rest: state[name] for name, head, dot, rest in heads}


BY_PLACE = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
RESNET_LAYOUTS = {
    "torchvision": lambda w: w | {"fc.weight": HEADS, "fc.bias": HEADS[0]},
    "deja vu": lambda w: {
        "epoch": 3,
        "model": prefixed(w, "module.net.") | {"module.projector.0.weight": HEADS},
        "optimizer": OPTIMISER,
    },
    "lightly": lambda w: {
        "state_dict": prefixed(renamed(w, BY_PLACE), "backbone.") | {"projection_head.layers.0.weight": HEADS},
        "pytorch-lightning_version": "2.6",
        "hyper_parameters": {"lr": 0.1},
    },
}


@pytest.mark.parametrize(
    ("layout", "beside"),
    [("torchvision", ["fc"]), ("deja vu", ["module.projector"]), ("lightly", ["projection_head"])],
)
def test_a_resnet_is_found_in_the_layouts_of_the_field(layout, beside, tmp_path):
    narrow = {"layers": (1, 2, 1, 1), "channels": (8, 8, 16, 16)}
    model = Architecture("resnet50", 32, narrow).build(seed=1).eval()
    torch.save(RESNET_LAYOUTS[layout](model.state_dict()), tmp_path / "released.pth")
    loaded = load_encoder(tmp_path / "released.pth", image_size=32, precision="fp32", mean=(0, 0, 0), std=(1, 1, 1))
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(loaded.vectors(images, "mean"), model(images), rtol=1e-4, atol=1e-4)
    assert loaded.card["checkpoint"]["passed_over"] == beside


NAMES = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "resnext50_32x4d"]


@pytest.mark.parametrize("name", NAMES)
def test_torchvisions_resnets_are_known_by_their_shapes(name):
    with torch.device("meta"):
        state = torchvision.models.get_model(name).state_dict()
        read, assumed = infer_model(state, "file")
        assert assumed == {"image_size": 224} and read["model"] == (name if name in NAMES[:5] else "resnet50")
        ours = timm.create_model(num_classes=0, model_name=read.pop("model"), **read).state_dict()
    shapes = {key: value.shape for key, value in state.items() if not key.startswith("fc.")}
    assert {key: value.shape for key, value in ours.items()} == shapes


@pytest.mark.parametrize(
    "options",
    [
        {"embed_dim": 384, "num_heads": 6, "depth": 12, "img_size": 224},
        {"class_token": False, "global_pool": "avg", "fc_norm": False},
        {"class_token": False, "global_pool": "avg"},
        {"reg_tokens": 4, "no_embed_class": True, "init_values": 1e-5},
        {"reg_tokens": 2, "qkv_bias": False, "mlp_ratio": 2.0, "patch_size": 4},
        {"global_pool": "avg"},
    ],
    ids=str,
)
def test_vits_are_known_by_their_shapes(options):
    made = {"img_size": 32, "patch_size": 8, "embed_dim": 192, "depth": 2, "num_heads": 3} | options
    with torch.device("meta"):
        state = timm.create_model("vit_tiny_patch16_224", **made).state_dict()
        read, assumed = infer_model(state, "file")
        assert (read["image_size"], assumed) == (made["img_size"], {"num_heads": made["num_heads"]})
        side = read.pop("image_size")
        ours = timm.create_model(num_classes=0, model_name=read.pop("model"), img_size=side, **read, **assumed)
    shapes = {key: value.shape for key, value in state.items() if not key.startswith("head.")}
    assert {key: value.shape for key, value in ours.state_dict().items()} == shapes


def test_published_widths_have_their_published_heads():
    widths = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 48: 1, 100: 1, 160: 2}
    assert {width: _heads(width) for width in widths} == widths


def test_what_the_weights_do_not_say_is_assumed_with_one_warning(weights, tmp_path):
    save_file(weights, tmp_path / "plain.safetensors")
    with pytest.warns(UserWarning, match=r"does not say num_heads=1, mean=\(0\.485, .*, std=\(0\.229") as said:
        loaded = load_encoder(tmp_path / "plain.safetensors")
    assert len(said) == 1 and (loaded.image_size, loaded.mean) == (32, (0.485, 0.456, 0.406))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_encoder(tmp_path / "plain.safetensors", num_heads=3, **HALVES)


def test_plain_safetensors_load_with_their_architecture(weights, encoder, tmp_path):
    save_file(weights, tmp_path / "plain.safetensors")
    assert same(load_encoder(tmp_path / "plain.safetensors", precision="fp32", **MODEL, **HALVES), encoder)
    other = load_encoder(tmp_path / "plain.safetensors", mean=(0.1, 0.2, 0.3), std=(0.2, 0.2, 0.2), **MODEL)
    assert other.mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"net.0.weight": torch.zeros(3, 3)}, r"no layer1\.0\)"),
        ({"patch_embed.proj.weight": torch.zeros(48, 3, 8, 8)}, r"no pos_embed\)"),
        (
            {"patch_embed.proj.weight": torch.zeros(48, 3, 8, 8), "pos_embed": torch.zeros(1, 7, 48)},
            "no square grid in its 7 position embeddings",
        ),
    ],
    ids=["an MLP", "a Swin", "an odd grid"],
)
def test_a_model_that_shapes_do_not_tell_needs_its_name(content, message, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(BadInput, match=message + ".*give model="):
        load_encoder(tmp_path / "other.pth")


def test_position_embeddings_of_another_grid_say_which_size_would_fit(weights, tmp_path):
    save_file(weights, tmp_path / "plain.safetensors")
    with pytest.raises(BadInput, match="4 x 4 patches of 8 px, so image_size=32 would fit"):
        load_encoder(tmp_path / "plain.safetensors", image_size=64)


def test_missing_and_unexpected_tensors_are_one_table(weights, tmp_path):
    state = {name: value for name, value in weights.items() if "blocks.1" not in name}
    torch.save(state | {"blocks.7.norm1.weight": torch.zeros(48), "norm.bias": torch.zeros(4)}, tmp_path / "wrong.pth")
    with pytest.raises(BadInput) as refusal:
        load_encoder(tmp_path / "wrong.pth", **MODEL)
    first, *rows = str(refusal.value).splitlines()
    assert "wrong.pth does not hold the weights of this VisionTransformer (30 tensors)" in first
    assert [row.split(":")[0].strip() for row in rows] == ["12 missing", "1 not in the model", "1 of another shape"]
    assert len({row.index(":") for row in rows}) == 1


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


AUC = ("value", "low", "high")


def test_update_card_keeps_the_other_fields(small_zoo):
    audit = {"verdict": "test", "attack": {"attack": "unified"}, "metrics": {"auc": dict.fromkeys(AUC, 0.9)}}
    zoo.update_card(zoo.zoo_dir() / "tiny.safetensors", audit=audit)
    assert zoo.card("tiny")["audit"] == audit
    assert zoo.card("tiny")["recipe"] == "mae"
