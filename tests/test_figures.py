import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from test_dejavu import grown

import partcrop_lab as pl
from partcrop_lab import figures, studio, tables
from partcrop_lab.audit import kept
from partcrop_lab.encoders import zoo
from partcrop_lab.errors import FiguresFailed
from partcrop_lab.figures import FIGURES, make_figures

SHAPE = {"image_size": 64, "patch_size": 16, "depth": 1, "embed_dim": 24, "num_heads": 3, "precision": "fp32"}


@pytest.fixture(scope="module")
def small_split():
    return pl.member_split(pl.load_images("partshapes", n=80, size=64, seed=5), members=24)


@pytest.fixture
def small_zoo(monkeypatch, small_split):
    """Two untrained encoders with a split, in the zoo's place, and small sizes."""

    def load(name):
        card = {"recipe": "mae", "N": 24, "T": 0, "split": small_split.record(), "split_digest": small_split.digest}
        return pl.load_encoder("random:vit_tiny_patch16_224", name=name, card=card, seed=len(name), **SHAPE)

    monkeypatch.setattr(studio, "load_encoder", load)
    monkeypatch.setattr(studio, "ZOO", ("zoo:mae", "zoo:dino"))
    monkeypatch.setattr(figures, "NULL_FITS", 1)
    monkeypatch.setattr(figures, "TRAP_IMAGES", 24)
    monkeypatch.setattr(figures, "SCALES", ((0.08, 0.2),))


def test_every_figure_is_written_with_its_data_and_its_provenance(small_zoo, tmp_path):
    paths = make_figures(tmp_path, ["fig2", "fig4"], progress=False, studio=studio.Studio(crops=(4, 8)))
    assert [path.name for path in paths[:4]] == [
        f"fig2_part_responses.{kind}" for kind in ("png", "pdf", "csv", "json")
    ]
    assert sorted(paths) == sorted(tmp_path.iterdir())
    with Image.open(tmp_path / "fig4_crop_number.png") as picture:
        assert picture.info["dpi"] == pytest.approx((300, 300), abs=1)
    about = json.loads((tmp_path / "fig4_crop_number.json").read_text())
    assert about["preset"] == "classroom" and about["command"] == "partcrop-lab figures --only fig4"
    assert about["seeds"] == [0] and about["n"] == ["24 + 24"] and about["protocols"] == ["matched"]
    assert len(about["alt"]) > 60 and "24 members + 24 non-members" in about["caption"] and about["versions"]["torch"]
    table = pd.read_csv(tmp_path / "fig4_crop_number.csv")
    assert set(table["crops"]) == {4, 8} and {"auc", "low", "high", "curve"} <= set(table)


def test_figures_of_one_machine_are_the_same_bytes_again(small_zoo, tmp_path, monkeypatch):
    for folder in ("cold", "warm"):
        make_figures(tmp_path / folder, ["roc"], progress=False)
        monkeypatch.setattr(kept, "audit", None)  # the second time every audit comes from the cache
    for path in (tmp_path / "cold").iterdir():
        assert path.read_bytes() == (tmp_path / "warm" / path.name).read_bytes(), path.name


def test_the_trap_is_labelled_as_released_and_says_what_the_controls_found(small_zoo, tmp_path):
    make_figures(tmp_path, ["trap"], progress=False)
    about = json.loads((tmp_path / "evaluation_trap.json").read_text())
    assert about["protocols"] == ["matched", "released"] and "released protocol" in about["alt"]
    table = pd.read_csv(tmp_path / "evaluation_trap.csv")
    assert {"target", "untrained", "pixels", "accuracy by epoch"} <= set(table["curve"])


