import dataclasses
import io
import json
import math
from importlib import metadata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from small_recipes import SMALL

import partcrop_lab as pl
from partcrop_lab import store
from partcrop_lab.cli import main

QUICK = ["--crops", "8", "--attacker", "logistic", "--permutations", "2"]
NULL = ["--images", "partshapes", "--members", "30", *QUICK]


def write_folder(folder, images):
    folder.mkdir(parents=True)
    for name, image in zip(images.names, images.batch(slice(None)).numpy()):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def result(tiny_encoder, drawings):
    split = pl.member_split(drawings, members=30)
    attack = pl.attacks.PartCrop(crops=8)
    return pl.audit(tiny_encoder, split, attack, "logistic", permutations=1, progress=False)


@pytest.fixture
def ending(shell, tiny, result, monkeypatch):
    """The status of an audit whose result was changed."""

    def run(*options, auc_low=0.5, **changes):
        metrics = result.metrics.copy()
        metrics.loc["auc", "low"] = auc_low
        changed = dataclasses.replace(result, metrics=metrics, **changes)
        monkeypatch.setattr(pl, "audit", lambda *_, **__: changed)
        return shell("audit", *tiny, *NULL, *options)

    return run


@pytest.mark.parametrize("command", ["audit", "pretrain", "figures", "zoo", "cache", "doctor"])
def test_every_command_explains_itself(shell, command):
    assert command in shell("--help")[1]
    status, out, err = shell(command, "--help")
    assert (status, err) == (0, []) and out.startswith(f"Usage: partcrop-lab {command}")


def test_the_help_of_pretrain_lists_every_recipe(shell):
    told = "".join(shell("pretrain", "--help")[1].split())
    assert f"Howtotrain:{','.join(sorted(pl.encoders.RECIPES))}." in told


def test_without_arguments_the_help_is_printed(shell):
    assert shell() == shell("--help")


