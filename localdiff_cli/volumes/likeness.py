"""Is this input like those of training at all? A few quantiles of the brain's intensities against those of the training
people.

Contrast agent, another sequence or a damaged volume move the tails of the distribution; a lesion or wide ventricles hardly
do. It is no test of exchangeability (``localdiff calibrate`` has one): it notices what is far off, before anything is
drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

Six = tuple[float, float, float, float, float, float]
Deviation = Annotated[float, Field(gt=0, le=1000)]
LEVELS = (0.01, 0.05, 0.25, 0.75, 0.95, 0.99)
"""Quantiles of the brain's robust z; the median is 0 by definition."""


@dataclass(frozen=True)
class Typical:
    """What training looked like: ``median`` and ``spread`` (1.4826 · median absolute deviation, an SD that a few odd people
    do not widen) over people of z at each of :data:`LEVELS`; ``limit``: spreads beyond which an input is unlike it."""

    median: Annotated[tuple[float, float, float, float, float, float], Field(description="z over people at 1, 5, 25, 75, 95, 99 %")]
    spread: Annotated[
        tuple[Deviation, Deviation, Deviation, Deviation, Deviation, Deviation],
        Field(description="1.4826 times its median absolute deviation over people"),
    ]
    limit: Annotated[float, Field(gt=0, le=1000, description="spreads beyond which an input is unlike those of training")]


def quantiles_of(z: NDArray[Any]) -> tuple[float, ...]:
    """Return the z at each of :data:`LEVELS`; ``z`` of the brain, any shape, not empty."""
    return tuple(float(value) for value in np.quantile(z, LEVELS))


def typical_of(people: Iterable[Sequence[float]], limit: float) -> Typical:
    """Return the account of people's quantiles, one sequence per person. Raise ``ValueError`` for fewer than three people."""
    table = np.array(list(people))
    if len(table) < 3:
        raise ValueError(f"{len(table)} people; expected three or more")
    median = np.median(table, axis=0)
    spread = 1.4826 * np.median(np.abs(table - median), axis=0)
    return Typical(cast(Six, tuple(median.round(4).tolist())), cast(Six, tuple(spread.clip(0.05).round(4).tolist())), limit)


def unlike(quantiles: Sequence[float], typical: Typical) -> tuple[float, float] | None:
    """Return the level and the deviation in spreads of the quantile that lies farthest out, where that is beyond the limit;
    else None."""
    deviations = (np.array(quantiles) - np.array(typical.median)) / np.array(typical.spread)
    worst = int(np.abs(deviations).argmax())
    return (LEVELS[worst], float(deviations[worst])) if abs(deviations[worst]) > typical.limit else None
