"""Notebooks and panels as a reader meets them, in JupyterLab and a real browser: sliders, boxes, buttons, uploads."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Notebook, Shown, laboratory, served, write_notebook
from PIL import Image

from partcrop_lab import widgets

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; on Debian: apt install chromium"),
]

START = """import partcrop_lab as pl
from partcrop_lab import widgets
from partcrop_lab.attacks import MLPAttacker, PartCosine, PartCrop
images = pl.load_images("partshapes", n=120, size=32)
split = pl.member_split(images, members=40)
small = dict(image_size=32, patch_size=8, depth=2, embed_dim=48, num_heads=3, precision="fp32")
one = pl.load_encoder("random:vit_tiny_patch16_224", **small)"""
PANELS = {
    "explorer": "widgets.part_explorer(images, [one, one.untrained(1)])",
    "builder": "widgets.feature_builder(one, split, sample=10)",
    "bench": "widgets.attacker_bench([one], split, {'few': PartCrop(crops=4)}, permutations=0)",
    "stopped": "widgets.attacker_bench([one], split, {'few': PartCrop(crops=4)}, permutations=0)",
    "defences": "widgets.defense_explorer(pl.defenses.measured('serving'))",
    "measuring": "widgets.defense_bench(pl.load_encoder('zoo:vicreg'), images.subset(images.names[:100]), "
    "[pl.defenses.TopK(0.1)], PartCosine(crops=2))",
    "background": "widgets.deja_vu(pl.load_encoder('zoo:simclr'), pl.load_encoder('zoo:simclr-b'), "
    "pl.load_images('partshapes', n=200, size=64, seed=10_000))",
    "dial": "widgets.correlation_dial(pl.dejavu.measured())",
    "trap": "widgets.trap_demo([one], split, crops=4, attacker=MLPAttacker((8,), epochs=3))",
}


SCREENS = {"width": 1280, "height": 800}, {"width": 1920, "height": 1080}
ROOT = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(path.stem for path in ROOT.glob("*.ipynb"))
QUICKEST = "01_part_responses"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab's address and token; in its folder a notebook for each panel."""
    folder = tmp_path_factory.mktemp("lab")
    for path in ROOT.glob("*.ipynb"):
        shutil.copy(path, folder)
    for name, panel in (PANELS | {"broken": "1 / 0"}).items():
        write_notebook(folder / f"{name}.ipynb", START, panel)
    with laboratory(folder) as place:
        yield place


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(lab, chromium):
    """Opens a notebook and runs it."""
    pages = []

    def open_notebook(name, timeout=300):
        pages.append(chromium.new_page(viewport=SCREENS[0]))
        pages[-1].set_default_timeout(60_000)
        notebook = Notebook(pages[-1], *lab, f"{name}.ipynb")
        notebook.run_all(timeout)
        assert notebook.errors() == []
        for screen in reversed(SCREENS):
            notebook.page.set_viewport_size(screen)
            assert notebook.fits(), (name, screen)
        return notebook

    yield open_notebook
    for page in pages:
        page.close()


@pytest.fixture(scope="module")
def voila(tmp_path_factory):
    """The address of the dashboards."""
    folder = tmp_path_factory.mktemp("voila")
    shutil.copytree(ROOT / "dashboards", folder / "dashboards")
    with served(["voila", "dashboards"], folder) as (address, _):
        yield address


@pytest.fixture(scope="module")
def explorer(opened):
    return opened("explorer")


def test_a_slider_moved_after_run_all_redraws_the_explorer(explorer):
    before = explorer.digest()
    explorer.slide("x (px)", "ArrowLeft", times=1)  # one change, so that none is left for the next test
    explorer.wait_for_change(before)
    assert explorer.errors() == []


def test_a_box_dragged_with_the_mouse_redraws_the_explorer_and_moves_the_sliders(explorer):
    before, row = explorer.digest(), explorer.row("x (px)").inner_text()
    explorer.drag(explorer.page.locator("rect.movable").last, 36, 30)
    sync_api.expect(explorer.row("x (px)")).not_to_have_text(row, use_inner_text=True, timeout=60_000)
    explorer.wait_for_change(before)
    assert explorer.errors() == []


