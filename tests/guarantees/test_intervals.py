"""Bands hold what they say in new patients of simulated cohorts, region by region, and are not wider than they must be."""

import math

import numpy as np
import pytest

from localdiff_cli.evaluation.metrics.intervals import PARTS
from localdiff_cli.guarantees import intervals

LEVEL = 0.9


def patient(rng, drawn=60):
    """Residuals of their own spread; what is drawn is too pale by something that differs between patients."""
    source = np.r_[np.ones(300, np.uint8), np.full(drawn, 2, np.uint8), np.zeros(20, np.uint8)]
    true = 0.4 + rng.uniform(0.02, 0.06) * rng.standard_normal(source.size)
    true[source == 2] += 0.1 + 0.05 * rng.standard_normal()
    return of(np.clip(true, 0, 1), np.full(source.size, 0.4), source)


def of(true, image, source):
    """Voxels without a lesion."""
    return intervals.Voxels(np.asarray(true, np.float32), np.asarray(image, np.float32), source, np.zeros(len(source), bool))


def covered(new, bands, labels):
    true, image, source = new.true, new.image, new.source
    low, high = intervals.limits(image, source, bands)
    inside = np.isin(source, labels)
    return float(((true >= low - 1e-6) & (true <= high + 1e-6))[inside].mean())


def curves_of(rng, people=8):
    return intervals.learn([intervals.seen(patient(rng)) for _ in range(people)], LEVEL)


@pytest.fixture(scope="module", params=[False, True], ids=["about the drawn value", "curves"])
def population(request):
    """Curves of other people or none, and two hundred people with their residuals, from whom cohorts are drawn."""
    rng = np.random.default_rng(0)
    curves = curves_of(rng) if request.param else {}
    everybody = [patient(rng) for _ in range(200)]
    return curves, everybody, [intervals.residuals(each, curves) for each in everybody]


@pytest.mark.parametrize("patients", [16, 60])
def test_coverage_is_what_was_asked_in_each_region(population, patients):
    (curves, everybody, counted), rng = population, np.random.default_rng(1)
    found = {"ordinary": [], "drawn": []}
    for _ in range(150):
        new, *cohort = rng.choice(len(everybody), patients + 1, replace=False)
        bands = intervals.bands([counted[each] for each in cohort], LEVEL, curves)
        for region, shares in found.items():
            shares.append(covered(everybody[new], bands, PARTS[region]))
    for shares in found.values():
        error = np.std(shares) / math.sqrt(len(shares))
        assert LEVEL - 3 * error <= np.mean(shares) <= LEVEL + 2 / (patients + 1) + 0.02 + 3 * error


def widths(curves, rng):
    bands = intervals.bands([intervals.residuals(patient(rng), curves) for _ in range(60)], LEVEL, curves)
    low, high = intervals.limits(np.full(2, 0.4), np.array([1, 2], np.uint8), bands)
    return (0.4 - low, high - 0.4)


def test_a_lesion_that_is_drawn_too_pale_has_its_band_above_once_others_have_shown_it():
    rng = np.random.default_rng(1)
    below, above = widths(curves_of(rng), rng)
    assert above[1] > 3 * max(below[1], 0.01)
    assert below[0] + above[0] < below[1] + above[1]
    flat = sum(widths({}, rng))
    assert below[1] + above[1] < flat[1]


def test_curves_follow_the_drawn_intensity_and_stand_still_where_nobody_showed_one():
    drawn = np.r_[np.full(200, 0.2), np.full(200, 0.8)]
    true = np.r_[np.linspace(0.3, 0.5, 200), np.linspace(0.8, 0.9, 200)]
    curve = intervals.learn([intervals.seen(of(true, drawn, np.ones(400, np.uint8)))] * 3, 0.8)["ordinary"]
    low, high = (dict(zip(np.round(intervals.KNOTS, 2), curve[name], strict=True)) for name in ("low", "high"))
    assert (low[0.2], high[0.2]) == pytest.approx((0.32, 0.48), abs=0.011)
    assert (low[0.0], high[1.0]) == pytest.approx((0.32, 0.89), abs=0.011)
    assert intervals.learn([intervals.seen(of(true, drawn, np.ones(400, np.uint8)))] * 2, 0.8) == {}


