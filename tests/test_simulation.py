"""A small version of benchmarks/simulation.py: intervals cover, tests hold their level; the rest is the benchmark's."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import simulation


@pytest.mark.parametrize("gap", [0.0, 0.5, 1.5])
def test_intervals_of_the_cross_fitted_auc_cover_the_truth(gap):
    row = simulation.summarise((100, 100, gap), [simulation.simulate(100, 100, gap, s, False) for s in range(60)])
    assert row["coverage"] * 60 >= binom.ppf(0.001, 60, 0.93)  # fewer happen once in 1,000 where coverage is 93 %
    assert abs(row["mean_auc"] - row["mean_true_auc"]) < 0.03
    if gap == 0:
        assert row["rejected"] * 60 <= binom.ppf(0.999, 60, 0.05)
    if gap == 1.5:
        assert row["rejected"] > 0.9


def test_the_interval_of_the_rate_is_asked_too():
    row = simulation.summarise((100, 500, 1.5), [simulation.simulate(100, 500, 1.5, s, True) for s in range(2)])
    assert row["tpr_coverage_audits"] == 2 and 0 <= row["tpr_coverage"] <= 1


def test_rates_are_counted_among_the_audits_that_told_one():
    told = {"auc": 0.5, "truth": 0.5, "width": 0.1, "coverage": np.True_, "rejected": np.False_}
    audits = [told | {"tpr_coverage": np.bool_(k < 3)} for k in range(4)] + [told] * 6
    row = simulation.summarise((100, 500, 0.0), audits)
    assert (row["coverage"], row["tpr_coverage"], row["tpr_coverage_audits"]) == (1, 0.75, 4)