def test_attackers_and_what_they_know_are_swept(small_zoo, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "ATTACKERS", ("mlp-shallow", "logistic"))
    monkeypatch.setattr(figures, "KNOWN", (0.25, 0.5))
    make_figures(tmp_path, ["attackers", "known"], progress=False)
    attackers = pd.read_csv(tmp_path / "attacker_structure.csv")
    assert set(attackers["attacker"]) == {"mlp-shallow", "logistic"} and len(attackers) == 2 * 3
    assert "attacker as shown" in json.loads((tmp_path / "attacker_structure.json").read_text())["caption"]
    known = json.loads((tmp_path / "known_fraction.json").read_text())
    assert [one["known"] for one in known["audits"]] == [0.25, 0.5] and "attacker mlp," in known["caption"]


def test_audits_are_drawn_under_the_released_protocol_too_and_say_so(small_zoo, tmp_path, monkeypatch):
    released = studio.open_studio("classroom", "released")
    released.crops = (4,)
    make_figures(tmp_path, ["fig4"], progress=False, studio=released)
    about = json.loads((tmp_path / "fig4_crop_number.json").read_text())
    assert about["protocols"] == ["released"] and "released protocol" in about["caption"]
    assert about["command"] == "partcrop-lab figures --only fig4 --protocol released"
    assert set(pd.read_csv(tmp_path / "fig4_crop_number.csv")["protocol"]) == {"released"}
    monkeypatch.setattr(figures, "ATTACKERS", ("mlp-shallow", "logistic"))
    make_figures(tmp_path, ["attackers"], progress=False, studio=released)
    assert set(pd.read_csv(tmp_path / "attacker_structure.csv")["attacker"]) == {"mlp-shallow"}
    with pytest.raises(ValueError, match="no figure trap; there are roc, fig4, fig5, attackers, known"):
        make_figures(tmp_path, ["trap"], studio=released)
    with pytest.raises(ValueError, match="protocol is 'leaky'; it must be one of matched, released"):
        studio.open_studio("classroom", "leaky")


def test_the_papers_preset_trains_by_its_settings_and_draws_the_same_figures(tmp_path, monkeypatch):
    small = {"source": "partshapes", "members": 24, "nonmembers": 24, "epochs": 1, "crops": (4,)}
    paper, trainings = studio.open_studio("paper", **small), []
    monkeypatch.setattr(studio, "trained", lambda *a: trainings.append(a[0].recipe) or zoo.trained(*a))
    make_figures(tmp_path, ["fig2", "fig4"], progress=False, studio=paper)
    assert trainings == ["mae", "dino", "mocov3"]
    about = json.loads((tmp_path / "fig4_crop_number.json").read_text())
    assert about["preset"] == "paper" and "--preset paper --images partshapes --members 24" in about["command"]
    assert about["audits"][0]["encoder"]["name"] == "mae" and "mae (N = 24, T = 1 epochs)" in about["caption"]
    told = pd.read_csv(tmp_path / "fig2_part_responses.csv")
    assert set(told["encoder"]) == {"mae", "dino", "mocov3"} and told["part"].str.endswith(" middle").all()
    assert told["image"].isin(paper.leaking.split.nonmembers.names).all()
    with pytest.raises(ValueError, match="no figure growth; there are trap, fig2, features"):
        make_figures(tmp_path, ["growth"], studio=paper)


def test_the_papers_preset_says_what_it_costs_before_it_begins(monkeypatch):
    monkeypatch.setattr(studio, "TIMED", 4)
    paper = studio.open_studio("paper", source="partshapes", members=24, nonmembers=24, epochs=1)
    short, paper.epochs = paper.cost(), 10_000
    hours = [float(text.split("in all ")[1].split(". ")[0].replace(",", "")) for text in (short, paper.cost())]
    assert "3 trainings of 24 images for 1 epochs, audits on 48 images" in short and hours[1] > hours[0] + 0.1


def test_a_preset_that_is_not_there_and_settings_that_it_has_not_are_refused():
    with pytest.raises(ValueError, match="must be one of classroom, paper"):
        studio.open_studio("poster")
    with pytest.raises(ValueError, match="the classroom's figures have no epochs; add --preset paper"):
        studio.open_studio("classroom", epochs=3)


