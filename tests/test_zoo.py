"""The encoders that come with the package: whole, small, carrying their split, with an audited card."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import partcrop_lab as pl
from partcrop_lab.encoders import zoo
from partcrop_lab.encoders.recipes import make_recipe
from partcrop_lab.encoders.recipes.base import SMALL_VIT

NAMES = ("dino", "mae", "mocov3")
SHIPPED = sorted(path.stem for path in (Path(zoo.__file__).parents[2] / "data" / "zoo").glob("*.safetensors"))


def test_the_papers_three_recipes_are_there():
    assert set(NAMES) <= set(zoo.zoo_names()) and set(NAMES) <= set(zoo.ZOO)


def test_the_zoo_is_small():
    sizes = [(zoo.zoo_dir() / f"{name}.safetensors").stat().st_size for name in SHIPPED]
    assert zoo.zoo_names() == SHIPPED and len(SHIPPED) <= 24 and max(sizes) < 6e6 and sum(sizes) < 45e6


@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_of_the_zoo_carries_the_split_it_was_trained_on(name):
    encoder = pl.load_encoder(f"zoo:{name}")
    assert encoder.split.digest == encoder.split_digest  # the images are drawn again, to the byte
    assert encoder.split.digest == zoo.ZOO[name].split().digest
    width = zoo.ZOO[name].settings.get("embed_dim", SMALL_VIT["embed_dim"])
    assert encoder.feature_map(encoder.split.images.batch([0, 1])).shape == (2, 64, width)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_card_says_what_the_entry_and_the_audit_say(name):
    base, _, epoch = name.partition("-T")
    card, entry = zoo.card(name), zoo.ZOO[base]
    assert (card["recipe"], card["N"], card["planned"]) == (entry.recipe, entry.members, entry.settings["epochs"])
    assert card["T"] == int(epoch or card["planned"]) and card["seed"] == entry.seed
    wanted = json.loads(json.dumps(asdict(make_recipe(entry.recipe, **entry.settings))))
    wanted["classes"] = len(pl.load_images("partshapes", n=1, size=32).classes)  # of supervised training: the images'
    assert card["settings"].items() <= wanted.items()
    assert card["utility"]["gain"][1] > 0, "its linear probe is no better than an untrained encoder's"
    assert card["minutes"] > 0 and card["machine"]
    assert card["audit"]["verdict"].split(":")[0] in ("Evidence of leakage", "No evidence of leakage")
    assert card["audit"]["attack"]["attack"] == entry.attack.split()[0]
    assert {"untrained", "pixels", "permuted"} <= set(card["audit"]["controls"])


def test_the_mae_trained_without_augmentation_leaks():
    audit = zoo.card("mae")["audit"]
    assert audit["verdict"].startswith("Evidence of leakage") and audit["metrics"]["auc"]["low"] > 0.55


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A zoo of one small entry that keeps one epoch, audited."""
    folder = tmp_path_factory.mktemp("zoo")
    small = {"epochs": 2, "embed_dim": 32, "depth": 1, "num_heads": 2, "decoder_depth": 1}
    entry = zoo.ZooEntry("mae", small, "partcrop", 10, 10, {"size": 32, "seed": 4}, keep=(1,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.ZOO, "tiny", entry)
        patch.setattr(zoo, "PROBE", {"source": "partshapes", "n": 24, "seed": 9})
        patch.setenv(zoo.ZOO_VARIABLE, str(folder))
        for path in zoo.train_zoo("tiny", progress=False):
            encoder = pl.load_encoder(f"zoo:{path.stem}")
            attack = pl.attacks.PartCrop(crops=4)
            result = pl.audit(encoder, encoder.split, attack, "logistic", permutations=0, progress=False)
            zoo.update_card(path, audit=result.summary())
    return folder


@pytest.fixture
def small_zoo(trained, tmp_path, monkeypatch):
    """A copy of it, to be spoilt."""
    shutil.copytree(trained, tmp_path / "zoo")
    monkeypatch.setenv(zoo.ZOO_VARIABLE, str(tmp_path / "zoo"))
    return tmp_path / "zoo"


def rows(out):
    return {line.split()[0]: line.split()[1:] for line in out.splitlines()}


def test_the_list_says_what_each_was_trained_by_and_what_it_leaks(shell, small_zoo):
    status, out, _ = shell("zoo", "list")
    head, final, early = out.splitlines()
    assert status == 0 and head.split()[:4] == ["encoder", "recipe", "N", "T"]
    assert early.split()[:6] == ["zoo:tiny-T1", "mae", "10", "1", "of", "2"]
    about = zoo.card("tiny")
    auc = about["audit"]["metrics"]["auc"]
    for value in (about["utility"]["linear_probe"], auc["value"], auc["low"], auc["high"]):
        assert f"{value:.3f}" in final
    assert about["audit"]["verdict"].split(":")[0] in final and final.endswith("MiB")


def test_a_whole_zoo_is_verified_with_its_audits(shell, small_zoo):
    status, out, err = shell("zoo", "verify", "--quiet")
    assert (status, err) == (0, [])
    found = rows(out)
    assert found["encoder"] == ["weights", "split", "forward", "audit"]
    assert found["zoo:tiny"] == found["zoo:tiny-T1"] == ["ok"] * 4


def other_weights(folder):
    path = folder / "tiny.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")


