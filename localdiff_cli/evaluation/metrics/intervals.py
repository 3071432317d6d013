"""Does the true value lie between the limits that were given? Share of voxels covered, and how wide the band is, region by
region."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.errors import VolumeError
from localdiff_cli.evaluation.metrics.image import DataRange
from localdiff_cli.evaluation.metrics.measure import Measure, measured, missing

PARTS: Mapping[str, tuple[int, ...]] = {"ordinary": (1,), "drawn": (2, 3), "unknown": (4,)}
"""What made a voxel, by the labels of the source map: the ordinary process, the OOD branch, or unknown."""
INTERVAL_REGIONS: Mapping[str, str] = {
    "brain": "brain", "lesion": "inside the lesion", "ordinary": "ordinary voxels", "drawn": "drawn by the OOD branch",
    "unknown": "called unknown",
}  # fmt: skip
"""Region → words for it."""


def check_limits(low: NDArray[Any], high: NDArray[Any], brain: NDArray[np.bool_], name: str) -> None:
    """Raise :class:`VolumeError` where a lower limit lies above the upper one inside the brain."""
    crossed = int(np.count_nonzero((low > high) & brain))
    if crossed:
        raise VolumeError(
            f"{name}: in {crossed} voxels of the brain the lower limit is above the upper; expected --lo below --hi. Were they swapped?",
            code="limits",
        )


def interval_regions(
    brain: NDArray[np.bool_], lesion: NDArray[np.bool_] | None, source: NDArray[np.uint8] | None
) -> dict[str, NDArray[np.bool_]]:
    """Return the regions that are known, bool, each inside the brain."""
    known = {"brain": brain} | ({} if lesion is None else {"lesion": lesion & brain})
    return known | ({} if source is None else {part: np.isin(source, labels) & brain for part, labels in PARTS.items()})


def interval_figures(
    low: NDArray[Any], high: NDArray[Any], reference: NDArray[Any], regions: Mapping[str, NDArray[np.bool_]], data_range: DataRange
) -> dict[str, Measure]:
    """Return ``coverage_<region>``, the share of voxels with low ≤ reference ≤ high, and ``width_<region>``, the mean of
    high − low over the data range."""
    figures: dict[str, Measure] = {}
    for region, mask in regions.items():
        if not mask.any():
            nothing = missing(f"no voxel: {INTERVAL_REGIONS[region]}")
            figures |= {f"coverage_{region}": nothing, f"width_{region}": nothing}
            continue
        below, above, true = (np.asarray(image[mask], np.float32) for image in (low, high, reference))
        figures[f"coverage_{region}"] = measured(np.mean((below - SLACK <= true) & (true <= above + SLACK)))
        span = np.mean(above - below, dtype=np.float64)
        figures[f"width_{region}"] = measured(span / data_range.value) if data_range.value > 0 else missing("the data range is 0")
    return figures


SLACK = 1e-6
"""Limits are stored as float32: a value on the limit itself lies within."""
