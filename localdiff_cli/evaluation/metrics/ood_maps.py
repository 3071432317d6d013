"""OOD maps against the truth, inside the brain: AUROC, AUPRO, average precision, Dice at the calibrated threshold.

All exact, by sorting the negatives once and looking the positives up: no threshold grid, ties counted half. For a volume of
9 million voxels the peak is about twice the score array.

AUPRO is the per-region overlap of MVTec AD (Bergmann et al. 2021), as PatchCore (Roth et al. 2022) reports it: for each
threshold the mean over the truth's connected components (here 3D, 26 neighbours) of the share that is found, integrated
over the false-positive rate up to ``limit`` (30 %) by trapezoids between thresholds, divided by ``limit``: 1 is perfect, a
random map has limit / 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.evaluation.metrics.measure import Measure, measured, missing
from localdiff_cli.evaluation.metrics.segmentation import components, dice

NO_TRUTH = "the truth has no voxel inside the brain"
ALL_TRUTH = "the truth covers the whole brain: no negative voxel"


@dataclass(frozen=True)
class OodFigures:
    """How well an OOD map finds the truth."""

    auroc: Measure
    aupro: Measure
    average_precision: Measure
    dice: Measure


def ood_figures(
    ood_map: NDArray[Any], ood_mask: NDArray[np.bool_] | None, truth: NDArray[np.bool_], brain: NDArray[np.bool_], limit: float
) -> OodFigures:
    """Return all figures of ``ood_map`` (scores that rise with anomaly) and ``ood_mask`` against ``truth``, all
    ``(slices, rows, columns)``."""
    at_threshold = missing("no OOD mask was given") if ood_mask is None else measured(dice(ood_mask & brain, truth & brain))
    positive = truth & brain
    reason = NO_TRUTH if not positive.any() else ALL_TRUTH if not (brain & ~truth).any() else ""
    if reason:
        return OodFigures(missing(reason), missing(reason), missing(reason), at_threshold)
    positives, weights = ood_map[positive], _region_weights(positive)
    negatives = np.sort(ood_map[brain & ~truth])
    return OodFigures(
        auroc=measured(auroc(positives, negatives)),
        aupro=measured(aupro(positives, weights, negatives, limit)),
        average_precision=measured(average_precision(positives, negatives)),
        dice=at_threshold,
    )


def auroc(positives: NDArray[Any], sorted_negatives: NDArray[Any]) -> float:
    """Return the chance that a positive scores above a negative, ties counted half (Mann-Whitney U / (n·m))."""
    below = np.searchsorted(sorted_negatives, positives, "left")
    not_above = np.searchsorted(sorted_negatives, positives, "right")
    return float((below.sum(dtype=np.float64) + not_above.sum(dtype=np.float64)) / (2 * positives.size * sorted_negatives.size))


def average_precision(positives: NDArray[Any], sorted_negatives: NDArray[Any]) -> float:
    """Return Σ (recall_k − recall_{k−1}) · precision_k over falling thresholds; recall moves only at scores of positives."""
    thresholds, counts = np.unique(positives, return_counts=True)
    true_positives = np.cumsum(counts[::-1])[::-1]
    false_positives = sorted_negatives.size - np.searchsorted(sorted_negatives, thresholds, "left")
    return float(np.sum(counts * (true_positives / (true_positives + false_positives))) / positives.size)


def aupro(positives: NDArray[Any], weights: NDArray[Any], sorted_negatives: NDArray[Any], limit: float) -> float:
    """Return the per-region overlap integrated to the false-positive rate ``limit`` and divided by it.

    ``weights`` ``(positives,)``: each positive's share of its component, over the number of components; they sum to 1.
    """
    order = np.argsort(positives)
    scores, summed = positives[order], np.concatenate(([0.0], np.cumsum(weights[order])))
    kept = min(sorted_negatives.size, int(np.ceil(limit * sorted_negatives.size)))
    # The last threshold's group may reach beyond the limit: take it whole, so that the line to its end can be cut at the limit.
    start = int(np.searchsorted(sorted_negatives, sorted_negatives[-kept], "left"))
    thresholds, counts = np.unique(sorted_negatives[start:], return_counts=True)
    thresholds, rate = thresholds[::-1], np.cumsum(counts[::-1]) / sorted_negatives.size
    before = 1 - summed[np.searchsorted(scores, thresholds, "right")] / summed[-1]
    after = 1 - summed[np.searchsorted(scores, thresholds, "left")] / summed[-1]
    return _area(np.concatenate(([0.0], rate)), before, after, limit) / limit


def _area(rate: NDArray[Any], before: NDArray[Any], after: NDArray[Any], limit: float) -> float:
    """Area under lines from (rate_k, before_k) to (rate_{k+1}, after_k), the last one cut at ``limit``."""
    width = np.clip(limit - rate[:-1], 0, np.diff(rate))
    at_end = before + (after - before) * width / np.diff(rate)
    return float(np.sum(width * (before + at_end) / 2))


def _region_weights(truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """For each voxel of ``truth``, in array order: 1 / (components · size of its component)."""
    labels, count = components(truth)
    own = labels[truth]
    sizes = np.bincount(own, minlength=count + 1)
    return 1 / (count * sizes[own])
