"""Solutions run as notebooks do, and answer every exercise; a file of its own, so that two workers share the time."""

import re

import nbformat
import pytest
from test_notebooks import NOTEBOOKS, SOLUTIONS, checked


@pytest.mark.slow
@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_a_solution_runs_in_a_fresh_kernel_without_any_error(path, tmp_path):
    checked(path, tmp_path)


def test_every_notebook_has_its_solutions_and_names_them():
    assert [path.name for path in SOLUTIONS] == [path.name for path in NOTEBOOKS]
    for path in NOTEBOOKS:
        assert f"[Solutions](solutions/{path.name})" in path.read_text()


def test_solutions_answer_every_exercise():
    for path, solution in zip(NOTEBOOKS, SOLUTIONS, strict=True):
        prose = nbformat.read(path, as_version=4).cells[-1].source
        asked = re.findall(r"^(\d)\. ", prose.partition("## Questions and exercises")[2], re.M)
        cells = nbformat.read(solution, as_version=4).cells
        told = re.findall(
            r"^\*\*(\d)\.\*\* ", "\n".join(one.source for one in cells if one.cell_type == "markdown"), re.M
        )
        assert asked == told, solution.name
