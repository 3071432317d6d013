from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from localdiff_cli.evaluation.metrics.ood_maps import auroc, average_precision, ood_figures
from tests.evaluation.conftest import ball

SHAPE = (5, 14, 12)
BRAIN = ball(SHAPE, (2, 7, 6), (3, 7, 6))
TRUTH = (ball(SHAPE, (2, 4, 4), (1.5, 2, 2)) | ball(SHAPE, (2, 10, 8), (1, 1, 1))) & BRAIN


def curve(scores, truth, brain):
    """Per threshold from high to low: false-positive rate, per-region overlap, recall, precision; all by plain counting."""
    labels, count = ndimage.label(truth & brain, np.ones((3, 3, 3)))
    rows = [(0.0, 0.0, 0.0, 1.0)]
    for threshold in np.unique(scores[brain])[::-1]:
        hit = (scores >= threshold) & brain
        overlap = np.mean([hit[labels == k].mean() for k in range(1, count + 1)])
        true = (hit & truth).sum()
        rows.append(((hit & ~truth).sum() / (brain & ~truth).sum(), overlap, true / (truth & brain).sum(), true / hit.sum()))
    return np.array(rows).T


def brute_aupro(scores, truth, brain, limit):
    rate, overlap, _, _ = curve(scores, truth, brain)
    kept = rate <= limit
    x, y = rate[kept], overlap[kept]
    if x[-1] < limit:
        k = len(x)
        y = np.append(y, y[-1] + (overlap[k] - y[-1]) * (limit - x[-1]) / (rate[k] - x[-1]))
        x = np.append(x, limit)
    return np.trapezoid(y, x) / limit if hasattr(np, "trapezoid") else np.trapz(y, x) / limit


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.sampled_from([3, 20, 10_000]), st.sampled_from([0.05, 0.3, 1.0]))
def test_all_figures_equal_plain_counting_ties_included(seed, levels, limit):
    rng = np.random.default_rng(seed)
    scores = (rng.integers(0, levels, SHAPE) / levels + rng.choice([0, 0.3]) * TRUTH).astype(np.float32)
    found = ood_figures(scores, scores > 0.5, TRUTH, BRAIN, limit)
    _, _, recall, precision = curve(scores, TRUTH, BRAIN)
    positives, negatives = scores[TRUTH & BRAIN], scores[BRAIN & ~TRUTH]
    expected = stats.mannwhitneyu(positives, negatives).statistic / (positives.size * negatives.size)
    assert found.auroc.value == pytest.approx(expected, rel=1e-5)
    assert found.average_precision.value == pytest.approx(np.sum(np.diff(recall) * precision[1:]), rel=1e-5)
    assert found.aupro.value == pytest.approx(brute_aupro(scores, TRUTH, BRAIN, limit), rel=1e-5, abs=1e-6)
    hit = (scores > 0.5) & BRAIN
    assert found.dice.value == pytest.approx(2 * (hit & TRUTH).sum() / (hit.sum() + TRUTH.sum()), rel=1e-5)


def test_a_perfect_map_scores_one_and_its_inverse_nothing():
    good = ood_figures(TRUTH.astype(float), TRUTH, TRUTH, BRAIN, 0.3)
    bad = ood_figures(1 - TRUTH.astype(float), ~TRUTH, TRUTH, BRAIN, 0.3)
    assert (good.auroc.value, good.aupro.value, good.average_precision.value, good.dice.value) == (1, 1, 1, 1)
    assert (bad.auroc.value, bad.aupro.value, bad.dice.value) == (0, 0, 0)


def test_a_constant_map_is_a_coin_toss():
    found = ood_figures(np.full(SHAPE, 0.5), None, TRUTH, BRAIN, 0.3)
    assert found.auroc.value == 0.5
    assert found.aupro.value == pytest.approx(0.15)
    assert found.average_precision.value == pytest.approx(TRUTH.sum() / BRAIN.sum(), rel=1e-5)
    assert "no OOD mask" in found.dice.reason


def test_a_small_lesion_weighs_as_much_as_a_large_one_in_aupro():
    only_large = np.where(ball(SHAPE, (2, 4, 4), (1.5, 2, 2)) & TRUTH, 1.0, 0.0)
    assert ood_figures(only_large, None, TRUTH, BRAIN, 0.3).aupro.value == pytest.approx((0.5 + 0.5 * 0.3 / 2), rel=1e-5)


@pytest.mark.parametrize(("truth", "reason"), [(np.zeros(SHAPE, bool), "no voxel"), (np.ones(SHAPE, bool), "whole brain")])
def test_without_positives_or_negatives_there_is_a_reason(truth, reason):
    found = ood_figures(np.zeros(SHAPE), np.zeros(SHAPE, bool), truth, BRAIN, 0.3)
    assert all(reason in measure.reason for measure in (found.auroc, found.aupro, found.average_precision))
    assert found.dice.value == (0 if truth.any() else 1)


def test_nothing_outside_the_brain_counts():
    rng = np.random.default_rng(1)
    scores = rng.random(SHAPE)
    noisy = np.where(BRAIN, scores, 9.0)
    assert ood_figures(scores, None, TRUTH, BRAIN, 0.3) == ood_figures(noisy, None, TRUTH | ~BRAIN, BRAIN, 0.3)


def test_known_values_by_hand():
    positives, negatives = np.array([0.8, 0.4]), np.array([0.1, 0.35, 0.6])
    assert auroc(positives, negatives) == pytest.approx(5 / 6)
    assert average_precision(positives, negatives) == pytest.approx((1 + 2 / 3) / 2)
