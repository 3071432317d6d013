from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from localdiff_cli.evaluation.cohort.counts import cohort_misdiagnosis
from localdiff_cli.evaluation.cohort.statistics import Bootstrap
from localdiff_cli.evaluation.metrics.measure import measured
from localdiff_cli.evaluation.metrics.misdiagnosis import MisdiagnosisSettings, SliceEvidence

SETTINGS, BOOTSTRAP = MisdiagnosisSettings(), Bootstrap(resamples=500)


def evidence(truth, segmented, dice, reference_dice=None):
    n = len(truth)
    true = [1.0] * n if reference_dice is None else reference_dice
    return SliceEvidence(np.full(n, 1000), np.array(truth), np.array(segmented), np.array(dice), np.array(true))


def volume(result, own, base, dice=0.8, base_dice=0.0, true=0.9):
    metrics = {"dice": measured(dice), "baseline_dice": measured(base_dice), "reference_dice": measured(true)}
    return replace(result, metrics=metrics, evidence={"": own, "baseline_": base, "reference_": replace(own, dice=own.reference_dice)})


@pytest.fixture
def patients(results):
    """By hand: translation misses 1 of 5 found and invents 1 of 5; baseline misses 4 of 5 and invents 2 of 5."""
    first = volume(
        results[0],
        evidence([100, 100, 0, 0], [90, 0, 50, 0], [0.9, 0.0, 0, 1]),
        evidence([100, 100, 0, 0], [0, 0, 50, 50], [0.0, 0.0, 0, 0]),
    )
    second = volume(
        results[0], evidence([100, 100, 0], [90, 90, 9], [0.9, 0.5, 0]), evidence([100, 100, 0], [0, 0, 0], [0.0, 0.0, 1]), dice=0.05
    )
    third = volume(
        results[0],
        evidence([100, 100, 0, 0], [80, 0, 0, 0], [0.8, 0.0, 1, 1], [1.0, 0.05, 1, 1]),
        evidence([100, 100, 0, 0], [80, 0, 0, 0], [0.8, 0.0, 1, 1], [1.0, 0.05, 1, 1]),
        base_dice=0.7,
    )
    return {"a": [first], "b": [second], "c": [third]}


@pytest.mark.parametrize(
    ("key", "arm", "count", "total"),
    [
        ("missed", "", 1, 5), ("missed", "baseline_", 4, 5),
        ("invented", "", 1, 5), ("invented", "baseline_", 2, 5),
        ("missed_patients", "", 1, 3), ("missed_patients", "baseline_", 2, 3),
    ],
)  # fmt: skip
def test_rates_equal_a_count_by_hand(patients, key, arm, count, total):
    rate = cohort_misdiagnosis(patients, SETTINGS, BOOTSTRAP).rate(key, arm)
    assert (rate.count, rate.total) == (count, total)
    assert rate.share.estimate == pytest.approx(count / total, rel=1e-5)
    assert rate.share.n == 3


def test_reductions_are_relative_to_the_baseline(patients):
    found = {each.key: each.interval.estimate for each in cohort_misdiagnosis(patients, SETTINGS, BOOTSTRAP).reductions}
    assert found == pytest.approx({"missed": 0.75, "missed_patients": 0.5, "invented": 0.5})


def test_the_sweep_holds_the_set_delta_and_counts_again(patients):
    sweep = cohort_misdiagnosis(patients, SETTINGS, BOOTSTRAP).sweep
    points = {(point.delta, point.rate.arm): (point.rate.count, point.rate.total) for point in sweep}
    assert points[0.1, ""] == (1, 5)
    assert points[0.6, ""] == (2, 5)
    assert points[0.05, ""] == (2, 6)


def test_without_found_lesions_or_free_slices_there_is_a_reason(results):
    blank = volume(results[0], evidence([5], [0], [0.0]), evidence([5], [0], [0.0]))
    cohort = cohort_misdiagnosis({"a": [blank]}, SETTINGS, BOOTSTRAP)
    assert cohort.rate("missed").share.reason
    assert cohort.rate("invented").share.reason == "no lesion-free slice"
    assert all(each.interval.reason for each in cohort.reductions)


def test_only_patients_with_such_slices_are_counted_as_n(patients, results):
    healthy = volume(results[0], evidence([0, 0], [0, 0], [1.0, 1.0]), evidence([0, 0], [0, 0], [1.0, 1.0]))
    cohort = cohort_misdiagnosis({**patients, "d": [healthy]}, SETTINGS, BOOTSTRAP)
    assert (cohort.rate("missed").share.n, cohort.rate("invented").share.n) == (3, 4)


def test_a_patient_s_volumes_count_together(patients, results):
    merged = cohort_misdiagnosis({"a": [*patients["a"], *patients["b"], *patients["c"]]}, SETTINGS, BOOTSTRAP)
    assert (merged.rate("missed").count, merged.rate("missed").share.n) == (1, 1)
    assert (merged.rate("missed_patients").count, merged.rate("missed_patients").total) == (1, 1)


def test_a_baseline_without_misses_leaves_nothing_to_reduce(patients):
    clean = {"c": patients["c"], "d": patients["c"], "e": patients["c"]}
    missed = next(each for each in cohort_misdiagnosis(clean, SETTINGS, BOOTSTRAP).reductions if each.key == "missed")
    assert "nothing to reduce" in missed.interval.reason


def test_without_masks_there_is_nothing_to_count(results):
    assert cohort_misdiagnosis({"a": [replace(results[0], evidence={})]}, SETTINGS, BOOTSTRAP) is None


def test_the_reference_only_has_the_segmenter_s_own_alarms(patients):
    cohort = cohort_misdiagnosis(patients, SETTINGS, BOOTSTRAP)
    assert cohort.rate("missed", "reference_") is None
    assert cohort.rate("invented", "reference_").total == 5
