"""Several processes train one encoder as one process would, from Python and the shell, and resume exactly."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import timedelta
from itertools import chain
from types import SimpleNamespace

import pytest
import torch
from small_recipes import HEADS, SMALL, TINY_VIT, losses, settings
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import partcrop_lab as pl
from partcrop_lab import store
from partcrop_lab.encoders import RECIPES, ranks, training
from partcrop_lab.encoders.recipes import make_recipe
from partcrop_lab.errors import BadInput
from partcrop_lab.images import load_images

COUPLED = ("barlowtwins", "byol", "dino", "mocov2", "mocov3", "simclr", "swav", "vicreg")
ONE_ROW = ("barlowtwins", "dino", "mae", "simclr", "swav", "vicreg")
RESUMED = ("ibot", "mocov2", "swav")
LOOPBACK = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo"}
two_processes = pytest.mark.skipif(os.name == "nt" or (os.cpu_count() or 1) < 2, reason="needs POSIX and two cores")


def coupled(recipe):
    """An objective without batch norms, which on the CPU are of one process's images alone."""
    vit = TINY_VIT | {"model": "vit_tiny_patch16_224"}
    how = {"mocov2": vit | HEADS | {"queue": 24}}.get(recipe, SMALL[recipe])
    objective = make_recipe(recipe, **how).objective(32, seed=0)
    for module in list(objective.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(module, name, nn.Identity())
    objective.views = drawn
    return objective


def drawn(images, generator, size=None, count=1, augmentation=None):
    """Views of images that are given as their numbers: for each the same in all processes."""
    views = torch.randn(8, count, 3, size or 32, size or 32, generator=torch.Generator().manual_seed(count))
    return views[images]


def one_step(objective, module, rows):
    """The loss of these rows, its gradient by parameter, and the buffers that a run would save after the step."""
    loss = module(rows, torch.Generator(), 0.5)
    loss.backward()
    gradient = {name: value.grad for name, value in objective.named_parameters() if value.grad is not None}
    weights = dict(objective.named_parameters())
    buffers = {name: value for name, value in objective.state_dict().items() if name not in weights}
    return {"loss": loss.detach(), "gradient": gradient, "buffers": buffers}


def dying_and_resumed(recipe, images, folder, how):
    """The digests of a run of two epochs that dies after the first and is resumed, and of one that is not stopped."""
    how, epoch = how | settings(recipe) | {"checkpoint_every": 1}, training._Run._epoch

    def dying(run):
        if run.log:
            raise KeyboardInterrupt
        epoch(run)

    training._Run._epoch = dying
    with pytest.raises(KeyboardInterrupt):
        pl.pretrain(recipe, images, out=folder / f"{recipe}-resumed", **how)
    training._Run._epoch = epoch
    torch.distributed.barrier()  # until the first has written its state
    return [pl.pretrain(recipe, images, out=out, **how).digest for out in (folder / f"{recipe}-resumed", None)]


def rank_of_two(rank, port, folder):
    """What each of two processes does; its findings go to a file."""
    own = {"LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= own | LOOPBACK
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2, timeout=timedelta(seconds=60))
    found = {"steps": {}, "states": {}, "digests": {}, "resumed": {}, "one row": {}}
    for recipe in COUPLED:
        objective = coupled(recipe)
        module = DistributedDataParallel(ranks.Parallel(objective), find_unused_parameters=True)
        found["steps"][recipe] = one_step(objective, module, torch.arange(4 * rank, 4 * rank + 4))
    images, train = load_images("partshapes", n=25, size=32, seed=3), training._Run.train

    def watched(run, *arguments):
        train(run, *arguments)
        found["states"][run.recipe.name] = run.objective.state_dict()

    training._Run.train = watched
    how = {"epochs": 1, "device": "cpu", "precision": "fp32", "devices": 2}
    for recipe in sorted(RECIPES):
        encoder = pl.pretrain(recipe, images, out=folder / recipe, **how, **settings(recipe))
        found["digests"][recipe] = encoder.digest
    training._Run.train = train
    for recipe in RESUMED:
        found["resumed"][recipe] = dying_and_resumed(recipe, images, folder, how | {"epochs": 2})
    for recipe in ONE_ROW:
        few = settings(recipe) | {"batch_size": 1}
        found["one row"][recipe] = pl.pretrain(recipe, images.subset(slice(0, 2)), **how, **few).digest
    for case, wrong in {"refused": {"seed": rank}, "diverged": {"lr": 1e20, "warmup": 0.0, "clip": 1e9}}.items():
        with pytest.raises(BadInput) as error:
            pl.pretrain("mae", images, **how | {"epochs": 9}, **wrong, **settings("mae"))
        found[case] = str(error.value)
    torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """What two processes found that ran `rank_of_two` together, and the folder of their runs."""
    folder = tmp_path_factory.mktemp("pair")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["partcrop_lab"])  # imported once for both
    processes = [context.Process(target=rank_of_two, args=(rank, port, folder), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=240)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)], folder