def test_the_contact_sheet_shows_every_class(tmp_path):
    make_figures(tmp_path, ["partshapes"], progress=False)
    table = pd.read_csv(tmp_path / "partshapes.csv")
    assert table["class"].value_counts().tolist() == [8] * 10


def test_the_largest_part_is_the_one_that_is_drawn():
    images = pl.load_images("partshapes", n=60, size=32)
    best = studio.largest_part(images, "chair", "seat")
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (b["seat"] for b in images.part_boxes if "seat" in b)]
    x0, y0, x1, y1 = images.part_boxes[best]["seat"]
    assert (x1 - x0) * (y1 - y0) == max(areas)


def test_an_unknown_figure_is_refused_with_the_right_names(tmp_path):
    with pytest.raises(ValueError, match=f"no figure fig9; there are {', '.join(FIGURES)}"):
        make_figures(tmp_path, ["fig9"])


def test_a_folder_that_cannot_be_written_is_one_clear_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FiguresFailed, match="partshapes: cannot write") as caught:
        make_figures(tmp_path / "file", ["partshapes"], progress=False)
    assert [one.fault for one in caught.value.failures] == [False] and caught.value.written == []


def test_the_growth_of_the_leak_is_drawn_from_its_table(tmp_path, monkeypatch):
    monkeypatch.setenv("PARTCROP_LAB_ZOO", str(tmp_path))
    with pytest.raises(FiguresFailed, match=r"growth\.csv is missing; restore it from git, or make it with"):
        make_figures(tmp_path, ["growth"], progress=False)
    points = [(recipe, n, t) for recipe in ("simclr", "dino") for n in (100, 300) for t in (50, 200)]
    table = pd.DataFrame(points, columns=["recipe", "N", "T"])
    table = table.assign(planned=200, steps=table["T"] * table["N"] // 50, attack="partcosine", members=table["N"])
    table["training_seed"] = 0
    table = table.assign(nonmembers=500, auc=0.6, low=0.52, high=0.68, p_untrained=0.4, p_pixels=0.2)
    table.loc[0, ["auc", "p_pixels"]] = 0.77, 0.001
    table.to_csv(tmp_path / "growth.csv", index=False)
    make_figures(tmp_path, ["growth"], progress=False)
    about = json.loads((tmp_path / "memory_growth.json").read_text())
    assert "simclr, N = 100, T = 50: 0.770 (0.520 to 0.680)" in about["alt"] and about["n"] == [100, 300]
    assert "A control rejected at 1 % in 1 of 8 audits" in " ".join(about["caption"].split())
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "memory_growth.csv"), table, check_dtype=False)


def test_the_growth_of_deja_vu_and_what_may_be_done_against_it_are_drawn_from_one_table(tmp_path, monkeypatch):
    monkeypatch.setenv("PARTCROP_LAB_ZOO", str(tmp_path))
    pd.concat([grown(), grown().assign(recipe="vicreg")]).to_csv(tmp_path / "dejavu_growth.csv", index=False)
    make_figures(tmp_path / "out", ["dejavu-growth", "dejavu-tradeoff"], progress=False)
    one, other = (json.loads((tmp_path / "out" / f"dejavu_{name}.json").read_text()) for name in ("growth", "tradeoff"))
    assert "N = 50, T = 300: deja vu 0.070 (0.0" in one["alt"] and "means over 3 pairs" in one["caption"]
    assert "N = 100, guillotine at backbone: 0.0" in other["alt"] and other["n"] == [50, 100]
    assert set(pd.read_csv(tmp_path / "out" / "dejavu_growth.csv")["recipe"]) == {"simclr"}


