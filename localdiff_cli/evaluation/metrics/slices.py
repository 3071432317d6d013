"""The figures of each slice that shows brain: the rows of ``slices.tsv``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.evaluation.metrics.image import DataRange, RegionFigures, SsimMaps, psnr, ssim_of_slices
from localdiff_cli.evaluation.metrics.lesion import lesion_contrast
from localdiff_cli.evaluation.metrics.measure import Measure, measured, missing
from localdiff_cli.evaluation.metrics.misdiagnosis import MisdiagnosisSettings, SliceEvidence, judge_slices


@dataclass(frozen=True)
class Arm:
    """An image under judgement: key ``prefix`` (empty: translation), its SSIM maps and its figures in all regions."""

    prefix: str
    image: NDArray[Any]
    maps: SsimMaps
    figures: tuple[RegionFigures, ...]


@dataclass(frozen=True, slots=True)
class SliceResult:
    """Figures of canonical slice ``index`` (from 0, feet to head), by column name; verdicts are 1 or 0."""

    index: int
    metrics: Mapping[str, Measure]


def slice_results(
    arms: tuple[Arm, ...],
    reference: NDArray[Any],
    brain: NDArray[np.bool_],
    lesion: NDArray[np.bool_] | None,
    ring: NDArray[np.bool_] | None,
    data_range: DataRange,
    evidence: Mapping[str, SliceEvidence],
    settings: MisdiagnosisSettings,
) -> tuple[SliceResult, ...]:
    """Return one result for each slice with a brain pixel; arrays ``(slices, rows, columns)``, ``lesion`` and ``ring``
    inside the brain."""
    brain_pixels = np.count_nonzero(brain, axis=(1, 2))
    ssim = {arm.prefix: ssim_of_slices(arm.maps, brain, brain.shape) for arm in arms}
    verdicts = verdict_columns(evidence, settings)
    results = []
    for k in map(int, np.flatnonzero(brain_pixels)):
        metrics = {"brain_pixels": measured(brain_pixels[k])}
        for arm in arms:
            metrics |= _image_columns(arm, reference[k], brain[k], k, data_range, ssim[arm.prefix][k])
        if lesion is not None and ring is not None:
            images = {arm.prefix: arm.image[k] for arm in arms} | {"reference_": reference[k]}
            metrics |= {f"{prefix}contrast": lesion_contrast(image, lesion[k], ring[k], data_range) for prefix, image in images.items()}
        metrics |= {name: measured(column[k]) for name, column in verdicts.items()}
        results.append(SliceResult(k, metrics))
    return tuple(results)


def verdict_columns(evidence: Mapping[str, SliceEvidence], settings: MisdiagnosisSettings) -> dict[str, NDArray[Any]]:
    """Return what ``misdiagnosis.py`` knows of each slice, ``(slices,)`` by column name; empty without evidence."""
    columns: dict[str, NDArray[Any]] = {}
    for prefix, each in evidence.items():
        verdicts = judge_slices(each, settings)
        if not columns:
            columns |= {"truth_pixels": each.truth_pixels, "reference_dice": each.reference_dice}
            columns |= {name: getattr(verdicts, name).astype(int) for name in ("lesion_bearing", "lesion_free", "found")}
        columns |= {f"{prefix}segmented_pixels": each.segmented_pixels, f"{prefix}invented": verdicts.invented.astype(int)}
        if prefix != "reference_":
            columns |= {f"{prefix}dice": each.dice, f"{prefix}missed": verdicts.missed.astype(int)}
    return columns


def _image_columns(
    arm: Arm, reference: NDArray[Any], brain: NDArray[np.bool_], k: int, data_range: DataRange, ssim: float
) -> dict[str, Measure]:
    a, b = arm.image[k][brain], reference[brain]
    return {
        f"{arm.prefix}psnr_brain": psnr(a, b, data_range),
        f"{arm.prefix}ssim_brain": measured(ssim) if np.isfinite(ssim) else missing(arm.maps.slices_reason),
        f"{arm.prefix}mae_brain": measured(np.mean(np.abs(a - b), dtype=np.float64)),
    }
