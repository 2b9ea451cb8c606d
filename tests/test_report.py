"""audit/exposure.py and report.py: who is exposed, and the page that an engineer hands to a reviewer."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from test_audit import ATTACK, QUICK, remembering

import partcrop_lab as pl
from partcrop_lab.audit import agreement, auc_by_class, exposed_members, sensitivity
from partcrop_lab.errors import BadInput

NORMS = pl.attacks.Norms(pooling="mean")


@pytest.fixture(scope="module")
def split():
    return pl.member_split(pl.load_images("partshapes", n=260, size=32, seed=11), members=120, seed=1)


@pytest.fixture(scope="module")
def target(tiny_encoder, split):
    return remembering(tiny_encoder, split)


@pytest.fixture(scope="module")
def result(target, split):
    return pl.audit(target, split, **QUICK)


@pytest.fixture(scope="module")
def other(target, split):
    return pl.audit(target, split, NORMS, controls=False, progress=False)


def test_members_are_ordered_by_how_few_others_score_as_high(result):
    table = exposed_members(result)
    assert set(table.name) == set(result.scores[result.scores.member].name)
    assert table.nonmembers_above.is_monotonic_increasing
    scores = result.scores.set_index("name")
    for one in (table.iloc[3], table.iloc[-1]):
        fold = scores[scores.fold == scores.loc[one["name"], "fold"]]
        assert one.nonmembers_above == pytest.approx((fold[~fold.member].score >= one.score).mean())


def test_each_class_has_an_auc_of_its_own_and_their_tests_are_corrected(result, split):
    table = auc_by_class(result)
    assert (
        set(table.label) <= set(split.images.classes) and table[["members", "nonmembers"]].sum().tolist() == [120] * 2
    )
    tested = table[table.p_value.notna()]
    assert len(tested) and (tested.p_holm >= tested.p_value).all() and (tested.auc.between(0, 1)).all()
    few = table[table[["members", "nonmembers"]].min(axis=1) < 10]
    assert few.auc.isna().all()


def test_images_without_classes_have_no_table_of_classes(result):
    bare = pl.AuditResult(**{**vars(result), "scores": result.scores.assign(label="")})
    assert not len(auc_by_class(bare))


def test_agreement_counts_the_members_that_two_attacks_find(result, other):
    table = agreement([result, other])
    assert list(table.index) == ["partcrop crops=6", "norms pooling=mean"]
    assert table.loc["norms pooling=mean", "norms pooling=mean"] > 0.5  # the memory makes vectors longer
    both = table.iloc[0, 1] * table.iloc[0, 0], table.iloc[1, 0] * table.iloc[1, 1]
    assert both[0] == pytest.approx(both[1])


def test_agreement_needs_the_same_images(result, tiny_encoder):
    small = pl.member_split(pl.load_images("partshapes", n=60, size=32, seed=12), members=20)
    with pytest.raises(BadInput, match="are of different images"):
        agreement([result, pl.audit(tiny_encoder, small, NORMS, controls=False, progress=False)])


def test_sensitivity_varies_the_number_of_queries_and_the_seed(target, split):
    table = sensitivity(target, split, ATTACK, "logistic", seeds=2, progress=False)
    assert table.queries.tolist() == [3, 3, 7, 7, 14, 14] and table.seed.tolist() == [0, 1] * 3
    assert (table.low < table.auc).all() and table.auc.nunique() > 3
    assert sensitivity(target, split, NORMS, seeds=1, progress=False).queries.tolist() == [1]


def test_reasons_lead_to_the_verdict(result):
    told = " ".join(result.reasons)
    assert "Membership comes from training" in told and "untrained control: AUC" in told
    assert "does not tell the sides apart (level 0.01)" in told and f"p = {result.p_value:.2g}, below 0.05" in told
    claimed = pl.AuditResult(**{**vars(result), "settings": {**result.settings, "membership": "given"}})
    assert "It beats the pixels control in a paired test" in " ".join(claimed.reasons)


def test_the_report_shows_everything_and_opens_offline(result, other, target, split, tmp_path):
    table = sensitivity(target, split, ATTACK, "logistic", seeds=1, progress=False)
    named = pl.AuditResult(**{**vars(result), "settings": {**result.settings, "command": "partcrop-lab audit <x>"}})
    named.to_html(tmp_path / "report.html", images=split.images, others=[other], sensitivity=table)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    heads = re.findall("<h2>(.*?)</h2>", page)
    assert heads[:5] == ["Why this verdict", "Metrics", "Controls", "Curves", "Agreement of attacks"]
    assert heads[5:] == ["Exposure", "By class", "Sensitivity", "To reproduce"]
    assert "partcrop-lab audit &lt;x&gt;" in page and not re.search(r"(src|href)=\"(?!data:)", page)
    assert page.count('class="thumbnail"') == 12 and "@media print" in page
    assert pl.AuditResult.load(tmp_path / "report.json").verdict == result.verdict


def test_thumbnails_are_off_unless_images_are_given(result, tmp_path):
    result.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'class="thumbnail"' not in page and "Agreement" not in page and "Sensitivity" not in page
    with pytest.raises(BadInput, match="lack partshapes"):
        result.to_html(tmp_path / "r.html", images=pl.load_images("partshapes", n=4, size=32, seed=99))


def test_the_shell_writes_the_whole_report(shell, tiny, tmp_path):
    page = tmp_path / "report.html"
    drawing = ["--images", "partshapes", "--members", 20, "--size", 32, "--crops", 4, "--permutations", 1]
    extra = ["--also", "norms", "--sensitivity", "--thumbnails", "--html", page, "--quiet"]
    assert shell("audit", *tiny, *drawing, *extra)[0] == 0
    told = page.read_text(encoding="utf-8")
    assert "Agreement of attacks" in told and "Sensitivity" in told and 'class="thumbnail"' in told
    command = json.loads(page.with_suffix(".json").read_text())["settings"]["command"]
    assert command.startswith("partcrop-lab audit --encoder random:") and command.endswith("--quiet")


def test_what_belongs_to_the_report_needs_its_file(shell, tiny):
    status, _, err = shell("audit", *tiny, "--images", "partshapes", "--members", 20, "--sensitivity")
    assert status == 2 and "name its file with --html" in err[0]


def test_labels_survive_saving(result, tmp_path):
    result.save(tmp_path / "r.json")
    loaded = pl.AuditResult.load(tmp_path / "r.json")
    pd.testing.assert_frame_equal(auc_by_class(loaded), auc_by_class(result), check_dtype=False)
    assert np.array_equal(exposed_members(loaded).name, exposed_members(result).name)