@pytest.mark.slow
@two_processes
def test_loss_and_gradient_of_two_processes_are_those_of_one_with_all_images(pair):
    for recipe in COUPLED:
        objective = coupled(recipe)
        whole = one_step(objective, objective, torch.arange(8))
        shared = [found["steps"][recipe] for found in pair[0]]
        mean = torch.stack([each["loss"] for each in shared]).mean()
        torch.testing.assert_close(mean, whole["loss"], rtol=1e-5, atol=1e-6, msg=recipe)
        for each in shared:
            ours, theirs = each["gradient"], whole["gradient"]
            assert ours.keys() == theirs.keys()
            ours, theirs = (torch.cat([part[name].flatten() for name in theirs]) for part in (ours, theirs))
            assert (ours - theirs).norm() < 1e-5 * theirs.norm(), recipe
            torch.testing.assert_close(each["buffers"], whole["buffers"], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@two_processes
def test_every_recipe_trains_on_two_processes_whose_weights_stay_equal(pair):
    found, folder = pair
    for recipe in sorted(RECIPES):
        first, second = (each["states"][recipe] for each in found)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first), recipe
        assert found[0]["digests"][recipe] == found[1]["digests"][recipe]
        assert pl.load_encoder(folder / recipe / "encoder.safetensors").digest == found[0]["digests"][recipe]
        assert len(losses(folder / recipe)) == 1


@pytest.mark.slow
@two_processes
def test_what_only_some_recipes_keep_is_resumed_on_two_processes(pair):
    found = pair[0][0]["resumed"]
    for recipe, (resumed, whole) in found.items():
        assert resumed == whole, recipe
    assert sorted(found) == sorted(RESUMED)


@pytest.mark.slow
@two_processes
def test_a_step_of_fewer_images_than_processes_trains(pair):
    one, other = (found["one row"] for found in pair[0])
    assert one == other and sorted(one) == sorted(ONE_ROW)


@pytest.mark.slow
@two_processes
def test_all_processes_refuse_what_one_of_them_would(pair):
    for found in pair[0]:
        assert "the 2 processes found different images, settings or states" in found["refused"]
        assert "is no longer finite in epoch" in found["diverged"]


def shell_line(out):
    tiny = [f"--set={key}={value}" for key, value in {"embed_dim": 48, "depth": 2, "num_heads": 3}.items()]
    line = f"pretrain --recipe mae --images partshapes --members 25 --size 32 --epochs 20 --out {out} --devices 2"
    return ["-m", "partcrop_lab.cli", *line.split(), "--checkpoint-every=1", "--set=batch_size=12", *tiny, "--quiet"]


def start(*arguments):
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    return subprocess.Popen([sys.executable, *map(str, arguments)], env=os.environ | LOOPBACK, **quiet)


def finished(process):
    try:
        out, err = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out.splitlines(), err


