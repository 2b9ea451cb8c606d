"""Files of people one does not trust: nothing in them runs, hangs, fills memory, or is taken for what it is not."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import partcrop_lab as pl
from partcrop_lab import files, limits, schemas, store
from partcrop_lab.attacks import write_queries
from partcrop_lab.audit.kept import kept_audit
from partcrop_lab.cli.options import attack_of
from partcrop_lab.cli.zoo import _zoo_row
from partcrop_lab.encoders import zoo
from partcrop_lab.encoders.backbone import OPENING, Architecture
from partcrop_lab.encoders.checkpoint import METADATA
from partcrop_lab.encoders.recorded import read_recorded
from partcrop_lab.errors import BadInput, about_input
from partcrop_lab.images import listing
from partcrop_lab.report import html_report
from partcrop_lab.text import CONTROL, plain

ROOT = Path(__file__).resolve().parents[1]
QUICK = ["--crops", "2", "--attacker", "logistic", "--permutations", "0", "--quiet"]
DRAWN = ["--images", "partshapes", "--members", "8", "--size", "32", *QUICK]
DEEP = '{"a":' * 5000 + "1" + "}" * 5000
DIGITS = "9" * 5000


class Code:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def small_split():
    return pl.member_split(pl.load_images("partshapes", n=60, size=32, seed=11), members=10, seed=1)


@pytest.fixture(scope="module")
def saved(tiny_encoder, small_split, tmp_path_factory):
    """An encoder's own file, with its card and split."""
    path = tmp_path_factory.mktemp("saved") / "mine.safetensors"
    card = {"recipe": "mae", "N": 10, "T": 1, "seed": 0, "split": small_split.record()}
    tiny_encoder.like(tiny_encoder._model, name="mine", architecture=tiny_encoder.architecture, card=card).save(path)
    return path


@pytest.fixture
def header(saved, tmp_path):
    """Writes the file again, its description changed: by a function, or as a text of its own."""

    def write(change):
        with safe_open(saved, framework="pt") as file:
            about = file.metadata()[METADATA]
        if callable(change):
            about = json.loads(about)
            change(about)
            about = json.dumps(about)
        path = tmp_path / "changed.safetensors"
        save_file(load_file(saved), path, {METADATA: change if isinstance(change, str) else about})
        return path

    return write


@pytest.fixture
def refused(shell):
    """Runs a command line that must be refused by status 2 and one line, which it returns."""

    def run(*arguments):
        status, out, err = shell(*arguments)
        assert (status, out, len(err)) == (2, "", 1), (status, out, err)
        assert err[0].startswith("partcrop-lab: ") and "fault of this program" not in err[0]
        return err[0]

    return run


def test_a_header_that_names_a_pickle_runs_nothing_and_opens_nothing(refused, header, tmp_path):
    torch.save({"weight": Code(tmp_path / "ran")}, tmp_path / "evil.pth")
    path = header(lambda h: h["architecture"]["options"].update(checkpoint_path=str(tmp_path / "evil.pth")))
    line = refused("audit", "--encoder", path, *DRAWN)
    assert "changed.safetensors" in line and "architecture.options.checkpoint_path" in line
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", [*OPENING, "pretrained", "pretrained_cfg", "pretrained_cfg_overlay"])
def test_no_door_takes_an_option_that_opens_a_file(header, name, monkeypatch):
    monkeypatch.setattr("timm.create_model", lambda *_, **__: pytest.fail("timm was asked"))
    path = header(lambda h: h["architecture"]["options"].update({name: "there.pth"}))
    with pytest.raises(BadInput, match=rf"changed\.safetensors.*options\.{name} "):
        pl.load_encoder(path)
    with pytest.raises(BadInput, match=f"{name} is no option of the model vit_tiny_patch16_224 here"):
        pl.load_encoder("random:vit_tiny_patch16_224", image_size=32, patch_size=8, **{name: "there.pth"})
    with pytest.raises(BadInput, match=f"{name} is no option"):
        Architecture("resnet18", 32, {name: "there.pth"}).build()


def test_the_command_line_takes_no_option_that_opens_a_file(refused, tmp_path):
    torch.save({"weight": Code(tmp_path / "ran")}, tmp_path / "evil.pth")
    option = ["--encoder-option", f"checkpoint_path={tmp_path / 'evil.pth'}"]
    assert "checkpoint_path is no option" in refused("audit", "--encoder", "random:resnet18", *option, *DRAWN)
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    given = ["--encoder", tmp_path / "other.pth", "--model", "resnet18", *option]
    assert "checkpoint_path is no option" in refused("audit", *given, *DRAWN)
    assert not (tmp_path / "ran").exists()


def test_a_result_by_an_attacker_of_ones_own_whose_words_take_lines_is_read_again(tiny_encoder, small_split, tmp_path):
    own = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000, solver="liblinear", tol=1e-3))
    how = {"controls": False, "progress": False}
    result = pl.audit(tiny_encoder, small_split, pl.attacks.PartCrop(crops=2), own, **how)
    assert "\n" in result.settings["attacker"]
    result.save(tmp_path / "result.json")
    assert pl.AuditResult.load(tmp_path / "result.json").settings == result.settings


def test_users_may_set_what_files_may_not(header):
    options = {"image_size": 32, "patch_size": 8, "depth": 1, "weight_init": "jax"}
    assert pl.load_encoder("random:vit_tiny_patch16_224", **options).depth == 1
    with pytest.raises(BadInput, match="weight_init is nothing that such a file may set"):
        pl.load_encoder(header(lambda h: h["architecture"]["options"].update(weight_init="jax")))


def set_at(*path, to):
    """A change of one value in nested dicts and lists."""

    def change(value):
        for step in path[:-1]:
            value = value[step]
        value[path[-1]] = to

    return change


