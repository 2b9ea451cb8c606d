"""The encoders that come with the package: whole, small, carrying their split, with an audited card."""

import pytest

import partcrop_lab as pl
from partcrop_lab.encoders import zoo
from partcrop_lab.encoders.recipes.base import SMALL_VIT

NAMES = ("dino", "mae", "mocov3")


def test_the_papers_three_recipes_are_there():
    assert set(NAMES) <= set(zoo.zoo_names()) and set(NAMES) <= set(zoo.ZOO)


@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_of_the_zoo_carries_the_split_it_was_trained_on(name):
    encoder = pl.load_encoder(f"zoo:{name}")
    assert encoder.split.digest == encoder.split_digest  # the images are drawn again, to the byte
    assert encoder.split.digest == zoo.ZOO[name].split().digest
    width = zoo.ZOO[name].settings.get("embed_dim", SMALL_VIT["embed_dim"])
    assert encoder.feature_map(encoder.split.images.batch([0, 1])).shape == (2, 64, width)


@pytest.mark.parametrize("name", NAMES)
def test_a_card_says_what_the_entry_and_the_audit_say(name):
    card, entry = zoo.card(name), zoo.ZOO[name]
    assert (card["recipe"], card["N"], card["T"]) == (entry.recipe, entry.members, entry.settings["epochs"])
    assert card["utility"]["linear_probe"] > 0 and card["minutes"] > 0 and card["machine"]
    assert card["audit"]["verdict"].split(":")[0] in ("Evidence of leakage", "No evidence of leakage")
    assert {"untrained", "pixels", "permuted"} <= set(card["audit"]["controls"])
    assert (zoo.zoo_dir() / f"{name}.safetensors").stat().st_size < 6e6


def test_the_mae_trained_without_augmentation_leaks():
    audit = zoo.card("mae")["audit"]
    assert audit["verdict"].startswith("Evidence of leakage") and audit["metrics"]["auc"]["low"] > 0.55