def test_a_band_without_a_curve_begins_with_the_networks_limits_and_a_curve_goes_before_them():
    curve = {"low": [0.2] * 21, "high": [0.5] * 21}
    bands = {"ordinary": {"margin": 0.1, "curve": None, "patients": 20}, "drawn": {"margin": 0.1, "curve": curve, "patients": 20}}
    image, source = np.array([0.4, 0.4, 0.4]), np.array([1, 2, 4], np.uint8)
    begun = (np.array([0.3, 0.0, 0.3]), np.array([0.6, 0.9, 0.6]))
    low, high = intervals.limits(image, source, bands, begun)
    assert low == pytest.approx([0.2, 0.1, 0])
    assert high == pytest.approx([0.7, 0.6, 1])
    low, high = intervals.limits(image, source, bands)
    assert (low[0], high[0]) == pytest.approx((0.3, 0.5))


def test_beside_a_network_only_the_curve_of_what_was_drawn_is_used():
    curves = {"ordinary": {"low": [0.0], "high": [1.0]}, "drawn": {"low": [0.2], "high": [0.5]}}
    assert intervals.beside_network(curves) == {"drawn": curves["drawn"]}


def test_what_the_network_knows_of_hard_places_makes_a_band_narrower_at_the_same_promise():
    def known(rng, *, network):
        hard = rng.random(400) < 0.3
        spread = np.where(hard, 0.2, 0.02)
        true = np.clip(0.4 + spread * rng.standard_normal(400), 0, 1)
        made = of(true, np.full(400, 0.4), np.ones(400, np.uint8))
        return intervals.Voxels(made.true, made.image, made.source, made.lesion, (0.4 - spread, 0.4 + spread) if network else None)

    widths = {}
    for network in (False, True):
        rng = np.random.default_rng(5)
        bands = intervals.bands([intervals.residuals(known(rng, network=network), {}) for _ in range(40)], LEVEL, {})
        new = [known(rng, network=network) for _ in range(40)]
        found = [(each, *intervals.limits(each.image, each.source, bands, each.begun)) for each in new]
        assert np.mean([((each.true >= low) & (each.true <= high)).mean() for each, low, high in found]) == pytest.approx(LEVEL, abs=0.03)
        widths[network] = np.mean([high - low for _, low, high in found])
    assert widths[True] < 0.8 * widths[False]


def test_limits_never_cross_however_far_they_are_moved_inwards():
    bands = {"ordinary": {"margin": -0.5, "curve": {"low": [0.2] * 21, "high": [0.5] * 21}, "patients": 20}}
    low, high = intervals.limits(np.full(1, 0.9), np.ones(1, np.uint8), bands)
    assert low == high == pytest.approx(0.35)


def test_too_few_patients_with_a_region_promise_nothing_there():
    rng = np.random.default_rng(2)
    cohort = [intervals.residuals(patient(rng, drawn=60 if number < 8 else 0), {}) for number in range(40)]
    bands = intervals.bands(cohort, LEVEL, {})
    assert bands["drawn"] is bands["unknown"] is None
    assert bands["ordinary"]["patients"] == 40
    low, high = intervals.limits(np.array([0.4, 0.4]), np.array([2, 0], np.uint8), bands)
    assert (low.tolist(), high.tolist()) == ([0, 0], [1, 0])


def test_residuals_are_counted_by_region_and_by_how_far_limits_must_move():
    found = intervals.residuals(of([0.5, 0.35, 0.4, 0.9], np.full(4, 0.4), np.array([1, 1, 3, 0], np.uint8)), {})
    assert [found[region]["voxels"] for region in PARTS] == [2, 1, 0]
    beyond = dict(zip(np.round(intervals.MARGINS, 3), found["ordinary"]["beyond"], strict=True))
    assert (beyond[-0.01], beyond[0.0], beyond[0.045], beyond[0.055], beyond[0.105], beyond[1.0]) == (2, 2, 2, 1, 0, 0)
