"""Lesion fidelity: does the lesion stand out from its surroundings as much as on the true contrast? PSNR hides an erased
lesion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from localdiff_cli.evaluation.metrics.boxes import bounding_box
from localdiff_cli.evaluation.metrics.image import DataRange
from localdiff_cli.evaluation.metrics.measure import Measure, measured, missing

MIN_PAIRS = 3


@dataclass(frozen=True)
class ContrastAgreement:
    """Lesion contrast in the translation against that in the reference, over ``n`` pairs.

    ``slope`` and ``correlation`` of the least-squares line (a faithful translation has slope 1, an erased lesion 0);
    ``bias``: mean of translation minus reference, as a share of the data range.
    """

    n: int
    slope: Measure
    correlation: Measure
    bias: Measure


def ring_around(
    lesion: NDArray[np.bool_], brain: NDArray[np.bool_], spacing: tuple[float, float, float], gap_mm: float, width_mm: float
) -> NDArray[np.bool_]:
    """Return the brain voxels whose centre lies more than ``gap_mm`` and at most ``gap_mm + width_mm`` from the nearest
    lesion voxel's.

    ``lesion`` and ``brain`` bool ``(slices, rows, columns)``, ``spacing`` in mm in that order. The gap leaves out the
    voxels in which lesion and surroundings mix. Return bool of the same shape, empty for an empty lesion.
    """
    ring = np.zeros(lesion.shape, bool)
    reach = gap_mm + width_mm
    box = bounding_box(lesion, [int(reach / step) + 1 for step in spacing])
    if box is None:
        return ring
    distance = ndimage.distance_transform_edt(~lesion[box], sampling=spacing)
    # A whisker of tolerance: whether a voxel exactly on the rim counts must not hang on rounding.
    ring[box] = (distance > gap_mm * (1 + 1e-9)) & (distance <= reach * (1 + 1e-9)) & brain[box] & ~lesion[box]
    return ring


def lesion_contrast(image: NDArray[Any], lesion: NDArray[np.bool_], ring: NDArray[np.bool_], data_range: DataRange) -> Measure:
    """Return the mean intensity of the lesion minus that of its ring, as a share of the data range; a reason where either
    is empty."""
    if not lesion.any():
        return missing("no lesion voxel: no contrast")
    if not ring.any():
        return missing("no brain voxel in the ring around the lesion")
    if data_range.value <= 0:
        return missing(f"the data range is {data_range.value:g} ({data_range.source})")
    difference = np.mean(image[lesion], dtype=np.float64) - np.mean(image[ring], dtype=np.float64)
    return measured(difference / data_range.value)


def contrast_agreement(translation: Sequence[Measure], reference: Sequence[Measure]) -> ContrastAgreement:
    """Return how translation contrasts follow reference contrasts; pairs in which either is missing are left out and not
    counted in ``n``."""
    pairs = [(x.value, y.value) for x, y in zip(reference, translation, strict=True) if x.value is not None and y.value is not None]
    if not pairs:
        none = missing("no lesion contrast to compare")
        return ContrastAgreement(0, none, none, none)
    x, y = np.array(pairs, dtype=np.float64).T
    bias = measured(np.mean(y - x))
    few = f"{len(pairs)} pairs: a line needs {MIN_PAIRS}" if len(pairs) < MIN_PAIRS else ""
    flat_x = "the reference contrast does not vary" if np.ptp(x) == 0 else ""
    flat_y = "the translation contrast does not vary" if np.ptp(y) == 0 else ""
    no_slope, no_correlation = few or flat_x, few or flat_x or flat_y
    slope = missing(no_slope) if no_slope else measured(np.polyfit(x, y, 1)[0])
    correlation = missing(no_correlation) if no_correlation else measured(stats.pearsonr(x, y).statistic)
    return ContrastAgreement(len(pairs), slope, correlation, bias)
