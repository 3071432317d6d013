"""Intensity: a smooth bias field out (N4), then one robust scale from the brain's own statistics.

Formula: z = (x / bias − median) / (1.4826 · MAD) over brain voxels, then u = (z − z_low) / (z_high − z_low) clipped to [0, 1]
and 0 outside the brain. Median and MAD do not move for a large lesion or bright fat. The window (z_low, z_high) belongs to the
contrast and is stored in the model bundle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.volumes.geometry import resampled, resampling_matrix

MAD_TO_SD = 1.4826
BIAS_GRID_MM = 4.0
BIAS_ITERATIONS = (30, 30, 20)

WINDOWS: dict[str, tuple[float, float]] = {"T1w": (-6.0, 6.0), "T2w": (-4.0, 12.0), "FLAIR": (-6.0, 8.0)}
"""The z window of each contrast that the shipped bundles use; another contrast gets (−4, 6)."""
DEFAULT_WINDOW = (-4.0, 6.0)


@dataclass(frozen=True)
class Scale:
    """Robust intensity scale of one volume: z = (x − median) / sd, window ``(z_low, z_high)`` maps to [0, 1]."""

    median: float
    sd: float
    window: tuple[float, float]

    def normalise(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Convert input units to [0, 1], clipped."""
        low, high = self.window
        z = (image - np.float32(self.median)) / np.float32(self.sd)
        return np.clip((z - np.float32(low)) / np.float32(high - low), 0, 1).astype(np.float32, copy=False)

    def denormalise(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Convert [0, 1] to units of the volume whose scale this is."""
        low, high = self.window
        return ((image * (high - low) + low) * self.sd + self.median).astype(np.float32)

    def clipped_share(self, values: NDArray[Any]) -> float:
        """Return the share of ``values`` (input units) that the window clips."""
        z = (values - self.median) / self.sd
        return float(np.mean((z < self.window[0]) | (z > self.window[1]))) if values.size else 0.0


def robust_scale(values: NDArray[Any], window: tuple[float, float]) -> Scale:
    """Return the scale of brain ``values`` (1D, input units). Raise ``ValueError`` where they do not vary."""
    median = float(np.median(values))
    deviation = np.abs(values - np.float32(median))
    sd = MAD_TO_SD * float(np.median(deviation))
    if sd <= 0:
        sd = float(np.std(values, dtype=np.float64))
    if not sd > 0:
        raise ValueError("constant")
    return Scale(median, sd, window)


@dataclass(frozen=True)
class BiasField:
    """A smooth multiplicative field on a coarse canonical lattice, evaluated slice by slice.

    ``log_field`` is ``(slices, rows, columns)`` on every ``steps[i]``-th native voxel, from voxel 0.
    """

    log_field: NDArray[np.float32]
    steps: tuple[int, int, int]

    def slice(self, k: int, shape: tuple[int, int]) -> NDArray[np.float32]:
        """Return the field at native canonical slice ``k`` of ``shape`` pixels; divide the image by it."""
        weights = _lattice_matrix(self.log_field.shape[0], np.array([k]), self.steps[0])
        coarse = np.add.reduce([weights[0, i] * self.log_field[i] for i in np.flatnonzero(weights[0])])
        rows = _lattice_matrix(coarse.shape[0], np.arange(shape[0]), self.steps[1])
        columns = _lattice_matrix(coarse.shape[1], np.arange(shape[1]), self.steps[2])
        return np.exp(resampled(rows, coarse, columns))

    def strided(self, strides: tuple[int, int], shape: tuple[int, int, int]) -> NDArray[np.float32]:
        """Return the field on every ``strides``-th row and column of all slices of a native ``shape``."""
        return np.stack([self.slice(k, shape[1:])[:: strides[0], :: strides[1]] for k in range(shape[0])])


def _lattice_matrix(n: int, indices: NDArray[Any], step: int) -> NDArray[np.float32]:
    return resampling_matrix(n, np.clip(indices / step, 0, n - 1), 1.0, cubic=False)


def _factor(spacing: float, n: int) -> int:
    """How many voxels to skip to come near the bias grid, leaving at least two."""
    return max(1, min(round(BIAS_GRID_MM / spacing), n // 2))


def bias_steps(shape: tuple[int, ...], spacing: tuple[float, float, float]) -> tuple[int, int, int]:
    """Return the steps between the slices, rows and columns of a sample of ``shape`` that N4 sees; ``spacing`` in mm."""
    slices, rows, columns = (_factor(spacing[axis], shape[axis]) for axis in range(3))
    return slices, rows, columns


def fit_bias(sample: NDArray[Any], brain: NDArray[Any], spacing: tuple[float, float, float]) -> NDArray[np.float32]:
    """Return the logarithm of the bias field by N4 (Tustison et al. 2010), fitted inside the brain on the grid of
    :func:`bias_steps`.

    ``sample`` and ``brain`` are canonical ``(slices, rows, columns)``; ``spacing`` is theirs in mm. A single slice is
    corrected as a 2D image. Single-threaded, so that equal input gives equal bytes.
    """
    import SimpleITK as sitk

    steps = bias_steps(sample.shape, spacing)
    cut = tuple(slice(None, None, step) for step in steps)
    values, mask = np.ascontiguousarray(sample[cut]), np.ascontiguousarray(brain[cut])
    floor = max(float(values[mask].max()) * 1e-3, 1e-6) if mask.any() else 1e-6
    values = np.maximum(values, np.float32(floor))
    flat = values.shape[0] == 1
    image = sitk.GetImageFromArray(values[0] if flat else values)
    weights = sitk.GetImageFromArray((mask[0] if flat else mask).astype(np.uint8))
    size = [spacing[2] * steps[2], spacing[1] * steps[1], spacing[0] * steps[0]]
    for each in (image, weights):
        each.SetSpacing(size[:2] if flat else size)
    corrector = sitk.N4BiasFieldCorrectionImageFilter()
    corrector.SetMaximumNumberOfIterations(BIAS_ITERATIONS)
    corrector.SetNumberOfThreads(1)
    # The filters inside N4 take the global number of threads, and their sums depend on it.
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        corrector.Execute(image, weights)
        log_field = sitk.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(image)).astype(np.float32)
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    log_field = log_field[None] if flat else log_field
    log_field -= np.float32(np.median(log_field[mask])) if mask.any() else np.float32(0)
    return log_field
