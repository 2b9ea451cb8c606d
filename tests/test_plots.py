import base64
import io
import re

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.patches import Rectangle
from PIL import Image

import partcrop_lab as pl
from partcrop_lab import plots, report, tables
from partcrop_lab.attacks import MLPAttacker, PartCrop
from partcrop_lab.audit.metrics import fold_ranks

mpl.use("Agg")
ATTACK = PartCrop(crops=8)


@pytest.fixture(scope="module")
def split(drawings):
    return pl.member_split(drawings, members=60)


@pytest.fixture(scope="module")
def results(tiny_encoder, split):
    options = {"attacker": MLPAttacker((8,), epochs=4), "permutations": 3, "progress": False}
    protocols = ("matched", "released")
    return {name: pl.audit(tiny_encoder, split, ATTACK, protocol=name, **options) for name in protocols}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def texts(ax):
    legend = ax.get_legend()
    return " ".join(text.get_text() for text in [*ax.texts, *(legend.get_texts() if legend else [])])


def boxes(ax):
    return [
        (*p.get_xy(), p.get_x() + p.get_width(), p.get_y() + p.get_height())
        for p in ax.patches
        if isinstance(p, Rectangle)
    ]


def test_roc_table_gives_the_best_threshold_that_keeps_to_each_rate(results):
    result = results["matched"]
    table = tables.roc_table(result, bootstraps=20).query("curve == 'target'")
    scores = result.scores
    ranks, member = fold_ranks(scores["score"].to_numpy(), scores["fold"].to_numpy()), scores["member"].to_numpy()
    for row in table.iloc[::40].itertuples():
        tpr = [(ranks[member] >= t).mean() for t in [*ranks, 2] if (ranks[~member] >= t).mean() <= row.fpr]
        assert row.tpr == max(tpr)
    assert (table["low"] <= table["high"]).all() and (table["tpr"].between(table["low"], table["high"])).mean() > 0.9


def test_several_rocs_are_told_apart_by_name_line_and_colour(results):
    ax = plots.rocs({"one": results["matched"], "two": results["released"]})
    assert "one, 0." in texts(ax) and "two, 0." in texts(ax) and "chance" in texts(ax)
    looks = {(line.get_color(), line.get_linestyle()) for line in ax.lines}
    assert len(looks) == 3 and ax.get_xscale() == ax.get_yscale() == "log"


def test_roc_draws_target_controls_null_band_and_chance_on_logarithmic_axes(results):
    ax = plots.roc(results["matched"])
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert len(ax.lines) == 4 and len(ax.collections) >= 2
    low, high = results["matched"].metrics.loc["auc", ["low", "high"]]
    assert f"[{low:.2f}, {high:.2f}]" in texts(ax)
    assert all(name in texts(ax) for name in ("untrained", "pixels", "permuted", "chance"))
    caption = ax.figure.get_supxlabel().replace("\n", " ")
    assert "60 members + 60 non-members" in caption and "seed 0" in caption


@pytest.mark.parametrize("draw", [plots.roc, plots.score_histogram, plots.metrics_bars, plots.accuracy_by_epoch])
def test_a_released_audit_says_so_on_its_face(results, draw):
    assert "RELEASED PROTOCOL" in texts(draw(results["released"]))
    if draw is not plots.accuracy_by_epoch:
        assert "RELEASED" not in texts(draw(results["matched"]))


def test_aucs_mark_the_released_protocol_and_draw_every_interval(results):
    table = tables.auc_table(results, "shown as")
    ax = plots.aucs(table, "shown as", join=False)
    assert "members augmented" in texts(ax)
    assert len(ax.containers) == 4 and all(bars.has_yerr for bars in ax.containers)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["matched", "released"]
    assert set(table["curve"]) == {"target", "untrained", "pixels", "permuted"}
    alone = plots.aucs(table[table["protocol"] == "released"], "shown as")
    assert texts(alone).count("members were augmented") == 1 and "members augmented" not in texts(alone)


def test_auc_table_without_controls_holds_the_target_alone(tiny_encoder, split):
    bare = pl.audit(tiny_encoder, split, ATTACK, "logistic", controls=False, progress=False)
    assert tables.auc_table({"bare": bare})["curve"].tolist() == ["target"]
    assert plots.roc(bare).get_legend() is not None