HEADERS = {
    "embed_dim": (set_at("architecture", "options", "embed_dim", to=3_000_000), "options.embed_dim is 3,000,000"),
    "many dims": (set_at("architecture", "options", "embed_dim", to=6000), "more memory than it can need"),
    "depth": (set_at("architecture", "options", "depth", to=10**6), "options.depth is 1,000,000"),
    "heads": (set_at("architecture", "options", "num_heads", to=7), "cannot be built"),
    "no heads": (set_at("architecture", "options", "num_heads", to=0), "cannot be built"),
    "side": (set_at("architecture", "image_size", to=10**6), "image_size is 1,000,000, above|architecture.image_size"),
    "model": (set_at("architecture", "model", to=5), "architecture.model is 5"),
    "hub": (set_at("architecture", "model", to="hf-hub:a/b"), "architecture.model is a text"),
    "mean": (set_at("mean", to="grey"), "mean is a text; it must be a list"),
    "std": (set_at("std", to=[0.2, 0.0, 0.2]), "std.1 is 0; it must be greater than 0"),
    "a card that is a list": (set_at("card", to=[]), "card is a list; it must be an object"),
    "a name that is none": (set_at("name", to=None), "name is null"),
    "digits": (set_at("card", "N", to=10**40), "card.N is more than 10^18"),
    "split": (set_at("card", "split", "members", "names", to="all"), "card.split.members.names is a text"),
    "not a JSON file": ("nonsense", "not a JSON file"),
    "{}": ("{}", "architecture is missing"),
    "[]": ("[]", "all of it is a list"),
    "deep": (DEEP, "nest"),
    "long": (f'{{"image_size": {DIGITS}}}', "digits"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_is_checked_before_anything_is_built(refused, header, name):
    change, said = HEADERS[name]
    line = refused("audit", "--encoder", header(change), *QUICK)
    assert "changed.safetensors" in line and any(one in line for one in said.split("|")), line


def test_a_model_takes_no_more_than_its_file_can_fill(header):
    path = header(set_at("architecture", "options", "embed_dim", to=3000))
    with pytest.raises(BadInput, match=r"changed\.safetensors: the model vit_tiny_patch16_224 asks for more memory"):
        pl.load_encoder(path)


def test_a_bound_on_building_counts_what_is_made(tiny_encoder, monkeypatch):
    numbers = sum(one.numel() for one in tiny_encoder._model.parameters())
    tiny_encoder.architecture.build(most=8 * numbers + 2**16)
    with pytest.raises(BadInput, match="more memory than it can need; its file holds far less"):
        tiny_encoder.architecture.build(most=2 * numbers)
    monkeypatch.setenv("PARTCROP_LAB_MAX_MODEL", "1000")
    with pytest.raises(BadInput, match="PARTCROP_LAB_MAX_MODEL"):
        tiny_encoder.architecture.build()


def test_a_checkpoint_whose_blocks_are_numbered_with_gaps_is_not_built(tiny_encoder, tmp_path):
    state = tiny_encoder._model.state_dict()
    state["blocks.999999.norm1.weight"] = torch.zeros(48)
    torch.save(state, tmp_path / "gaps.pth")
    with pytest.raises(BadInput, match=r"no blocks\.3, though there is blocks\.999999"):
        pl.load_encoder(tmp_path / "gaps.pth")


SPLITS = {
    "deep": (lambda text: DEEP, "nests"),
    "digits": (lambda text: text.replace('"seed": 1', f'"seed": {DIGITS}', 1), "digits"),
    "names": (set_at("members", "names", to=7), "members.names is 7; it must be a list"),
    "a name": (set_at("members", "names", 0, to=[]), "members.names.0 is a list; it must be a text"),
    "size": (set_at("members", "load", "size", to=10**9), "members.load.size is 1,000,000,000; it is above"),
    "size in words": (set_at("members", "load", "size", to="big"), "members.load.size is a text"),
    "source": (set_at("nonmembers", "load", "source", to=["a"]), "nonmembers.load.source is a list"),
    "parts": (set_at("members", "load", to={"source": "joined", "parts": 3}), "members.load.parts is 3"),
    "no parts": (set_at("members", "load", to={"source": "joined"}), "members.load.parts is missing"),
    "memory": (set_at("members", "load", to={"source": "memory"}), "handed over as an array"),
    "keywords": (set_at("members", "load", "device", to="cuda"), "members.load.device is nothing that such a file may"),
    "many": (set_at("members", "load", "n", to=10**9), "members.load.n is 1,000,000,000; it is above"),
    "part": (set_at("members", "load", "part", to="test"), "has no option 'part'"),
    "digest": (set_at("digest", to="a"), "digest is a text"),
    "digest of others": (set_at("digest", to="a" * 64), "have changed"),
    "origin": (set_at("origin", to="stolen"), "origin is a text; it must be 'drawn' or 'given'"),
    "seed": (set_at("seed", to="x"), "seed is a text"),
    "format": (set_at("format", to="partcrop-lab split 9"), "format is a text"),
}


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_is_checked_before_any_image_is_opened(refused, tiny, small_split, tmp_path, name):
    change, said = SPLITS[name]
    record = json.loads(json.dumps(small_split.record()))
    text = change(json.dumps(record)) if name in ("deep", "digits") else change(record) or json.dumps(record)
    (tmp_path / "split.json").write_text(text)
    line = refused("audit", *tiny, "--split", tmp_path / "split.json", *QUICK)
    assert "split.json" in line and said in line, line


@pytest.fixture(scope="module")
def result_text(tiny_encoder, small_split, tmp_path_factory):
    path = tmp_path_factory.mktemp("result") / "result.json"
    attack = pl.attacks.PartCrop(crops=2)
    pl.audit(tiny_encoder, small_split, attack, "logistic", permutations=1, progress=False).save(path)
    return path.read_text()


def in_table(name, change):
    """A change of a table within a result, which is a text of its own."""

    def inside(result):
        table = json.loads(result[name])
        change(table)
        result[name] = json.dumps(table)

    return inside


RESULTS = {
    "deep": (lambda text: DEEP, "nests"),
    "a deep table": (set_at("scores", to=DEEP), "scores: JSON that nests|scores: how deep its JSON nests"),
    "no schema": (in_table("scores", lambda t: t.update(schema={})), "scores: schema.fields is missing"),
    "no columns": (in_table("metrics", set_at("schema", "fields", to=[])), "metrics: schema.fields is a list"),
    "a column": (in_table("scores", lambda t: t["schema"]["fields"].pop(3)), "scores has no column score"),
    "a kind": (in_table("scores", set_at("schema", "fields", 3, "type", to="datetime")), "schema.fields.3.type"),
    "text for numbers": (in_table("scores", lambda t: [r.update(fold="x") for r in t["data"]]), "not an audit result"),
    "no table": (set_at("controls", to=[]), "controls is not the JSON text of a table"),
    "empty": (lambda text: "", "not a JSON file"),
    "a list": (lambda text: "[]", "all of it is a list"),
    "more": (set_at("score_images", to="os.system"), "score_images is nothing that such a file may set"),
    "outcome": (set_at("outcome", to="Innocent"), "outcome is a text"),
    "p_value": (set_at("p_value", to="low"), "p_value is a text; it must be a number"),
    "settings": (set_at("settings", to={}), "settings.encoder is missing"),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_is_checked_before_it_is_compared(refused, result_text, tmp_path, name):
    change, said = RESULTS[name]
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(result_text)
    result = json.loads(result_text)
    changed = change(result_text) if name in ("deep", "empty", "a list") else change(result)
    bad.write_text(changed if isinstance(changed, str) else json.dumps(result))
    line = refused("difference", good, bad)
    assert "bad.json" in line and any(one in line for one in said.split("|")), line


@pytest.fixture(scope="module")
def answered(small_split, tmp_path_factory):
    path = tmp_path_factory.mktemp("queries") / "queries.npz"
    write_queries(path, pl.attacks.EncoderMI(views=2), small_split, patch=8, progress=False)
    arrays = dict(np.load(path))
    for name in [name for name in arrays if name.startswith("queries_")]:
        arrays[name.replace("queries", "answers")] = arrays[name].reshape(len(arrays[name]), -1)[:, :16].astype("f4")
    return arrays


def about(change):
    def inside(arrays):
        told = json.loads(str(arrays["about"]))
        change(told)
        arrays["about"] = np.array(json.dumps(told))

    return inside


QUERIES = {
    "deep": (lambda a: a.update(about=np.array(DEEP)), "nests"),
    "repeats": (about(set_at("repeats", to=10**9)), "repeats is 1,000,000,000; it is above the limit of 1,000"),
    "seed": (about(set_at("seed", to="x")), "seed is a text; it must be a whole number"),
    "name": (about(lambda told: told.pop("name")), "name is missing"),
    "attack": (about(lambda told: told.pop("attack")), "attack is missing"),
    "image_size": (about(set_at("image_size", to=10**6)), "image_size is 1,000,000; it is above"),
    "patch": (about(set_at("patch", to=0)), "patch is 0"),
    "side": (lambda a: a.update(queries_x=a["queries_32"]), "queries_x is uint8"),
    "shape": (lambda a: a.update(queries_32=a["queries_32"][:, :1]), "queries_32 is uint8"),
    "none": (lambda a: a.pop("queries_32"), "holds no queries"),
    "empty": (lambda a: a.update(queries_32=a["queries_32"][:0], answers_32=a["answers_32"][:0]), "is empty"),
    "alike": (lambda a: a.update(answers_32=np.ones_like(a["answers_32"])), "do not depend on the image"),
    "more than is there": (about(set_at("attack", to="encodermi views=100000")), "fewer than"),
    "nested settings": (about(set_at("attack", to="encodermi views=" + "(" * 400)), "views"),
}


@pytest.mark.parametrize("name", QUERIES)
def test_answers_are_checked_before_they_are_asked(refused, answered, tmp_path, name):
    change, said = QUERIES[name]
    arrays = dict(answered)
    change(arrays)
    np.savez(tmp_path / "answered.npz", **arrays)
    line = refused("audit", "--features", tmp_path / "answered.npz", "--permutations", 0, "--quiet")
    assert said in line, line


def npz_with(path, name, header_shape, content):
    """An archive whose array declares a shape of its own."""
    head = {"descr": "|u1", "fortran_order": False, "shape": header_shape}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(f"{name}.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, head)
        for _ in range(content >> 20):
            file.write(bytes(2**20))


@pytest.mark.parametrize("shape", [(10**12,), (10**6, 10**6, 10**6), (3,)])
def test_an_array_that_declares_more_than_it_holds_is_not_made(tmp_path, shape):
    npz_with(tmp_path / "q.npz", "queries_32", shape, 2**20)
    with pytest.raises(BadInput, match=r"q\.npz: 'queries_32\.npy' declares the shape .* not as much as it holds"):
        read_recorded(tmp_path / "q.npz")


def test_an_archive_that_unpacks_to_a_thousand_times_its_size_is_not_unpacked(tmp_path, monkeypatch):
    npz_with(tmp_path / "q.npz", "queries_32", (80 * 2**20,), 80 * 2**20)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    with pytest.raises(BadInput, match=r"q\.npz: how many times its own size .* PARTCROP_LAB_MAX_RATIO"):
        read_recorded(tmp_path / "q.npz")
    monkeypatch.setenv("PARTCROP_LAB_MAX_UNPACKED", "1000")
    with pytest.raises(BadInput, match="PARTCROP_LAB_MAX_UNPACKED"):
        read_recorded(tmp_path / "q.npz")


def test_a_packed_checkpoint_is_not_unpacked(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(80 * 2**20))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    with pytest.raises(BadInput, match=r"bomb\.pth: how many times its own size"):
        pl.load_encoder(tmp_path / "bomb.pth")


def parquet(path, values, labels, names=None, metadata=None):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": value, "path": None} for value in values]
    table = pa.table({"img": pa.array(rows, kind), "label": pa.array(labels, pa.int64())})
    told = metadata or json.dumps({"info": {"features": {"label": {"names": names}}}})
    pq.write_table(table.replace_schema_metadata({"huggingface": told}), path, compression="zstd")
    return path


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (DEEP, "nests"),
        ("nonsense", "not a JSON file"),
        ("[]", "all of it is a list"),
        ('{"info": 5}', "info is 5"),
        ('{"info": {"features": {"label": {"names": 3}}}}', "names is 3; it must be a list"),
        ('{"info": {"features": {"label": {"names": ["a"]}}}}', "names 1 classes, but label goes to 1"),
    ],
)
def test_the_metadata_of_a_parquet_file_is_checked(tmp_path, told, said):
    path = parquet(tmp_path / "train.parquet", [b"a", b"b"], [0, 1], metadata=told)
    with pytest.raises(BadInput, match=r"train\.parquet: its metadata huggingface") as caught:
        pl.load_images(path)
    assert said in str(caught.value)


def test_a_parquet_file_that_unpacks_to_too_much_is_not_read(tmp_path, monkeypatch):
    path = parquet(tmp_path / "bomb.parquet", [bytes([k]) * 2**21 for k in range(50)], [0] * 50)
    assert path.stat().st_size < 2**20
    with pytest.raises(BadInput, match=r"bomb\.parquet: how many times its own size"):
        pl.load_images(path)
    monkeypatch.setattr(limits, "SMALL", 2**40)
    monkeypatch.setenv("PARTCROP_LAB_MAX_ENCODED", "1000000")
    with pytest.raises(BadInput, match=r"bomb\.parquet: bytes of an image in it is 2,0"):
        pl.load_images(path)
    monkeypatch.setenv("PARTCROP_LAB_MAX_ROWS", "49")
    with pytest.raises(BadInput, match=r"bomb\.parquet: its rows is 50"):
        pl.load_images(path)


def test_a_limit_is_raised_by_its_variable_and_a_wrong_one_is_named(monkeypatch):
    monkeypatch.setenv("PARTCROP_LAB_MAX_SIDE", "5000")
    assert limits.limit("side") == 5000
    for wrong in ("", "0", "-3", "many", DIGITS):
        monkeypatch.setenv("PARTCROP_LAB_MAX_SIDE", wrong)
        with pytest.raises(BadInput, match=r"PARTCROP_LAB_MAX_SIDE is .*whole number above 0"):
            limits.limit("side")


def test_a_card_of_the_zoo_is_checked(tmp_path, monkeypatch, tiny_encoder):
    monkeypatch.setenv(zoo.ZOO_VARIABLE, str(tmp_path))
    tiny_encoder.save(tmp_path / "mine.safetensors")
    for text, said in (("[]", "all of it is a list"), ("{}", "is missing"), (DEEP, "nests")):
        (tmp_path / "mine.json").write_text(text)
        with pytest.raises(BadInput, match=r"mine\.json.*" + said):
            zoo.card("mine")


def test_what_the_zoo_holds_passes_the_schemas():
    for name in zoo.zoo_names():
        assert zoo.card(name)["recipe"]
        with safe_open(zoo.zoo_dir() / f"{name}.safetensors", framework="pt") as file:
            schemas.checked(schemas.Header, json.loads(file.metadata()[METADATA]), name)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "link.json").symlink_to(tmp_path / "gone")
    for name, said in (("pipe.json", "a named pipe"), ("link.json", "leads nowhere"), (".", "a folder")):
        with pytest.raises(BadInput, match=said):
            files.read_json(tmp_path / name)
    with pytest.raises(BadInput, match="a device"):
        files.read_json("/dev/zero")


@pytest.fixture
def photos(tmp_path):
    """A folder of 20 good images."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, image in enumerate(pl.load_images("partshapes", n=20, size=32).batch(slice(None)).numpy()):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{i}.png")
    return folder


def test_a_pipe_or_device_among_images_is_named_and_never_waited_for(photos, refused, tiny):
    os.mkfifo(photos / "pipe.png")
    with pytest.raises(BadInput, match=r"pipe\.png: a named pipe, not a regular file"):
        pl.load_images(photos)
    with pytest.warns(UserWarning, match="skipped 1 images"):
        images = pl.load_images(photos, on_error="skip")
    assert len(images) == 20 and images.source["skipped"] == ["pipe.png"]
    (photos / "pipe.png").unlink()
    (photos / "zero.png").symlink_to("/dev/zero")
    with pytest.raises(BadInput, match=r"zero\.png: a device, not a regular file"):
        pl.load_images(photos, follow_links=True)


@pytest.mark.parametrize("name", ["names.csv", "split.json", "mine.safetensors", "mine.pth", "train.parquet", "q.npz"])
def test_no_door_waits_for_a_pipe(name, tmp_path, photos):
    os.mkfifo(tmp_path / name)
    doors = {
        ".csv": lambda path: pl.load_images(photos, boxes=str(path)),
        ".json": pl.MembershipSplit.load,
        ".parquet": pl.load_images,
        ".npz": read_recorded,
    }
    with pytest.raises(BadInput, match=name):
        doors.get(os.path.splitext(name)[1], pl.load_encoder)(tmp_path / name)


def test_links_that_lead_out_of_a_folder_are_followed_only_when_asked(photos, tmp_path, shell, tiny):
    secret = tmp_path / "secret.txt"
    secret.write_text("the password is swordfish")
    (photos / "own.png").symlink_to(photos / "3.png")
    assert len(pl.load_images(photos)) == 21
    (photos / "link.png").symlink_to(secret)
    with pytest.raises(BadInput, match=r"link\.png: a link that leads out of .*follow_links=True \(--follow-links\)"):
        pl.load_images(photos)
    with pytest.warns(UserWarning, match="skipped 1 images"):
        assert len(pl.load_images(photos, on_error="skip")) == 21
    status, out, err = shell("audit", *tiny, "--images", photos, "--members", 8, "--follow-links", *QUICK)
    assert (
        (status, out) == (2, "") and "not an image" in err[0] and "swordfish" not in err[0] and "password" not in err[0]
    )


def test_a_folder_that_is_a_link_is_read_and_a_linked_folder_in_it_is_not(photos, tmp_path):
    (tmp_path / "alias").symlink_to(photos, target_is_directory=True)
    assert len(pl.load_images(tmp_path / "alias")) == 20
    (tmp_path / "other").mkdir()
    (photos / "0.png").rename(tmp_path / "other" / "0.png")
    (photos / "linked").symlink_to(tmp_path / "other", target_is_directory=True)
    with pytest.raises(BadInput, match="linked: a link that leads out of"):
        pl.load_images(photos)
    followed = pl.load_images(photos, follow_links=True)
    assert "linked/0.png" in followed.names and followed.source["follow_links"] is True


def test_a_picture_that_another_program_would_have_to_read_is_refused(photos, monkeypatch):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("a program was started"))
    (photos / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n")
    with pytest.raises(BadInput, match=r"a\.png: not an image that can be read; found PostScript"):
        pl.load_images(photos)


def test_no_message_shows_bytes_of_a_file(tmp_path):
    text = "swordfish, swordfish, swordfish"
    for name in ("a.png", "split.json", "mine.pth", "mine.safetensors", "train.parquet", "q.npz", "boxes.csv"):
        (tmp_path / name).write_text(text)
    doors = [
        lambda: pl.load_images(tmp_path),
        lambda: pl.MembershipSplit.load(tmp_path / "split.json"),
        lambda: pl.load_encoder(tmp_path / "mine.pth"),
        lambda: pl.load_encoder(tmp_path / "mine.safetensors"),
        lambda: pl.load_images(tmp_path / "train.parquet"),
        lambda: read_recorded(tmp_path / "q.npz"),
    ]
    for door in doors:
        with pytest.raises(BadInput) as caught:
            door()
        assert "swordfish" not in str(caught.value)


def test_large_images_are_decoded_one_at_a_time(monkeypatch):
    monkeypatch.setenv("PARTCROP_LAB_MAX_PIXELS", "100")
    together, most, held, lock = limits.Together("pixels"), [], [], threading.Lock()

    def work(size):
        with together.taking(size):
            with lock:
                held.append(size)
                most.append(sum(held))
            time.sleep(0.005)
            with lock:
                held.remove(size)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [40, 40, 40, 500, 40, 90, 500, 10] * 3))
    assert together.held == 0 and max(size for size in most if size < 500) <= 100
    assert all(size in (500,) for size in most if size > 100)


def test_an_image_file_above_the_limit_is_not_read(photos, monkeypatch):
    monkeypatch.setenv("PARTCROP_LAB_MAX_ENCODED", "100")
    with pytest.raises(BadInput, match=r"\.png: its size in bytes is .* PARTCROP_LAB_MAX_ENCODED"):
        pl.load_images(photos)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("name,x0,y0,x1,y1\n0.png,0,0,inf,9\n", "row 2 holds no box"),
        ("name,x0,y0,x1,y1\n,0,0,9,9\n", "a row without a name"),
        ("name,x0,y0,x1\n0.png,0,0,9\n", "has no column y1"),
        ("\x00", "boxes.csv"),
    ],
)
def test_a_table_of_boxes_is_checked(photos, table, said):
    (photos / "boxes.csv").write_text(table)
    with pytest.raises(BadInput, match="boxes") as caught:
        pl.load_images(photos, boxes="boxes.csv")
    assert said in str(caught.value)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """An entry of a cache of its own: makes or reads it, and says how often it was made."""
    monkeypatch.setenv(store.CACHE_VARIABLE, str(tmp_path / "cache"))
    made = []

    def read(room="features", key="a"):
        def make():
            made.append(key)
            return {"measured": np.arange(12, dtype=np.float32).reshape(3, 4)}

        return store.cached_arrays(room, key, make)["measured"].tolist(), len(made)

    return read


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    content[-9] ^= 64
    path.write_bytes(content)


def emptied(path):
    path.write_bytes(b"")


def cut(path):
    path.write_bytes(path.read_bytes()[:-8])


def renamed_array(path):
    save_numpy({"other": np.zeros((3, 4), np.float32)}, path)


def without_checksum(path):
    save_numpy({"measured": np.zeros((3, 4), np.float32)}, path)


def misshaped(path):
    with safe_open(path, framework="numpy") as file:
        save_numpy({"measured": file.get_tensor("measured").reshape(4, 3)}, path, file.metadata())


@pytest.mark.parametrize("harm", [flipped, emptied, cut, renamed_array, without_checksum, misshaped])
def test_a_damaged_entry_of_the_cache_is_made_anew_and_said_once(kept, harm):
    good = kept()[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kept() == (good, 1)
    harm(store.cache_dir() / "features" / "a.safetensors")
    with pytest.warns(UserWarning, match=r"a\.safetensors: this entry of the cache is damaged.*made anew") as said:
        assert kept() == (good, 2)
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kept() == (good, 2)


def test_no_entry_of_the_cache_passes_for_another(kept):
    kept()
    folder = store.cache_dir() / "features"
    (folder / "b.safetensors").write_bytes((folder / "a.safetensors").read_bytes())
    with pytest.warns(UserWarning, match=r"b\.safetensors"):
        assert kept(key="b")[1] == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"checksum": "a", "value": {}}'])
def test_a_damaged_audit_in_the_cache_is_made_anew(tiny_encoder, small_split, tmp_path, monkeypatch, text):
    monkeypatch.setenv(store.CACHE_VARIABLE, str(tmp_path))
    how = {"permutations": 0, "controls": False}
    first = kept_audit(tiny_encoder, small_split, pl.attacks.Norms(), False, **how)
    (path,) = (tmp_path / "audits").iterdir()
    whole = path.read_text()
    path.write_text(text)
    with pytest.warns(UserWarning, match=rf"{path.name}: this entry of the cache is damaged"):
        again = kept_audit(tiny_encoder, small_split, pl.attacks.Norms(), False, **how)
    assert again.verdict == first.verdict and path.read_text() == whole
    path.write_text(whole.replace("0.5", "0.6"))
    with pytest.warns(UserWarning, match="damaged"):
        kept_audit(tiny_encoder, small_split, pl.attacks.Norms(), False, **how)
    assert path.read_text() == whole


def test_damaged_images_in_the_cache_are_decoded_anew(photos, tmp_path, monkeypatch):
    monkeypatch.setenv(store.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(listing, "MEMORY_LIMIT", 0)
    digest = pl.load_images(photos).digest
    for name in ("*.npy", "*.json"):
        (path,) = (tmp_path / "cache" / "images").glob(name)
        path.write_bytes(b"")
        with pytest.warns(UserWarning, match="these images in the cache are damaged"):
            assert pl.load_images(photos).digest == digest


OUTPUTS = {
    "--out folder": "is a folder",
    "--html folder": "is a folder",
    "--html z.json": "written twice",
    "--out z.html --html z.html": "written twice",
    "--html folder.html": "folder.json is a folder",
    "--out /dev/null": "no regular file",
    "--fail-above nan": "above 0 and below 1",
    "--fail-above 2": "above 0 and below 1",
    "--fail-above 0": "above 0 and below 1",
    "--fail-above -0.5": "above 0 and below 1",
    "--seed -1": "--seed",
    f"--seed {2**70}": "--seed",
}


@pytest.mark.parametrize("line", OUTPUTS)
def test_outputs_and_gates_are_checked_before_the_audit(refused, tiny, tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.json").mkdir()
    monkeypatch.setattr(pl, "audit", lambda *_, **__: pytest.fail("the audit ran"))
    assert OUTPUTS[line] in refused("audit", *tiny, *DRAWN, *line.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "folder.json"]


@pytest.mark.parametrize(
    "line",
    [
        "compare --out z.json",
        "dejavu --encoder zoo:simclr --other zoo:simclr-b --out z.json",
        "compare --out folder",
        "unlearn --encoder zoo:simclr --forget 3 --out z.pth",
        "queries --images partshapes --members 8 --out folder",
        "pretrain --recipe mae --images partshapes --members 8 --out run --seed -1",
    ],
)
def test_other_commands_check_their_outputs_too(refused, tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(pl, "load_encoder", lambda *_, **__: pytest.fail("work began"))
    assert refused(*line.split())


def test_the_report_and_the_result_may_share_their_json(shell, tiny, tmp_path):
    status, _, _ = shell("audit", *tiny, *DRAWN, "--html", tmp_path / "z.html", "--out", tmp_path / "z.json")
    assert status == 0 and pl.AuditResult.load(tmp_path / "z.json").verdict and (tmp_path / "z.html").is_file()


def test_a_finished_audit_is_never_lost(shell, tiny, tmp_path, monkeypatch):
    def lose(self, path):
        if "cache" not in str(path):
            raise BadInput(f"cannot write {path}: No space left on device")
        store.write_json(path, self.record())

    monkeypatch.setenv(store.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(pl.AuditResult, "save", lose)
    status, out, err = shell("audit", *tiny, *DRAWN, "--out", tmp_path / "z.json")
    assert status == 2 and out.startswith(("No evidence", "Evidence")) and "the result is kept in" in err[-1]
    (path,) = (tmp_path / "cache" / "results").iterdir()
    assert str(path) in err[-1] and pl.AuditResult.load(path).verdict == out.strip()


def test_a_seed_that_no_library_takes_is_refused_in_python_too(tiny_encoder, small_split):
    for seed in (-1, 2**25, 2**70):
        with pytest.raises(ValueError, match=r"seed is .*; it must be from 0 to 33554431"):
            pl.audit(tiny_encoder, small_split, seed=seed)
    assert pl.audit(
        tiny_encoder, small_split, pl.attacks.Norms(), seed=2**25 - 1, permutations=2, progress=False
    ).verdict


def program(*arguments, module="partcrop_lab.cli", **how):
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
def test_a_termination_ends_like_an_interruption_with_its_own_status(tiny, tmp_path):
    line = ["audit", *tiny, "--images", "partshapes", "--members", "100", "--attacker", "logistic"]
    process = program(*line, env=os.environ | {store.CACHE_VARIABLE: str(tmp_path)})
    while not list(tmp_path.glob("features/*.safetensors")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    err = process.communicate(timeout=300)[1].splitlines()
    assert process.returncode == 143 and err[-1].startswith("partcrop-lab: terminated; what is finished is kept")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
def test_a_reader_that_leaves_is_no_fault(tmp_path):
    process = program("doctor")
    process.stdout.close()
    assert (process.stderr.read(), process.wait(timeout=300)) == ("", 141)


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
def test_an_interruption_of_the_imports_shows_no_traceback(tmp_path):
    (tmp_path / "partcrop_lab").mkdir()
    (tmp_path / "partcrop_lab" / "__init__.py").write_text("raise KeyboardInterrupt")
    code = "import sys; from partcrop_lab_entry import main; sys.path.insert(0, sys.argv[1]); sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "partcrop-lab: interrupted before it began\n"


def test_the_program_begins_where_nothing_slow_is_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"partcrop-lab": "partcrop_lab_entry:main"}
    code = "import sys, partcrop_lab_entry; sys.exit('torch' in sys.modules or 'partcrop_lab' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_names_never_steer_a_terminal(shell, header, tmp_path, tiny, drawings, refused):
    wild = "mine\x1b[2J\u202etxt"
    path = header(set_at("name", to=wild))
    assert "name is a text; it must be one line without control characters" in refused(
        "audit", "--encoder", path, *DRAWN
    )
    status, out, err = shell("audit", *tiny, "--encoder-option", f"name={wild}", *DRAWN)
    assert status == 0 and "mine\\x1b[2J\\u202etxt" in out and "\x1b" not in out + "".join(err)
    status, out, err = shell("audit", "--encoder", f"random:{wild}", *DRAWN)
    assert status == 2 and "\x1b" not in err[0]
    assert plain("a\tb\nc") == "a\tb\nc" and plain("Mu\udcf1oz") == "Mu\\udcf1oz"


FORMS = {
    "zeros": lambda x: torch.zeros(len(x), (x.shape[-1] // 8) ** 2, 16),
    "ones": lambda x: torch.ones(len(x), (x.shape[-1] // 8) ** 2, 16),
}


@pytest.mark.parametrize("attack", [pl.attacks.PartCrop(crops=4), pl.attacks.EncoderMI(views=3), pl.attacks.Unified()])
@pytest.mark.parametrize("form", FORMS)
def test_an_encoder_that_looks_at_no_image_gets_no_verdict(small_split, attack, form):
    encoder = pl.load_encoder(FORMS[form], image_size=32, name=form, patch=8, digest=form)
    with pytest.raises(BadInput, match=f"encoder {form}: its answers do not depend on the image"):
        pl.audit(encoder, small_split, attack, "logistic", permutations=0, progress=False)


def test_weights_of_zeros_get_no_verdict(refused, tiny_encoder, tmp_path):
    tiny_encoder.save(tmp_path / "zero.safetensors")
    with safe_open(tmp_path / "zero.safetensors", framework="pt") as file:
        about = file.metadata()
    weights = {name: torch.zeros_like(value) for name, value in load_file(tmp_path / "zero.safetensors").items()}
    save_file(weights, tmp_path / "zero.safetensors", about)
    assert "do not depend on the image" in refused("audit", "--encoder", tmp_path / "zero.safetensors", *DRAWN)


EXAMPLES = int(os.environ.get("PARTCROP_LAB_MUTANTS", "40"))
"""Files that the property test changes of each kind; raise it to look harder."""
SECONDS, BYTES = 20, 2**30

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 3, 7, 255, 2**31, 2**63, 10**9, 10**40, -(10**9), 1e308, -0.5, 1e-300]),
    st.sampled_from([float("nan"), float("inf"), "", "x", "../..", "/etc/passwd", "hf-hub:a/b", "\x1b[2J", "a" * 5000]),
    st.integers(),
    st.text(max_size=20),
)
VALUES = st.recursive(
    SCALARS, lambda one: st.lists(one, max_size=4) | st.dictionaries(st.text(max_size=8), one, max_size=4)
)
KEYS = st.sampled_from(
    [*OPENING, "pretrained", "patch_size", "depth", "names", "source", "size", "schema", "data", "device"]
)


@st.composite
def changes(draw, value):
    """A JSON value with one to three of its parts replaced, removed or added to."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        place = value
        while isinstance(place, (dict, list)) and place:
            step = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(min(len(place), 5))))
            if not isinstance(place[step], (dict, list)) or not place[step] or draw(st.integers(0, 3)) == 0:
                how = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
                if how == "replace":
                    place[step] = draw(VALUES)
                elif how == "remove":
                    del place[step]
                elif isinstance(place, dict):
                    place[draw(KEYS)] = draw(VALUES)
                break
            place = place[step]
    return value


