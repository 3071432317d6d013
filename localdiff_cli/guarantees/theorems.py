"""The arithmetic of the promises: pure functions, each with the theorem that it is.

Patients are the unit throughout. n patients and the next one are *exchangeable* (for Hoeffding–Bentkus: independent and
alike); a loss lies in [0, 1]. Nothing is assumed about the network.

* Conformal risk control: Angelopoulos, Bates, Fisch, Lei, Schuster (2022), arXiv 2208.02814, theorem 1.
* Learn then Test: Angelopoulos, Bates, Candès, Jordan, Lei (2021), arXiv 2110.01052, theorem 1 and section 3.
* Hoeffding–Bentkus p-value: Bates, Angelopoulos, Lei, Malik, Jordan (2021), arXiv 2101.02703, proposition 4.
* Gatekeeping: Bretz, Maurer, Brannath, Posch (2009), Statistics in Medicine 28:586, algorithm 1.
* Full conformal p-value: Vovk, Gammerman, Shafer (2005), Algorithmic Learning in a Random World, proposition 2.8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RELATIVE_SLACK = 1e-12
"""Sums of losses are rounded: a bound that is met exactly must not be missed by the last bit."""


def risk_bound(losses: NDArray[np.float64]) -> float:
    """Return (Σ L_i + 1) / (n + 1): what conformal risk control compares with α, for losses ``(n,)`` in [0, 1]."""
    return (float(np.sum(losses)) + 1) / (len(losses) + 1)


def risk_control(losses: NDArray[np.float64], alpha: float) -> int | None:
    """Return the last column of ``losses`` ``(n, k)`` up to which all meet :func:`risk_bound` ≤ α; None where the first
    does not.

    Columns are settings, from the most cautious on: no patient's loss may fall from one to the next. Then E[L_{n+1}] ≤ α
    for the column chosen (conformal risk control, theorem 1), and for every column before it. Raise ``ValueError`` for
    losses that fall.
    """
    if (np.diff(losses, axis=1) < 0).any():
        raise ValueError("conformal risk control: found losses that fall from one setting to the next; expected none that does")
    within = [risk_bound(column) <= alpha * (1 + RELATIVE_SLACK) for column in losses.T]
    failed = within.index(False) if False in within else len(within)
    return failed - 1 if failed else None


def risk_floor(n: int) -> float:
    """Return the smallest α that conformal risk control can promise from n patients, even without a single error: 1 / (n +
    1)."""
    return 1 / (n + 1)


def errors_affordable(n: int, alpha: float) -> int:
    """Return the largest Σ L_i, whole errors, with which risk control still promises α; negative where α is below the
    floor."""
    return math.floor(alpha * (n + 1) * (1 + RELATIVE_SLACK)) - 1


def hoeffding_bentkus(losses: NDArray[np.float64], alpha: float) -> float:
    """Return a valid p-value of "the mean loss is above α" from losses ``(n,)`` in [0, 1]: small where it is below.

    The smaller of exp(−n h(min(R, α), α)) (Hoeffding) and e · P(Bin(n, α) ≤ ⌈n R⌉) (Bentkus), h the relative entropy of two
    coins.
    """
    n, mean = len(losses), float(np.mean(losses)) if len(losses) else 1.0
    if n == 0 or mean >= alpha:
        return 1.0
    hoeffding = math.exp(-n * _entropy(mean, alpha))
    bentkus = math.e * float(stats.binom.cdf(math.ceil(n * mean * (1 - RELATIVE_SLACK)), n, alpha))
    return min(1.0, hoeffding, bentkus)


def _entropy(a: float, b: float) -> float:
    """a log(a / b) + (1 − a) log((1 − a) / (1 − b)), for a < b < 1."""
    first = a * math.log(a / b) if a > 0 else 0.0
    return first + (1 - a) * math.log((1 - a) / (1 - b))


def smallest_provable(n: int, delta: float) -> float:
    """Return the smallest α that n patients without any error prove with confidence 1 − δ: (1 − α)^n = δ."""
    return float(1 - delta ** (1 / n)) if n else 1.0


def errors_provable(n: int, alpha: float, delta: float) -> int:
    """Return the largest number of whole errors among n patients with which α is proven at δ; −1 where not even none
    suffices."""
    proven = [k for k in range(n + 1) if hoeffding_bentkus(np.r_[np.ones(k), np.zeros(n - k)], alpha) <= delta]
    return max(proven, default=-1)


def provable_level(losses: NDArray[np.float64], delta: float) -> float:
    """Return the smallest level that these losses ``(n,)`` prove with confidence 1 − δ, rounded up to 0.001; 1 where they
    prove none.

    :func:`hoeffding_bentkus` turned round: an upper confidence bound of the mean loss, for one setting that was fixed beforehand.
    """
    levels = np.arange(1, 1000) / 1000
    proven = [level for level in levels if hoeffding_bentkus(losses, float(level)) <= delta]
    return float(proven[0]) if proven else 1.0


def walk_outwards(p_value: Callable[[int], float], centre: int, count: int, delta: float) -> list[int]:
    """Return the settings, of ``count`` in a row, of which the risk is proven with family-wise error ≤ δ; the order is
    fixed beforehand.

    First ``centre`` at δ. Only if it holds does the walk go on to both sides, δ / 2 each, and on each side ends at the
    first setting that fails. Learn then Test with a graphical procedure: δ goes to the centre, which passes half to either
    neighbour, each all to its next.
    """
    if p_value(centre) > delta:
        return []
    proven = [centre]
    for side in (range(centre - 1, -1, -1), range(centre + 1, count)):
        for setting in side:
            if p_value(setting) > delta / 2:
                break
            proven.append(setting)
    return sorted(proven)


def all_risks(p_values: Sequence[float]) -> float:
    """Return a valid p-value of "at least one of these risks is above its level": the largest (intersection–union)."""
    return max(p_values, default=0.0)


def conformal_p_value(scores: NDArray[np.float64], own: float) -> float:
    """Return (1 + #{i: s_i ≥ s}) / (n + 1): how strange ``own`` is among exchangeable ``scores`` ``(n,)``; at most α in a
    share α of patients."""
    return float(1 + np.count_nonzero(scores >= own)) / (len(scores) + 1)