def test_metrics_bars_write_values_and_why_one_is_missing(results):
    ax = plots.metrics_bars(results["matched"])
    assert "needs 500 non-members, there are 60" in texts(ax)
    assert f"{results['matched'].metrics.loc['recall', 'value']:.3f}" in texts(ax)


def test_the_score_histogram_counts_every_image(results):
    ax = plots.score_histogram(results["matched"])
    filled = [patch for patch in ax.patches if patch.get_alpha() == 0.25]
    area = [round(abs(_area(patch.get_xy()))) for patch in filled]
    edges = np.diff(np.linspace(*results["matched"].scores["score"].quantile([0.01, 0.99]), 31))[0]
    assert [round(abs(_area(patch.get_xy())) / edges) for patch in filled] == [60, 60], area


def _area(corners):
    x, y = np.asarray(corners).T
    return 0.5 * (x @ np.roll(y, -1) - y @ np.roll(x, -1))


def test_own_place_shares_out_the_area_of_the_box():
    own = tables.own_place((3, 5, 22, 17), 32, (4, 4))
    assert own.sum() * 64 == pytest.approx(19 * 12)
    assert own[0, 0] * 64 == pytest.approx(5 * 3) and own[3].sum() == 0


def test_response_table_holds_what_part_response_finds(tiny_encoder, drawings):
    box = (4, 8, 20, 28)
    table = tables.response_table([tiny_encoder], drawings[0], box, flip=True, measure="cosine")
    found = pl.part_response(tiny_encoder, drawings[0], box, flip=True, measure="cosine")
    picture = table.pivot(index="row", columns="column", values="similarity").to_numpy()
    assert np.array_equal(picture, found.heatmap) and table["uniform_energy"].iloc[0] == found.uniform_energy
    assert "cosine" in plots.heatmaps(table)[0].figure.axes[-1].get_ylabel()


def test_heat_maps_and_curves_mark_the_parts_own_place(tiny_encoder, drawings):
    box = (8, 16, 24, 32)
    table = tables.response_table([tiny_encoder], drawings[0], box)
    assert box in boxes(plots.heatmaps(table)[0])
    curve = plots.similarity_curves(table)[0]
    shaded = [round(one.vertices[:, 0].mean()) for one in curve.collections[0].get_paths()]
    assert shaded == [9, 10, 13, 14] == sorted(curve.lines[1].get_xdata())


def test_part_responses_lay_out_image_maps_and_curves_of_every_encoder(tiny_encoder, drawings):
    other = tiny_encoder.untrained(1)
    table = tables.response_table([tiny_encoder, other], drawings[0], (0, 0, 16, 16))
    figure = plots.part_responses(drawings[0], table, "a part")
    titles = "".join("".join(ax.get_title().split()) for ax in figure.axes)  # long names are wrapped
    assert all("".join(text.split()) in titles for text in ("a part", tiny_encoder.name, other.name))
    assert f"u{table['uniform_energy'].iloc[0]:.2f}" in titles


@pytest.mark.parametrize("shown", [False, True])
def test_responses_that_were_moved_are_those_drawn_anew(tiny_encoder, drawings, shown):
    both, image = [tiny_encoder, tiny_encoder.untrained(1)], drawings[0] if shown else None
    boxes = (0, 0, 16, 16), (5, 12, 29, 27), (20, 2, 30, 12)
    first, second, third = (tables.response_table(both, drawings[0], box) for box in boxes)
    moved, anew = plots.MovingResponses(image, first), plots.MovingResponses(image, first)
    one, _, again = moved.png(first), moved.png(third), moved.png(second)
    assert anew.png(second) == again != one
    whole = plots.png(lambda figure: plots.part_responses(image, first, "", figure), 5.0 + 1.9 * shown, 4.0, 80)
    pixels = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(float) for data in (one, whole)]
    assert np.abs(pixels[0] - pixels[1]).mean() < 0.5