@st.composite
def spoiled(draw, content):
    """Bytes with a few flipped, a stretch overwritten, or the end cut off."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, min(len(content) - 1, draw(st.sampled_from([64, 2000, 10**9])))))
        content[at] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.sampled_from([len(content), len(content), len(content) // 2, 9]))])


class TooLong(BaseException):
    """Raised by the alarm; no handler of ours may catch it."""


def alarm(*_):
    raise TooLong


def peak():
    """The most memory that this process has held, in bytes."""
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def judged_answer(door, path):
    """Whether a file was read, or refused as the command line refuses by status 2; all else is a failure."""
    before, start = peak(), time.perf_counter()
    former = signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            door(path)
        answer = "read"
    except Exception as error:
        assert about_input(error) and str(error), f"{type(error).__name__}: {error}"
        assert "Traceback" not in str(error) and CONTROL.search(plain(str(error))) is None
        answer = "refused"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert peak() - before < BYTES, f"it took {peak() - before} bytes"
    FIGURES[answer] = FIGURES.get(answer, 0) + 1
    FIGURES["longest"] = max(FIGURES.get("longest", 0.0), time.perf_counter() - start)
    FIGURES["largest"] = peak()
    return answer


FIGURES = {"before": peak()}


@pytest.fixture(scope="module")
def seeds(saved, small_split, answered, result_text, tiny_encoder):
    """Good files, as what a door reads them from: a header, JSON texts, arrays."""
    with safe_open(saved, framework="pt") as file:
        head = json.loads(file.metadata()[METADATA])
    card = head["card"] | {"sha256": "a" * 64}
    return {"header": head, "split": small_split.record(), "card": card, "result": json.loads(result_text),
            "queries": json.loads(str(answered["about"]))}  # fmt: skip


@pytest.fixture(scope="module")
def doors(saved, small_split, answered, result_text, tmp_path_factory):
    """By kind of file: how a changed one is written, and how it is opened and used."""
    folder = tmp_path_factory.mktemp("mutants")
    (folder / "good.json").write_text(result_text)
    good, weights, images = (
        pl.AuditResult.load(folder / "good.json"),
        load_file(saved),
        small_split.members.batch([0, 1]),
    )

    def write_header(path, value):
        save_file(weights, path, {METADATA: json.dumps(value)})

    def write_queries_file(path, value):
        np.savez(path, **answered | {"about": np.array(json.dumps(value))})

    def use_encoder(path):
        encoder = pl.load_encoder(path)
        return encoder.vectors(images), encoder.card and encoder.split

    def use_result(path):
        result = pl.AuditResult.load(path)
        return result.minus(good), result.reasons, html_report(result)

    def use_card(path):
        card = schemas.checked(schemas.ZooCard, files.read_json(path), path)
        return _zoo_row(path.stem, card, path)

    def use_queries(path):
        encoder, told = read_recorded(path)
        attack = attack_of(told["attack"])
        return attack.queries > told["held"] or encoder.split

    def as_json(path, value):
        path.write_text(json.dumps(value))

    return folder, {
        "header": ("safetensors", write_header, use_encoder),
        "split": ("json", as_json, pl.MembershipSplit.load),
        "card": ("json", as_json, use_card),
        "result": ("json", as_json, use_result),
        "queries": ("npz", write_queries_file, use_queries),
    }


@pytest.mark.skipif(os.name == "nt", reason="alarms are POSIX")
@pytest.mark.parametrize("kind", ["header", "split", "card", "result", "queries"])
def test_a_file_changed_at_random_is_read_or_refused_in_one_sentence(seeds, doors, kind, monkeypatch):
    folder, ways = doors
    suffix, write, use = ways[kind]
    monkeypatch.setattr(os, "system", lambda *_: pytest.fail("a command ran"))
    path = folder / f"mutant.{suffix}"

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=HealthCheck)
    @given(changes(seeds[kind]))
    def changed(value):
        write(path, value)
        judged_answer(use, path)

    write(path, seeds[kind])
    assert judged_answer(use, path) == "read"
    whole = path.read_bytes()

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=HealthCheck)
    @given(spoiled(whole))
    def damaged(content):
        path.write_bytes(content)
        judged_answer(use, path)

    changed()
    damaged()
    assert FIGURES["longest"] < SECONDS
    print(kind, FIGURES)


def test_a_name_in_a_csv_is_no_formula(tmp_path):
    cells = ["=cmd|' /C calc'!A0", "+SUM(A1)", "-2+3+cmd", "@x", "plain", "-1.5e-3", "-", "a=b"]
    store.write_csv(tmp_path / "t.csv", pd.DataFrame({"name": cells, "value": [-1.5] * len(cells)}))
    found = pd.read_csv(tmp_path / "t.csv", dtype={"name": str})
    assert found["name"].tolist() == [f"'{cell}" for cell in cells[:4]] + cells[4:]
    assert found["value"].tolist() == [-1.5] * len(cells)


def test_a_card_cannot_choose_how_a_defence_trains(tiny_encoder, small_split, tmp_path):
    asked = {"devices": 64, "out": str(tmp_path)}
    card = {"recipe": "mae", "seed": 0, "split": small_split.record(), "settings": asked}
    encoder = tiny_encoder.like(tiny_encoder._model, name="mine", architecture=tiny_encoder.architecture, card=card)
    with pytest.raises(BadInput, match="mine cannot be followed: recipe mae has no setting devices, out"):
        pl.defenses.defended(encoder, pl.defenses.make_defense("scsr"))


def test_a_list_of_names_that_is_no_text_is_named(refused, tmp_path):
    (tmp_path / "names.txt").write_bytes(b"\xff\xfe\x00")
    given = ["--forget", tmp_path / "names.txt", "--out", tmp_path / "o.safetensors", "--quiet"]
    assert "names.txt: not a text in UTF-8" in refused("unlearn", "--encoder", "zoo:simclr", *given)


@pytest.mark.skipif(os.name == "nt", reason="names are bytes on POSIX alone")
def test_a_file_name_that_is_not_utf_8_travels(shell, tiny, photos, tmp_path):
    os.rename(os.fsencode(photos / "3.png"), os.fsencode(photos) + b"/Mu\xf1oz.png")
    out, html = tmp_path / "z.json", tmp_path / "z.html"
    status, _, err = shell("audit", *tiny, "--images", photos, "--members", 8, *QUICK, "--out", out, "--html", html)
    assert (status, err) == (0, [])
    assert len(pl.AuditResult.load(out).scores) == 16 and "AUC" in html.read_text("utf-8")
    split = pl.member_split(pl.load_images(photos), members=10)
    split.save(tmp_path / "split.json")
    assert pl.MembershipSplit.load(tmp_path / "split.json").digest == split.digest
    store.write_csv(tmp_path / "names.csv", pd.DataFrame({"name": split.images.names}))
    assert "Mu\\udcf1oz.png" in (tmp_path / "names.csv").read_text("utf-8")


def test_a_folder_of_a_training_with_another_file_for_its_split_is_refused(refused, tmp_path):
    (tmp_path / "split.json").write_text("[]")
    where = ["--images", "partshapes", "--members", 8, "--size", 32, "--out", tmp_path]
    assert "split.json: all of it is a list" in refused("pretrain", "--recipe", "mae", *where)


@pytest.mark.parametrize(("table", "part"), [("\x00\x01", "val"), ("a", "val"), ("a,b\nx,", "val")])
def test_a_broken_table_of_classes_is_named_or_tells_nothing(tmp_path, table, part):
    folder = tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / part
    folder.mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(folder / "ILSVRC2012_val_00000001.JPEG")
    (tmp_path / "LOC_val_solution.csv").write_text(table)
    try:
        assert pl.load_images("imagenet", root=tmp_path, part=part).labels.tolist() == [-1]
    except BadInput as error:
        assert "LOC_val_solution.csv" in str(error)


def test_drawings_that_would_fill_memory_are_not_begun(small_split, tmp_path):
    with pytest.raises(BadInput, match="PARTCROP_LAB_MAX_UNPACKED"):
        pl.load_images("partshapes", n=10**6, size=224)
    start = time.perf_counter()
    record = json.loads(json.dumps(small_split.record()))
    record["members"]["load"]["n"] = record["nonmembers"]["load"]["n"] = 5_000_000
    assert pl.MembershipSplit.from_record(record).digest == small_split.digest
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("size", [9, 11])
def test_images_too_small_for_a_control_are_blamed_and_not_the_weights(refused, tiny, photos, size):
    line = refused("audit", *tiny, "--images", photos, "--members", 8, "--size", size, *QUICK)
    assert f"the images have a side of {size} px" in line and "at least 12" in line and "weights" not in line


def test_images_of_the_least_side_have_every_statistic(photos):
    images = pl.load_images(photos, size=12)
    assert pl.attacks.PixelStatistics().measure(None, images.batch(slice(None)), images.hashes, 0).isfinite().all()
