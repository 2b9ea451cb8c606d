"""What a wheel promises: installed into an environment of its own it works in an empty folder, without the clone."""

import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import nbformat
import pytest
from test_notebooks import drawn, hidden_errors

import partcrop_lab as pl
from partcrop_lab import shipped
from partcrop_lab.encoders.zoo import measured, zoo_dir

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 80e6
COURSE = sorted(path.relative_to(ROOT / "notebooks") for path in (ROOT / "notebooks").glob("**/[!.]*.ipynb"))
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
FIND = "import importlib.util; print(importlib.util.find_spec('partcrop_lab').origin)"
EXECUTE = """
import sys, nbformat, nbclient
notebook = nbformat.read(sys.argv[1], as_version=4)
notebook.cells.append(nbformat.v4.new_code_cell("print(pl.__file__)"))
nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


def done(*words, cwd=ROOT, **environment):
    """The output of a program that knows neither the clone nor the caller's search path."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PARTCROP_LAB_ZOO")}
    ran = subprocess.run([str(word) for word in words], cwd=cwd, env=kept | environment, capture_output=True, text=True)
    assert ran.returncode == 0, f"{words}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from the source distribution, so that both are right; without a network, by the hatchling installed."""
    folder = tmp_path_factory.mktemp("dist")
    done(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder)
    (source,) = folder.glob("*.tar.gz")
    done(*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs a program of an environment that holds the wheel, and the dependencies of the running one."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", symlinks=True)
    paths = {"base": str(folder / "venv"), "platbase": str(folder / "venv")}
    scripts, packages = (Path(sysconfig.get_path(name, "venv", paths)) for name in ("scripts", "purelib"))
    done(*PIP, "--python", scripts / "python", "install", "--no-deps", "--no-index", wheel)
    lent = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    (packages / "lent.pth").write_text("\n".join(lent))  # a .pth file in there, of an editable install, is not read
    (folder / "empty").mkdir()

    def run(program, *words):
        own = {"PARTCROP_LAB_CACHE": str(folder / "cache"), "HOME": str(folder)}
        return done(scripts / program, *words, cwd=folder / "empty", **own)

    run.packages = packages
    return run


@pytest.fixture(scope="module")
def course(installed, tmp_path_factory):
    """The course as the installed command copies it, and what it said."""
    folder = tmp_path_factory.mktemp("at") / "course"
    return folder, installed("partcrop-lab", "notebooks", folder)


def test_the_tests_have_what_builds_the_wheel():
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(about["build-system"]["requires"]) <= set(about["project"]["optional-dependencies"]["dev"])


@pytest.mark.slow
def test_the_wheel_is_small_enough_and_typed(wheel, capsys):
    with capsys.disabled():
        print(f"\n{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB")
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {f"partcrop_lab/data/zoo/{path.relative_to(zoo_dir())}" for path in zoo_dir().rglob("*.*")}
    assert wheel.stat().st_size <= LIMIT and shipped | {"partcrop_lab/py.typed"} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "data", "notebooks"))]


@pytest.mark.slow
def test_an_encoder_of_the_zoo_is_audited_without_the_clone(installed, tmp_path):
    found = Path(installed("python", "-c", FIND).strip())
    assert found.is_relative_to(installed.packages) and not found.is_relative_to(ROOT)
    words = "audit --encoder zoo:mae --images partshapes --members 30 --crops 4 --attacker logistic --permutations 1"
    assert installed("partcrop-lab", *words.split(), "--quiet").startswith("No evidence of leakage: null check")


@pytest.mark.slow
def test_a_figure_is_drawn_from_a_table_in_the_wheel(installed, tmp_path):
    told = installed("partcrop-lab", "figures", "--only", "growth", "--jobs", 1, "--out", tmp_path).split()
    assert [Path(line).name for line in told] == [f"memory_growth.{kind}" for kind in ("png", "pdf", "csv", "json")]
    assert sorted(map(Path, told)) == sorted(tmp_path.iterdir())


@pytest.mark.slow
def test_the_course_is_copied_from_the_wheel_and_runs(installed, course, tmp_path):
    folder, said = course
    copied = {path.relative_to(folder) for path in folder.rglob("*.*")}
    assert copied == {*COURSE, Path("README.md")} and f"jupyter lab {folder / '00_start_here.ipynb'}" in said
    installed("python", "-c", EXECUTE, folder / "01_part_responses.ipynb", tmp_path / "executed.ipynb")
    notebook = nbformat.read(tmp_path / "executed.ipynb", as_version=4)
    assert notebook.cells[-1].outputs[0]["text"].startswith(str(installed.packages))
    plotted = [cell for cell in notebook.cells if cell.cell_type == "code" and "pl.plots." in cell.source]
    assert plotted and all(map(drawn, plotted)) and hidden_errors(notebook) == []


def test_the_course_never_overwrites_what_is_there(shell, tmp_path):
    status, out, _ = shell("notebooks", tmp_path / "new" / "course")
    assert status == 0 and out.startswith(f"{len(COURSE) + 1} files are in ")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("my notes")
    status, out, err = shell("notebooks", tmp_path / "mine")
    assert (status, out, len(err)) == (2, "", 1) and "README.md is there already and would be overwritten" in err[0]
    assert [path.read_text() for path in (tmp_path / "mine").iterdir()] == ["my notes"]
    status, _, err = shell("notebooks", tmp_path / "new" / "course")
    assert status == 2 and f"and {len(COURSE)} more are there already" in err[0]
    assert shell("notebooks", tmp_path / "mine" / "README.md")[0] == 2


def test_what_is_shipped_is_found_in_both_layouts_and_restored_as_each_is_installed(tmp_path, monkeypatch):
    assert zoo_dir() == ROOT / "data" / "zoo" and not shipped.INSTALLED
    with pytest.raises(pl.BadInput, match=r"is missing; restore it from git, or make it with python x\.py"):
        measured("nonsense", "python x.py")
    monkeypatch.setattr(shipped, "PACKAGE", tmp_path / "partcrop_lab")
    monkeypatch.setattr(shipped, "INSTALLED", True)
    assert zoo_dir() == tmp_path / "partcrop_lab" / "data" / "zoo"
    with pytest.raises(
        pl.BadInput, match=r"by installing partcrop-lab again, .* make it in a clone .* with python x\.py"
    ):
        measured("nonsense", "python x.py")
