"""From anomaly map A to OOD probability M and mask B, with a calibrated threshold (examples/docs/concepts.md §1.5)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from localdiff_cli.errors import ModelError, NoInputError, UsageError

QUANTILE_LEVELS: tuple[float, ...] = (
    *(i / 1_000 for i in range(999)),
    *(0.999 + i / 10_000 for i in range(9)),
    *(0.9999 + i / 100_000 for i in range(10)),
    1.0,
)
"""Levels of the calibration table: finest in the upper tail, where thresholds lie."""


@dataclass(frozen=True)
class Calibration:
    """Distribution of A over held-out healthy brain pixels: quantile ``levels`` in [0, 1], their ``values``, and ``sigma_a``.

    ``values`` and ``sigma_a`` (standard deviation σ_A) are in units of A. Raises :class:`ModelError` when the table is not
    two rising rows of the same length.
    """

    levels: tuple[float, ...]
    values: tuple[float, ...]
    sigma_a: float

    def __post_init__(self) -> None:
        rows_fit = len(self.levels) == len(self.values) >= 2
        finite = bool(np.isfinite([*self.levels, *self.values, self.sigma_a]).all())
        if not (rows_fit and finite and _rises(self.levels) and _rises(self.values) and self.sigma_a >= 0):
            raise ModelError(
                "calibration: expected rising levels and values of one length and sigma_a ≥ 0; fit the detector again",
                code="calibration-damaged",
            )

    def tau_a(self, false_alarm: float) -> float:
        """Return the threshold τ_A that a share ``false_alarm`` of the held-out healthy brain pixels exceeds.

        Linear between the levels of the table. Raise :class:`UsageError` outside (0, 1).
        """
        if not 0 < false_alarm < 1:
            raise UsageError(
                f"false alarm rate {false_alarm} is not between 0 and 1; 0.02 means 2 % of healthy brain pixels", code="false-alarm-range"
            )
        return float(np.interp(1 - false_alarm, self.levels, self.values))

    def to_dict(self) -> dict[str, object]:
        """Return the calibration as JSON-able values."""
        return {"levels": list(self.levels), "values": list(self.values), "sigma_a": self.sigma_a}

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Calibration:
        """Return the calibration that :meth:`to_dict` wrote; :class:`ModelError` when ``entries`` are not one."""
        try:
            return cls(tuple(map(float, entries["levels"])), tuple(map(float, entries["values"])), float(entries["sigma_a"]))
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise ModelError(
                f"calibration: expected levels, values and sigma_a, found {sorted(map(str, entries))}; fit the detector again",
                code="calibration-damaged",
            ) from error


def calibrate(scores: Tensor | Iterable[Tensor]) -> Calibration:
    """Calibrate on A of held-out healthy brain pixels: one tensor of any shape, or chunks of them.

    Raise :class:`NoInputError` when there is no pixel and :class:`ModelError` when a score is not finite.
    """
    chunks = [scores] if isinstance(scores, Tensor) else scores
    parts = [chunk.detach().cpu().flatten().numpy() for chunk in chunks]
    pixels = np.concatenate(parts) if parts else np.empty(0, np.float32)
    if pixels.size == 0:
        raise NoInputError("calibration: no healthy brain pixel was given; hold out at least one slice that shows brain", code="no-pixels")
    values = np.quantile(pixels, QUANTILE_LEVELS)
    sigma_a = pixels.std(dtype=np.float64)
    return Calibration(QUANTILE_LEVELS, tuple(np.maximum.accumulate(values).tolist()), float(sigma_a))


def to_probability(anomaly_map: Tensor, tau_a: float, sigma_a: float) -> Tensor:
    """Return the OOD probability M in [0, 1], same shape: A clipped to [τ_A − σ_A, τ_A], scaled to [0, 1], squared.

    Without spread (σ_A = 0) it is a step: 1 where A > τ_A.
    """
    if sigma_a == 0:
        return (anomaly_map > tau_a).to(anomaly_map.dtype)
    return ((anomaly_map - (tau_a - sigma_a)) / sigma_a).clamp(0, 1).square()


def to_mask(
    ood_map: Tensor, threshold: float, brain: Tensor, open_mm: float, dilate_mm: float, spacing: tuple[float, float], peak: float = 0.0
) -> Tensor:
    """Return the OOD mask B: M ≥ τ inside the brain, opened, then dilated, by discs in mm, and kept inside the brain.

    With a ``peak`` above τ, of the connected regions where M ≥ τ those stay in which M reaches it somewhere (hysteresis, as
    in Canny's edge detector).

    ``ood_map`` ``(N, 1, H, W)`` in [0, 1], ``brain`` bool of that shape, ``open_mm`` and ``dilate_mm`` radii (0: leave
    out), ``spacing`` of rows and columns in mm. Return bool ``(N, 1, H, W)``. Raise :class:`UsageError` for a negative
    radius or a spacing that is not positive.
    """
    if open_mm < 0 or dilate_mm < 0 or min(spacing) <= 0:
        raise UsageError(f"radii {open_mm} and {dilate_mm} mm must be ≥ 0, spacing {spacing} mm must be > 0", code="mask-size")
    mask = ((ood_map >= threshold) & brain).cpu().numpy()
    opening, dilation = _disc(open_mm, spacing), _disc(dilate_mm, spacing)
    box = _box(mask, dilation)
    if box is not None:  # everything happens around what is marked, mostly little of the slices
        inside = mask[box]
        if peak > threshold:
            inside = ndimage.binary_propagation(inside & (ood_map >= peak).cpu().numpy()[box], IN_PLANE, mask=inside)
        opened = ndimage.binary_opening(inside, opening)
        mask[box] = ndimage.binary_dilation(opened, dilation)
    return torch.from_numpy(mask).to(brain.device) & brain


IN_PLANE = np.ones((1, 1, 3, 3), bool)
"""Neighbours that make one region of a slice: edges and corners, within the slice."""


def _box(mask: np.ndarray, dilation: np.ndarray) -> tuple[slice, ...] | None:
    """Where the pixels of a mask lie, with room for their dilation; None where there are none."""
    (found,) = ndimage.find_objects(mask.astype(np.uint8), max_label=1)
    if found is None:
        return None
    return tuple(slice(max(side.start - n // 2, 0), side.stop + n // 2) for side, n in zip(found, dilation.shape, strict=True))


def _disc(radius_mm: float, spacing: tuple[float, float]) -> np.ndarray:
    """Pixels within ``radius_mm`` of the centre one, bool ``(1, 1, rows, columns)`` with odd sides."""
    # A whisker of tolerance: whether a pixel exactly on the rim counts must not hang on rounding.
    radius = radius_mm * (1 + 1e-9)
    rows, columns = (np.arange(-(reach := int(radius / step)), reach + 1) * step for step in spacing)
    return (rows[:, None] ** 2 + columns[None, :] ** 2 <= radius**2)[None, None]


def _rises(row: tuple[float, ...]) -> bool:
    return all(a <= b for a, b in itertools.pairwise(row))
