"""Bad input, end to end: one clear sentence, the right exit status, and nothing lost."""

import errno
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image

import partcrop_lab as pl
from partcrop_lab import store
from partcrop_lab.cli import main

QUICK = ["--crops", "4", "--attacker", "logistic", "--permutations", "0", "--quiet"]


@pytest.fixture
def photos(tmp_path):
    """A folder of 20 good images."""
    images = pl.load_images("partshapes", n=20, size=32).batch(slice(None))
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(images.numpy()):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "photos" / f"{i}.jpg", quality=95)
    return tmp_path / "photos"


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def refused(shell, tmp_path):
    """Runs a command line that must be refused; returns its one line."""

    def run(*arguments):
        before = contents(tmp_path)
        status, out, err = shell(*arguments)
        assert (status, out, len(err)) == (2, "", 1), err
        assert err[0].startswith("partcrop-lab: ") and "Traceback" not in err[0]
        after = contents(tmp_path)
        assert after == before, "a refused command changed or left files"
        return err[0]

    return run


@pytest.fixture
def audit_photos(refused, tiny, photos):
    return lambda: refused("audit", *tiny, "--images", photos, "--members", 8, *QUICK)


def truncated(photos):
    whole = (photos / "3.jpg").read_bytes()
    (photos / "3.jpg").write_bytes(whole[: len(whole) // 2])


def one_pixel(photos):
    Image.new("RGB", (1, 1)).save(photos / "3.jpg")


def text(photos):
    (photos / "3.jpg").write_text("this is no photograph")


def empty_file(photos):
    (photos / "3.jpg").write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(truncated, "damaged"), (one_pixel, "1 x 1"), (text, "not an image"), (empty_file, "empty file")],
)
def test_an_image_that_cannot_be_used_is_named(audit_photos, photos, spoil, said):
    spoil(photos)
    line = audit_photos()
    assert "3.jpg" in line and said in line


def test_unreadable_images_are_left_out_when_asked(shell, tiny, photos):
    text(photos)
    sides = ["--images", photos, "--members", 8, "--skip-unreadable"]
    status, out, err = shell("audit", *tiny, *sides, *QUICK)
    assert status == 0 and "8 members and 8 non-members" in out
    assert len(err) == 1 and err[0].startswith("partcrop-lab: note: ") and "3.jpg" in err[0]


def test_an_empty_folder(audit_photos, photos):
    for path in photos.iterdir():
        path.unlink()
    assert "no image files in this folder" in audit_photos()


def test_a_folder_that_is_not_there(audit_photos, photos):
    photos.rename(photos.with_name("elsewhere"))
    assert "no such folder or parquet file" in audit_photos()


def test_fewer_images_than_asked_for(refused, tiny, photos):
    assert "20 images are left" in refused("audit", *tiny, "--images", photos, "--members", 11, *QUICK)


def test_a_file_that_is_no_parquet(refused, tiny, photos):
    (photos / "train.parquet").write_text("label,image")
    assert "train.parquet" in refused("audit", *tiny, "--images", photos / "train.parquet", "--members", 2, *QUICK)


def test_folders_that_share_images_are_refused_with_the_pairs_named(refused, shell, tiny, photos):
    other = photos.with_name("other")
    other.mkdir()
    for i, image in enumerate(pl.load_images("partshapes", n=12, size=32, seed=1).batch(slice(None)).numpy()):
        Image.fromarray(image.transpose(1, 2, 0)).save(other / f"other{i}.jpg", quality=95)
    (other / "copy.jpg").write_bytes((photos / "7.jpg").read_bytes())
    sides = ["--member-dir", photos, "--nonmember-dir", other]
    line = refused("audit", *tiny, *sides, *QUICK)
    assert "7.jpg = copy.jpg" in line and "duplicate" in line
    status, out, _ = shell("audit", *tiny, *sides, *QUICK, "--drop-duplicates")
    assert status == 0 and "20 members and 12 non-members" in out.splitlines()[-1]


def checkpoint(encoder, path, change):
    """The encoder's own file, its weights changed."""
    encoder.save(path)
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(change(load_file(path)), path, metadata)
    return path


DRAWN = ["--images", "partshapes", "--members", "8", "--size", "32", *QUICK]


def test_an_encoder_that_gives_nan(refused, tiny_encoder, tmp_path):
    def poison(weights):
        name = next(name for name in weights if "qkv" in name and name.endswith("weight"))
        return weights | {name: torch.full_like(weights[name], torch.nan)}

    path = checkpoint(tiny_encoder, tmp_path / "nan.safetensors", poison)
    line = refused("audit", "--encoder", path, *DRAWN)
    assert "NaN" in line and "images" in line


def test_a_checkpoint_of_another_model(refused, tiny_encoder, tmp_path):
    other = tmp_path / "other.safetensors"
    path = checkpoint(tiny_encoder, other, lambda w: {k.replace("blocks.", "layers."): v for k, v in w.items()})
    assert "other.safetensors" in refused("audit", "--encoder", path, *DRAWN)
    torch.save({"weight": torch.zeros(3)}, tmp_path / "linear.pth")
    model = ["--model", "vit_tiny_patch16_224", "--image-size", "32", "--patch-size", "8"]
    assert "linear.pth" in refused("audit", "--encoder", tmp_path / "linear.pth", *model, *DRAWN)