def test_a_photograph_of_ones_own_is_uploaded_and_shown(explorer, tmp_path):
    """From an open notebook three clicks: run all, the upload button, the file; then a box is dragged on it."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "me.jpg")
    before = explorer.digest()
    with explorer.page.expect_file_chooser() as chooser:
        explorer.page.get_by_role("button", name="your own image").last.click()
    chooser.value.set_files(tmp_path / "me.jpg")
    explorer.wait_for_change(before)
    assert explorer.page.get_by_text("Your own image.").count() == 1 and explorer.errors() == []
    before = explorer.digest()
    explorer.drag(explorer.page.locator("rect.movable").last, 20, 20)
    explorer.wait_for_change(before)


def test_an_error_stands_in_the_panel_in_one_line_and_goes_again(explorer):
    encoders = explorer.row("encoders").locator("select")
    encoders.select_option([])
    explorer.page.locator(".partcrop-error b").wait_for()
    (told,) = explorer.errors()
    assert "tick at least one" in told and "Traceback" not in told
    for chosen in [1], [0, 1]:
        before = explorer.digest()
        encoders.select_option(index=chosen)
        explorer.wait_for_change(before)
    assert explorer.errors() == []


@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: f"{screen['width']} px")
def test_the_picture_stays_large_on_small_and_large_screens(explorer, screen):
    explorer.page.set_viewport_size(screen)
    assert explorer.fits() and explorer.picture.bounding_box()["width"] > 300


def test_a_slider_moved_after_run_all_redraws_the_builder(opened):
    builder = opened("builder")
    before = builder.digest()
    builder.slide("part")
    builder.wait_for_change(before)
    assert builder.errors() == []


def test_the_defence_explorer_answers_its_sliders_and_the_mouse(opened):
    notebook = opened("defences")
    told = notebook.picture.locator("title").all_text_contents()
    assert any(text.startswith("no defence: AUC ") for text in told)
    before = notebook.digest()
    notebook.slide("noise", "ArrowLeft", 1)
    notebook.wait_for_change(before)
    assert len(notebook.picture.locator("title").all_text_contents()) < len(told) and notebook.errors() == []


@pytest.mark.parametrize(("panel", "button"), [("bench", "Train and audit"), ("trap", "Audit under both protocols")])
def test_a_button_pressed_after_run_all_draws_anew(opened, panel, button):
    notebook = opened(panel)
    seed = notebook.row("seed").locator("input")
    seed.fill("7")
    seed.press("Enter")
    before = notebook.digest()
    notebook.page.get_by_role("button", name=button).click()
    notebook.wait_for_change(before)
    assert notebook.errors() == [] and notebook.page.get_by_text("null check").count()


def test_the_defence_bench_adds_the_point_that_it_measured(opened):
    bench = opened("measuring")
    before, rows = bench.digest(), bench.page.locator(".widget-html-content tbody tr")
    assert rows.count() == 1
    bench.page.get_by_role("button", name="Train and attack").click()
    bench.wait_for_change(before)
    assert rows.count() == 2 and bench.errors() == []


def test_a_background_dragged_with_the_mouse_changes_the_votes(opened):
    notebook = opened("background")
    before = notebook.digest()
    notebook.drag(notebook.page.locator("rect.movable").last, 40, 25)
    notebook.wait_for_change(before)
    assert notebook.errors() == []


def test_the_dial_of_correlation_turned_draws_other_backgrounds(opened):
    notebook = opened("dial")
    before = notebook.digest()
    notebook.slide("correlation", times=1)
    notebook.wait_for_change(before)
    assert notebook.page.get_by_text("correlated").count() and notebook.errors() == []


def test_the_stop_button_cancels_the_bench_which_then_works_again(opened):
    bench = opened("stopped")
    bench.row("attacker").locator("select").select_option("mlp-v2")
    before = bench.digest()
    bench.page.get_by_role("button", name="Train and audit").click()
    bench.page.get_by_text("fold 0, epoch").wait_for()
    bench.page.get_by_role("button", name="Interrupt the kernel").click()
    bench.page.locator(".partcrop-error b", has_text="cancelled").wait_for()
    assert bench.digest() == before
    bench.row("attacker").locator("select").select_option("boosting")
    bench.page.get_by_role("button", name="Train and audit").click()
    bench.wait_for_change(before)
    assert bench.errors() == []


def test_an_error_in_a_cell_is_seen(opened):
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        opened("broken")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_in_the_browser_and_draws_its_panel(opened, name, request):
    if name != QUICKEST and not request.config.getoption("every_notebook"):
        pytest.skip("only the quickest, for time; --every-notebook opens all, which test_notebooks runs anyway")
    notebook = opened(name, timeout=900)
    assert notebook.picture.bounding_box()["width"] >= 200 and notebook.errors() == []


def test_the_dashboards_show_the_same_panels_without_code(voila, chromium):
    page = chromium.new_page()
    page.goto(f"{voila}/voila/render/part_explorer.ipynb", timeout=120_000)
    shown = Shown(page)
    shown.picture.wait_for(timeout=120_000)
    before = shown.digest()
    shown.slide("x (px)", "ArrowLeft")
    shown.wait_for_change(before)
    assert shown.errors() == [] and not page.get_by_text("import partcrop_lab").count()
    page.close()


def test_every_panel_has_its_dashboard():
    written = "".join(path.read_text() for path in (ROOT / "dashboards").glob("*.ipynb"))
    panels = [name for name in widgets.__all__ if name.islower()]
    assert len(panels) >= 4 and all(f"widgets.{name}(" in written for name in panels)
