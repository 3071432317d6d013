"""Statistics with the patient as the unit: bootstrap intervals over patients, and paired tests that never come without an
effect size."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from localdiff_cli.evaluation.metrics.measure import rounded

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Sums over patients ``(resamples, k)`` → the figure of each resample, ``(resamples,)``."""

MIN_PATIENTS = 3
BATCH_VALUES = 2_000_000
"""Patients times resamples that are worked on together."""
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
    """BCa bootstrap over patients: ``level`` of confidence, number of ``resamples``, ``seed``.

    BCa (Efron 1987: bias-corrected and accelerated) holds the true value of skewed figures more often than percentiles do
    with 14 patients, and as often otherwise: ``examples/benchmarks/coverage.py``.
    """

    level: float = 0.95
    resamples: int = 5000
    seed: int = 0


@dataclass(frozen=True)
class PairedTest:
    """Translation minus baseline over ``n`` patients: mean ``difference``, two-sided ``p_value`` and ``effect_size`` in
    [−1, 1].

    The effect is the matched-pairs rank-biserial correlation: the rank sum of patients in which the translation is larger
    minus that of patients in which it is smaller, over their total. Where there is no test, ``reason`` says why.
    """

    n: int
    difference: Interval
    p_value: float | None
    effect_size: float | None
    method: str
    reason: str = ""


def bootstrap_mean(values: Sequence[float], bootstrap: Bootstrap) -> Interval:
    """Return the mean over patients of one value each."""
    rows = np.column_stack((np.asarray(values, np.float64), np.ones(len(values))))
    return bootstrap_sums(rows, lambda sums: sums[:, 0] / sums[:, 1], bootstrap)


def bootstrap_ratio(numerators: Sequence[float], denominators: Sequence[float], bootstrap: Bootstrap, empty: str) -> Interval:
    """Return Σ numerators / Σ denominators, with whole patients resampled (their slices are not independent); ``empty``:
    why if Σ is 0."""
    rows = np.column_stack((np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)))
    return bootstrap_sums(rows, lambda sums: _divide(sums[:, 0], sums[:, 1]), bootstrap, empty)


def bootstrap_sums(rows: NDArray[np.float64], statistic: Statistic, bootstrap: Bootstrap, empty: str = "") -> Interval:
    """Return a statistic of sums over patients, with an interval over resampled patients, whose columns stay together.

    ``rows`` ``(patients, k)``; ``statistic`` maps sums ``(resamples, k)`` to ``(resamples,)`` and gives NaN where it is
    undefined. Where that happens there is no BCa interval: it is that of the percentiles of the other resamples. Fewer than
    3 patients, or patients that do not differ, give the estimate without an interval: a width of 0 would claim certainty.
    """
    n = len(rows)
    estimate = float(statistic(rows.sum(axis=0, keepdims=True))[0]) if n else np.nan
    if not np.isfinite(estimate):
        return Interval(None, None, None, bootstrap.level, n, empty or "no patient has this figure")
    if n < MIN_PATIENTS:
        return Interval(rounded(estimate), None, None, bootstrap.level, n, f"no interval: n = {n}, at least {MIN_PATIENTS} needed")
    low, high = _bounds(rows, statistic, bootstrap)
    if rounded(low) == rounded(high):
        return Interval(rounded(estimate), None, None, bootstrap.level, n, NO_SPREAD)
    return Interval(rounded(estimate), rounded(low), rounded(high), bootstrap.level, n)


def _bounds(rows: NDArray[np.float64], statistic: Statistic, bootstrap: Bootstrap) -> tuple[float, float]:
    """BCa bounds by scipy; percentiles of the finite resamples where the statistic is undefined for some, or does not vary."""

    def over(*columns: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        sums = np.stack([column.sum(axis=axis) for column in columns], axis=-1)
        return statistic(sums.reshape(-1, len(columns))).reshape(sums.shape[:-1])

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            tuple(rows.T), over, paired=True, vectorized=True, method="BCa", n_resamples=bootstrap.resamples,
            confidence_level=bootstrap.level, batch=max(1, BATCH_VALUES // len(rows)), random_state=np.random.default_rng(bootstrap.seed),
        )  # fmt: skip
    low, high = found.confidence_interval
    if np.isfinite([low, high]).all():
        return float(low), float(high)
    resampled, tail = found.bootstrap_distribution, (1 - bootstrap.level) / 2
    low, high = np.quantile(resampled[np.isfinite(resampled)], (tail, 1 - tail))
    return float(low), float(high)


def paired_test(translation: Sequence[float], baseline: Sequence[float], bootstrap: Bootstrap) -> PairedTest:
    """Run a Wilcoxon signed-rank test of one pair per patient, two-sided, with the rank-biserial effect size.

    Up to 13 differing pairs the p-value is exact (all sign flips, right with ties too), beyond scipy's own choice. Pairs
    that are equal tell nothing and are left out of the ranks, not of ``n``.
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
        return PairedTest(n, mean, rounded(_exact_p(moved)), rounded(effect), "Wilcoxon signed-rank, exact by sign flips")
    return PairedTest(n, mean, rounded(stats.wilcoxon(moved).pvalue), rounded(effect), "Wilcoxon signed-rank")


def _exact_p(moved: NDArray[np.float64]) -> float:
    """The share of all sign flips that are as extreme; of one pair alone, which scipy does not take, both are."""
    if moved.size == 1:
        return 1.0
    test = stats.permutation_test([moved], _signed_rank, permutation_type="samples", vectorized=True, n_resamples=2**moved.size)
    return float(test.pvalue)


def _signed_rank(differences: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Signed-rank sum over its largest possible value: the rank-biserial correlation."""
    ranks = stats.rankdata(np.abs(differences), axis=axis)
    return np.sum(np.sign(differences) * ranks, axis=axis) / np.sum(ranks, axis=axis)


def _divide(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator != 0)
