"""Statistics with the patient as the unit: bootstrap intervals over patients, and paired tests that never come without an effect size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from localdiff_cli.evaluation.metrics.measure import rounded

MIN_PATIENTS = 3
EXACT_PAIRS = 13
NO_SPREAD = "no interval: all patients alike"
EFFECT_NAME = "matched-pairs rank-biserial correlation"


@dataclass(frozen=True)
class Interval:
    """An ``estimate`` over ``n`` patients with its confidence interval at ``level``; what is None has a ``reason``."""

    estimate: float | None
    low: float | None
    high: float | None
    level: float
    n: int
    reason: str = ""


@dataclass(frozen=True)
class Bootstrap:
    """Percentile bootstrap over patients: ``level`` of confidence, number of ``resamples``, ``seed``."""

    level: float = 0.95
    resamples: int = 5000
    seed: int = 0


@dataclass(frozen=True)
class PairedTest:
    """Translation minus baseline over ``n`` patients: mean ``difference``, two-sided ``p_value`` and ``effect_size`` in [−1, 1].

    The effect is the matched-pairs rank-biserial correlation: the rank sum of patients in which the translation is larger minus that of
    patients in which it is smaller, over their total. Where there is no test, ``reason``.
    """

    n: int
    difference: Interval
    p_value: float | None
    effect_size: float | None
    method: str
    reason: str = ""


def bootstrap_mean(values: Sequence[float], bootstrap: Bootstrap) -> Interval:
    """Mean over patients of one value each."""
    rows = np.column_stack((np.asarray(values, np.float64), np.ones(len(values))))
    return bootstrap_sums(rows, lambda sums: sums[:, 0] / sums[:, 1], bootstrap)


def bootstrap_ratio(numerators: Sequence[float], denominators: Sequence[float], bootstrap: Bootstrap, empty: str) -> Interval:
    """Σ numerators / Σ denominators, whole patients resampled (their slices are not independent); ``empty``: why if Σ is 0."""
    rows = np.column_stack((np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)))
    return bootstrap_sums(rows, lambda sums: _divide(sums[:, 0], sums[:, 1]), bootstrap, empty)


def bootstrap_sums(
    rows: NDArray[np.float64], statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]], bootstrap: Bootstrap, empty: str = ""
) -> Interval:
    """A statistic of sums over patients, with a percentile interval over resampled patients.

    ``rows`` ``(patients, k)``; ``statistic`` maps sums ``(resamples, k)`` to ``(resamples,)`` and gives NaN where it is undefined: such
    resamples are left out. Fewer than 3 patients, or patients that do not differ, give the estimate without an interval: a width of 0
    would claim certainty.
    """
    n = len(rows)
    estimate = float(statistic(rows.sum(axis=0, keepdims=True))[0]) if n else np.nan
    if not np.isfinite(estimate):
        return Interval(None, None, None, bootstrap.level, n, empty or "no patient has this figure")
    if n < MIN_PATIENTS:
        return Interval(rounded(estimate), None, None, bootstrap.level, n, f"no interval: n = {n}, at least {MIN_PATIENTS} needed")
    drawn = np.random.default_rng(bootstrap.seed).multinomial(n, np.full(n, 1 / n), size=bootstrap.resamples)
    resampled = statistic(drawn @ rows)
    tail = (1 - bootstrap.level) / 2
    low, high = np.quantile(resampled[np.isfinite(resampled)], (tail, 1 - tail))
    if rounded(low) == rounded(high):
        return Interval(rounded(estimate), None, None, bootstrap.level, n, NO_SPREAD)
    return Interval(rounded(estimate), rounded(low), rounded(high), bootstrap.level, n)


def paired_test(translation: Sequence[float], baseline: Sequence[float], bootstrap: Bootstrap) -> PairedTest:
    """Wilcoxon signed-rank test of one pair a patient, two-sided, with the rank-biserial effect size.

    Up to 13 differing pairs the p-value is exact (all sign flips, right with ties too), beyond scipy's own choice. Pairs that are equal
    tell nothing and are left out of the ranks, not of ``n``.
    """
    differences = np.asarray(translation, np.float64) - np.asarray(baseline, np.float64)
    n, mean = len(differences), bootstrap_mean(list(differences), bootstrap)
    if n < MIN_PATIENTS:
        return PairedTest(n, mean, None, None, "none", f"no test: n = {n}, at least {MIN_PATIENTS} pairs needed")
    moved = differences[differences != 0]
    if moved.size == 0:
        return PairedTest(n, mean, 1.0, 0.0, "all pairs are equal")
    effect = float(_signed_rank(moved, -1))
    if moved.size <= EXACT_PAIRS:
        exact = stats.permutation_test([moved], _signed_rank, permutation_type="samples", vectorized=True, n_resamples=2**moved.size)
        return PairedTest(n, mean, rounded(exact.pvalue), rounded(effect), "Wilcoxon signed-rank, exact by sign flips")
    return PairedTest(n, mean, rounded(stats.wilcoxon(moved).pvalue), rounded(effect), "Wilcoxon signed-rank")


def _signed_rank(differences: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Signed-rank sum over its largest possible value: the rank-biserial correlation."""
    ranks = stats.rankdata(np.abs(differences), axis=axis)
    return np.sum(np.sign(differences) * ranks, axis=axis) / np.sum(ranks, axis=axis)


def _divide(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator != 0)
