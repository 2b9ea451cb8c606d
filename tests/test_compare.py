"""Several attacks on several encoders: one honest table."""

import json

import numpy as np
import pandas as pd
import pytest
from test_audit import remembering

import partcrop_lab as pl
from partcrop_lab.attacks import EncoderMI, Norms, PartCrop
from partcrop_lab.audit import run
from partcrop_lab.errors import BadInput

CROPS = PartCrop(crops=6)


@pytest.fixture(scope="module")
def split():
    return pl.member_split(pl.load_images("partshapes", n=170, size=32, seed=12), members=80, seed=1)


@pytest.fixture(scope="module")
def leaking(tiny_encoder, split):
    return remembering(tiny_encoder, split)


@pytest.fixture(scope="module")
def found(tiny_encoder, leaking, split):
    attacks = [CROPS, Norms(), EncoderMI("T", views=3)]
    return pl.compare([leaking, tiny_encoder], attacks, split, 2, progress=False)


def row(found, encoder, attack):
    return found.table.set_index(["encoder", "attack"]).loc[(encoder.name, attack)]


def test_one_row_for_each_encoder_and_attack_with_sizes_interval_and_controls(found):
    assert len(found.table) == 6 and (found.table.seeds == 2).all() and (found.table.members == 80).all()
    assert found.table.attack.tolist()[:3] == ["partcrop crops=6", "norms", "encodermi kind=T views=3"]
    assert found.table.queries.tolist()[:3] == [7, 1, 3]
    assert (found.table.low <= found.table.auc).all() and (found.table.auc <= found.table.high).all()
    assert found.table[["p_untrained", "p_pixels", "p_holm"]].notna().all(axis=None)


def test_a_planted_memory_is_evidence_by_the_attack_that_sees_it_and_an_untrained_encoder_has_none(found, leaking):
    assert row(found, leaking, CROPS.label).outcome == "Evidence of leakage"
    assert (found.table[found.table.encoder != leaking.name].outcome == "No evidence of leakage").all()


def test_the_auc_is_the_mean_of_the_seeds_and_p_is_corrected_for_the_number_of_attacks(found, leaking):
    aucs = [found.results[leaking.name, CROPS.label, seed].metrics.loc["auc", "value"] for seed in (0, 1)]
    assert row(found, leaking, CROPS.label).auc == pytest.approx(np.mean(aucs))
    same = found.table[found.table.encoder == leaking.name]
    assert (same.p_holm >= same.p_value).all() and same.p_holm.min() == pytest.approx(min(1, 3 * same.p_value.min()))


def test_an_attack_that_sees_the_memory_beats_one_that_cannot(found, leaking):
    pairs, blind = found.pairs.set_index(["encoder", "attack", "other"]), "encodermi kind=T views=3"
    assert len(pairs) == 12
    better, worse = pairs.loc[(leaking.name, CROPS.label, blind)], pairs.loc[(leaking.name, blind, CROPS.label)]
    assert better.p_holm < 0.05 < worse.p_holm and better.gain == pytest.approx(-worse.gain)


def test_finished_audits_are_not_made_again_and_files_say_where_numbers_come_from(
    found, tiny_encoder, split, tmp_path, monkeypatch
):
    monkeypatch.setattr(run, "cross_fit", lambda *a: pytest.fail("audited again"))
    again = pl.compare([tiny_encoder], [Norms()], split, 2, progress=False)
    paths = again.save(tmp_path / "table.csv")
    assert pd.read_csv(paths[0]).auc[0] == pytest.approx(row(found, tiny_encoder, "norms").auc, abs=1e-4)
    assert list(pd.read_csv(paths[1]).columns) == ["encoder", "attack", "other", "gain", "p_value", "p_holm"]
    assert len(json.loads(paths[2].read_text())["audits"]) == 2


def test_what_cannot_be_compared_is_refused(tiny_encoder, split):
    with pytest.raises(BadInput, match="two of the attacks to compare are both norms"):
        pl.compare([tiny_encoder], [Norms(), Norms()], split)
    with pytest.raises(BadInput, match="two of the encoders"):
        pl.compare([tiny_encoder, tiny_encoder], [Norms()], split)
    with pytest.raises(ValueError, match="at least one encoder"):
        pl.compare([], [Norms()], split)
    with pytest.raises(BadInput, match="carries no split"):
        pl.compare([tiny_encoder], [Norms()])


def test_the_shell_prints_the_table_and_writes_it(shell, tmp_path):
    out, encoder = tmp_path / "grid.csv", tmp_path / "tiny.safetensors"
    sizes = {"image_size": 32, "patch_size": 8, "depth": 1, "embed_dim": 48, "num_heads": 3}
    pl.load_encoder("random:vit_tiny_patch16_224", **sizes).save(encoder)
    sets = ("--images", "partshapes", "--members", 40, "--nonmembers", 40)
    attacks = ("--attack", "norms", "--attack", "variance count=3 over=parts")
    status, text, _ = shell("compare", "--encoder", encoder, *attacks, *sets, "--seeds", 1, "--out", out, "--quiet")
    assert status == 0 and "variance over=parts count=3" in text
    assert pd.read_csv(out).queries.tolist() == [1, 3]
    pairs = pd.read_csv(out.with_name("grid-pairs.csv"))  # chance, and so the chip's last bits, decides who wins
    wins = [f"{one.attack} beats {one.other} by {one.gain:.3f}" for one in pairs[pairs.p_holm < 0.05].itertuples()]
    assert all(win in text for win in wins or ["no attack beats another"])
    assert text.count(" beats ") == len(wins) + (not wins)
    status, _, errors = shell("compare", "--encoder", encoder, "--attack", "norms power=3", *sets)
    assert status == 2 and "the attack norms has no setting power" in errors[-1]
