"""audit/stats.py and audit/metrics.py: oracles, levels and coverage."""

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_score, recall_score, roc_auc_score, roc_curve

from partcrop_lab.audit import stats
from partcrop_lab.audit.metrics import FPRS, fold_ranks, metrics_table, one_run_epsilon, roc_points, tpr_at


def simulated(rng, n=100, gap=0.0):
    member = np.arange(2 * n) < n
    fold = np.tile([0, 1], n)
    return rng.normal(size=2 * n) + gap * member, member, fold


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=4, max_size=30))
def test_auc_equals_the_count_of_pairs_with_ties(pairs):
    scores, member = np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs])
    if min(member.sum(), (~member).sum()) >= 2:
        assert stats.auc_and_error(scores, member)[0] == pytest.approx(oracles.auc(scores, member))
        assert stats.auc_and_error(scores, member)[0] == pytest.approx(roc_auc_score(member, scores))


def test_delongs_error_is_the_spread_of_repeated_aucs():
    rng = np.random.default_rng(0)
    draws = [stats.auc_and_error(*simulated(rng, 60, 1.0)[:2]) for _ in range(600)]
    aucs, errors = np.array(draws).T
    assert errors.mean() == pytest.approx(aucs.std(), rel=0.08)


def test_full_separation_still_has_an_interval():
    auc, error = stats.auc_and_error(np.arange(40.0), np.arange(40) >= 20)
    assert auc == 1 and auc - 1.96 * error == pytest.approx(1 - 3 / 20, abs=1e-3)


def test_the_combined_test_holds_its_level_and_finds_a_leak():
    rng = np.random.default_rng(1)
    null = np.array([stats.leak_p_value(*simulated(rng, 50)) for _ in range(1000)])
    assert (null < 0.05).mean() < 0.065
    leak = np.array([stats.leak_p_value(*simulated(rng, 50, 0.95)) for _ in range(100)])
    assert (leak < 0.05).mean() > 0.9


def test_each_folds_test_is_one_sided_mann_whitney():
    scores, member, fold = simulated(np.random.default_rng(2), 30, 0.5)
    singles = [
        scipy_stats.mannwhitneyu(
            scores[(fold == k) & member], scores[(fold == k) & ~member], alternative="greater", method="asymptotic"
        ).pvalue
        for k in (0, 1)
    ]
    assert stats.leak_p_value(scores, member, fold) == pytest.approx(min(1, 2 * min(singles)))


def test_the_auc_interval_covers_independent_folds():
    rng, truth = np.random.default_rng(3), scipy_stats.norm.cdf(1 / np.sqrt(2))
    intervals = np.array([stats.fold_auc(*simulated(rng, 80, 1.0)) for _ in range(400)])
    assert ((intervals[:, 1] <= truth) & (truth <= intervals[:, 2])).mean() >= 0.93


def test_the_paired_test_holds_its_level_and_sees_a_better_score():
    rng, same, better = np.random.default_rng(4), [], []
    for _ in range(500):
        signal, member, fold = simulated(rng, 60, 1.0)
        first, second = (signal + 0.5 * rng.normal(size=len(signal)) for _ in range(2))
        same.append(stats.paired_p_value(first, second, member, fold))
        better.append(stats.paired_p_value(signal, rng.normal(size=len(signal)), member, fold))
    assert np.mean(np.array(same) < 0.05) < 0.075
    assert np.mean(np.array(better) < 0.05) > 0.9


def test_equal_rankings_do_not_beat_each_other():
    scores, member, fold = simulated(np.random.default_rng(5))
    assert stats.paired_p_value(scores, 2 * scores + 1, member, fold) == 1


def test_the_smallest_detectable_auc_is_detected_four_times_in_five():
    auc = stats.smallest_detectable_auc(200, 200)
    gap, rng = np.sqrt(2) * scipy_stats.norm.ppf(auc), np.random.default_rng(6)
    found = np.mean([stats.leak_p_value(*simulated(rng, 200, gap)) < 0.05 for _ in range(600)])
    assert 0.74 < found < 0.86


