"""Bands in every voxel: between which limits the true value lies, by what made the voxel and how bright it was drawn.

A band begins with limits learnt from other people: those of a network (interval_network.py), or a pair of *curves*:
where this intensity was drawn, which true values were seen. Without either both limits are the drawn value. In each region
they are then moved outwards, or inwards, by one number. The share of a patient's voxels outside is a loss that falls as that number grows;
conformal risk control (theorems.py) gives the smallest with which it is at most 1 − level on average over new patients. The
promise holds whatever the band begins with; good limits make it tight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.evaluation.metrics.intervals import PARTS
from localdiff_cli.guarantees.theorems import risk_control

MARGINS = np.arange(-100, 201) / 200
"""How far outwards the limits are moved, as a share of the range; the last one gives all of it."""
KNOTS = np.arange(21) / 20
"""Drawn intensities at which curves are given; linear between them."""
LEVELS = np.arange(101) / 100
"""True intensities, as curves are learnt from them."""
LEAST_PEOPLE = 3
"""How many people must have shown an intensity in a region before a curve is learnt there."""

DRAWN = "drawn"
"""The region that the OOD branch drew."""
Curve = Mapping[str, Sequence[float]]
"""``low`` and ``high`` at KNOTS."""


class Counted(TypedDict):
    """A patient's voxels in a region, and how many of them lie beyond limits that are moved by each of MARGINS."""

    voxels: int
    beyond: list[int]


class Band(TypedDict):
    """A region's band: how far its limits are moved, about which curve, and on how many patients. Without a curve it begins
    with the network's limits, or with the drawn value."""

    margin: float
    curve: Curve | None
    patients: int


class Intervals(TypedDict):
    """What is promised of voxels: the share of true values between the limits, each region's band, on how many patients;
    whether bands without a curve begin with the limits of the bundle's interval network."""

    level: float
    bands: dict[str, Band | None]
    patients: int
    network: bool


Limits = tuple[NDArray[Any], NDArray[Any]]
"""The lower and the upper one, of every voxel."""
Residuals = dict[str, Counted]
"""By region."""
Seen = dict[str, list[list[int]]]
"""Region → how many voxels of each drawn intensity (KNOTS) had each true one (LEVELS)."""


@dataclass(frozen=True, eq=False)
class Voxels:
    """A patient's brain: of each voxel the ``true`` value and the drawn ``image`` in [0, 1], its ``source`` label, whether
    it is lesion, and the interval network's limits (``begun``; None without one).

    ``true`` is empty where there is no true target.
    """

    true: NDArray[np.float32]
    image: NDArray[np.float32]
    source: NDArray[np.uint8]
    lesion: NDArray[np.bool_]
    begun: Limits | None = None


