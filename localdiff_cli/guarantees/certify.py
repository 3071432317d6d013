"""From a cohort's losses to a certificate: which cut τ of the map keeps every promise that is asked for, if any does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    """What is to be promised: risk → level, ``delta`` = 1 − confidence, and the grid of cuts, rising, walked from ``centre`` on."""

    levels: Mapping[str, float]
    delta: float
    taus: tuple[float, ...]
    centre: int


@dataclass(frozen=True)
class Promise:
    """One risk at its level: on how many patients it was measured and what it was there; p of "it is higher", where it is tested."""

    risk: str
    says: str
    level: float
    patients: int
    measured: float
    p_value: float | None
    theorem: str


def affordable(asked: Demand, patients: int, with_lesions: int, risks: Mapping[str, Risk]) -> list[str]:
    """What so many patients can buy, a line for each risk. Raises :class:`NotCertifiedError` where a level is beyond them."""
    lines, beyond = [], []
    for name, level in asked.levels.items():
        n = with_lesions if risks[name].lesions else patients
        exact = name == COVERAGE
        best = theorems.risk_floor(n) if exact else theorems.smallest_provable(n, asked.delta)
        errors = theorems.errors_affordable(n, level) if exact else theorems.errors_provable(n, level, asked.delta)
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


def certify(records: Sequence[Record], asked: Demand, risks: Mapping[str, Risk]) -> tuple[float, list[Promise]]:
    """The cut τ that keeps all promises, and the promises; the walk's first cut where none is asked for.

    Raises :class:`NotCertifiedError` where no cut keeps them.
    """
    if not asked.levels:
        return asked.taus[asked.centre], []
    found = {name: losses(risks[name], records, asked.taus) for name in asked.levels}
    tested = {name: matrix for name, matrix in found.items() if name != COVERAGE}

    def p_value(place: int) -> float:
        return theorems.all_risks([theorems.hoeffding_bentkus(m[:, place], asked.levels[name]) for name, m in tested.items()])

    count = len(asked.taus)
    proven = theorems.walk_outwards(p_value, asked.centre, count, asked.delta) if tested else list(range(count))
    if COVERAGE in found:
        last = theorems.risk_control(found[COVERAGE], asked.levels[COVERAGE]) if len(found[COVERAGE]) else None
        proven = [place for place in proven if last is not None and place <= last]
    if not proven:
        raise NotCertifiedError(
            f"no cut of the map keeps all that was asked ({_measured(found, asked)}); no certificate was written. "
            "Ask for less, bring more patients, or train a better bundle",
            code="not-certified",
        )
    chosen = _best(proven, found)
    return asked.taus[chosen], [_promise(risks[name], matrix[:, chosen], asked) for name, matrix in found.items()]


def _best(proven: Sequence[int], found: Mapping[str, NDArray[np.float64]]) -> int:
    """Of the cuts that keep all promises the one that loses the fewest lesions; of equal ones the highest, which redraws the least."""
    lost = next((found[name] for name in ("missed", COVERAGE) if name in found and len(found[name])), None)
    return max(proven, key=lambda place: (0.0 if lost is None else -float(lost[:, place].mean()), place))


def _promise(risk: Risk, own: NDArray[np.float64], asked: Demand) -> Promise:
    level, measured = asked.levels[risk.name], round(float(own.mean()), 6)
    if risk.name == COVERAGE:
        return Promise(risk.name, risk.says, level, len(own), measured, None, RISK_CONTROL)
    p = theorems.hoeffding_bentkus(own, level)
    return Promise(risk.name, risk.says, level, len(own), measured, float(f"{p:.6g}"), LEARN_THEN_TEST)


def _measured(found: Mapping[str, NDArray[np.float64]], asked: Demand) -> str:
    """The means of every risk at the walk's first cut."""
    told = [
        f"{name} {matrix[:, asked.centre].mean():.1%} of {asked.levels[name]:.1%} in {len(matrix)} patients"
        if len(matrix)
        else f"{name} in nobody"
        for name, matrix in found.items()
    ]
    return f"at τ {asked.taus[asked.centre]:g}: " + ", ".join(told)
