"""How often does a bootstrap interval over 14 patients hold the true value? Percentile against BCa, on figures like ours.

``python -m examples.benchmarks.coverage`` prints a table. Nothing but chance enters: no data, no model.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Rows = NDArray[np.float64]
Statistic = Callable[..., NDArray[np.float64]]
PATIENTS = 14


@dataclass(frozen=True)
class World:
    """A figure whose true value is known: ``draw`` gives values ``(patients, k)``, ``statistic`` turns their columns into the figure."""

    name: str
    draw: Callable[[np.random.Generator], Rows]
    statistic: Statistic
    truth: float


def mean(x: Rows, axis: int = -1) -> NDArray[np.float64]:
    """The mean over patients."""
    return x.mean(axis=axis)


def ratio(x: Rows, y: Rows, axis: int = -1) -> NDArray[np.float64]:
    """Σ x / Σ y over patients."""
    return x.sum(axis=axis) / y.sum(axis=axis)


def _slices(generator: np.random.Generator, a: float, b: float) -> Rows:
    """Missed of found slices: each patient has a rate of its own, Beta(a, b), and 2 to 30 slices."""
    found = generator.integers(2, 31, PATIENTS)
    return np.column_stack((generator.binomial(found, generator.beta(a, b, PATIENTS)), found)).astype(np.float64)


def worlds() -> tuple[World, ...]:
    """Figures like those of the reports: decibels, lesion volumes, Dice, and pooled shares that are small, middling or nearly 1."""
    n = PATIENTS
    return (
        World("mean, normal (PSNR)", lambda g: g.normal(size=(n, 1)), mean, 0.0),
        World("mean, log-normal (volume difference)", lambda g: g.lognormal(0, 1, (n, 1)), mean, float(np.exp(0.5))),
        World("mean, Beta(4, 1) (Dice)", lambda g: g.beta(4, 1, (n, 1)), mean, 0.8),
        World("share, Beta(0.5, 3) (missed, with an expert)", lambda g: _slices(g, 0.5, 3), ratio, 0.5 / 3.5),
        World("share, Beta(0.3, 6) (invented)", lambda g: _slices(g, 0.3, 6), ratio, 0.3 / 6.3),
        World("share, Beta(8, 0.2) (missed, plain)", lambda g: _slices(g, 8, 0.2), ratio, 8 / 8.2),
    )


def covers(world: World, method: str, generator: np.random.Generator, resamples: int) -> tuple[bool, bool]:
    """Whether one interval at 95 % lies wholly above the true value, and wholly below; without spread it is the point itself."""
    rows = world.draw(generator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = stats.bootstrap(
            tuple(rows.T), world.statistic, paired=True, vectorized=True, n_resamples=resamples, method=method, random_state=generator
        ).confidence_interval
    estimate = float(world.statistic(*rows.T))
    low, high = (estimate if np.isnan(bound) else float(bound) for bound in found)
    return low > world.truth, high < world.truth


def coverage(world: World, method: str, trials: int, seed: int = 0, resamples: int = 1000) -> tuple[float, float, float]:
    """Share of ``trials`` in which the interval holds the truth, lies above it, lies below it."""
    generator = np.random.default_rng(seed)
    above, below = np.array([covers(world, method, generator, resamples) for _ in range(trials)]).mean(axis=0)
    return float(1 - above - below), float(above), float(below)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    trials = parser.parse_args().trials
    print(f"95 % intervals, n = {PATIENTS}, {trials} trials: holds the truth (lies above it / below it), per cent\n")
    print("| figure | percentile | BCa |\n|---|---|---|")
    for world in worlds():
        cells = [coverage(world, method, trials) for method in ("percentile", "BCa")]
        print(f"| {world.name} | " + " | ".join(f"{100 * c:.1f} ({100 * a:.1f} / {100 * b:.1f})" for c, a, b in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
