"""From a cohort's losses to a certificate: which cut τ of the map, and emphasis, keeps every promise that is asked for, if
any does.

The grid is a chain of cuts for each emphasis. Each chain has its equal share of the error (Bonferroni), which its own walk
spends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.errors import NotCertifiedError
from localdiff_cli.guarantees import theorems
from localdiff_cli.guarantees.losses import Record, Risk, losses

COVERAGE = "uncovered"
RISK_CONTROL = "conformal risk control (arXiv 2208.02814, theorem 1): the mean over new patients"
LEARN_THEN_TEST = "Learn then Test (arXiv 2110.01052) with Hoeffding–Bentkus p-values: with the confidence stated"


@dataclass(frozen=True)
class Demand:
    """What is to be promised: risk → level, ``delta`` = 1 − confidence, and the grid: cuts ``taus``, rising, walked from
    ``centre`` on, for each of ``emphases``, of which the first is the one to be preferred."""

    levels: Mapping[str, float]
    delta: float
    taus: tuple[float, ...]
    centre: int
    emphases: tuple[float, ...]

    @property
    def grid(self) -> tuple[tuple[float, float], ...]:
        """Emphasis and cut of every place."""
        return tuple(product(self.emphases, self.taus))

    @property
    def share(self) -> float:
        """The error that one chain may make."""
        return self.delta / len(self.emphases)


@dataclass(frozen=True)
class Promise:
    """One risk at its level: on how many patients it was measured and what it was there; p of "it is higher", where it is
    tested."""

    risk: str
    says: str
    level: float
    patients: int
    measured: float
    p_value: float | None
    theorem: str


def affordable(asked: Demand, patients: int, with_lesions: int, risks: Mapping[str, Risk]) -> list[str]:
    """Return what so many patients can buy, a line for each risk. Raise :class:`NotCertifiedError` where a level is beyond
    them."""
    lines, beyond = [], []
    for name, level in asked.levels.items():
        n = with_lesions if risks[name].lesions else patients
        exact = name == COVERAGE
        best = theorems.risk_floor(n) if exact else theorems.smallest_provable(n, asked.share)
        errors = theorems.errors_affordable(n, level) if exact else theorems.errors_provable(n, level, asked.share)
        how = "on average" if exact else f"with {1 - asked.delta:.0%} confidence"
        lines.append(
            f"{name} at most {level:.1%} {how}: {n} patients can buy {best:.1%} at best; {max(errors, 0)} whole errors are affordable"
        )
        beyond += [name] if errors < 0 else []
    if beyond:
        raise NotCertifiedError(
            "; ".join(lines) + f". Nothing was run: found too few patients for {', '.join(beyond)}; expected more patients, "
            "or ask for a higher level or less confidence",
            code="too-few",
        )
    return lines


def certify(records: Sequence[Record], asked: Demand, risks: Mapping[str, Risk]) -> tuple[int, list[Promise]]:
    """Return the place of the grid that keeps all promises, and the promises; the first walk's first cut where none is
    asked for.

    Raise :class:`NotCertifiedError` where no place keeps them.
    """
    if not asked.levels:
        return asked.centre, []
    found = {name: losses(risks[name], records, [tau for _, tau in asked.grid]) for name in asked.levels}
    proven = [place for first in range(0, len(asked.grid), len(asked.taus)) for place in _proven(found, asked, first)]
    if not proven:
        raise NotCertifiedError(
            f"no cut of the map keeps all that was asked ({_measured(found, asked)}); no certificate was written. "
            "Ask for less, bring more patients, or train a better bundle",
            code="not-certified",
        )
    chosen = _best(proven, found, asked)
    return chosen, [_promise(risks[name], matrix[:, chosen], asked) for name, matrix in found.items()]


def _proven(found: Mapping[str, NDArray[np.float64]], asked: Demand, first: int) -> list[int]:
    """The places of the chain that begins at ``first`` which keep all promises."""
    count = len(asked.taus)
    tested = {name: matrix for name, matrix in found.items() if name != COVERAGE}

    def p_value(place: int) -> float:
        return theorems.all_risks([theorems.hoeffding_bentkus(m[:, first + place], asked.levels[name]) for name, m in tested.items()])

    proven = theorems.walk_outwards(p_value, asked.centre, count, asked.share) if tested else list(range(count))
    if COVERAGE in found:
        # What the map covers does not hang on the emphasis: every chain has the same losses.
        covered = found[COVERAGE][:, first : first + count]
        last = theorems.risk_control(covered, asked.levels[COVERAGE]) if len(covered) else None
        proven = [place for place in proven if last is not None and place <= last]
    return [first + place for place in proven]


def _best(proven: Sequence[int], found: Mapping[str, NDArray[np.float64]], asked: Demand) -> int:
    """Of the places that keep all promises the one that loses the fewest lesions; of equal ones the highest cut, which
    redraws the least, then the emphasis that was named first."""
    lost = next((found[name] for name in ("missed", COVERAGE) if name in found and len(found[name])), None)
    count = len(asked.taus)
    return max(proven, key=lambda place: (0.0 if lost is None else -float(lost[:, place].mean()), place % count, -place))


def _promise(risk: Risk, own: NDArray[np.float64], asked: Demand) -> Promise:
    level, measured = asked.levels[risk.name], round(float(own.mean()), 6)
    if risk.name == COVERAGE:
        return Promise(risk.name, risk.says, level, len(own), measured, None, RISK_CONTROL)
    p = theorems.hoeffding_bentkus(own, level)
    return Promise(risk.name, risk.says, level, len(own), measured, float(f"{p:.6g}"), LEARN_THEN_TEST)


def _measured(found: Mapping[str, NDArray[np.float64]], asked: Demand) -> str:
    """The means of every risk at the first walk's first cut."""
    told = [
        f"{name} {matrix[:, asked.centre].mean():.1%} of {asked.levels[name]:.1%} in {len(matrix)} patients"
        if len(matrix)
        else f"{name} in nobody"
        for name, matrix in found.items()
    ]
    return f"at τ {asked.taus[asked.centre]:g}, emphasis {asked.emphases[0]:g}: " + ", ".join(told)
