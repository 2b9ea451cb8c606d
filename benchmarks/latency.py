"""How long a box takes from the mouse to the redrawn curves, in JupyterLab and a real browser (issue of the workbench).

``python benchmarks/latency.py`` opens a notebook with the part explorer on two encoders of the zoo, drags the box 100
times by a few pixels, and measures from the mouse's release to the new picture on the page. It writes
benchmarks/latency.csv, one row per drag, and prints the median and the 95th percentile. The time that the panel itself
took, which it shows, stands beside it: the rest is the way through kernel, server and browser.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from playwright.sync_api import sync_playwright
from tqdm.auto import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import CHROMIUM, Notebook, laboratory, write_notebook

CSV = Path(__file__).with_suffix(".csv")
CELLS = [
    "import partcrop_lab as pl\nfrom partcrop_lab import widgets",
    "encoders = [pl.load_encoder(name) for name in ('zoo:simclr', 'zoo:mae')]",
    "widgets.part_explorer(pl.load_images('partshapes', n=20, size=64), encoders)",
]
WATCH = """picture => {
    window.drawnAt = 0;
    picture.addEventListener("load", () => { window.drawnAt = performance.now(); });
}"""
SECONDS = re.compile(r"^\d+\.\d+ s$")
"""What a panel at rest says of its last drawing."""
LEFT = "() => { window.drawnAt = 0; window.leftAt = performance.now(); }"


def one_drag(notebook: Notebook, right: int, down: int) -> tuple[float, float]:
    """Milliseconds from the mouse's release to the new picture, and those the panel says it took."""
    page = notebook.page
    notebook.drag(page.locator("rect.movable").last, right, down, LEFT)
    page.wait_for_function("() => window.drawnAt > 0", timeout=30_000)
    took = page.evaluate("() => window.drawnAt - window.leftAt")
    page.wait_for_timeout(150)  # so that drags do not run into each other
    own = page.locator("small", has_text=SECONDS).last.inner_text()
    return took, 1000 * float(own.split()[0])


def main(
    drags: Annotated[int, typer.Option(help="How many.")] = 100,
    out: Annotated[Path, typer.Option(help="CSV, one row per drag.")] = CSV,
) -> None:
    folder, rows = Path(tempfile.mkdtemp()), []
    write_notebook(folder / "latency.ipynb", *CELLS)
    with laboratory(folder) as place, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        notebook = Notebook(browser.new_page(viewport={"width": 1280, "height": 900}), *place, "latency.ipynb")
        notebook.run_all()
        notebook.picture.evaluate(WATCH)
        for number in tqdm(range(drags), "drags"):
            move = 12 if number % 2 else -12
            took, own = one_drag(notebook, move, move)
            rows.append({"drag": number, "milliseconds": round(took, 1), "panel": round(own, 1)})
        browser.close()
    table = pd.DataFrame(rows)
    table.to_csv(out, index=False, lineterminator="\n")
    print(table[["milliseconds", "panel"]].quantile([0.5, 0.95]).round(0).to_string())


if __name__ == "__main__":
    typer.run(main)
