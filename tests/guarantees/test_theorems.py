"""The promises hold in thousands of simulated cohorts: not broken more often than said, and not bought far too dearly."""

import math

import numpy as np
import pytest
from scipy import stats

from localdiff_cli.guarantees import theorems as t

COHORTS = 4000


def monotone_losses(rng, patients, settings=40):
    """Losses that rise from setting to setting: the share of a patient's five lesions that a cut above their own level leaves out."""
    levels = rng.beta(2, 1, size=(patients, 1, 5)) * rng.uniform(0.3, 1, size=(patients, 1, 1))
    return (levels < np.linspace(0, 1, settings)[None, :, None]).mean(axis=2)


@pytest.mark.parametrize(("patients", "alpha"), [(14, 0.1), (24, 0.1), (60, 0.1), (24, 0.2)])
def test_risk_control_promises_neither_less_nor_far_more_than_asked(patients, alpha):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(COHORTS):
        losses = monotone_losses(rng, patients + 1)
        chosen = t.risk_control(losses[:-1], alpha)
        found.append(losses[-1, chosen] if chosen is not None else 0.0)
    error = np.std(found) / math.sqrt(COHORTS)
    assert np.mean(found) <= alpha + 3 * error
    assert np.mean(found) >= alpha - 2 / (patients + 1) - 3 * error


@pytest.mark.parametrize(("patients", "floor", "errors"), [(14, 1 / 15, 0), (24, 1 / 25, 1), (60, 1 / 61, 5)])
def test_what_a_cohort_can_buy_by_risk_control(patients, floor, errors):
    assert t.risk_floor(patients) == pytest.approx(floor)
    assert t.errors_affordable(patients, 0.1) == errors
    losses = np.zeros((patients, 1))
    assert t.risk_control(losses, floor) == 0
    assert t.risk_control(losses, floor - 1e-6) is None
    losses[:errors] = 1
    assert t.risk_control(losses, 0.1) == 0
    losses[: errors + 1] = 1
    assert t.risk_control(losses, 0.1) is None


def test_risk_control_refuses_losses_that_fall():
    with pytest.raises(ValueError, match="fall"):
        t.risk_control(np.array([[0.5, 0.4]]), 0.5)


def test_risk_control_stops_at_the_first_setting_that_is_too_dear():
    losses = np.array([[0.0, 0.0, 0.5, 1.0]] * 9)
    assert t.risk_control(losses, 0.1) == 1
    assert t.risk_control(losses, 0.6) == 2


@pytest.mark.parametrize(("draw", "alpha"), [("coin", 0.1), ("coin", 0.3), ("share", 0.2)])
@pytest.mark.parametrize("patients", [14, 24, 60])
def test_the_p_value_is_small_in_no_more_cohorts_than_it_says(draw, alpha, patients):
    rng = np.random.default_rng(1)
    shares = rng.beta(0.5, 0.5 * (1 - alpha) / alpha, (COHORTS, patients))
    cohorts = rng.random((COHORTS, patients)) < alpha if draw == "coin" else shares
    p = np.array([t.hoeffding_bentkus(each.astype(float), alpha) for each in cohorts])
    for delta in (0.05, 0.1, 0.2):
        assert np.mean(p <= delta) <= delta + 3 * math.sqrt(delta * (1 - delta) / COHORTS)


def test_the_p_value_proves_a_risk_that_is_clearly_lower():
    rng = np.random.default_rng(2)
    p = [t.hoeffding_bentkus((rng.random(60) < 0.02).astype(float), 0.15) for _ in range(500)]
    assert np.mean(np.array(p) <= 0.1) > 0.9


def test_the_p_value_is_the_exact_one_without_errors_and_one_above_the_level():
    assert t.hoeffding_bentkus(np.zeros(24), 0.1) == pytest.approx(0.9**24)
    assert t.hoeffding_bentkus(np.full(24, 0.1), 0.1) == 1
    assert t.hoeffding_bentkus(np.zeros(0), 0.1) == 1
    few = np.r_[np.ones(1), np.zeros(59)]
    assert t.hoeffding_bentkus(few, 0.1) == pytest.approx(_both(few, 0.1))


