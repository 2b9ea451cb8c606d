import io
import re
import signal
import sys
from datetime import UTC, datetime
from types import SimpleNamespace

import ipywidgets as widgets
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import partcrop_lab as pl
from partcrop_lab import widgets as panels
from partcrop_lab.attacks import MLPAttacker, PartCosine, PartCrop
from partcrop_lab.defenses import EarlyStop, TopK
from partcrop_lab.widgets import ERROR_CLASS, Drawing, Panel, attacker_bench, part_explorer
from partcrop_lab.widgets.part_explorer import OWN_BOX

deja_vu_panel = sys.modules["partcrop_lab.widgets.deja_vu"]  # the name in the package is the function


@pytest.fixture(scope="module")
def split(drawings):
    return pl.member_split(drawings, members=40)


@pytest.fixture(scope="module")
def one_explorer(drawings, tiny_encoder):
    return panels.part_explorer(drawings, [tiny_encoder, tiny_encoder.untrained(3)], shown=3)


@pytest.fixture
def explorer(one_explorer):
    """The panel with its first image and part."""
    first = {"image": 0, "resized": None, "pooling": None, "measure": "dot", "flip": False, "x": (2, 12), "y": (2, 12)}
    with one_explorer.together():
        one_explorer.controls["encoders"].value = one_explorer.controls["encoders"].options
        for name, value in first.items():
            one_explorer.controls[name].value = value
    return one_explorer


def sliders(panel):
    """The controls that could report every step of a drag; there is at least one."""
    kinds = (widgets.IntSlider, widgets.IntRangeSlider, widgets.FloatRangeSlider, widgets.SelectionSlider)
    found = [one for one in panel.controls.values() if isinstance(one, kinds)]
    assert found
    return found


def test_a_panel_draws_at_once_and_after_every_change():
    panel = Panel("p", {"n": widgets.IntSlider(1)}, lambda n: Drawing(bytes([n]), f"n = {n}"))
    assert (panel.picture.value, panel.words.value) == (b"\x01", "n = 1")
    panel.controls["n"].value = 2
    assert (panel.picture.value, panel.words.value, panel.error.value) == (b"\x02", "n = 2", "")


