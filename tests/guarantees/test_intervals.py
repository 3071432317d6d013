"""Bands hold what they say in new patients of simulated cohorts, region by region, and are not wider than they must be."""

import math

import numpy as np
import pytest

from localdiff_cli.guarantees import intervals

LEVEL = 0.9


def patient(rng, drawn=60):
    """Residuals of their own spread; what is drawn is too pale by something that differs between patients."""
    source = np.r_[np.ones(300, np.uint8), np.full(drawn, 2, np.uint8), np.zeros(20, np.uint8)]
    true = 0.4 + rng.uniform(0.02, 0.06) * rng.standard_normal(source.size)
    true[source == 2] += 0.1 + 0.05 * rng.standard_normal()
    return np.clip(true, 0, 1), np.full(source.size, 0.4), source


def covered(new, bands, labels):
    true, image, source = new
    low, high = intervals.limits(image, source, bands)
    inside = np.isin(source, labels)
    return float(((true >= low - 1e-6) & (true <= high + 1e-6))[inside].mean())


@pytest.mark.parametrize("patients", [24, 60])
def test_coverage_is_what_was_asked_in_each_region(patients):
    rng = np.random.default_rng(0)
    found = {"ordinary": [], "drawn": []}
    for _ in range(300):
        cohort = [intervals.residuals(*patient(rng)) for _ in range(patients)]
        bands, new = intervals.bands(cohort, LEVEL), patient(rng)
        for region, shares in found.items():
            shares.append(covered(new, bands, intervals.REGIONS[region]))
    for shares in found.values():
        error = np.std(shares) / math.sqrt(len(shares))
        assert LEVEL - 3 * error <= np.mean(shares) <= LEVEL + 4 / (patients + 1) + 0.02 + 3 * error


def test_a_lesion_that_is_drawn_too_pale_has_its_band_above():
    rng = np.random.default_rng(1)
    below, above = intervals.band([intervals.residuals(*patient(rng)) for _ in range(60)], "drawn", LEVEL)
    assert above > 3 * max(below, 0.01)
    ordinary = intervals.band([intervals.residuals(*patient(rng)) for _ in range(60)], "ordinary", LEVEL)
    assert sum(ordinary) < below + above


def test_too_few_patients_with_a_region_promise_nothing_there():
    rng = np.random.default_rng(2)
    cohort = [intervals.residuals(*patient(rng, drawn=60 if number < 18 else 0)) for number in range(40)]
    bands = intervals.bands(cohort, LEVEL)
    assert bands["drawn"] is bands["unknown"] is None
    assert bands["ordinary"] is not None
    low, high = intervals.limits(np.array([0.4, 0.4]), np.array([2, 0], np.uint8), bands)
    assert (low.tolist(), high.tolist()) == ([0, 0], [1, 0])


def test_residuals_are_counted_by_side_and_region():
    found = intervals.residuals(np.array([0.5, 0.3, 0.4, 0.9]), np.full(4, 0.4), np.array([1, 1, 3, 0], np.uint8))
    assert [found[region]["voxels"] for region in intervals.REGIONS] == [2, 1, 0]
    assert (found["ordinary"]["above"][0], found["ordinary"]["above"][19], found["ordinary"]["above"][21]) == (1, 1, 0)
    assert found["ordinary"]["below"][0] == 1
    assert found["drawn"]["above"][0] == 0
