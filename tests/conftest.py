"""Fixtures that several test files share; every session has a cache of its own."""

import os
from collections import Counter

import pytest
import torch

import partcrop_lab as pl
from partcrop_lab.cli import main

torch.set_num_threads(1)
MODEL = "vit_tiny_patch16_224"
SIZES = {"image_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 3, "precision": "fp32"}


def pytest_addoption(parser):
    parser.addoption("--every-notebook", action="store_true", help="open every notebook in the browser, not one")


def pytest_collection_modifyitems(items):
    """Files with many slow tests come first, so that no worker is left alone with one at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    os.environ |= {"PARTCROP_LAB_CACHE": str(folder), **one}  # also for the processes that tests start
    return folder


@pytest.fixture(scope="session")
def tiny_encoder():
    return pl.load_encoder(f"random:{MODEL}", **SIZES)


@pytest.fixture(scope="session")
def tiny():
    """The options of a command line that audits the tiny encoder."""
    options = [part for name, value in SIZES.items() for part in ("--encoder-option", f"{name}={value}")]
    return ["--encoder", f"random:{MODEL}", *options]


@pytest.fixture(scope="session")
def drawings():
    """160 partshapes of 32 px, all different."""
    return pl.load_images("partshapes", n=160, size=32)


@pytest.fixture
def shell(capsys):
    """Runs one command line in this process: its status, what it printed, and the lines of its stderr."""

    def run(*arguments):
        status = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return status, printed.out, printed.err.splitlines()

    return run