class Code:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_with_code_is_refused_and_not_run(refused, tmp_path, legacy):
    state = {"model": {"weight": torch.zeros(2)}, "args": Code(tmp_path / "ran")}
    torch.save(state, tmp_path / "evil.pth", _use_new_zipfile_serialization=not legacy)
    line = refused("audit", "--encoder", tmp_path / "evil.pth", "--model", "vit_tiny_patch16_224", *DRAWN)
    assert "evil.pth" in line and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("held", [b"", b"nonsense", b"\x80\x04"])
@pytest.mark.parametrize("name", ["mine.safetensors", "mine.pth"])
def test_a_damaged_checkpoint(refused, tmp_path, name, held):
    (tmp_path / name).write_bytes(held)
    line = refused("audit", "--encoder", tmp_path / name, "--model", "vit_tiny_patch16_224", *DRAWN)
    assert name in line


def test_a_checkpoint_that_is_not_there(refused, tmp_path):
    assert "no such file" in refused("audit", "--encoder", tmp_path / "mine.pth", *DRAWN)


@pytest.mark.parametrize("held", ["", "{", "[]", "{}", '{"format": "partcrop-lab split 1"}', "\x00\xff"])
def test_a_split_file_that_is_none(refused, tiny, tmp_path, held):
    (tmp_path / "split.json").write_bytes(held.encode("latin-1"))
    assert "split.json" in refused("audit", *tiny, "--split", tmp_path / "split.json", *QUICK)


def test_a_split_whose_images_changed(refused, tiny, photos, tmp_path):
    pl.member_split(pl.load_images(photos), members=8).save(tmp_path / "split.json")
    Image.new("RGB", (32, 32), "red").save(photos / "3.jpg")
    assert "changed" in refused("audit", *tiny, "--split", tmp_path / "split.json", *QUICK)


@pytest.mark.parametrize("option", ["--out", "--html"])
def test_a_result_that_could_not_be_written_is_said_before_the_work(refused, tiny, tmp_path, option, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(pl, "audit", lambda *_, **__: pytest.fail("the audit ran"))
    assert "cannot be written" in refused("audit", *tiny, *DRAWN, option, tmp_path / "file" / "result")


def test_a_cache_that_cannot_be_written(refused, tiny, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(store.CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    line = refused("audit", *tiny, *DRAWN)
    assert "cannot write" in line and store.CACHE_VARIABLE in line


def test_a_disk_that_fills_up(refused, shell, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv(store.CACHE_VARIABLE, str(tmp_path / "cache"))
    (tmp_path / "cache" / "features").mkdir(parents=True)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        line = refused("audit", *tiny, *DRAWN)
    assert "No space left on device" in line and store.CACHE_VARIABLE in line
    assert shell("audit", *tiny, *DRAWN)[0] == 0


def start(arguments, cache, **how):
    command = [sys.executable, "-m", "partcrop_lab.cli", *map(str, arguments)]
    environment = os.environ | {store.CACHE_VARIABLE: str(cache)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="file size limits are POSIX")
def test_a_write_that_is_cut_short_leaves_nothing(tiny, tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    process = start(["audit", *tiny, *DRAWN], tmp_path / "cache", preexec_fn=limit)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out, len(err.splitlines())) == (2, "", 1), err
    assert "cannot write" in err and contents(tmp_path) == {}


LONG = ["--images", "partshapes", "--members", "100", "--attacker", "logistic", "--permutations", "1"]


@pytest.fixture(scope="module")
def never_stopped(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("never")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(store.CACHE_VARIABLE, str(folder / "cache"))
        assert main(["audit", *tiny, *LONG, "--quiet", "--out", str(folder / "result.json")]) == 0
    return without_command(folder / "result.json")


def without_command(path):
    """A saved result but for the command that made it, which names the file."""
    result = json.loads(path.read_text())
    assert result["settings"].pop("command").startswith("partcrop-lab audit --encoder random:")
    return result


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_stopped_extraction_resumes_and_ends_as_if_never_stopped(
    shell, tiny, tmp_path, monkeypatch, stop, never_stopped
):
    line = ["audit", *tiny, *LONG, "--out", tmp_path / "result.json"]
    process = start(line, tmp_path / "cache")
    while not (done := list(tmp_path.glob("cache/features/*.safetensors"))) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(stop)
    err = process.communicate(timeout=300)[1].splitlines()
    if stop == signal.SIGINT:
        assert process.returncode == 130 and err[-1].startswith("partcrop-lab: interrupted; what is finished is kept")
    else:
        assert process.returncode == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in done}
    assert kept and not (tmp_path / "result.json").exists()

    monkeypatch.setenv(store.CACHE_VARIABLE, str(tmp_path / "cache"))
    assert shell(*line)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in done} == kept, "finished shards were made again"
    assert without_command(tmp_path / "result.json") == never_stopped