def _both(losses, alpha):
    n, mean = len(losses), losses.mean()
    entropy = mean * math.log(mean / alpha) + (1 - mean) * math.log((1 - mean) / (1 - alpha))
    return min(math.exp(-n * entropy), math.e * stats.binom.cdf(round(n * mean), n, alpha))


@pytest.mark.parametrize("patients", [14, 24, 60])
def test_what_a_cohort_can_prove(patients):
    least = t.smallest_provable(patients, 0.1)
    assert t.hoeffding_bentkus(np.zeros(patients), least + 1e-9) <= 0.1 < t.hoeffding_bentkus(np.zeros(patients), least - 1e-3)
    assert t.errors_provable(patients, least - 1e-3, 0.1) == -1
    allowed = t.errors_provable(patients, 0.2, 0.1)
    assert t.hoeffding_bentkus(np.r_[np.ones(allowed), np.zeros(patients - allowed)], 0.2) <= 0.1
    assert t.hoeffding_bentkus(np.r_[np.ones(allowed + 1), np.zeros(patients - allowed - 1)], 0.2) > 0.1


def test_the_level_that_losses_prove_is_an_upper_bound_of_the_mean_as_often_as_said():
    rng, true = np.random.default_rng(6), 0.12
    bounds = np.array([t.provable_level((rng.random(30) < true).astype(float), 0.1) for _ in range(400)])
    assert np.mean(bounds < true) <= 0.1 + 3 * math.sqrt(0.09 / 400)
    assert t.provable_level(np.zeros(24), 0.1) == pytest.approx(t.smallest_provable(24, 0.1), abs=1e-3)
    assert t.provable_level(np.ones(24), 0.1) == 1


def trade_off(rng, patients, rates):
    """Two risks of each patient at each setting, losses 0 or 1; a patient's luck is the same at all settings."""
    luck = rng.random((patients, 1, 2))
    return (luck < rates[None]).astype(float)


@pytest.mark.parametrize("centre", [0, 2, 4])
def test_a_false_promise_is_given_in_no_more_cohorts_than_the_confidence_allows(centre):
    """At every setting one of the two risks is just above its level: any proof is false."""
    rng, delta, levels = np.random.default_rng(3), 0.1, (0.2, 0.15)
    rates = np.array([[0.05, 0.151], [0.1, 0.151], [0.201, 0.151], [0.201, 0.1], [0.201, 0.05]])
    false = 0
    for _ in range(COHORTS):
        losses = trade_off(rng, 40, rates)
        p = [t.all_risks([t.hoeffding_bentkus(losses[:, k, r], levels[r]) for r in (0, 1)]) for k in range(5)]
        false += bool(t.walk_outwards(p.__getitem__, centre, 5, delta))
    assert false / COHORTS <= delta + 3 * math.sqrt(delta * (1 - delta) / COHORTS)


def test_the_walk_ends_on_each_side_at_the_first_setting_that_fails():
    p = [0.01, 0.2, 0.03, 0.001, 0.06, 0.04, 0.0]
    assert t.walk_outwards(p.__getitem__, 3, 7, 0.1) == [2, 3]
    assert t.walk_outwards(p.__getitem__, 3, 7, 0.13) == [2, 3, 4, 5, 6]
    assert t.walk_outwards(p.__getitem__, 1, 7, 0.1) == []


def test_strangeness_is_uniform_among_alike_patients_and_small_for_others():
    rng = np.random.default_rng(4)
    alike = np.array([t.conformal_p_value(scores[:-1], scores[-1]) for scores in rng.normal(size=(COHORTS, 25))])
    for level in (0.04, 0.08, 0.2):
        assert np.mean(alike <= level + 1e-9) == pytest.approx(level, abs=3 * math.sqrt(level / COHORTS))
    broken = np.array([t.conformal_p_value(scores, rng.normal(4)) for scores in rng.normal(size=(COHORTS, 24))])
    assert np.mean(broken <= 0.05) > 0.9