def test_metrics_equal_scikit_learns():
    scores, member, fold = simulated(np.random.default_rng(7), 600, 0.8)
    table, guess = metrics_table(scores, member, fold)["value"], scores > 0
    assert table["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(member, guess))
    assert table["precision"] == pytest.approx(precision_score(member, guess))
    assert table["recall"] == pytest.approx(recall_score(member, guess))
    assert table["f1"] == pytest.approx(f1_score(member, guess))
    fpr, tpr, _ = roc_curve(member, fold_ranks(scores, fold), drop_intermediate=False)
    assert table["advantage"] == pytest.approx((tpr - fpr).max())
    assert table["tpr_at_1_fpr"] == pytest.approx(tpr[fpr <= 0.01].max())


def test_every_metric_lies_within_its_interval():
    table = metrics_table(*simulated(np.random.default_rng(8), 600, 0.8))
    table = table.dropna(subset="value")
    assert (table.low <= table.value + 1e-9).all() and (table.value <= table.high + 1e-9).all()


def test_a_rate_too_small_for_the_non_members_is_left_out_with_its_reason():
    table = metrics_table(*simulated(np.random.default_rng(9), 500))
    assert np.isfinite(table.loc["tpr_at_1_fpr", "value"]) and np.isnan(table.loc["tpr_at_0.1_fpr", "value"])
    assert table.loc["tpr_at_0.1_fpr", "note"] == "needs 5000 non-members, there are 500"


def test_ranks_within_folds_forget_each_attackers_scale():
    scores, _, fold = simulated(np.random.default_rng(10), 100, 1.0)
    moved = np.where(fold == 1, 1000 + 5 * scores, scores)
    np.testing.assert_allclose(fold_ranks(scores, fold), fold_ranks(moved, fold))


def test_the_roc_of_tied_scores_moves_in_one_step():
    fpr, tpr = roc_points(np.ones(10), np.arange(10) < 5)
    assert fpr.tolist() == [0, 1] and tpr.tolist() == [0, 1]
    assert tpr_at(FPRS["tpr_at_1_fpr"], fpr, tpr) == 0


def test_epsilon_is_given_only_for_independent_inclusion():
    scores, member, fold = simulated(np.random.default_rng(11), 500, 2.0)
    without, given_ = metrics_table(scores, member, fold), metrics_table(scores, member, fold, independent=True)
    assert np.isnan(without.loc["epsilon_lower", "value"]) and "fair coins" in without.loc["epsilon_lower", "note"]
    assert given_.loc["epsilon_lower", "value"] > 0.5


def test_the_epsilon_bound_holds_for_randomised_response():
    epsilon, rng, broken = 1.0, np.random.default_rng(12), 0
    for _ in range(200):
        member = rng.random(400) < 0.5
        told = member ^ (rng.random(400) > np.exp(epsilon) / (1 + np.exp(epsilon)))
        scores = told + 0.01 * rng.random(400)
        broken += one_run_epsilon(scores, member, np.arange(400) % 2) > epsilon
    assert broken <= 18  # 5 % of 200 and three standard errors


def test_holms_procedure():
    assert stats.holm([0.004, 0.9, 0.006]) == pytest.approx([0.012, 0.9, 0.012])
    assert stats.holm([0.006, 0.006]) == pytest.approx([0.012, 0.012])
    assert stats.holm([0.6, 0.5]) == [1, 1] and stats.holm([]) == []


def test_the_mean_over_seeds_keeps_the_error_of_the_images():
    assert stats.over_seeds([0.6, 0.6, 0.6], [0.03, 0.03, 0.03]) == pytest.approx((0.6, 0.03))
    value, error = stats.over_seeds([0.5, 0.6, 0.7], [0.0, 0.0, 0.0])
    assert (value, error) == pytest.approx((0.6, 0.1 / np.sqrt(3)))


def test_p_values_of_dependent_seeds_are_combined_at_their_level():
    rng = np.random.default_rng(13)
    shared, own = rng.normal(size=(2000, 1)), rng.normal(size=(2000, 3))
    p_values = scipy_stats.norm.sf(np.sqrt(0.7) * shared + np.sqrt(0.3) * own)
    assert np.mean([stats.combine_seeds(row) < 0.05 for row in p_values]) < 0.05
    assert stats.combine_seeds([0.9, 0.9]) == 1
