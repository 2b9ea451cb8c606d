"""Whether figures say the same on every machine: each drawn on several imitated ones, with caches of their own.

``python benchmarks/portability.py`` draws the classroom's figures that are computed on the spot (the others are drawn
from tables kept with the zoo) and writes portability.csv: for each figure and imitated machine the largest difference
from this machine as it is, of an AUC or an end of its interval, and of any other number relative to the largest in its
column. Environment variables imitate other chips; numbers of threads are the libraries' own. About half an hour.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from partcrop_lab.figures import FIGURES
from partcrop_lab.store import CACHE_VARIABLE, write_csv

COMPUTED = ("fig2", "features", "trap", "roc", "fig4", "fig5", "attackers", "known")
"""The classroom's figures that are computed when they are drawn."""
AS_IS = "as is"
MACHINES: dict[str, dict[str, str]] = {
    AS_IS: {},
    "avx2, one thread": {"ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"},
    "no vector instructions in torch": {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"},
    "avx": {"MKL_ENABLE_INSTRUCTIONS": "AVX", "ONEDNN_MAX_CPU_ISA": "AVX", "OPENBLAS_CORETYPE": "Sandybridge"},
    "sse 4": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "OPENBLAS_CORETYPE": "Nehalem",
    },
}
"""What imitates each, as environment variables."""
AUCS = ("auc", "low", "high")
TABLE = Path(__file__).with_suffix(".csv")


def drawn(machine: str, figures: list[str], folder: Path) -> Path:
    """The folder with the figures as an imitated machine draws them."""
    out = folder / machine.replace(" ", "-").replace(",", "")
    environment = os.environ | MACHINES[machine] | {CACHE_VARIABLE: str(out / "cache")}
    start = time.perf_counter()
    command = [sys.executable, "-m", "partcrop_lab.cli", "figures", "--only", ",".join(figures), "--out", str(out)]
    subprocess.run(command, env=environment, check=True)
    print(f"{machine}: drawn in {time.perf_counter() - start:.0f} s", flush=True)
    return out


def differences(here: pd.DataFrame, there: pd.DataFrame) -> tuple[float, float]:
    """Largest difference of an AUC or an end of its interval, and of any other number relative to its column's largest.

    Raises:
        ValueError: tables of other rows, columns or words.
    """
    numbers = here.select_dtypes("number").columns
    pd.testing.assert_frame_equal(here.drop(columns=numbers), there.drop(columns=numbers))
    aucs = [name for name in AUCS if "auc" in here and name in numbers]
    gaps = {name: np.nanmax(np.abs(here[name] - there[name]), initial=0.0) for name in numbers}
    others = [gaps[name] / max(1e-12, np.nanmax(np.abs(here[name]))) for name in numbers if name not in aucs]
    return max((gaps[name] for name in aucs), default=np.nan), max(others, default=0.0)


def compare(figures: list[str], machines: list[str], folder: Path) -> pd.DataFrame:
    """A row for each figure and imitated machine."""
    places = {machine: drawn(machine, figures, folder) for machine in machines}
    rows = []
    for figure in figures:
        file = f"{FIGURES[figure][0]}.csv"
        here = pd.read_csv(places[AS_IS] / file)
        for machine in machines[1:]:
            auc, other = differences(here, pd.read_csv(places[machine] / file))
            row = {"figure": figure, "machine": machine, "rows": len(here)}
            rows.append(row | {"largest_auc_difference": auc, "largest_relative_difference": other})
    return pd.DataFrame(rows)


def main(
    figures: Annotated[str, typer.Option(help="Names of figures, separated by commas.")] = ",".join(COMPUTED),
    machines: Annotated[int, typer.Option(min=2, help="How many of the imitated machines.")] = len(MACHINES),
    out: Annotated[Path, typer.Option(help="The table.")] = TABLE,
    work: Annotated[Path | None, typer.Option(help="Folder for figures and caches; else a temporary one.")] = None,
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        table = compare(figures.split(","), list(MACHINES)[:machines], work or Path(temporary))
    write_csv(out, table)
    print(table.to_string(index=False))


if __name__ == "__main__":
    typer.run(main)