def test_energy_table_gives_means_with_their_intervals(tiny_encoder, split):
    X = ATTACK.features(tiny_encoder, split.images, progress=False)
    table = tables.energy_table(X, split.member)
    row = table.query("kind == 'gaussian' and side == 'non-members' and rank == 3").iloc[0]
    column = X[~split.member][:, 8 + 2].astype(float)
    half = 1.959964 * column.std(ddof=1) / np.sqrt(60)
    assert np.allclose([row["mean"], row["low"], row["high"]], column.mean() + np.array([0, -half, half]))
    axes = plots.feature_curves(table)
    assert "n = 60" in texts(axes[0]) and all(len(ax.collections) == 2 for ax in axes)


@pytest.mark.parametrize("kind", ["both", "uniform", "gaussian"])
def test_feature_steps_end_in_the_feature_that_the_attack_uses(tiny_encoder, drawings, kind):
    attack = PartCrop(crops=8, kind=kind)
    steps = tables.feature_steps(tiny_encoder, drawings, 5, attack, seed=2)
    X = attack.features(tiny_encoder, drawings.subset([5]), seed=2, progress=False)
    assert np.allclose(steps.feature["energy"], X[0], atol=1e-5)
    one = steps.part(3)
    assert one["response"].sum() == pytest.approx(1) and one["gaussian"].sum() == pytest.approx(1)
    figure = plots.feature_steps(steps, 3)
    box = tuple(steps.boxes[3].tolist())
    assert sum(drawn == box for drawn in boxes(figure.subfigs[0].subfigs[0].axes[0])) == 2


def test_image_grid_shows_every_image(drawings):
    figure = plots.image_grid(drawings.batch(slice(0, 5)), ["a", "b", "c", "d", "e"], columns=3)
    shown = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title() for ax in shown] == ["a", "b", "c", "d", "e"]
    assert np.array_equal(shown[4].images[0].get_array(), drawings[4].permute(1, 2, 0))
    assert plots.image_grid(torch.full((1, 3, 4, 4), 1.2)).axes[0].images[0].get_array().max() == 1


def test_a_training_curve_shows_loss_and_learning_rate_by_epoch():
    table = pd.DataFrame({"epoch": [1, 2, 3], "loss": [3.0, 2.0, 1.5], "lr": [1e-3, 5e-4, 0.0], "seconds": [1, 1, 1]})
    figure = plots.training_curve(table, text="mae N=20 T=3 seed=0")
    loss, rate = figure.axes
    assert loss.lines[0].get_ydata().tolist() == [3.0, 2.0, 1.5] and rate.lines[0].get_ydata()[0] == 1e-3
    assert (rate.get_xlabel(), rate.get_ylabel()) == ("epoch", "learning rate") and "loss" in loss.get_ylabel()
    assert "N=20" in figure.get_supxlabel()


def test_loss_curves_have_one_line_per_fold():
    table = pd.DataFrame({"fold": [0, 0, 1, 1], "epoch": [1, 2, 1, 2], "loss": [0.7, 0.6, 0.7, 0.5]})
    ax = plots.loss_curve(table)
    assert len(ax.lines) == 2 and "fold 1" in texts(ax)


def test_png_leaves_no_open_figure_and_draws_the_same_bytes(results):
    pictures = [plots.png(lambda f: plots.roc(results["matched"], f.subplots()), 4, 4) for _ in range(2)]
    assert pictures[0] == pictures[1] and pictures[0].startswith(b"\x89PNG") and not plt.get_fignums()


def test_a_report_stands_alone_and_escapes_names(results, tmp_path):
    result = results["released"]
    named = pl.AuditResult(**{**vars(result), "settings": {**result.settings, "encoder": {"name": "<script>x"}}})
    named.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;x" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page) and "RELEASED PROTOCOL" in page
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 2 and all(base64.b64decode(one).startswith(b"\x89PNG") for one in pictures)
    assert page.count("alt=") == 2 and result.outcome in page


def test_a_summary_shows_verdict_metrics_controls_and_a_fault(results):
    result = results["matched"]
    page = result._repr_html_()
    assert result.outcome in page and f"{result.metrics.loc['auc', 'low']:.3f}" in page and "pixels" in page
    assert "needs 500 non-members" in page and "fault" not in page
    faulty = pl.AuditResult(**{**vars(result), "fault": "a fault of this package"})
    assert "a fault of this package" in report.html_summary(faulty)
    bare = pl.AuditResult(**{**vars(result), "controls": result.controls.iloc[:0]})
    assert "No controls were run" in report.html_summary(bare)
