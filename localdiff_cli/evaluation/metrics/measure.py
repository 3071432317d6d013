"""A measured number, or the reason why there is none: no bare NaN ever enters a table."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import SupportsFloat

SIGNIFICANT_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Measure:
    """A finite ``value``, or ``None`` with a ``reason`` in plain words. Raises ``ValueError`` for anything between the two."""

    value: float | None
    reason: str = ""

    def __post_init__(self) -> None:
        if (self.value is None) != bool(self.reason):
            raise ValueError(f"a measure has either a value or a reason, found {self.value!r} with reason {self.reason!r}")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"a measure is finite, found {self.value!r}; say why there is none instead")


def measured(value: SupportsFloat) -> Measure:
    """Return a finite number, rounded once to 6 significant digits so that every table and the report hold the very same
    number."""
    return Measure(rounded(value))


def missing(reason: str) -> Measure:
    """Return a missing number, with the reason."""
    return Measure(None, reason)


def rounded(value: SupportsFloat) -> float:
    """Return ``value`` to 6 significant digits."""
    return float(f"{float(value):.{SIGNIFICANT_DIGITS}g}")


def values_of(measures: Iterable[Measure]) -> list[float]:
    """Return the numbers among ``measures``, in order."""
    return [measure.value for measure in measures if measure.value is not None]
