"""A small version of benchmarks/false_alarms.py: every attack is asked, on an encoder that saw none of the images."""

import sys
from pathlib import Path

import pytest

import partcrop_lab as pl
from partcrop_lab.attacks import ATTACKS, Norms, PartCosine

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import false_alarms  # noqa: E402


@pytest.fixture
def few(monkeypatch):
    """Images for one group of 20 + 20."""
    for name, value in {"EACH": 20, "TRAINED_ON": 4}.items():
        monkeypatch.setattr(false_alarms, name, value)
    return pl.load_images("partshapes", n=2 * 20 + false_alarms.SPARE + 2 * 4, size=32, seed=126)


def test_every_attack_is_asked(few):
    attacks = false_alarms.every_attack(false_alarms.encoder_of(few, 0, 1))
    assert {one.name for one in attacks} == set(ATTACKS) - {"pixels"}  # which is a control
    assert len({one.label for one in attacks}) == len(attacks)


def test_a_group_is_audited_by_each_attack_with_controls(few, monkeypatch):
    monkeypatch.setattr(false_alarms, "every_attack", lambda reference: [Norms(), PartCosine(crops=2)])
    rows = false_alarms.audits(few, 0)
    assert [one["attack"] for one in rows] == ["norms", "partcosine crops=2"]
    assert all(one["members"] == one["nonmembers"] == 20 and 0 <= one["p_untrained"] <= 1 for one in rows)


def test_the_encoders_saw_no_image_of_the_group(few):
    group = set(few.subset(range(2 * false_alarms.EACH + false_alarms.SPARE)).hashes)
    trained = {number: false_alarms.encoder_of(few, 0, number).card["images_digest"] for number in range(2)}
    ends = few.subset(range(len(few) - 4, len(few))), few.subset(range(len(few) - 8, len(few) - 4))
    assert [trained[number] for number in range(2)] == [some.digest for some in ends]
    assert not group & {pixels for some in ends for pixels in some.hashes}