def another_split(folder):
    zoo.update_card(folder / "tiny.safetensors", split_digest="0" * 64)


def other_features(folder):
    zoo.update_card(folder / "tiny.safetensors", features=(np.array(zoo.card("tiny")["features"]) + 0.5).tolist())


def another_audit(folder):
    audit = zoo.card("tiny")["audit"]
    audit["metrics"]["auc"] |= {"low": 1.01, "high": 1.02}
    zoo.update_card(folder / "tiny.safetensors", audit=audit)


def no_audit(folder):
    zoo.update_card(folder / "tiny.safetensors", audit=None)


@pytest.mark.parametrize(
    ("spoil", "found", "said"),
    [
        (other_weights, ["FAILED", "-", "-", "-"], "another sha256"),
        (another_split, ["ok", "FAILED", "-", "-"], "not the one that it was trained on"),
        (other_features, ["ok", "ok", "FAILED", "-"], "differ from those on its card by up to 0.5"),
        (another_audit, ["ok", "ok", "ok", "FAILED"], "outside the card's 1.010 to 1.020"),
        (no_audit, ["ok", "ok", "ok", "FAILED"], "its card has no audit"),
    ],
)
def test_what_is_not_as_on_the_card_is_found_and_named(shell, small_zoo, spoil, found, said):
    spoil(small_zoo)
    status, out, err = shell("zoo", "verify", "tiny", "zoo:tiny-T1", "--quiet")
    assert (status, len(err)) == (2, 1) and said in err[0]
    assert rows(out)["zoo:tiny"] == found and rows(out)["zoo:tiny-T1"] == ["ok"] * 4


def test_unknown_names_and_an_empty_zoo_are_not_verified(shell, small_zoo, tmp_path, monkeypatch):
    status, _, err = shell("zoo", "verify", "huge")
    assert status == 2 and "it has tiny" in err[-1]
    monkeypatch.setenv(zoo.ZOO_VARIABLE, str(tmp_path / "nothing"))
    status, _, err = shell("zoo", "verify")
    assert status == 2 and "holds no encoders to verify" in err[-1]


def test_a_pair_is_trained_on_disjoint_images_and_leaves_a_third_set_out():
    made = {
        side: zoo.ZooEntry(
            "simclr", {}, members=12, nonmembers=8, pool={"size": 32, "background_correlation": 0.5}, pair=side
        )
        for side in "ab"
    }
    a, b = (made[side].split() for side in "ab")
    names = [set(one) for one in (a.members.names, b.members.names, b.nonmembers.names)]
    assert [len(one) for one in names] == [12, 12, 8] and len(set.union(*names)) == 32
    about = made["a"].about_pair()
    assert set(about["held_out"]) == names[2] and about == made["b"].about_pair() | {"set": "a"}
    public = pl.load_images(**(about["public"] | {"n": 20}), size=32)
    assert not set(public.hashes) & set(made["a"].images.hashes) and public.source["background_correlation"] == 0.5


def test_the_evidence_says_of_every_encoder_what_its_card_says():
    lines = (Path(zoo.__file__).parents[2] / "EVIDENCE.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| `zoo:")]
    assert sorted(row[0] for row in cells) == sorted(f"`zoo:{name}`" for name in SHIPPED)
    for name, trained, probe, attack, auc, controls, verdict in cells:
        card = zoo.card(name.strip("`").removeprefix("zoo:"))
        audit, useful = card["audit"], card["utility"]
        assert trained.startswith(f"N = {card['N']:,}, T = {card['T']:,}")
        assert probe == f"{useful['linear_probe']:.2f} ({useful['untrained_linear_probe']:.2f})"
        assert attack == f"{audit['attack']['attack']}, {audit['queries']}"
        assert auc == "{value:.3f} ({low:.3f} to {high:.3f})".format(**audit["metrics"]["auc"])
        found = [f"{audit['controls'][control]['auc']:.3f}" for control in ("untrained", "pixels")]
        assert controls == ", ".join(found) and verdict == audit["verdict"].split(":")[0]
