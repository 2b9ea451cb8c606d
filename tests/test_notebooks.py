import copy
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

from partcrop_lab.widgets import ERROR_CLASS

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SOLUTIONS = sorted((Path(__file__).parents[1] / "notebooks" / "solutions").glob("*.ipynb"))
ALL = [*NOTEBOOKS, *SOLUTIONS]
WIDGETS = "application/vnd.jupyter.widget-state+json"
LIMITS = 240, 600
"""Seconds for a cell, longer than any takes beside other tests. Should the client miss that a reply has come (issue 312
of nbclient), the notebook gets a fresh kernel once."""


def run(notebook, folder):
    """Execute every cell in a fresh kernel, and keep the state of the widgets."""
    for limit in LIMITS:
        tried, how = copy.deepcopy(notebook), {"resources": {"metadata": {"path": str(folder)}}}
        try:
            NotebookClient(tried, timeout=limit, kernel_name="python3", **how).execute()
            return tried
        except CellTimeoutError:
            if limit == LIMITS[-1]:
                raise


def hidden_errors(notebook):
    """Errors inside widgets: in an Output area, or in the error line of a panel."""
    models = notebook.metadata.get("widgets", {}).get(WIDGETS, {}).get("state", {}).values()
    states = [model["state"] for model in models]
    outputs = [output for state in states for output in state.get("outputs", [])]
    found = [f"{one['ename']}: {one['evalue']}" for one in outputs if one["output_type"] == "error"]
    lines = [state.get("value", "") for state in states if ERROR_CLASS in state.get("_dom_classes", [])]
    return found + [re.sub("<[^>]+>", "", line) for line in lines if line]


def drawn(cell):
    return any("image/png" in output.get("data", {}) for output in cell.outputs)


def stderr_of(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.get("name") == "stderr")


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def written(*sources):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


def named(path):
    return f"{path.parent.name}/{path.stem}" if path in SOLUTIONS else path.stem


def checked(path, folder):
    """Run a notebook and look for errors, warnings, files left behind and plots not drawn; the cells that plot."""
    notebook = run(nbformat.read(path, as_version=4), folder)
    assert hidden_errors(notebook) == []
    assert "Traceback" not in stderr_of(notebook) and "Warning" not in stderr_of(notebook)
    plotted = [cell for cell in notebook.cells if cell.cell_type == "code" and "pl.plots." in cell.source]
    assert all(map(drawn, plotted)) and not list(folder.iterdir())
    return plotted


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_a_notebook_runs_in_a_fresh_kernel_without_any_error(path, tmp_path):
    assert checked(path, tmp_path)


PANEL = """import ipywidgets
from partcrop_lab.widgets import Drawing, Panel
panel = Panel("p", {"n": ipywidgets.IntSlider(1)}, lambda n: Drawing(b"", str(1 / (2 - n))))"""
INTERACTIVE = """import ipywidgets
slider = ipywidgets.IntSlider(1)
ipywidgets.interactive_output(lambda n: 1 / (2 - n), {"n": slider})"""


@pytest.mark.parametrize(
    "cells",
    [(PANEL, "panel", 'panel.controls["n"].value = 2'), (INTERACTIVE, "slider.value = 2")],
    ids=["panel", "interactive"],
)
def test_a_broken_callback_is_found_although_no_cell_fails(cells, tmp_path):
    assert hidden_errors(run(written(*cells[:-1]), tmp_path)) == []
    assert any("ZeroDivisionError" in one for one in hidden_errors(run(written(*cells), tmp_path)))


BARS = """import ipywidgets
from tqdm.auto import tqdm
from partcrop_lab.widgets import Drawing, Panel
panel = Panel("p", {"n": ipywidgets.IntSlider(1)}, lambda n: Drawing(b"", str(sum(tqdm(range(n), leave=False)))))"""


def test_finished_bars_leave_nothing_behind_in_a_panel(tmp_path):
    notebook = run(written(BARS, 'panel.controls["n"].value = 3; print(panel.words.value)'), tmp_path)
    models = notebook.metadata["widgets"][WIDGETS]["state"].values()
    areas = [model["state"]["outputs"] for model in models if model["model_name"] == "OutputModel"]
    assert areas == [()] or areas == [[]]
    assert notebook.cells[1].outputs[0]["text"] == "3\n"


def test_a_cell_that_takes_longer_gets_a_fresh_kernel_and_time_enough(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "LIMITS", (3, 60))
    slow = "import pathlib, time\nmark = pathlib.Path('mark')\nmark.exists() or mark.touch() or time.sleep(20)"
    assert run(written(slow, "print(mark.exists())"), tmp_path).cells[1].outputs[0]["text"] == "True\n"
    monkeypatch.setitem(globals(), "LIMITS", (2,))
    with pytest.raises(CellTimeoutError):
        run(written("import time; time.sleep(20)"), tmp_path)


def test_a_broken_cell_fails(tmp_path):
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        run(written("1 / 0"), tmp_path)


def test_notebooks_are_numbered_along_the_story():
    assert [int(path.name[:2]) for path in NOTEBOOKS] == list(range(len(NOTEBOOKS))) and len(NOTEBOOKS) >= 5


@pytest.mark.parametrize("path", ALL, ids=named)
def test_code_cells_are_short_and_define_nothing(path):
    for cell in code_cells(path):
        assert 1 <= len(cell.source.splitlines()) <= 3, cell.source
        assert not re.search(r"^\s*(def|class|async def)\s|\blambda\b", cell.source, re.M), cell.source


@pytest.mark.parametrize("path", ALL, ids=named)
def test_notebooks_are_stored_without_outputs_and_with_ids(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in code_cells(path))
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells) and "widgets" not in notebook.metadata


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_teaches_goals_questions_and_what_to_read_next(path):
    prose = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    assert all(text in prose for text in ("**Goals.**", "Run time:", "## Questions and exercises", "**Read next:**"))
    for target in re.findall(r"\]\(([^)]+\.ipynb)\)", prose):
        assert (path.parent / target).exists()
