"""Lesions one by one: each connected component of the truth, found or missed, and what of its contrast is kept; and those
invented.

A lesion is a 3D component (26 neighbours). It is *found* when the segmenter's mask touches it by a voxel, *missed* when
that is so on the true contrast and not on the image. A marked component is *invented* when it touches no lesion. *Contrast
kept* is the lesion's contrast to its ring over that on the true contrast: 1 is faithful, 0 erased, below 0 inverted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from localdiff_cli.evaluation.metrics.boxes import Box
from localdiff_cli.evaluation.metrics.image import DataRange
from localdiff_cli.evaluation.metrics.lesion import lesion_contrast, ring_around
from localdiff_cli.evaluation.metrics.measure import Measure, measured, missing, rounded, values_of
from localdiff_cli.evaluation.metrics.segmentation import components

Mask = NDArray[np.bool_]

SIZES: Mapping[str, tuple[float, float]] = {
    "under 0.1 ml": (0, 100),
    "0.1 to 1 ml": (100, 1000),
    "1 ml and more": (1000, np.inf),
}
"""Classes of size by volume: from the first number of mm³ to below the second."""
LEAST_CONTRAST = 0.02
"""Share of the data range by which a lesion must differ from its ring on the true contrast before a part of it can be kept."""


@dataclass(frozen=True, slots=True)
class LesionResult:
    """One component. ``image``: the prefix of the image on which it was marked though no lesion is there, None for a true
    lesion.

    ``number`` counts from 1 within its kind; ``slice_index`` is that of its centre. ``found`` by arm, 1 or 0: whether that
    image's mask touches it; ``contrast`` by arm, and ``kept`` by arm, of true lesions only.
    """

    number: int
    image: str | None
    volume_mm3: float
    slice_index: int
    found: Mapping[str, bool]
    contrast: Mapping[str, Measure]
    kept: Mapping[str, Measure]

    @property
    def size(self) -> str:
        """Its class of size."""
        return next(name for name, (low, high) in SIZES.items() if low <= self.volume_mm3 < high)


@dataclass(frozen=True)
class LesionSettings:
    """The ring around each lesion, mm, and the voxel's size."""

    gap_mm: float
    width_mm: float
    spacing: tuple[float, float, float]
    data_range: DataRange


def single_lesions(
    truth: Mask, marked: Mapping[str, Mask], images: Mapping[str, NDArray[Any]], brain: Mask, settings: LesionSettings
) -> tuple[LesionResult, ...]:
    """Return all true lesions, then all invented ones by image.

    ``marked``: the segmenter's masks by the prefix of their image; ``images`` likewise, all ``(slices, rows, columns)`` of
    one grid.
    """
    labels, _ = components(truth)
    touched = {arm: _labels_in(labels, mask) for arm, mask in marked.items()}
    free = brain & ~truth
    lesions = (
        _true_lesion(number, labels, box, touched, images, free, settings) for number, box in enumerate(ndimage.find_objects(labels), 1)
    )
    return (*lesions, *(each for arm in marked for each in _invented(arm, truth, marked, settings.spacing)))


def _labels_in(labels: NDArray[np.int32], mask: Mask) -> set[int]:
    return set(np.unique(labels[mask]).tolist()) - {0}


def _true_lesion(
    number: int,
    labels: NDArray[np.int32],
    box: Box,
    touched: Mapping[str, set[int]],
    images: Mapping[str, NDArray[Any]],
    free: Mask,
    settings: LesionSettings,
) -> LesionResult:
    """One lesion of the truth in its ``box``; ``free``: brain without any lesion, of which its ring is cut."""
    near = _grown(box, labels.shape, settings)
    lesion = labels[near] == number
    ring = ring_around(lesion, free[near], settings.spacing, settings.gap_mm, settings.width_mm)
    contrast = {arm: lesion_contrast(image[near], lesion, ring, settings.data_range) for arm, image in images.items()}
    kept = {arm: contrast_kept(own, contrast["reference_"]) for arm, own in contrast.items() if arm != "reference_"}
    found = {arm: number in labelled for arm, labelled in touched.items()}
    return LesionResult(number, None, _volume(lesion, settings.spacing), _centre(box), found, contrast, kept)


def _grown(box: Box, shape: tuple[int, ...], settings: LesionSettings) -> Box:
    """The box with room for the ring."""
    reach = [int((settings.gap_mm + settings.width_mm) / step) + 1 for step in settings.spacing]
    return tuple(slice(max(0, part.start - more), min(n, part.stop + more)) for part, more, n in zip(box, reach, shape, strict=True))


def _centre(box: Box) -> int:
    return int(box[0].start + box[0].stop - 1) // 2


def contrast_kept(own: Measure, true: Measure) -> Measure:
    """Return the share of a lesion's true contrast that an image keeps; a reason where there is next to none to keep."""
    if own.value is None or true.value is None:
        return own if own.value is None else true
    if abs(true.value) < LEAST_CONTRAST:
        return missing(f"the lesion's true contrast is below {LEAST_CONTRAST:g}: nothing to keep")
    return measured(own.value / true.value)


def _invented(arm: str, truth: Mask, marked: Mapping[str, Mask], spacing: tuple[float, float, float]) -> list[LesionResult]:
    """The marked components of an image that touch no lesion, and which other images' masks touch them too."""
    labels, _ = components(marked[arm])
    real = _labels_in(labels, truth)
    others = {name: _labels_in(labels, mask) for name, mask in marked.items() if name != arm}
    invented = [(number, box) for number, box in enumerate(ndimage.find_objects(labels), 1) if number not in real]

    def result(rank: int, number: int, box: Box) -> LesionResult:
        touched = {name: number in found for name, found in others.items()}
        return LesionResult(rank, arm, _volume(labels[box] == number, spacing), _centre(box), touched, {}, {})

    return [result(rank, number, box) for rank, (number, box) in enumerate(invented, 1)]


def _volume(mask: Mask, spacing: tuple[float, float, float]) -> float:
    return rounded(np.count_nonzero(mask) * float(np.prod(spacing)))


def lesion_counts(lesions: Sequence[LesionResult], marked: Collection[str]) -> dict[str, Measure]:
    """Return a volume's figures by key: lesions; by marked image those found, missed and invented; and the median contrast
    kept."""
    true = [each for each in lesions if each.image is None]
    figures = {"lesions": measured(len(true))}
    for arm in marked:
        figures[f"{arm}lesions_found"] = measured(sum(each.found[arm] for each in true))
        figures[f"{arm}lesions_invented"] = measured(sum(each.image == arm for each in lesions))
        if arm != "reference_" and "reference_" in marked:
            figures[f"{arm}lesions_missed"] = measured(sum(each.found["reference_"] and not each.found[arm] for each in true))
    for arm in dict.fromkeys(arm for each in true for arm in each.kept):
        kept = values_of(each.kept[arm] for each in true)
        figures[f"{arm}lesion_contrast_kept"] = measured(np.median(kept)) if kept else missing("no lesion with a contrast to keep")
    return figures