COMMANDS = {
    "serving": "python benchmarks/defenses.py --serving",
    "training": "python benchmarks/defenses.py",
    "defence-tables": "python benchmarks/defenses.py",
    "capacity": "python benchmarks/defenses.py",
    "dial": "python benchmarks/dejavu.py",
    "dejavu-growth": "python benchmarks/dejavu_growth.py",
    "dejavu-sweeps": "python benchmarks/dejavu_growth.py",
    "reconstruction": "python benchmarks/reconstruction.py",
    "main": "partcrop-lab compare",
}


@pytest.mark.parametrize(("name", "command"), COMMANDS.items())
def test_a_figure_of_a_kept_table_says_what_makes_it_where_it_is_missing(name, command, tmp_path, monkeypatch):
    monkeypatch.setenv("PARTCROP_LAB_ZOO", str(tmp_path))
    with pytest.raises(FiguresFailed, match=rf"is missing; restore it .* with {command}"):
        make_figures(tmp_path, [name], progress=False)


def test_the_figures_of_kept_tables_say_what_they_show(tmp_path):
    names = ["serving", "training", "defence-tables", "capacity", "dial", "dejavu-sweeps"]
    make_figures(tmp_path, names, progress=False)
    defended = json.loads((tmp_path / "defences_serving.json").read_text())
    assert set(pd.read_csv(tmp_path / "defences_serving.csv")["encoder"]) == set(figures.DEFENDED)
    assert "zoo:simclr, none: 0." in defended["alt"] and "500 non-members; attack unified" in defended["caption"]
    trained = json.loads((tmp_path / "defences_training.json").read_text())
    assert "simclr, none: 0." in trained["alt"] and "trainings, each on a split of its own" in trained["caption"]
    told = json.loads((tmp_path / "defence_tables.json").read_text())
    assert "early-stop, early-stop share=0.5, mae: AUC 0." in told["alt"] and "attack unified, 11 q" in told["caption"]
    drawn = [pd.read_csv(tmp_path / f"{name}.csv") for name in ("defence_tables", "defences_training")]
    pd.testing.assert_frame_equal(*drawn)
    swept = pd.read_csv(tmp_path / "defence_capacity.csv")
    assert set(swept["defense"]) == {"none", "capacity"} and swept.groupby("recipe").size().eq(3).all()
    sizes = json.loads((tmp_path / "defence_capacity.json").read_text())
    assert "simclr, 826,496 weights: 0." in sizes["alt"] and "3 trainings" in " ".join(sizes["caption"].split())
    asked = json.loads((tmp_path / "dejavu_sweeps.json").read_text())
    assert "supervised, T = 300: deja vu 0.0" in asked["alt"] and "means over 3 pairs" in asked["caption"]
    rows = pd.read_csv(tmp_path / "dejavu_sweeps.csv").groupby("recipe")
    assert len(rows) == 15 and rows.size().eq(3).all() and rows["layer"].nunique().eq(1).all()
    turned = json.loads((tmp_path / "dejavu_dial.json").read_text())
    assert "simclr at 0: memorised 0." in turned["alt"] and "300 images each" in " ".join(turned["caption"].split())


def test_the_main_table_and_the_recipes_are_those_of_the_zoo(tmp_path):
    make_figures(tmp_path, ["main", "recipes"], progress=False)
    about, kept = json.loads((tmp_path / "main_table.json").read_text()), zoo.zoo_dir() / "attacks.csv"
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "main_table.csv"), pd.read_csv(kept))
    said = " ".join(about["caption"].split())
    assert "zoo:mae, unified: 0." in about["alt"] and "11 queries an image; seeds of crops, folds" in said
    assert about["seeds"] == [0, 1, 2]
    table = pd.read_csv(tmp_path / "zoo_recipes.csv")
    assert set(table["encoder"]) == set(zoo.zoo_names()) and len(table) == 3 * len(zoo.zoo_names())
    audit = zoo.card("mae")["audit"]
    own = table[table["encoder"] == "mae"].set_index("curve")
    assert own.loc["target", "auc"] == pytest.approx(audit["metrics"]["auc"]["value"], abs=1e-5)
    assert own.loc["target", "queries"] == 129
    assert own.loc["pixels", "low"] == pytest.approx(audit["controls"]["pixels"]["low"], abs=1e-5)


