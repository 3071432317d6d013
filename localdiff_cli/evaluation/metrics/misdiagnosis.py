"""Misdiagnosis, as Kim et al. (ECCV 2024) count it: lesions that a frozen segmenter misses, and lesions that are not there.

* A slice is **lesion-bearing** when the truth covers more than ``lesion_share`` of its brain pixels, **lesion-free** when
  the truth is empty on it and it shows brain. A slice with less lesion than that counts in neither.
* The segmenter **finds** a lesion when the Dice of its mask with the truth is at least ``delta``.
* **Missed**: among the lesion-bearing slices in which it finds the lesion on the *true* target contrast, the share in which
  it does not on the translation. For patients likewise, with the Dice of the whole volume; a patient is lesion-bearing with
  one such slice.
* **Invented**: among the lesion-free slices, the share in which it marks more than ``invented_pixels`` pixels of the translation.
* **Relative reduction** against a baseline: 1 − share / baseline's share.

Missed and invented belong together: a network that paints lesions everywhere misses none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.errors import UsageError
from localdiff_cli.evaluation.metrics.segmentation import slice_dice


@dataclass(frozen=True)
class MisdiagnosisSettings:
    """``delta``: least Dice of a found lesion; ``lesion_share``: of the slice's brain; ``invented_pixels``; ``sweep``:
    further deltas.

    Raises :class:`UsageError` for a share outside [0, 1] or a negative number of pixels.
    """

    delta: float = 0.1
    lesion_share: float = 0.02
    invented_pixels: int = 30
    sweep: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)

    def __post_init__(self) -> None:
        shares = (self.delta, self.lesion_share, *self.sweep)
        if not all(0 <= share <= 1 for share in shares) or self.invented_pixels < 0:
            raise UsageError(f"misdiagnosis: expected shares from 0 to 1 and at least 0 pixels, found {self}", code="misdiagnosis-settings")


@dataclass(frozen=True)
class SliceEvidence:
    """What the count needs to know of one volume, each ``(slices,)``: pixels of brain, truth and segmenter, and the two Dice.

    ``dice`` is the segmenter's on the judged image with the truth, ``reference_dice`` its own on the true target contrast.
    """

    brain_pixels: NDArray[np.int64]
    truth_pixels: NDArray[np.int64]
    segmented_pixels: NDArray[np.int64]
    dice: NDArray[np.float64]
    reference_dice: NDArray[np.float64]


@dataclass(frozen=True)
class Verdicts:
    """Per slice, bool ``(slices,)``: which it is and what happened to it. ``found``: on the true contrast; ``missed``: of
    those."""

    lesion_bearing: NDArray[np.bool_]
    lesion_free: NDArray[np.bool_]
    found: NDArray[np.bool_]
    missed: NDArray[np.bool_]
    invented: NDArray[np.bool_]


@dataclass(frozen=True)
class SliceCounts:
    """Slices counted: ``missed`` of ``found`` of ``lesion_bearing``, ``invented`` of ``lesion_free``."""

    lesion_bearing: int
    found: int
    missed: int
    lesion_free: int
    invented: int


def collect_evidence(
    segmentation: NDArray[np.bool_], reference_segmentation: NDArray[np.bool_], truth: NDArray[np.bool_], brain: NDArray[np.bool_]
) -> SliceEvidence:
    """Return the evidence of one volume from its masks, bool ``(slices, rows, columns)``."""
    brain_pixels, truth_pixels, segmented = (np.count_nonzero(mask, axis=(1, 2)) for mask in (brain, truth, segmentation))
    return SliceEvidence(brain_pixels, truth_pixels, segmented, slice_dice(segmentation, truth), slice_dice(reference_segmentation, truth))


def judge_slices(evidence: SliceEvidence, settings: MisdiagnosisSettings, delta: float | None = None) -> Verdicts:
    """Return the verdict on each slice; ``delta`` in place of the settings' one for a sweep."""
    delta = settings.delta if delta is None else delta
    bearing = evidence.truth_pixels > settings.lesion_share * evidence.brain_pixels
    free = (evidence.truth_pixels == 0) & (evidence.brain_pixels > 0)
    found = bearing & (evidence.reference_dice >= delta)
    return Verdicts(
        lesion_bearing=bearing,
        lesion_free=free,
        found=found,
        missed=found & (evidence.dice < delta),
        invented=free & (evidence.segmented_pixels > settings.invented_pixels),
    )


def tally(verdicts: Verdicts) -> SliceCounts:
    """Count the verdicts of one volume."""
    masks = (verdicts.lesion_bearing, verdicts.found, verdicts.missed, verdicts.lesion_free, verdicts.invented)
    return SliceCounts(*(int(np.count_nonzero(mask)) for mask in masks))


def patient_missed(tally_: SliceCounts, dice: float, reference_dice: float, delta: float) -> tuple[bool, bool]:
    """Return whether a patient counts (lesion-bearing and found on the true contrast), and whether the translation loses
    the lesion."""
    counts = tally_.lesion_bearing > 0 and reference_dice >= delta
    return counts, counts and dice < delta


def relative_reduction(share: float, baseline_share: float) -> float | None:
    """Return 1 − ``share`` / ``baseline_share``; None where the baseline's share is 0 and nothing is left to reduce."""
    return None if baseline_share == 0 else 1 - share / baseline_share