WRONG = {
    "audit": "--encoder",
    "audit --encodr x": "--encodr",
    "audit --encoder nonsense": "random:<timm model>",
    "audit --encoder random:nonsense": "timm has no model",
    "audit --encoder random:x --encoder-option depth": "key=value",
    "audit --encoder random:x --members 0": "--members",
    "audit --encoder random:x --members 3": "--images and --members need each other",
    "audit --encoder random:x --member-dir a": "--nonmember-dir",
    "audit --encoder random:x --split a --images b --members 3": "exclude each other",
    "audit --encoder random:x --attack guess": "partcrop",
    "audit --encoder random:x --attack pixels --crops 3": "no setting crops",
    "audit --encoder random:x --attacker guess": "logistic",
    "audit --encoder random:x --scale 0.1": "--scale",
    "audit --encoder random:x --features a.npz": "either --encoder or --features",
    "audit --features a.npz": "a.npz: no such file",
    "audit --features a.npz --attack encodermi": "leave out its settings",
    "queries --out a.npz": "--split, --member-dir or --images",
    "pretrain --recipe mae --out o": "--images and --members, or --split",
    "pretrain --recipe mae --out o --images partshapes --members 4 --size 32 --keep 1;2": "--keep takes epochs",
    "pretrain --recipe guess --out o --images partshapes --members 4 --size 32": "mae",
    "cache size --all": "--all",
    "cache clear nonsense": "no room 'nonsense'",
    "nonsense": "nonsense",
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_usage_is_one_line_and_status_2(shell, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = shell(*line.split())
    assert (status, out, len(err)) == (2, "", 1)
    assert err[0].startswith("partcrop-lab: ") and WRONG[line] in err[0]


def test_a_null_check_prints_its_cost_its_numbers_and_last_its_verdict(shell, tiny, tmp_path):
    status, out, _ = shell("audit", *tiny, *NULL, "--out", tmp_path / "new" / "result.json")
    assert status == 0
    assert "30 members + 30 non-members, drawn, not linked to its training" in out
    assert "9 an image, 540 in all, twice with the control" in out and "10 fits" in out
    assert out.index("expected") < out.index("tpr_at_0.1_fpr") < out.index("\nuntrained") < out.index("No evidence")
    stored = pl.AuditResult.load(tmp_path / "new" / "result.json")
    assert out.splitlines()[-1] == stored.verdict and "null check" in stored.verdict
    assert stored.settings["attack"]["crops"] == 8 and len(stored.scores) == 60


def test_quiet_prints_the_verdict_alone(shell, tiny):
    status, out, err = shell("audit", *tiny, *NULL, "--quiet")
    assert (status, len(out.splitlines()), err) == (0, 1, [])


def test_options_reach_the_attack_and_the_audit(shell, tiny, monkeypatch):
    seen = {}

    def spy(encoder, split, attack, attacker, folds, seed, **how):
        seen.update(attack=attack, attacker=attacker, folds=folds, seed=seed, sides=len(split.nonmembers), **how)
        raise KeyboardInterrupt

    monkeypatch.setattr(pl, "audit", spy)
    options = "--scale 0.1 0.3 --kind uniform --pooling mean --measure cosine --folds 3 --repeats 2 --seed 5 --declared"
    assert shell("audit", *tiny, *NULL, *options.split(), "--nonmembers", 20, "--quiet")[0] == 130
    attack = pl.attacks.PartCrop(crops=8, scale=(0.1, 0.3), kind="uniform", pooling="mean", measure_by="cosine")
    assert seen["attack"] == attack
    assert [seen[key] for key in ("attacker", "folds", "seed", "sides", "repeats")] == ["logistic", 3, 5, 20, 2]
    assert seen["declared"] and seen["protocol"] == "matched"


def test_two_folders_that_differ_in_brightness_are_confounded(shell, tiny, tmp_path, drawings):
    dark = pl.ImageSet(drawings.batch(slice(0, 80)) // 2)
    members = write_folder(tmp_path / "in", dark)
    nonmembers = write_folder(tmp_path / "out", drawings.subset(slice(80, 160)))
    sides = ["--member-dir", members, "--nonmember-dir", nonmembers]
    status, out, _ = shell("audit", *tiny, *sides, *QUICK, "--fail-above", 0.1)
    assert status == 4 and out.splitlines()[-1].startswith("Confounded")


def test_a_split_file_is_audited_as_recorded(shell, tiny, tmp_path):
    pl.member_split(pl.load_images("partshapes", n=50, size=32), members=20).save(tmp_path / "split.json")
    status, out, _ = shell("audit", *tiny, "--split", tmp_path / "split.json", *QUICK)
    assert status == 0 and "20 members + 20 non-members" in out


def test_fail_above_compares_with_the_lower_bound(ending):
    evidence = {"outcome": "Evidence of leakage", "verdict": "Evidence of leakage: test."}
    assert ending("--fail-above", 0.7, auc_low=0.71, **evidence)[0] == 3
    assert ending("--fail-above", 0.7, auc_low=0.69, **evidence)[0] == 0
    assert ending(auc_low=0.99, **evidence)[0] == 0


def test_confounded_wins_over_fail_above_and_a_fault_over_both(ending):
    assert ending("--fail-above", 0.7, auc_low=0.9, outcome="Confounded")[0] == 4
    status, _, err = ending("--fail-above", 0.7, auc_low=0.9, outcome="Confounded", fault="permuted labels ...")
    assert status == 1 and err[-1] == "partcrop-lab: permuted labels ..."


def test_a_fault_of_ours_is_one_line_and_a_traceback_on_demand(shell, tiny, monkeypatch):
    monkeypatch.setattr(pl, "audit", lambda *_, **__: [][1])
    status, _, err = shell("audit", *tiny, *NULL, "--quiet")
    assert (status, len(err)) == (1, 1) and "IndexError" in err[0] and "PARTCROP_LAB_DEBUG" in err[0]
    monkeypatch.setenv("PARTCROP_LAB_DEBUG", "1")
    assert "Traceback (most recent call last):" in shell("audit", *tiny, *NULL, "--quiet")[2]


def test_a_value_error_of_another_library_is_our_fault(shell, tiny, monkeypatch):
    monkeypatch.setattr(pl, "audit", lambda *_, **__: json.loads("{"))
    assert shell("audit", *tiny, *NULL, "--quiet")[0] == 1


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "run"
    small = ["--set", "embed_dim=32", "--set", "depth=1", "--set", "num_heads=2"]
    line = ["pretrain", "--recipe", "mae", "--out", str(out), "--epochs", "2", "--size", "32", *small, "--quiet"]
    return out, line


def test_pretraining_records_the_split_that_an_audit_then_finds(shell, trained):
    out, line = trained
    status, said, err = shell(*line, "--images", "partshapes", "--members", 20)
    assert (status, err) == (0, []) and "--encoder" in said
    split, encoder = pl.MembershipSplit.load(out / "split.json"), pl.load_encoder(out / "encoder.safetensors")
    assert len(split.members) == 20 and split.digest == encoder.split_digest
    status, said, _ = shell("audit", "--encoder", out / "encoder.safetensors", *QUICK)
    assert status == 0 and "20 members + 20 non-members, which it was trained on" in said
    assert "N = 20, T = 2 epochs" in said and "null check" not in said


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    """Drawings as CIFAR-10 is kept by Hugging Face: JPEG bytes and labels."""

    def encoded(image):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer := io.BytesIO(), "JPEG", quality=95)
        return {"bytes": buffer.getvalue(), "path": None}

    images = pl.load_images("partshapes", n=24, size=32)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"img": pa.array(list(map(encoded, images)), kind), "label": pa.array(images.labels)}
    path = tmp_path_factory.mktemp("cifar10") / "train.parquet"
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("recipe", sorted(SMALL))
def test_every_recipe_trains_on_a_parquet_file(shell, parquet, tmp_path, recipe):
    small = [word for name, value in SMALL[recipe].items() for word in ("--set", f"{name}={value}")]
    where = ["--images", parquet, "--members", 12, "--nonmembers", 6, "--size", 32, "--out", tmp_path]
    status, _, err = shell("pretrain", "--recipe", recipe, *where, "--epochs", 1, *small, "--quiet")
    assert (status, err) == (0, [])
    encoder = pl.load_encoder(tmp_path / "encoder.safetensors")
    assert (encoder.card["recipe"], encoder.card["T"], len(encoder.split.members)) == (recipe, 1, 12)


def test_pretraining_keeps_the_epochs_asked_for_and_draws_its_loss(shell, trained):
    out, line = trained
    kept = out.with_name("kept")
    line = [str(kept) if word == str(out) else word for word in line]
    line[line.index("--epochs") + 1] = "3"
    status, _, _ = shell(*line, "--images", "partshapes", "--members", 20, "--keep", "1,2")
    names = ["encoder-000001.safetensors", "encoder-000002.safetensors", "encoder.safetensors"]
    assert status == 0 and sorted(path.name for path in kept.glob("*.safetensors")) == names
    with Image.open(kept / "loss.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 800


def test_a_training_that_diverges_is_one_sentence_and_status_2(shell, trained):
    out, line = trained
    line = [str(out.with_name("diverged")) if word == str(out) else word for word in line]
    wild = ["--set", "lr=1e20", "--set", "warmup=0", "--set", "clip=1e9", "--set", "batch_size=4"]
    status, said, err = shell(*line, "--images", "partshapes", "--members", 20, *wild)
    assert (status, said) == (2, "") and err[-1].startswith("partcrop-lab: ")
    assert "no longer finite in epoch" in err[-1] and "lower lr=" in err[-1]


def test_a_folder_that_holds_another_split_is_refused(shell, trained):
    out, line = trained
    shell(*line, "--images", "partshapes", "--members", 20)
    before = (out / "split.json").read_bytes()
    status, _, err = shell(*line, "--images", "partshapes", "--members", 10)
    assert status == 2 and "another split" in err[0]
    assert (out / "split.json").read_bytes() == before


def test_an_encoder_without_a_split_says_what_to_give(shell, tiny):
    status, _, err = shell("audit", *tiny, *QUICK)
    assert status == 2 and "carries no split" in err[-1] and "--split" in err[-1]


def test_a_released_checkpoint_is_audited_by_its_shapes_alone(shell, tiny_encoder, tmp_path):
    torch.save({"model": tiny_encoder._model.state_dict()}, tmp_path / "mae.pth")
    status, out, err = shell("audit", "--encoder", tmp_path / "mae.pth", *NULL, "--quiet")
    assert status == 0 and "null check" in out
    assert [line for line in err if "num_heads=1" in line and line.startswith("partcrop-lab: note: ")]
    status, _, err = shell("audit", "--encoder", tmp_path / "mae.pth", "--image-size", 64, *NULL)
    assert (status, len(err)) == (2, 1) and "image_size=32 would fit" in err[0] and "1 of another shape:" in err[0]


def test_the_cache_is_measured_and_cleared(shell, tmp_path, monkeypatch):
    monkeypatch.setenv(store.CACHE_VARIABLE, str(tmp_path))
    for room in ("features", "images"):
        store.cached_arrays(room, "key", lambda: {"zeros": np.zeros(2**18, np.float32)})
    assert "features  1.0 MiB" in shell("cache", "size")[1] and str(tmp_path) in shell("cache", "size")[1]
    assert shell("cache", "clear", "images")[1] == "freed 1.0 MiB\n"
    assert sorted(store.cache_sizes()) == ["features"]
    assert shell("cache", "clear")[0] == 0 and store.cache_sizes() == {}


def test_the_doctor_names_what_is_there(shell, cache):
    status, out, _ = shell("doctor")
    found = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert status == 0 and {"python", "device", "cache", "zoo", "torch", "timm"} <= found.keys()
    assert str(cache) in found["cache"] and "can be written" in found["cache"]
    assert found["torch"] == metadata.version("torch")


def test_the_doctor_finds_an_unwritable_cache(shell, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(store.CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    status, out, _ = shell("doctor")
    assert status == 2 and "MISSING" in out


def test_the_zoo_is_listed_and_its_cards_are_printed(shell):
    names = [line.split()[0] for line in shell("zoo", "list")[1].splitlines()]
    assert "zoo:mae" in names
    card = json.loads(shell("zoo", "card", "mae")[1])
    assert card["recipe"] == "mae" and math.isfinite(card["N"])
    status, _, err = shell("zoo", "card", "nonsense")
    assert status == 2 and "mae" in err[0]


def test_figures_are_named_as_they_are_drawn(monkeypatch, capsys):
    draw = "partcrop_lab.cli.figures.make_figures"
    monkeypatch.setattr(draw, lambda out, only, studio, jobs: [out / f"{name}-{jobs}.png" for name in only or ["all"]])
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert main(["figures", "--out", "there", "--only", "roc,trap"]) == 0
    assert capsys.readouterr().out.split() == ["there/roc-4.png", "there/trap-4.png"]
    assert main(["figures", "--out", "there", "--jobs", "3"]) == 0
    assert capsys.readouterr().out.split() == ["there/all-3.png"]
    assert main(["figures", "--dry"]) == 0 and "two cores" in capsys.readouterr().err
    assert main(["figures", "--epochs", "3"]) == 2 and "--preset paper" in capsys.readouterr().err


def test_without_an_attacker_named_each_attack_brings_its_own_and_the_pixel_control_keeps_its(shell, tiny, monkeypatch):
    seen = {}

    def spy(encoder, split, attack, attacker, *_, **__):
        seen["attacker"] = attacker
        raise KeyboardInterrupt

    monkeypatch.setattr(pl, "audit", spy)
    sets = ("--images", "partshapes", "--members", 20, "--quiet")
    assert shell("audit", *tiny, *sets, "--attack", "norms")[0] == 130 and seen == {"attacker": None}