@pytest.mark.slow
def test_figures_drawn_side_by_side_are_those_drawn_one_after_the_other(tmp_path):
    names, threads = ["recipes", "main"], set(threading.enumerate())
    side, one = (make_figures(tmp_path / str(jobs), names, progress=False, jobs=jobs) for jobs in (2, 1))
    assert [path.name for path in side] == [path.name for path in one] and len(side) == 4 * len(names)
    assert all(path.read_bytes() == other.read_bytes() for path, other in zip(side, one, strict=True))
    assert set(threading.enumerate()) <= threads  # the processes are ended, and so is the thread that led them


@pytest.fixture
def broken(monkeypatch):
    """Figures of one's own: one that can be drawn, between others that fail in different ways."""

    def drawn(studio):
        return figures.Drawn(figures._canvas(2, 2), pd.DataFrame({"x": [1]}), "A dot.")

    ways = {
        "typo": lambda _: {}["x"],
        "good": drawn,
        "file": lambda _: Path("nowhere/table.csv").read_text(),
        "ours": lambda _: pl.load_encoder("zoo:nonsense"),
        "theirs": lambda _: json.loads("{"),
        "input": lambda _: zoo.measured("nonsense", "a command"),
    }
    monkeypatch.setattr(figures, "FIGURES", {name: (name, draw) for name, draw in ways.items()})


def test_figures_that_fail_do_not_hide_the_others(broken, tmp_path):
    with pytest.raises(
        FiguresFailed, match="5 of the figures could not be drawn: typo: KeyError: 'x'; file:"
    ) as caught:
        make_figures(tmp_path, progress=False)
    assert caught.value.written == [tmp_path / f"good.{kind}" for kind in ("png", "pdf", "csv", "json")]
    assert sorted(caught.value.written) == sorted(tmp_path.iterdir())
    failures = {one.name: one for one in caught.value.failures}
    faults = {name: one.fault for name, one in failures.items()}
    assert faults == {"typo": True, "file": False, "ours": False, "theirs": True, "input": False}
    assert failures["file"].reason == "nowhere/table.csv: No such file or directory"
    assert failures["ours"].reason.startswith("the zoo has no encoder 'nonsense'")
    assert "KeyError: 'x'" in failures["typo"].trace and "Traceback" in failures["typo"].trace


@pytest.mark.parametrize(("names", "status"), [("file,good", 2), ("file,good,typo", 1)])
def test_the_command_line_ends_with_what_failed_and_why(broken, names, status, shell, tmp_path, monkeypatch):
    draw = ("figures", "--only", names, "--jobs", 1, "--out", tmp_path)
    ended, out, err = shell(*draw)
    assert ended == status and [line.rpartition(".")[2] for line in out.split()] == ["png", "pdf", "csv", "json"]
    head = next(i for i, line in enumerate(err) if "could not be drawn" in line)
    rows = [line.split(maxsplit=2) for line in err[head + 1 :]]
    assert err[head].startswith(f"partcrop-lab: {len(rows)} of the figures") and len(rows) == names.count(",")
    assert rows[0] == ["file", "input", "nowhere/table.csv: No such file or directory"]
    assert rows[1:] == ([["typo", "fault", "KeyError: 'x'"]] if status == 1 else [])
    assert ("PARTCROP_LAB_DEBUG=1" in err[head]) == (status == 1)
    monkeypatch.setenv("PARTCROP_LAB_DEBUG", "1")
    assert "Traceback (most recent call last):" in shell(*draw)[2]


def test_where_every_figure_fails_nothing_is_printed_as_written(broken, shell, tmp_path):
    status, out, _ = shell("figures", "--only", "input", "--jobs", 1, "--out", tmp_path)
    assert (status, out, list(tmp_path.iterdir())) == (2, "", [])