@pytest.mark.slow
@two_processes
def test_the_shell_trains_on_two_devices_and_a_killed_run_ends_as_if_it_never_was(tmp_path):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    status, said, err = finished(start(*torchrun, *shell_line(whole)))
    assert (status, len(said)) == (0, 1) and f"{whole}/encoder.safetensors: trained on 25 images" in said[0], err
    files = ["encoder.safetensors", "log.jsonl", "loss.png", "split.json", "state.pt"]
    assert sorted(path.name for path in whole.iterdir()) == files
    epochs = [json.loads(line)["epoch"] for line in (whole / "log.jsonl").read_text().splitlines()]
    assert epochs == list(range(1, 21))

    process = start(*shell_line(killed))
    while not (killed / "state.pt").exists() and process.poll() is None:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    assert finished(process)[0] == -signal.SIGKILL
    assert 1 <= len(losses(killed)) < 20
    assert finished(start(*shell_line(killed)))[::2] == (0, "")
    assert losses(killed) == losses(whole)
    ours, theirs = (pl.load_encoder(folder / "encoder.safetensors") for folder in (killed, whole))
    assert ours.digest == theirs.digest
    assert (ours.card["devices"], ours.card["nodes"]) == (2, 1)


@pytest.mark.parametrize("error", [BadInput, KeyboardInterrupt])
def test_a_process_that_fails_ends_those_that_it_started(error):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    launcher = SimpleNamespace(procs=[child])
    fabric = SimpleNamespace(world_size=2, launch=lambda: None, strategy=SimpleNamespace(launcher=launcher))
    with pytest.raises(error), ranks.launched(fabric):
        raise error
    assert child.returncode == -signal.SIGKILL
    assert launcher.procs == []  # as Lightning ends the process that started one which failed


@pytest.mark.parametrize(
    "options, told",
    [
        (["--devices", 0], "--devices"),
        (["--nodes", 0], "--nodes"),
        (["--devices", 10**6], "devices is 1000000, but this machine has"),
    ],
)
def test_devices_that_do_not_exist_are_one_line_and_status_2(shell, tmp_path, options, told):
    line = ["--recipe", "mae", "--images", "partshapes", "--members", 4, "--size", 32, "--out", tmp_path / "run"]
    status, out, err = shell("pretrain", *line, *options)
    assert (status, out, len(err)) == (2, "", 1) and told in err[0]
    assert not (tmp_path / "run").exists()


def test_numbers_of_devices_that_cannot_be_are_refused(monkeypatch):
    images, cpu = load_images("partshapes", n=4, size=32), torch.device("cpu")
    for wrong in ({"devices": 0}, {"nodes": -1}):
        with pytest.raises(ValueError, match=r"(devices is 0|nodes is -1); it must be at least 1"):
            pl.pretrain("mae", images, epochs=1, device="cpu", **wrong, **settings("mae"))
    with pytest.raises(BadInput, match="several nodes train on CUDA or the CPU only; this is mps"):
        ranks.check_devices(torch.device("mps"), devices=1, nodes=2)
    with monkeypatch.context() as notebook:
        notebook.setattr(sys, "ps1", ">>> ", raising=False)
        with pytest.raises(BadInput, match="a notebook trains on one"):
            ranks.check_devices(cpu, devices=1, nodes=2)
        ranks.check_devices(cpu, devices=1, nodes=1)
    with pytest.raises(BadInput, match="nodes is 2, but nothing has started this program on others"):
        ranks.check_devices(cpu, devices=1, nodes=2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(BadInput, match="4 processes were started together, but devices=1 and nodes=2 make 2"):
        ranks.check_devices(cpu, devices=1, nodes=2)


@pytest.mark.parametrize("count, world", [(12, 3), (13, 3), (14, 3), (1, 4), (2, 5), (7, 1)])
def test_ranks_take_equal_shares_and_miss_no_image(count, world):
    rows = torch.randperm(count) + 100
    shares = [ranks.share(rows, rank, world).tolist() for rank in range(world)]
    assert {len(each) for each in shares} == {-(-count // world)}
    taken = list(chain.from_iterable(shares))
    assert set(taken) == set(rows.tolist())
    if count % world == 0:
        assert sorted(taken) == sorted(rows.tolist())
    if world == 1:
        assert taken == rows.tolist()


def test_the_number_of_processes_tells_runs_apart_and_one_is_as_it_always_was(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    images, recipe = load_images("partshapes", n=4, size=32), make_recipe("mae", **SMALL["mae"])
    one, two, four = (training._Run(recipe, images, 0, "cpu", "fp32", None, 1, nodes) for nodes in (1, 2, 4))
    assert one._identity == store.digest("mae", asdict(recipe), images.digest, 0, "32-true")
    assert len({one._identity, two._identity, four._identity}) == 3
