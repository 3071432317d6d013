"""Bands in every voxel: how far the true value may lie above and below the translation, by who made the voxel.

In each region the share of a patient's voxels outside the band is a loss that falls as the band widens; conformal risk control
(theorems.py) gives the narrowest band in which it is at most 1 − level on average over new patients, half of it above and half below: a
lesion that is drawn too pale lies above.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.guarantees.theorems import risk_control

REGIONS = {"ordinary": (1,), "drawn": (2, 3), "unknown": (4,)}
"""Labels of the source map by region."""
WIDTHS = np.arange(201) / 200
"""Half-widths that are tried, as a share of the range: the last one is all of it."""

Residuals = dict[str, dict[str, Any]]
"""Region → ``voxels``, and how many of them lie more than each of WIDTHS ``above`` and ``below`` the translation."""


def residuals(true: NDArray, image: NDArray, source: NDArray[np.uint8]) -> Residuals:
    """A patient's residuals, counted; ``true`` and ``image`` in [0, 1], ``source`` labels of the same shape, 0 outside the brain."""
    found = {}
    for region, labels in REGIONS.items():
        inside = _among(source, labels)
        difference = np.asarray(true[inside], np.float64) - image[inside]
        found[region] = {"voxels": int(inside.sum()), "above": _beyond(difference), "below": _beyond(-difference)}
    return found


def _among(source: NDArray[np.uint8], labels: Sequence[int]) -> NDArray[np.bool_]:
    """Where the source map has one of the labels."""
    table = np.zeros(256, bool)
    table[list(labels)] = True
    return table[source]


def _beyond(difference: NDArray[np.float64]) -> list[int]:
    """How many differences are larger than each of WIDTHS."""
    smaller = np.searchsorted(np.sort(difference), WIDTHS, side="right")
    return (len(difference) - smaller).tolist()


def band(patients: Sequence[Residuals], region: str, level: float) -> tuple[float, float] | None:
    """Half-widths below and above for one region; None where the patients who have it are too few to promise ``level``."""
    having = [patient[region] for patient in patients if patient[region]["voxels"]]
    sides = [_half_width([each[side] for each in having], [each["voxels"] for each in having], level) for side in ("below", "above")]
    return None if sides[0] is None or sides[1] is None else (sides[0], sides[1])


def _half_width(beyond: Sequence[Sequence[int]], voxels: Sequence[int], level: float) -> float | None:
    if not voxels:
        return None
    outside = np.array(beyond, np.float64) / np.array(voxels, np.float64)[:, None]
    # The widest band is the most cautious setting, and comes first.
    narrowest = risk_control(outside[:, ::-1], (1 - level) / 2)
    return None if narrowest is None else float(WIDTHS[::-1][narrowest])


def bands(patients: Sequence[Residuals], level: float) -> dict[str, list[float] | None]:
    """Every region's band."""
    found = {region: band(patients, region, level) for region in REGIONS}
    return {region: None if each is None else list(each) for region, each in found.items()}


def limits(
    image: NDArray, source: NDArray[np.uint8], found: dict[str, list[float] | None]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The band around ``image`` in [0, 1]: its lower and upper limit; all of [0, 1] where nothing is promised, 0 outside the brain."""
    low, high = np.zeros(image.shape, np.float32), np.zeros(image.shape, np.float32)
    for region, labels in REGIONS.items():
        inside, widths = _among(source, labels), found.get(region)
        below, above = (1.0, 1.0) if widths is None else widths
        low[inside] = np.clip(image[inside] - below, 0, 1)
        high[inside] = np.clip(image[inside] + above, 0, 1)
    return low, high
