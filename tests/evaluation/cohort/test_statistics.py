from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from localdiff_cli.evaluation.cohort.statistics import Bootstrap, bootstrap_mean, bootstrap_ratio, paired_test

BOOTSTRAP = Bootstrap(resamples=4000, seed=3)
VALUES = list(np.random.default_rng(0).normal(0.7, 0.1, 15))


def test_interval_of_a_mean_equals_scipys_bca_bootstrap():
    expected = stats.bootstrap((VALUES,), np.mean, n_resamples=20_000, method="BCa").confidence_interval
    found = bootstrap_mean(VALUES, BOOTSTRAP)
    assert found.estimate == pytest.approx(np.mean(VALUES), rel=1e-5)
    assert found.low == pytest.approx(expected.low, abs=0.004)
    assert found.high == pytest.approx(expected.high, abs=0.004)
    assert (found.n, found.level, found.reason) == (15, 0.95, "")


def test_the_same_seed_gives_the_same_interval():
    assert bootstrap_mean(VALUES, BOOTSTRAP) == bootstrap_mean(VALUES, BOOTSTRAP)
    assert bootstrap_mean(VALUES, BOOTSTRAP) != bootstrap_mean(VALUES, Bootstrap(resamples=4000, seed=4))


def test_a_ratio_pools_slices_and_resamples_patients():
    rng = np.random.default_rng(0)
    found = rng.integers(1, 30, 25)
    missed = rng.integers(0, found + 1)
    draws = rng.integers(25, size=(20_000, 25))
    ratios = missed[draws].sum(1) / found[draws].sum(1)
    got = bootstrap_ratio(list(missed), list(found), BOOTSTRAP, "none")
    assert got.estimate == pytest.approx(missed.sum() / found.sum(), rel=1e-5)
    assert (got.low, got.high) == pytest.approx(tuple(np.quantile(ratios, (0.025, 0.975))), abs=0.01)


def test_a_ratio_of_nothing_says_why():
    got = bootstrap_ratio([], [], BOOTSTRAP, "no lesion-free slice")
    assert (got.estimate, got.reason, got.n) == (None, "no lesion-free slice", 0)


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_patients_have_a_mean_without_an_interval(n):
    got = bootstrap_mean(VALUES[:n], BOOTSTRAP)
    assert got.estimate == pytest.approx(np.mean(VALUES[:n]), rel=1e-5)
    assert (got.low, got.high) == (None, None)
    assert f"n = {n}" in got.reason


def test_no_patient_and_alike_patients_have_reasons():
    assert bootstrap_mean([], BOOTSTRAP).reason
    alike = bootstrap_mean([0.5] * 6, BOOTSTRAP)
    assert (alike.estimate, alike.low) == (0.5, None)
    assert "alike" in alike.reason


def test_exact_p_value_equals_wilcoxon_and_enumeration():
    own, base = np.array(VALUES[:9]), np.array(VALUES[:9]) - np.array([0.1, -0.02, 0.3, 0.05, 0.07, -0.04, 0.2, 0.11, 0.01])
    got = paired_test(list(own), list(base), BOOTSTRAP)
    assert got.p_value == pytest.approx(stats.wilcoxon(own, base, method="exact").pvalue, rel=1e-4)
    ranks, signs = stats.rankdata(np.abs(own - base)), np.sign(own - base)
    observed = np.sum(ranks * signs)
    sums = [np.dot(ranks, flips) for flips in itertools.product((-1, 1), repeat=9)]
    assert got.p_value == pytest.approx(np.mean(np.abs(sums) >= observed - 1e-9), rel=1e-4)
    assert got.effect_size == pytest.approx(observed / ranks.sum(), rel=1e-4)
    assert got.difference.estimate == pytest.approx(np.mean(own - base), rel=1e-4)


def test_ties_are_exact_too():
    got = paired_test([1, 1, 1, 0], [0, 0, 0, 1], BOOTSTRAP)
    assert got.p_value == pytest.approx(10 / 16)
    assert got.effect_size == pytest.approx(0.5)


def test_equal_pairs_are_left_out_of_the_ranks_as_wilcoxon_does():
    own = [0.3, -0.1, 0.2, 0.0, 0.5, 0.0, 0.4]
    got = paired_test(own, [0.0] * 7, BOOTSTRAP)
    assert got.p_value == pytest.approx(stats.wilcoxon([value for value in own if value], method="exact").pvalue, rel=1e-4)
    assert (got.n, got.effect_size) == (7, pytest.approx((3 + 2 + 5 + 4 - 1) / 15, rel=1e-4))


def test_many_patients_take_scipys_wilcoxon():
    own = list(np.random.default_rng(1).normal(0.1, 1, 40))
    got = paired_test(own, [0.0] * 40, BOOTSTRAP)
    assert got.p_value == pytest.approx(stats.wilcoxon(own).pvalue, rel=1e-4)


def test_swapping_the_arms_turns_the_effect_and_keeps_the_p_value():
    one, two = paired_test(VALUES[:7], VALUES[7:14], BOOTSTRAP), paired_test(VALUES[7:14], VALUES[:7], BOOTSTRAP)
    assert one.p_value == two.p_value
    assert one.effect_size == -two.effect_size


@pytest.mark.parametrize("differing", [1, 2, 3])
def test_patients_of_whom_few_differ_are_tested_by_those(differing):
    own = [1.0 + k for k in range(differing)] + [0.0] * 5
    got = paired_test(own, [0.0] * len(own), BOOTSTRAP)
    assert got.p_value == pytest.approx(2 * 0.5**differing)
    assert (got.n, got.effect_size) == (differing + 5, 1)


def test_equal_pairs_and_few_pairs():
    equal = paired_test([1, 2, 3], [1, 2, 3], BOOTSTRAP)
    assert (equal.p_value, equal.effect_size, equal.n) == (1.0, 0.0, 3)
    few = paired_test([1, 2], [0, 0], BOOTSTRAP)
    assert (few.p_value, few.effect_size) == (None, None)
    assert "n = 2" in few.reason


def test_no_p_value_without_an_effect_size():
    for n in range(15):
        got = paired_test(VALUES[:n], [0.7] * n, BOOTSTRAP)
        assert (got.p_value is None) == (got.effect_size is None)


def test_a_skewed_figure_has_the_bca_interval_not_that_of_percentiles():
    skewed = list(np.random.default_rng(2).lognormal(0, 1, 14))
    bca, percentile = (
        stats.bootstrap((skewed,), np.mean, n_resamples=20_000, method=method, random_state=0).confidence_interval
        for method in ("BCa", "percentile")
    )
    found = bootstrap_mean(skewed, BOOTSTRAP)
    assert found.high == pytest.approx(bca.high, abs=0.4 * (bca.high - percentile.high))
    assert bca.high > percentile.high + 0.05


def test_whole_patients_are_drawn_so_that_numerator_and_denominator_stay_together():
    """Every patient misses exactly half of its slices, however many it has: the share cannot vary."""
    found = [2, 4, 8, 20, 6, 10]
    got = bootstrap_ratio([n / 2 for n in found], found, BOOTSTRAP, "none")
    assert (got.estimate, got.low) == (0.5, None)


def test_resamples_without_a_denominator_are_left_out():
    got = bootstrap_ratio([1, 0, 2, 1], [2, 0, 0.0, 3], BOOTSTRAP, "none")
    assert got.low is not None
    assert got.high is not None
    assert got.low <= got.estimate <= got.high
