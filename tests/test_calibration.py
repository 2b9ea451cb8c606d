"""Ten null audits of benchmarks/calibration.py, on partshapes; the whole table is the benchmark's."""

import sys
from pathlib import Path

import pandas as pd
import pytest

import partcrop_lab as pl

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import calibration  # noqa: E402


@pytest.mark.slow
def test_null_audits_rarely_raise_an_alarm():
    images = pl.load_images("partshapes", n=10 * (200 + calibration.SPARE), size=32, seed=123)
    rows = pd.DataFrame(
        [calibration.row(calibration.NULL, rep, calibration.null_audit(images, rep)) for rep in range(10)]
    )
    counts = rows.outcome.value_counts()
    # At level 5 % more than 3 alarms in 10 happen once in 1,000; so do more than 2 confounded at 1 % for each control.
    assert counts.get("Evidence of leakage", 0) <= 3 and counts.get("Confounded", 0) <= 2
    assert 0.45 < rows.auc.mean() < 0.55


@pytest.mark.parametrize("scenario", ["jpeg", "resize"])
def test_sets_that_were_treated_differently_are_confounded(scenario):
    images = pl.load_images("partshapes", n=700, size=32, seed=124)
    assert calibration.power_audit(images, scenario, 0, each=300).outcome == calibration.EXPECTED[scenario]


def test_a_planted_signal_is_found():
    images = pl.load_images("partshapes", n=700, size=32, seed=125)
    assert calibration.power_audit(images, "planted", 0, each=300).outcome == "Evidence of leakage"


def test_the_committed_table_keeps_its_promises():
    rows = pd.read_csv(ROOT / "benchmarks" / "calibration.csv")
    nulls, others = (rows[(rows.scenario == calibration.NULL) == null] for null in (True, False))
    assert len(nulls) == 200 and not rows.duplicated(["scenario", "rep"]).any()
    assert (nulls.outcome == "Evidence of leakage").sum() <= 18 and (nulls.outcome == "Confounded").sum() <= 6
    assert set(others.scenario) == set(calibration.EXPECTED)
    for scenario, audits in others.groupby("scenario"):
        assert len(audits) == 20 and (audits.outcome == calibration.EXPECTED[scenario]).mean() >= 0.9
