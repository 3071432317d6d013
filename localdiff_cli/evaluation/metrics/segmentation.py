"""Segmentation figures of a binary mask against the truth, every empty case defined.

====================== ======= ======= ========== ============= ============= ============= ===================
truth / prediction     Dice    HD95    surface D. sensitivity   precision     volume diff.  reading
====================== ======= ======= ========== ============= ============= ============= ===================
empty / empty          1       0 mm    1          none (a)      none (b)      0             they agree: nothing
empty / not empty      0       none(c) 0          none (a)      0             > 0           invented
not empty / empty      0       none(c) 0          0             none (b)      < 0           missed
not empty / not empty  as defined below
====================== ======= ======= ========== ============= ============= ============= ===================

(a) no lesion that could be found; (b) no finding that could be right; (c) one mask has no surface, so no distance exists
(an average of HD95 therefore leaves missed lesions out: read it beside the Dice). Nothing is NaN, nothing is dropped
silently. MONAI's ``DiceMetric`` differs on purpose: by default it makes an all-empty set 0 and drops false positives on an
empty truth.

* **Dice** = 2 |A ∩ B| / (|A| + |B|).
* **HD95** (mm): the larger of the two directed 95th percentiles of surface distances. A surface voxel is a voxel of the
  mask with a face neighbour outside it or outside the volume. A volume of one slice is judged in 2D.
* **Normalised surface Dice**: the share of both surfaces' voxels within the tolerance (mm) of the other surface.
* **Lesion-wise**: components connected by face, edge or corner in 3D. A true lesion is found when the prediction touches it
  by a voxel (sensitivity); a predicted component is right when it touches the truth by a voxel (precision).
* **Volume difference** (mm³): prediction minus truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from localdiff_cli.evaluation.metrics.boxes import bounding_box
from localdiff_cli.evaluation.metrics.measure import Measure, measured, missing

NO_LESION = "the truth is empty: no lesion that could be found"
NO_FINDING = "the prediction is empty: no finding that could be right"
NO_SURFACE = "one of the masks is empty: no distance between surfaces"

Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class SegmentationFigures:
    """Agreement of a predicted mask with the truth; see the module's table for empty masks."""

    dice: Measure
    hd95_mm: Measure
    surface_dice: Measure
    lesion_sensitivity: Measure
    lesion_precision: Measure
    volume_difference_mm3: Measure


def compare_masks(prediction: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Spacing, tolerance_mm: float) -> SegmentationFigures:
    """Return all figures of ``prediction`` against ``truth``, bool ``(slices, rows, columns)``, ``spacing`` in mm in that
    order."""
    hd95, surface_dice = surface_figures(prediction, truth, spacing, tolerance_mm)
    sensitivity, precision = lesion_wise(prediction, truth)
    excess = np.count_nonzero(prediction) - np.count_nonzero(truth)
    return SegmentationFigures(
        measured(dice(prediction, truth)), hd95, surface_dice, sensitivity, precision, measured(excess * float(np.prod(spacing)))
    )


def dice(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return 2 |A ∩ B| / (|A| + |B|); 1 where both are empty."""
    total = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return 2 * np.count_nonzero(prediction & truth) / total if total else 1.0


def slice_dice(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the Dice of each slice of two ``(slices, rows, columns)`` masks; 1 where both are empty."""
    total = np.count_nonzero(prediction, axis=(1, 2)) + np.count_nonzero(truth, axis=(1, 2))
    shared = np.count_nonzero(prediction & truth, axis=(1, 2))
    return np.where(total > 0, 2 * shared / np.maximum(total, 1), 1.0)


def surface_figures(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Spacing, tolerance_mm: float
) -> tuple[Measure, Measure]:
    """Return the 95 % Hausdorff distance (mm) and normalised surface Dice at ``tolerance_mm``."""
    if not prediction.any() and not truth.any():
        return measured(0.0), measured(1.0)
    if not prediction.any() or not truth.any():
        return missing(NO_SURFACE), measured(0.0)
    to_truth, to_prediction = surface_distances(prediction, truth, spacing)
    hd95 = max(np.percentile(to_truth, 95), np.percentile(to_prediction, 95))
    # A whisker of tolerance: a distance that equals the tolerance must not hang on rounding.
    near = np.count_nonzero(np.concatenate((to_truth, to_prediction)) <= tolerance_mm * (1 + 1e-9))
    return measured(hd95), measured(near / (to_truth.size + to_prediction.size))


def surface_distances(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Spacing
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the distances (mm) from each surface voxel of the prediction to the truth's surface, and the other way round;
    neither mask empty."""
    box = bounding_box(prediction | truth, (0, 0, 0))
    a, b = prediction[box], truth[box]
    thick = tuple(axis for axis in range(3) if prediction.shape[axis] > 1) or (0,)
    flat = tuple(axis for axis in range(3) if axis not in thick)
    sampling = [spacing[axis] for axis in thick]
    surface_a, surface_b = (_surface(np.squeeze(mask, axis=flat)) for mask in (a, b))
    return (
        ndimage.distance_transform_edt(~surface_b, sampling=sampling)[surface_a],
        ndimage.distance_transform_edt(~surface_a, sampling=sampling)[surface_b],
    )


def lesion_wise(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[Measure, Measure]:
    """Return lesion-wise sensitivity and precision over 3D connected components (26 neighbours)."""
    sensitivity = _touched_share(truth, prediction)
    precision = _touched_share(prediction, truth)
    return (
        missing(NO_LESION) if sensitivity is None else measured(sensitivity),
        missing(NO_FINDING) if precision is None else measured(precision),
    )


def components(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Label the components of a 3D mask (26 neighbours): int32 labels from 1, and their number."""
    labels = np.zeros(mask.shape, np.int32)
    return labels, ndimage.label(mask, np.ones((3, 3, 3), bool), output=labels)


def _touched_share(mask: NDArray[np.bool_], by: NDArray[np.bool_]) -> float | None:
    """The share of the components of ``mask`` that ``by`` touches."""
    box = bounding_box(mask, (0, 0, 0))
    if box is None:
        return None
    labels, count = components(mask[box])
    touched = np.unique(labels[by[box] & mask[box]])
    return touched.size / count


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return mask & ~ndimage.binary_erosion(mask)