def test_an_error_is_one_readable_line_and_goes_when_it_is_mended():
    def draw(n):
        if n == 2:
            raise pl.BadInput("n is 2; it must be <another>")
        return Drawing(bytes([1 // (3 - n)]))

    panel = Panel("p", {"n": widgets.IntSlider(1)}, draw)
    panel.controls["n"].value = 2
    assert "n is 2; it must be &lt;another&gt;" in panel.error.value and "<details>" not in panel.error.value
    assert ERROR_CLASS in panel.error._dom_classes and panel.picture.value == b"\x00"
    panel.controls["n"].value = 3
    assert "ZeroDivisionError: " in panel.error.value and "<details>" in panel.error.value
    panel.controls["n"].value = 1
    assert panel.error.value == ""


def test_a_button_panel_draws_at_its_press_alone():
    drawn = []
    panel = Panel("p", {"n": widgets.IntSlider(1)}, lambda n: drawn.append(n) or Drawing(b""), button="go")
    panel.controls["n"].value = 2
    assert drawn == [1]
    panel.button.click()
    assert drawn == [1, 2] and not panel.button.disabled


def test_a_drawing_that_is_stopped_leaves_the_one_before_and_says_so():
    def draw(n):
        if n == 2:
            panel.advance(0.5, "half", b"loss so far")
            raise KeyboardInterrupt
        return Drawing(bytes([n]))

    panel = Panel("p", {"n": widgets.IntSlider(1)}, draw, button="go")
    panel.controls["n"].value = 2
    panel.button.click()
    assert panel.picture.value == b"\x01" and "cancelled" in panel.error.value and not panel.button.disabled
    panel.controls["n"].value = 3
    panel.button.click()
    assert panel.picture.value == b"\x03" and panel.error.value == ""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("told", [True, False], ids=["at the next step", "at the end"])
def test_a_stop_that_falls_into_a_destructor_still_cancels(told):
    class Interrupted:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def draw(n):
        if n == 2:
            Interrupted()
            if told:
                panel.advance(0.5, "half")
                pytest.fail("went on")
        return Drawing(bytes([n]))

    panel, before = Panel("p", {"n": widgets.IntSlider(1)}, draw), signal.getsignal(signal.SIGINT)
    panel.controls["n"].value = 2
    assert panel.picture.value == b"\x01" and "cancelled" in panel.error.value
    panel.controls["n"].value = 3
    assert panel.picture.value == b"\x03" and signal.getsignal(signal.SIGINT) is before


def test_changes_made_together_are_drawn_once():
    drawn = []
    controls = {"a": widgets.IntSlider(1), "b": widgets.IntSlider(1)}
    panel = Panel("p", controls, lambda a, b: drawn.append((a, b)) or Drawing(b""))
    with panel.together():
        controls["a"].value, controls["b"].value = 5, 6
    assert drawn == [(1, 1), (5, 6)]


def test_moving_the_box_sliders_redraws_the_explorer(explorer):
    assert explorer.error.value == ""
    before = explorer.picture.value
    explorer.controls["x"].value = (3, 19)
    assert explorer.picture.value != before and bytes(explorer.picture.value[:4]) == b"\x89PNG"


def test_every_choice_of_the_explorer_changes_the_drawing(explorer):
    assert not any(slider.continuous_update for slider in sliders(explorer))
    for name, value in {"resized": 32, "measure": "cosine", "pooling": "mean", "flip": True, "image": 2}.items():
        before = explorer.picture.value
        explorer.controls[name].value = value
        assert explorer.error.value == "" and explorer.picture.value != before, name


def test_choosing_a_part_moves_the_box_to_it(explorer, drawings):
    part, (x0, y0, x1, y1) = list(drawings.part_boxes[0].items())[-1]
    explorer.controls["part"].value = part
    assert explorer.controls["x"].value == (x0, x1) and explorer.controls["y"].value == (y0, y1)
    explorer.controls["image"].value = 1
    assert set(explorer.controls["part"].options) == {OWN_BOX, *drawings.part_boxes[1]}


def test_dragging_the_box_moves_the_sliders_and_sliders_move_the_box(explorer):
    before = explorer.box.bboxes
    explorer.box.bboxes = [*before, {"x": 25, "y": 48, "width": 0, "height": 0, "label": "part"}]
    assert explorer.controls["x"].value == (2, 12), "nothing happens while a new box is being drawn"
    explorer.box.bboxes = [*before, {"x": 25.2, "y": 48, "width": 60, "height": 36, "label": "part"}]
    assert len(explorer.box.bboxes) == 1
    assert explorer.controls["x"].value == (4, 14) and explorer.controls["y"].value == (8, 14)
    assert explorer.controls["part"].value == OWN_BOX
    explorer.controls["x"].value = (10, 20)
    assert explorer.box.bboxes[0]["x"] == 60 and explorer.box.bboxes[0]["width"] == 60


def test_a_box_dragged_over_the_edge_stays_in_the_image(explorer):
    explorer.box.bboxes = [{"x": -20, "y": 189, "width": 400, "height": 40, "label": "part"}]
    assert explorer.controls["x"].value == (0, 32) and explorer.controls["y"].value == (31, 32)
    assert explorer.error.value == ""


def test_the_explorer_works_with_sliders_alone_and_without_boxes_or_classes(tiny_encoder):
    images = pl.images.ImageSet((pl.load_images("partshapes", n=2, size=32)).batch(slice(None)))
    panel = part_explorer(images, [tiny_encoder], member=[True, False], drag=False)
    assert panel.box is None and panel.error.value == "" and panel.controls["part"].options == (OWN_BOX,)


def test_encoders_of_one_name_are_refused(drawings, tiny_encoder):
    for encoders, told in ([tiny_encoder, tiny_encoder], "both called"), ([], "there are no encoders"):
        with pytest.raises(pl.BadInput, match=told):
            part_explorer(drawings, encoders, shown=1)


def test_the_explorer_says_what_is_wrong(explorer):
    explorer.controls["encoders"].value = ()
    assert "tick at least one" in explorer.error.value
    explorer.controls["encoders"].value = explorer.controls["encoders"].options[:1]
    explorer.controls["x"].value = (5, 5)
    assert "box" in explorer.error.value
    explorer.controls["x"].value = (5, 9)
    assert explorer.error.value == ""


def file_of(image, name):
    """An uploaded file, as the browser hands it on."""
    image.save(data := io.BytesIO(), format="PNG")
    return uploaded(name, data.getvalue())


def uploaded(name, content):
    about = {"name": name, "type": "", "size": len(content), "last_modified": datetime(2026, 1, 1, tzinfo=UTC)}
    return {**about, "content": memoryview(content)}


def test_an_image_of_ones_own_joins_the_explorer(drawings, tiny_encoder):
    panel = part_explorer(drawings, [tiny_encoder], member=np.arange(160) < 80, shown=3)
    assert "Member." in panel.words.value
    before = panel.picture.value
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))
    panel.upload.value = (file_of(photo, "me.png"),)
    assert panel.error.value == "" and panel.controls["image"].value == 3 and panel.picture.value != before
    assert panel.controls["image"].options[3] == ("3: me.png", 3) and panel.controls["part"].options == (OWN_BOX,)
    assert "Your own image." in panel.words.value and len(panel.controls["image"].options) == 4
    shown = panel.box.image_bytes
    panel.controls["image"].value = 0
    assert panel.error.value == "" and panel.box.image_bytes != shown


def test_a_file_that_is_no_image_is_named_and_nothing_is_lost(explorer):
    count, before = len(explorer.controls["image"].options), explorer.picture.value
    explorer.upload.value = (uploaded("cv.pdf", b"%PDF"),)
    assert "cv.pdf: not an image that can be read" in explorer.error.value
    assert len(explorer.controls["image"].options) == count and explorer.picture.value == before


def test_a_picture_can_be_saved_under_the_panels_name():
    panel = Panel("My panel", {"n": widgets.IntSlider(1)}, lambda n: Drawing(bytes([n]) * (n < 3)))
    assert 'download="my-panel.png" href="data:image/png;base64,AQ=="' in panel.saving.value
    panel.controls["n"].value = 3
    assert panel.saving.value == ""


def test_every_choice_of_the_feature_builder_changes_the_drawing(tiny_encoder, split):
    panel = panels.feature_builder(tiny_encoder, split, sample=10)
    assert not any(slider.continuous_update for slider in sliders(panel))
    for name, value in {"crops": 8, "scale": (0.3, 0.6), "kind": "gaussian", "seed": 1, "part": 3}.items():
        before = panel.picture.value
        panel.controls[name].value = value
        assert panel.error.value == "" and panel.picture.value != before, name
    assert "9 queries" in panel.words.value and "10 members and 10 non-members" in panel.words.value


def test_the_bench_trains_at_the_press_of_its_button_and_keeps_the_results(tiny_encoder, split):
    panel = attacker_bench([tiny_encoder], split, {"few": PartCrop(crops=4), "more": PartCrop(crops=8)}, permutations=0)
    assert panel.error.value == "" and "null check" in panel.words.value
    shown = []
    panel.picture.observe(lambda change: shown.append(change["new"]), "value")
    panel.controls["attack"].value, panel.controls["attacker"].value = "more", "mlp-shallow"
    panel.button.click()
    assert panel.error.value == "" and len(panel.results) == 2 and len(shown) > 2
    assert panel.results[1].settings["attacker"] == "mlp-shallow" and panel.results[1].settings["queries"] == 9
    assert panel.bar.layout.display == "none"
    plain = Image.open(io.BytesIO(panel.picture.value)).width
    panel.controls["overlay"].value = True
    panel.button.click()
    assert panel.error.value == "" and Image.open(io.BytesIO(panel.picture.value)).width > plain


def test_the_bench_shows_why_it_cannot_train(tiny_encoder, drawings):
    panel = attacker_bench([tiny_encoder], pl.member_split(drawings, members=5), {"few": PartCrop(crops=4)})
    assert "2 folds need at least 8" in panel.error.value and not panel.button.disabled


def test_the_trap_demo_shows_both_verdicts(tiny_encoder, split):
    panel = panels.trap_demo([tiny_encoder], split, crops=4, attacker=MLPAttacker((8,), epochs=3))
    assert panel.error.value == "" and set(panel.results) == {"matched", "released"}
    assert "null check" in panel.words.value and "released protocol: members" in panel.words.value


def test_the_dial_of_correlation_draws_the_same_objects_before_other_backgrounds():
    panel = panels.correlation_dial(pl.dejavu.measured())
    levels = panel.controls["correlation"].options
    assert panel.error.value == "" and [label for label, _ in levels] == ["0", "0.5", "1"]
    before, words = panel.picture.value, panel.words.value
    panel.controls["correlation"].value = 0.5
    assert panel.picture.value != before and panel.words.value != words and panel.error.value == ""
    assert "memorised" in words and "95 % interval" in words


def test_the_dial_of_correlation_says_where_no_pair_was_trained():
    table = pl.dejavu.measured()
    panel = panels.correlation_dial(table[(table["recipe"] != "simclr") | (table["correlation"] == 0)])
    panel.controls["correlation"].value = 0.5
    assert "no pair of simclr was trained at a correlation of 0.5, only at 0" in panel.error.value
    with pytest.raises(pl.BadInput, match="needs a table of pairs at several correlations; found 0 rows"):
        panels.correlation_dial(table[:0])


@pytest.fixture(scope="module")
def pair():
    """Two encoders of the same recipe, on two halves of a pool."""
    pool = pl.load_images("partshapes", n=120, size=32, seed=8)
    halves = [pl.member_split(pool.subset(slice(start, start + 60)), members=30) for start in (0, 60)]
    how = {"projector": True, "progress": False, "batch_size": 15, "patch_size": 8, "embed_dim": 32, "depth": 1}
    return [pl.pretrain("simclr", half, 1, **how, num_heads=2) for half in halves]


def test_the_deja_vu_panel_asks_both_encoders_of_the_background(pair):
    public = pl.load_images("partshapes", n=60, size=32, seed=9)
    panel = panels.deja_vu(*pair, public, k=10, shown=3, neighbours=4)
    assert panel.error.value == "" and len(panel.controls["image"].options) == 6
    assert "One image proves nothing" in panel.words.value and "Trained on it: A." in panel.words.value
    before = panel.picture.value
    panel.controls["image"].value = 5
    assert panel.picture.value != before and "Trained on it: B." in panel.words.value
    panel.controls["x"].value, panel.controls["y"].value = (0, 32), (0, 32)
    assert "is seen, not remembered" in panel.words.value and panel.box.bboxes[0]["width"] == 192
    panel.controls["x"].value = (4, 4)
    assert "is empty" in panel.error.value


def test_the_deja_vu_panel_paints_where_it_is_given_reconstructors(pair):
    public = pl.load_images("partshapes", n=60, size=32, seed=9)
    how = {"progress": False, "epochs": 1, "size": 16, "channels": (8, 16, 16)}
    painters = {name: pl.dejavu.train_reconstructor(one, public, **how) for name, one in zip("AB", pair, strict=True)}
    plain, painted = (panels.deja_vu(*pair, public, k=10, shown=2, reconstructors=some) for some in (None, painters))
    heights = [Image.open(io.BytesIO(one.picture.value)).height for one in (plain, painted)]
    assert painted.error.value == "" and heights[1] > heights[0] + 100
    with pytest.raises(pl.BadInput, match="another encoder's embeddings"):
        panels.deja_vu(*pair, public, k=10, shown=2, reconstructors={"A": painters["B"], "B": painters["A"]})


def test_without_any_background_the_deja_vu_panel_says_so(pair, monkeypatch):
    whole = lambda images: SimpleNamespace(images=[], boxes=[])  # noqa: E731
    monkeypatch.setattr(deja_vu_panel, "periphery", whole)
    with pytest.raises(pl.BadInput, match="none of the first 9 members of either encoder has a background"):
        panels.deja_vu(*pair, pl.load_images("partshapes", n=60, size=32, seed=9), k=10, shown=3)


def plane(*points):
    """A trade-off of made-up points: encoder, defence, level, attacker, AUC, accuracy of the probe."""
    rows = [
        {
            **dict(zip(("encoder", "defense", "level", "attacker", "auc", "probe"), point, strict=True)),
            **{"low": point[4] - 0.04, "high": point[4] + 0.04, "probe_low": point[5] - 0.03},
            **{"probe_high": point[5] + 0.03, "knn": point[5] / 2, "tpr_at_1_fpr": point[4] / 10, "tpr_low": 0.0},
            **{"tpr_high": 0.2, "queries": 11, "members": 30, "nonmembers": 50, "guarantee": "", "recipe": "simclr"},
        }
        for point in points
    ]
    return pd.DataFrame(rows)


POINTS = plane(
    ("one", "none", "none", "as before", 0.8, 0.5),
    ("one", "noise", "noise sigma=0.5", "as before", 0.7, 0.45),
    ("one", "noise", "noise sigma=0.5", "adaptive", 0.78, 0.45),
    ("one", "noise", "noise sigma=2.0", "as before", 0.55, 0.3),
    ("one", "top-k", "top-k", "as before", 0.72, 0.48),
    ("two", "none", "none", "as before", 0.6, 0.4),
)


def told(panel):
    """What the points of a plane tell under the mouse."""
    return re.findall("<title>(.*?)</title>", panel.plane.value)


def test_the_defence_explorer_shows_each_defence_by_its_worst_attacker():
    panel = panels.defense_explorer(POINTS)
    assert panel.error.value == "" and len(told(panel)) == 4 and panel.picture.layout.display == "none"
    assert any(
        "noise sigma=0.5, attacker adaptive: AUC 0.780 (0.740 to 0.820), probe 45.0 %" in one for one in told(panel)
    )
    assert 'download="defence-explorer.svg"' in panel.saving.value
    assert "noise sigma=2.0" in panel.words.value and "noise sigma=0.5" not in panel.words.value, "not on the front"
    panel.controls["attacker"].value = "as before"
    assert any("noise sigma=0.5, attacker as before" in one for one in told(panel))
    panel.controls["attacker"].value = "adaptive"
    assert [one.split(":")[0] for one in told(panel)] == ["no defence", "noise sigma=0.5, attacker adaptive"]
    panel.controls["encoder"].value = "two"
    assert [one.split(":")[0] for one in told(panel)] == ["no defence"]


def test_a_slider_of_the_defence_explorer_chooses_a_level_or_hides_its_defence():
    panel = panels.defense_explorer(POINTS)
    assert not any(slider.continuous_update for slider in sliders(panel))
    panel.controls["noise"].value = "noise sigma=0.5"
    assert len(told(panel)) == 2 and "Chosen" in panel.words.value and "top-k" not in panel.words.value
    panel.controls["noise"].value = "hidden"
    assert len(told(panel)) == 2 and "top-k" in "".join(told(panel))
    before = panel.plane.value
    panel.controls["use"].value = "nearest neighbours"
    assert panel.plane.value != before and "accuracy of nearest neighbours" in panel.plane.value
    panel.controls["leak"].value = "TPR at 1 % FPR"
    assert panel.error.value == "" and "TPR at 1 % FPR 0.080 (0.000 to 0.200)" in told(panel)[0]


def test_the_defence_explorer_says_how_many_trainings_are_behind_a_point():
    assert "trainings" not in panels.defense_explorer(POINTS).words.value
    words = panels.defense_explorer(POINTS.assign(trainings=37)).words.value
    assert "<th>trainings</th>" in words and ">37</td>" in words


def test_the_defence_explorer_leaves_out_what_could_not_be_measured():
    panel = panels.defense_explorer(POINTS.assign(tpr_at_1_fpr=np.nan))
    panel.controls["leak"].value = "TPR at 1 % FPR"
    assert "no point has a TPR at 1 % FPR" in panel.error.value
    panel.controls["leak"].value = "AUC"
    assert panel.error.value == ""
    for table in (POINTS.drop(columns="encoder"), POINTS[:0]):
        with pytest.raises(pl.BadInput, match="needs rows and a column 'encoder'"):
            panels.defense_explorer(table)


def test_the_defence_bench_measures_the_chosen_defence_beside_no_defence(pair):
    labelled = pl.load_images("partshapes", n=60, size=32, seed=9)
    defenses, attack = [TopK(0.1), EarlyStop(1.0)], PartCosine(crops=4)
    panel = panels.defense_bench(pair[0], labelled, defenses, attack)
    assert panel.error.value == "" and panel.table.level.tolist() == ["none"]
    panel.button.click()
    panel.controls["defense"].value = "early-stop share=1.0"
    panel.button.click()
    panel.button.click()
    assert panel.table.level.tolist() == ["none", "top-k", "early-stop share=1.0"]
    assert panel.table.auc[2] == panel.table.auc[0] and len(told(panel)) == 3
    assert panel.words.value.count("too few non-members") == 3 and "nan" not in panel.words.value
    with pytest.raises(pl.BadInput, match="needs at least one"):
        panels.defense_bench(pair[0], labelled, [])
