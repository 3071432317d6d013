"""sFRC: a scanning Fourier ring correlation. Where does an image show structure that the reference does not support?

Source: Kc et al., sFRC (arXiv 2603.04673; code DIDSR/sfrc). Small patches are scanned over both images. In each, the
correlation of the two spectra over rings of equal frequency falls from 1 towards 0; the frequency at which it first falls
below ``threshold`` says down to which detail the reference supports the patch, as a share of the Nyquist frequency. A patch
that falls before ``frequency`` is *unsupported*: its coarse structure is not that of the reference, be it invented, erased
or displaced.

Here: patches of 32 × 32 pixels of canonical slices, half of them overlapping, Hann window, mean taken out; only patches of
which at least half is brain and in which the image itself shows structure (a standard deviation of at least 2 % of the data
range).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from localdiff_cli.evaluation.metrics.measure import Measure, measured, missing

PATCH = 32
STRIDE = PATCH // 2
LEAST_BRAIN = 0.5
LEAST_STRUCTURE = 0.02
NO_PATCH = f"no patch of {PATCH} × {PATCH} pixels with structure lies at least by half in the brain"


@dataclass(frozen=True)
class RingCorrelation:
    """``support`` ``(slices, rows, columns)``: mean frequency of support of the patches over a pixel, NaN where there is none.

    ``frequency``: its mean over patches (share of Nyquist), ``unsupported``: the share of patches below the set frequency.
    """

    support: NDArray[np.float32]
    frequency: Measure
    unsupported: Measure


def scan(
    image: NDArray[Any], reference: NDArray[Any], brain: NDArray[np.bool_], data_range: float, threshold: float, frequency: float
) -> RingCorrelation:
    """Scan two volumes ``(slices, rows, columns)`` of one scale slice by slice."""
    support = np.full(image.shape, np.nan, np.float32)
    crossings = []
    for k in np.flatnonzero(brain.any(axis=(1, 2))) if min(image.shape[1:]) >= PATCH else ():
        corners, patches, true = _patches(image[k], reference[k], brain[k], LEAST_STRUCTURE * data_range)
        if len(corners):
            found = supported_frequency(ring_correlation(patches, true), threshold)
            support[k] = _spread(corners, found, image.shape[1:])
            crossings.append(found)
    if not crossings:
        return RingCorrelation(support, missing(NO_PATCH), missing(NO_PATCH))
    every = np.concatenate(crossings)
    return RingCorrelation(support, measured(every.mean()), measured(np.mean(every < frequency)))


def _patches(
    image: NDArray[Any], reference: NDArray[Any], brain: NDArray[np.bool_], least: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The corners ``(n, 2)`` of a slice's patches, and both images' patches ``(n, 32, 32)``."""
    rows, columns = ([*range(0, n - PATCH, STRIDE), n - PATCH] for n in image.shape)
    a, b, inside = (sliding_window_view(each, (PATCH, PATCH))[np.ix_(rows, columns)] for each in (image, reference, brain))
    kept = (inside.mean(axis=(2, 3)) >= LEAST_BRAIN) & (a.std(axis=(2, 3)) >= least)
    corners = np.array([(row, column) for row in rows for column in columns]).reshape(len(rows), len(columns), 2)
    return corners[kept], a[kept], b[kept]


def ring_correlation(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Return the correlation of the spectra of patches ``(n, 32, 32)`` over rings: ``(n, 17)``, from frequency 0 (where it
    is 1) to Nyquist.

    A ring without energy in either image agrees (1); with energy in one of them only it does not (0).
    """
    window = np.outer(np.hanning(PATCH), np.hanning(PATCH))
    spectra = [np.fft.fft2((each - each.mean(axis=(1, 2), keepdims=True)) * window).reshape(len(each), -1) for each in (a, b)]
    rings = _rings()
    cross = (spectra[0] * spectra[1].conj()).real @ rings
    energy = [(np.abs(each) ** 2) @ rings for each in spectra]
    norm = np.sqrt(energy[0] * energy[1])
    empty = (energy[0] <= 1e-12) & (energy[1] <= 1e-12)
    correlation = np.where(empty, 1.0, np.divide(cross, norm, out=np.zeros_like(cross), where=norm > 0))
    correlation[:, 0] = 1.0
    return correlation


def _rings() -> NDArray[np.float64]:
    """Which of the 32 · 32 frequencies lie in which ring of whole radius 0 to 16: ``(1024, 17)`` of 0 and 1."""
    steps = np.fft.fftfreq(PATCH, 1 / PATCH)
    radius = np.rint(np.hypot(steps[:, None], steps[None, :])).ravel()
    return (radius[:, None] == np.arange(PATCH // 2 + 1)).astype(np.float64)


def supported_frequency(correlation: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    """Return where each row of ``(n, rings)`` first falls below ``threshold``, linear between rings, as a share of the last
    ring; 1 if never."""
    below = correlation < threshold
    first = np.where(below.any(axis=1), below.argmax(axis=1), correlation.shape[1] - 1)
    rows = np.arange(len(correlation))
    before, after = correlation[rows, np.maximum(first - 1, 0)], correlation[rows, first]
    fell = before - after
    part = np.divide(before - threshold, fell, out=np.ones_like(fell), where=fell > 0)
    at = np.where(below.any(axis=1), first - 1 + part, first)
    return np.clip(at / (correlation.shape[1] - 1), 0, 1)


def _spread(corners: NDArray[Any], values: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The mean value of the patches over each pixel, NaN where there is none."""
    total, count = np.zeros(shape), np.zeros(shape)
    for (row, column), value in zip(corners, values, strict=True):
        total[row : row + PATCH, column : column + PATCH] += value
        count[row : row + PATCH, column : column + PATCH] += 1
    return np.divide(total, count, out=np.full(shape, np.nan), where=count > 0).astype(np.float32)
