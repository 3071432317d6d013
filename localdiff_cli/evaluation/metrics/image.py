"""Image similarity for a named mask and a named data range: PSNR, SSIM (3D and slice mean), MAE, NRMSE.

scikit-image does the arithmetic; here images are only cropped, masked and averaged. Arrays are ``(slices, rows, columns)``.

* **PSNR** = 10 · log10(range² / MSE), over the voxels of the mask.
* **SSIM** (Wang et al. 2004: Gaussian window of σ = 1.5 voxels, 11 wide, population covariance): the mean of the full SSIM map
  *inside the mask*. The map is computed on unmasked images, so a window at the rim of a mask looks 5 voxels beyond it.
  3D: one map with a cubic window in voxels. Slice mean: a 2D map for each slice, its mean inside the mask, averaged over the
  slices which the mask touches.
* **MAE** = mean |translation − reference|, in units of the images.
* **NRMSE** = root of Σ (translation − reference)² / Σ reference², over the voxels of the mask.

Only the box in which either image is not 0, grown by the window's radius, enters the SSIM: beyond it 0 is compared with 0
and SSIM is exactly 1, which the average over the whole volume counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import mean_squared_error, normalized_root_mse, peak_signal_noise_ratio, structural_similarity

from localdiff_cli.evaluation.metrics.boxes import Box, bounding_box
from localdiff_cli.evaluation.metrics.measure import Measure, measured, missing

REGIONS = ("whole", "brain", "lesion", "ring", "outside")
"""Whole volume; brain; lesion; ring around the lesion; outside: the brain minus the lesion."""

IDENTICAL = "the images are identical: PSNR is infinite"
SSIM_SIGMA = 1.5
SSIM_RADIUS = 5
SSIM_WIDTH = 2 * SSIM_RADIUS + 1


@dataclass(frozen=True)
class DataRange:
    """The span of possible intensities (units of the images), which PSNR, SSIM and contrast are relative to, and where it
    is from."""

    value: float
    source: str


@dataclass(frozen=True)
class Compartment:
    """A named part of the volume: ``mask`` bool of the volume's shape, ``mask_name`` says whose mask. Without a mask:
    ``reason``."""

    name: str
    mask: NDArray[np.bool_] | None
    mask_name: str
    reason: str = ""


@dataclass(frozen=True)
class RegionFigures:
    """Image figures of one region; ``mask_name`` and ``data_range`` always travel with them."""

    region: str
    mask_name: str
    data_range: DataRange
    voxels: int
    psnr: Measure
    ssim: Measure
    ssim_slices: Measure
    mae: Measure
    nrmse: Measure


@dataclass(frozen=True)
class SsimMaps:
    """SSIM maps inside ``box`` of a volume; everywhere else SSIM is 1. A map that cannot be had is None, with its reason."""

    box: Box
    volume: NDArray[np.float32] | None
    slices: NDArray[np.float32] | None
    volume_reason: str = ""
    slices_reason: str = ""


def ssim_maps(translation: NDArray[Any], reference: NDArray[Any], data_range: DataRange, *, volume: bool = True) -> SsimMaps:
    """Return slice-wise SSIM maps of two volumes ``(slices, rows, columns)`` of the same shape, and the 3D one where
    ``volume`` asks for it."""
    box = bounding_box((translation != 0) | (reference != 0), (SSIM_RADIUS,) * 3) or (slice(0, 0),) * 3
    if data_range.value <= 0:
        reason = _no_range(data_range)
        return SsimMaps(box, None, None, reason, reason)
    a, b = (np.ascontiguousarray(image[box], dtype=np.float32) for image in (translation, reference))
    flat = f"SSIM needs {SSIM_WIDTH} voxels an axis, the volume is {' × '.join(map(str, translation.shape))}"
    if min(translation.shape[1:]) < SSIM_WIDTH:
        return SsimMaps(box, None, None, flat, flat)
    slices = np.stack([_ssim_map(x, y, data_range) for x, y in zip(a, b, strict=True)]) if len(a) else np.ones(a.shape, np.float32)
    if not volume or translation.shape[0] < SSIM_WIDTH:
        return SsimMaps(box, None, slices, flat if volume else "not asked for")
    return SsimMaps(box, _ssim_map(a, b, data_range) if a.size else slices, slices)


def ssim_of_slices(maps: SsimMaps, mask: NDArray[np.bool_] | None, shape: Sequence[int]) -> NDArray[np.float64]:
    """Return the SSIM of each slice inside ``mask`` (None: the whole slice); NaN where the mask does not touch it or there
    is no map."""
    if maps.slices is None:
        return np.full(shape[0], np.nan)
    # Beyond the box SSIM is 1: sum the shortfall 1 − SSIM inside it and divide by the voxels of the whole mask.
    shortfall = 1 - maps.slices if mask is None else (1 - maps.slices) * mask[maps.box]
    pixels = np.full(shape[0], shape[1] * shape[2]) if mask is None else np.count_nonzero(mask, axis=(1, 2))
    sums = np.zeros(shape[0])
    sums[maps.box[0]] = shortfall.sum(axis=(1, 2), dtype=np.float64)
    return np.where(pixels > 0, 1 - sums / np.maximum(pixels, 1), np.nan)


def region_figures(
    translation: NDArray[Any], reference: NDArray[Any], region: Compartment, data_range: DataRange, maps: SsimMaps
) -> RegionFigures:
    """Return PSNR, SSIM, MAE and NRMSE of one region; an empty or absent mask, or a constant image, gives a reason instead
    of a number."""
    absent = region.reason or ("" if region.mask is None or region.mask.any() else f"the mask is empty: no voxel of {region.mask_name}")
    if absent:
        return RegionFigures(region.name, region.mask_name, data_range, 0, *(missing(absent),) * 5)
    a, b = (image.ravel() if region.mask is None else image[region.mask] for image in (translation, reference))
    return RegionFigures(
        region=region.name,
        mask_name=region.mask_name,
        data_range=data_range,
        voxels=a.size,
        psnr=psnr(a, b, data_range),
        ssim=_ssim_inside(maps, region.mask, translation.shape),
        ssim_slices=_ssim_slice_mean(maps, region.mask, translation.shape),
        mae=measured(np.mean(np.abs(a - b), dtype=np.float64)),
        nrmse=nrmse(a, b),
    )


def psnr(translation: NDArray[Any], reference: NDArray[Any], data_range: DataRange) -> Measure:
    """Return the PSNR in dB of two arrays of voxels; a reason where they are identical (infinite) or the data range is 0."""
    if data_range.value <= 0:
        return missing(_no_range(data_range))
    if mean_squared_error(reference, translation) == 0:
        return missing(IDENTICAL)
    return measured(peak_signal_noise_ratio(reference, translation, data_range=data_range.value))


def nrmse(translation: NDArray[Any], reference: NDArray[Any]) -> Measure:
    """Return the root mean square error over the reference's root mean square; a reason where the reference is 0
    everywhere."""
    if not np.any(reference):
        return missing("the reference is 0 everywhere in the mask: no norm to divide by")
    return measured(normalized_root_mse(reference, translation, normalization="euclidean"))


def _ssim_map(a: NDArray[np.float32], b: NDArray[np.float32], data_range: DataRange) -> NDArray[np.float32]:
    return structural_similarity(
        b, a, data_range=data_range.value, gaussian_weights=True, sigma=SSIM_SIGMA, use_sample_covariance=False, full=True
    )[1]


def _ssim_inside(maps: SsimMaps, mask: NDArray[np.bool_] | None, shape: Sequence[int]) -> Measure:
    if maps.volume is None:
        return missing(maps.volume_reason)
    inside = maps.volume if mask is None else maps.volume[mask[maps.box]]
    voxels = int(np.prod(shape)) if mask is None else np.count_nonzero(mask)
    return measured(1 - (1 - inside).sum(dtype=np.float64) / voxels)


def _ssim_slice_mean(maps: SsimMaps, mask: NDArray[np.bool_] | None, shape: Sequence[int]) -> Measure:
    if maps.slices is None:
        return missing(maps.slices_reason)
    return measured(np.nanmean(ssim_of_slices(maps, mask, shape)))


def _no_range(data_range: DataRange) -> str:
    return f"the data range is {data_range.value:g} ({data_range.source}): the reference is constant"