def start(image: NDArray[Any], curve: Curve | None, begun: Limits | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return limits before they are moved: those of the curve, or those ``begun`` by a network, or the drawn value itself."""
    drawn = np.asarray(image, np.float64)
    if curve is not None:
        return np.interp(drawn, KNOTS, curve["low"]), np.interp(drawn, KNOTS, curve["high"])
    return (drawn, drawn) if begun is None else (np.asarray(begun[0], np.float64), np.asarray(begun[1], np.float64))


def beside_network(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    """Return the curves that are used where an interval network begins the bands: those of what the OOD branch drew.

    Few training people have such voxels. A network learns them by heart and its band is too narrow for the next; a curve of
    21 numbers does not.
    """
    return {region: curve for region, curve in curves.items() if region == DRAWN}


def _of(begun: Limits | None, inside: NDArray[np.bool_]) -> Limits | None:
    """The limits of some voxels."""
    return None if begun is None else (begun[0][inside], begun[1][inside])


def residuals(voxels: Voxels, curves: Mapping[str, Curve]) -> Residuals:
    """Return a patient's residuals, counted."""
    found: Residuals = {}
    for region, labels in PARTS.items():
        inside = among(voxels.source, labels)
        low, high = start(voxels.image[inside], curves.get(region), _of(voxels.begun, inside))
        found[region] = counted(low, high, np.asarray(voxels.true[inside], np.float64))
    return found


def counted(low: NDArray[np.float64], high: NDArray[np.float64], actual: NDArray[np.float64]) -> Counted:
    """Return how many of the ``actual`` values lie beyond limits that are moved by each of MARGINS."""
    needed = np.sort(np.maximum(low - actual, actual - high))
    beyond = len(needed) - np.searchsorted(needed, MARGINS, side="right")
    return {"voxels": len(needed), "beyond": [int(n) for n in beyond]}


def among(source: NDArray[np.uint8], labels: Sequence[int]) -> NDArray[np.bool_]:
    """Return where the source map has one of the labels."""
    table = np.zeros(256, bool)
    table[list(labels)] = True
    return table[source]


def margin(patients: Sequence[Residuals], region: str, level: float) -> float | None:
    """Return how far the limits of a region must be moved; None where the patients who have it are too few to promise
    ``level``."""
    having = [patient[region] for patient in patients if patient[region]["voxels"]]
    if not having:
        return None
    outside = np.array([each["beyond"] for each in having], np.float64) / np.array([each["voxels"] for each in having], np.float64)[:, None]
    # The widest band is the most cautious setting, and comes first.
    narrowest = risk_control(outside[:, ::-1], 1 - level)
    return None if narrowest is None else float(MARGINS[::-1][narrowest])


def bands(patients: Sequence[Residuals], level: float, curves: Mapping[str, Curve]) -> dict[str, Band | None]:
    """Return every region's band."""
    margins = {region: margin(patients, region, level) for region in PARTS}
    counts = {region: sum(patient[region]["voxels"] > 0 for patient in patients) for region in PARTS}
    return {
        region: None if found is None else {"margin": found, "curve": curves.get(region), "patients": counts[region]}
        for region, found in margins.items()
    }


def limits(
    image: NDArray[Any], source: NDArray[np.uint8], found: Mapping[str, Band | None], begun: Limits | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the band around ``image`` in [0, 1], which a network has ``begun`` (None: none has): its lower and upper limit;
    all of [0, 1] where nothing is promised, 0 outside the brain."""
    low, high = np.zeros(image.shape, np.float32), np.zeros(image.shape, np.float32)
    for region, labels in PARTS.items():
        inside, band = among(source, labels), found.get(region)
        if band is None:
            low[inside], high[inside] = 0, 1
            continue
        below, above = start(image[inside], band["curve"], _of(begun, inside))
        low[inside], high[inside] = moved(below, above, band["margin"])
    return low, high


def moved(low: NDArray[np.float64], high: NDArray[np.float64], by: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return limits moved outwards by a share of the range, cut to [0, 1]; inwards (``by`` below 0) at most to their middle."""
    middle = (low + high) / 2
    return np.clip(np.minimum(low - by, middle), 0, 1), np.clip(np.maximum(high + by, middle), 0, 1)


def seen(voxels: Voxels) -> Seen:
    """Return what curves are learnt from: how often which true intensity met which drawn one, by region."""
    found = {}
    for region, labels in PARTS.items():
        inside, pair = among(voxels.source, labels), ((voxels.image, KNOTS), (voxels.true, LEVELS))
        drawn, actual = (np.rint(np.clip(each[inside], 0, 1) * (len(steps) - 1)) for each, steps in pair)
        counts, _, _ = np.histogram2d(drawn, actual, (np.arange(len(KNOTS) + 1) - 0.5, np.arange(len(LEVELS) + 1) - 0.5))
        found[region] = counts.astype(int).tolist()
    return found


def learn(people: Sequence[Seen], level: float) -> dict[str, Curve]:
    """Return curves between which ``level`` of the true values lay, half of the rest on either side; people count alike,
    however large.

    At each drawn intensity it is the pair of values that loses least in pinball loss. Regions and intensities that fewer
    than LEAST_PEOPLE showed have none: the nearest that has one is used there.
    """
    made: dict[str, Curve] = {}
    for region in PARTS:
        counts = np.array([each[region] for each in people], np.float64).reshape(-1, len(KNOTS), len(LEVELS))
        total = counts.sum(axis=2, keepdims=True)
        shares = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0).sum(axis=0)
        known = np.flatnonzero((total[..., 0] > 0).sum(axis=0) >= LEAST_PEOPLE)
        if known.size:
            low, high = ([_quantile(shares[k], tail) for k in known] for tail in ((1 - level) / 2, (1 + level) / 2))
            made[region] = {name: np.interp(KNOTS, KNOTS[known], each).round(4).tolist() for name, each in (("low", low), ("high", high))}
    return made


def _quantile(weights: NDArray[np.float64], tail: float) -> float:
    """The level below which a share ``tail`` of the weights lies."""
    reached = np.cumsum(weights) / weights.sum()
    return float(LEVELS[np.searchsorted(reached, tail)])