def test_an_interruption_ends_all_figures(broken, shell, tmp_path, monkeypatch):
    def interrupted(studio):
        raise KeyboardInterrupt

    monkeypatch.setitem(figures.FIGURES, "typo", ("typo", interrupted))
    assert shell("figures", "--only", "typo,good", "--jobs", 1, "--out", tmp_path)[:2] == (130, "")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def damaged_zoo(tmp_path, monkeypatch):
    """The zoo with a file of weights that is not the one of its card; processes find it too."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    for path in zoo.zoo_dir().glob("*.*"):
        (folder / path.name).symlink_to(path)
    (folder / "mae.safetensors").unlink()
    (folder / "mae.safetensors").write_bytes(b"damaged")
    monkeypatch.setenv("PARTCROP_LAB_ZOO", str(folder))


@pytest.mark.slow
def test_a_damaged_encoder_hides_no_figure_that_does_without_and_no_process_is_left(damaged_zoo, tmp_path):
    words = ["figures", "--only", "fig2,recipes,fig4,main", "--jobs", "2", "--out", str(tmp_path / "out")]
    ran = subprocess.run([sys.executable, "-m", "partcrop_lab.cli", *words], capture_output=True, text=True)
    assert ran.returncode == 2 and {Path(line).stem for line in ran.stdout.split()} == {"zoo_recipes", "main_table"}
    assert "2 of the figures could not be drawn" in ran.stderr and ran.stderr.count("another sha256") == 2
    assert [line.split()[0] for line in ran.stderr.splitlines()[-2:]] == ["fig2", "fig4"]
    assert "resource_tracker" not in ran.stderr and "leaked" not in ran.stderr


class Dying(studio.Studio):
    """Its main table ends the process that draws it, as one that takes too much memory is ended."""

    def comparison(self):
        os._exit(1)


@pytest.mark.slow
def test_a_process_that_dies_takes_no_other_figure_along(tmp_path):
    with pytest.raises(FiguresFailed) as caught:
        make_figures(tmp_path, ["main", "growth", "recipes"], progress=False, studio=Dying(), jobs=2)
    assert [(one.name, one.fault) for one in caught.value.failures] == [("main", True)]
    assert {path.stem for path in caught.value.written} == {"memory_growth", "zoo_recipes"}


INTERRUPTED = """
import pathlib, sys, time
from partcrop_lab.cli import figures, main
from partcrop_lab.progress import bar
from partcrop_lab.studio import Studio

class Sleeping(Studio):
    def comparison(self):
        list(bar(range(3), "a bar"))
        pathlib.Path(self.source).touch()
        time.sleep(120)

figures.open_studio = lambda *_: Sleeping(source=sys.argv[1])
sys.exit(main(["figures", "--only", "main,recipes", "--jobs", "2", "--out", sys.argv[2]]))
"""


@pytest.mark.slow
def test_an_interruption_of_figures_side_by_side_is_prompt_and_leaves_nothing(tmp_path):
    begun, command = tmp_path / "begun", [sys.executable, "-c", INTERRUPTED]
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    ran = subprocess.Popen([*command, str(begun), str(tmp_path / "out")], start_new_session=True, **told)
    while ran.poll() is None and not (begun.exists() and len(list(tmp_path.glob("out/zoo_recipes.*"))) == 4):
        time.sleep(0.1)
    interrupted = time.monotonic()
    os.killpg(ran.pid, signal.SIGINT)  # as a terminal does, to all processes
    _, err = ran.communicate(timeout=100)  # all that hold its stderr have ended then
    assert ran.returncode == 130 and "interrupted; what is finished is kept" in err, err
    assert time.monotonic() - interrupted < 60
    assert "resource_tracker" not in err and "leaked" not in err and "Traceback" not in err


def test_encoders_without_an_audit_are_not_in_the_table_of_cards():
    assert tables.card_table({"new": {"recipe": "mae", "audit": None}}).empty
