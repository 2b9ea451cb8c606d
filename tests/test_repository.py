"""What the repository promises in its own files: commands, links, dependencies, licence, sizes."""

import ast
import json
import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer
import yaml
from packaging.requirements import Requirement

import partcrop_lab as pl
from partcrop_lab.attacks import ATTACKS
from partcrop_lab.cli import app

ROOT = Path(__file__).resolve().parents[1]
DOCS = ("README.md", "EVIDENCE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "data/README.md")
CONDA_NAMES = {"pytorch": "torch"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name, language):
    """The code blocks of a document, without common indentation."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", read(name), re.M | re.S)
    return ["\n".join(line.removeprefix(indent) for line in code.splitlines()) for indent, code in found]


@pytest.fixture(scope="module")
def files():
    """The files that are, or are about to be, under version control."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout, so nothing is tracked")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def bounds(requirements):
    wanted = [Requirement(text) for text in requirements]
    return {CONDA_NAMES.get(one.name, one.name): str(one.specifier) for one in wanted}


def test_environment_and_pyproject_ask_for_the_same():
    environment = yaml.safe_load(read("environment.yml"))
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert environment["channels"] == ["conda-forge", "nodefaults"] and pip[-1] == "-e ."
    assert conda[0] == "python=3.11" and PROJECT["requires-python"] == ">=3.11"
    declared = bounds(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"])
    assert bounds([*conda[1:], *pip[:-1]]) == declared | {"pip": ""}


def test_environment_says_what_each_dependency_is_for():
    entries = [line for line in read("environment.yml").splitlines() if ">=" in line]
    assert len(entries) > 20 and all(re.search(r"  # \w", line) for line in entries)


def test_every_make_target_is_documented_and_listed():
    makefile = read("Makefile")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.M)
    documented = re.findall(r"^([a-z-]+):.*## .", makefile, re.M)
    assert sorted(phony.split()) == sorted(documented)
    listed = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^  make ([a-z-]+)", listed, re.M) == documented


def commands(name):
    """The command lines of a document's shell blocks, without comments."""
    lines = [line for language in ("sh", "powershell") for code in blocks(name, language) for line in code.splitlines()]
    return [command for line in lines if (command := line.split(" #")[0].strip())]


def mentions(name):
    """Commands mentioned in running text; they need not be complete."""
    return re.findall(r"`((?:\w+=\S+ )?(?:make|partcrop-lab)(?: [^`]+)?)`", read(name))


@pytest.mark.parametrize("name", DOCS)
def test_documented_make_commands_exist(name):
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.M))
    for line in commands(name) + mentions(name):
        words = [word for word in line.split() if "=" not in word]
        if words[0] == "make":
            assert set(words[1:]) <= targets, line


def resolved(line):
    """The command that a line calls, and the rest of its words."""
    command, words = typer.main.get_command(app), shlex.split(line.replace("\\", "/"))[1:]
    while words and hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    return command, words


@pytest.mark.parametrize("name", DOCS)
def test_documented_command_lines_are_understood(name):
    for line in commands(name):
        if re.match(r"(\S*[/\\])?partcrop-lab ", line):
            command, words = resolved(line)
            command.make_context("partcrop-lab", words)
    for line in mentions(name):
        if line.startswith("partcrop-lab ") and "|" not in line:
            command, words = resolved(line)
            options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
            assert {word for word in words if word.startswith("--")} <= options, line


def test_the_readme_names_two_commands_that_set_everything_up():
    assert [line for line in commands("README.md") if line.startswith("make ")][:2] == ["make figures", "make test"]


@pytest.mark.parametrize("name", DOCS)
def test_documented_python_uses_names_that_exist(name):
    for code in blocks(name, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pl":
                assert hasattr(pl, node.attr), f"pl.{node.attr}"


@pytest.mark.parametrize("name", DOCS)
def test_local_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", read(name)):
        if "://" not in target:
            assert (ROOT / name).parent.joinpath(target).exists(), target


def heading_anchors(name):
    """The anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", read(name), flags=re.S), re.M)
    return {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("name", DOCS)
def test_links_to_sections_lead_to_headings(name):
    for target, anchor in re.findall(r"\]\(([^):#]*)#([^)]+)\)", read(name)):
        assert anchor in heading_anchors(target or name), f"{target}#{anchor}"


def test_the_attack_of_the_contributing_guide_runs():
    space = {"__name__": "contributing"}
    try:
        for code in blocks("CONTRIBUTING.md", "python"):
            exec(compile(code, "CONTRIBUTING.md", "exec"), space)
        attack = ATTACKS["mirror-cosine"]()
        assert attack.features(space["encoder"], space["images"], progress=False).shape == (170, 1)
    finally:
        ATTACKS.pop("mirror-cosine", None)
    result = space["result"]
    assert result.verdict.startswith("No evidence of leakage: null check") and result.settings["queries"] == 2


def test_the_readme_lists_every_notebook():
    notebooks = sorted(path.name for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
    assert notebooks and sorted(set(re.findall(r"notebooks/(\d\d\w+\.ipynb)\)", read("README.md")))) == notebooks


def test_the_citation_file_names_this_version_and_the_papers():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"] == "MIT"
    cited = {paper["url"].rpartition("/")[2] for paper in citation["references"]}
    assert cited == {"2404.02462", "2505.10351", "2304.13850"} and all(number in read("README.md") for number in cited)


def test_the_changelog_knows_this_version():
    assert PROJECT["version"] in read("CHANGELOG.md")


def test_the_licence_is_mit():
    assert read("LICENSE").startswith("MIT License\n\nCopyright (c) 2026 PartCrop Lab contributors\n")
    assert "WITHOUT WARRANTY OF ANY KIND" in read("LICENSE")


def test_continuous_integration_runs_what_the_readme_says():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK) and script.read_text().startswith("#!/usr/bin/env bash")
    assert [line for line in script.read_text().splitlines() if line.startswith("make ")] == [
        "make lint",
        "make test-imitated",
        "make test",
    ]


def test_notebooks_are_committed_without_outputs(files):
    for path in files:
        if path.suffix == ".ipynb":
            notebook = json.loads(path.read_text(encoding="utf-8"))
            cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
            assert cells and all(not cell["outputs"] and cell["execution_count"] is None for cell in cells), path.name
            assert "widgets" not in notebook["metadata"], path.name


def test_files_are_small(files):
    assert {path.name for path in files if path.stat().st_size > 6_000_000} == set()


def test_no_file_names_a_folder_of_somebodys_machine(files):
    private = re.compile(r"(?<![\w.~-])/(?:work|root|home|Users)/\w")
    text = [path for path in files if path.suffix not in (".png", ".pdf", ".safetensors", ".parquet")]
    found = [path.name for path in text if path != Path(__file__).resolve() and private.search(path.read_text("utf-8"))]
    assert not found


def test_caches_and_environments_are_not_tracked(files):
    hidden = ("__pycache__", ".venv", ".ipynb_checkpoints", ".pytest_cache", ".egg-info")
    assert not [path for path in files for part in hidden if part in str(path.relative_to(ROOT))]
