"""From the planes of a DICOM series to one volume: sorted, evenly spaced, upright; refused with the reason where they are not."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.formats.dicom.header import Plane, Series

ORIENTATION_TOLERANCE = 1e-3
SPACING_TOLERANCE_MM = 1e-3
GAP_TOLERANCE = 0.02
"""By what share of the median gap a gap between slices may differ from it: positions are often rounded to 0.01 mm."""
MAX_TILT_DEGREES = 0.5
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Stack:
    """The planes of a volume in the order of its slices, and ``affine``: (column, row, slice) → RAS mm, 4 × 4."""

    series: Series
    planes: tuple[Plane, ...] = field(repr=False)
    affine: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows, slices."""
        rows, columns = self.planes[0].size
        return columns, rows, len(self.planes)


def stack(series: Series) -> Stack:
    """Sort the planes of a series. Raise :class:`VolumeError`, code ``dicom-…``, where they are not one upright, evenly
    spaced volume."""
    if series.fault:
        raise VolumeError(f"{series.label}: {series.fault}", code=f"dicom-{series.kind}")
    _check_alike(series)
    normal = _normal(series.planes[0])
    planes = sorted(series.planes, key=lambda plane: float(np.dot(plane.position, normal)))
    at = np.array([np.dot(plane.position, normal) for plane in planes])
    step = _step(series, planes, at, normal)
    return Stack(series, tuple(planes), LPS_TO_RAS @ _affine(planes[0], step))


def _normal(plane: Plane) -> NDArray[np.float64]:
    normal = np.cross(plane.orientation[:3], plane.orientation[3:])
    return normal / np.linalg.norm(normal)


def _refuse(series: Series, code: str, found: str, expected: str) -> VolumeError:
    return VolumeError(f"{series.label}: found {found}; expected {expected}", code=f"dicom-{code}")


def _check_alike(series: Series) -> None:
    """Every plane has a place, and all have the first one's direction, size and spacing."""
    first = series.planes[0]
    for plane in series.planes:
        if (len(plane.position), len(plane.orientation), len(plane.spacing)) != (3, 6, 2):
            raise _refuse(series, "geometry", "an image without position, orientation or pixel spacing", "all three in every image")
        numbers = np.array([*plane.position, *plane.orientation, *plane.spacing, plane.slope, plane.intercept])
        if not np.isfinite(numbers).all() or min(plane.spacing) <= 0 or abs(np.dot(plane.orientation[:3], plane.orientation[3:])) > 1e-2:
            raise _refuse(series, "geometry", f"an image ({plane.number}) with an impossible geometry", "finite numbers and a right angle")
    for name, unlike, advice in (
        ("sizes", [p for p in series.planes if p.size != first.size], "one size"),
        ("directions", [p for p in series.planes if not _close(p.orientation, first.orientation, ORIENTATION_TOLERANCE)],
         "parallel slices (is it a localizer?)"),
        ("pixel spacings", [p for p in series.planes if not _close(p.spacing, first.spacing, SPACING_TOLERANCE_MM)], "one spacing"),
    ):  # fmt: skip
        if unlike:
            found = f"images of several {name} in one series ({len(unlike)} of {len(series.planes)} unlike the first)"
            raise _refuse(series, "mixed", found, f"{advice}. Split the series first")


def _close(a: tuple[float, ...], b: tuple[float, ...], tolerance: float) -> bool:
    return bool(np.allclose(a, b, rtol=0, atol=tolerance))


def _step(series: Series, planes: list[Plane], at: NDArray[np.float64], normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """The way from one slice's first pixel to the next one's, LPS mm; doubled and missing slices and a tilted gantry are
    refused."""
    if len(planes) == 1:
        return normal * planes[0].thickness
    gaps = np.diff(at)
    _check_doubled(series, planes, gaps)
    _check_gaps(series, planes, gaps)
    step = (np.array(planes[-1].position) - np.array(planes[0].position)) / (len(planes) - 1)
    tilt = float(np.degrees(np.arccos(np.clip(np.dot(step, normal) / np.linalg.norm(step), -1, 1))))
    if tilt > MAX_TILT_DEGREES:
        advice = "slices stacked at a right angle. Resample it first, for instance with dcm2niix"
        raise _refuse(series, "tilt", f"a stack that leans by {tilt:.1f}° (gantry tilt)", advice)
    away = [np.linalg.norm(np.array(p.position) - np.array(planes[0].position) - i * step) for i, p in enumerate(planes)]
    if max(away) > GAP_TOLERANCE * np.linalg.norm(step) * 2:
        raise _refuse(series, "gaps", f"slices that are up to {max(away):.2f} mm off their line", "a straight stack")
    return step


def _check_doubled(series: Series, planes: list[Plane], gaps: NDArray[np.float64]) -> None:
    typical = float(np.median(gaps[gaps > 1e-6])) if (gaps > 1e-6).any() else 1.0
    same = np.flatnonzero(gaps <= 0.1 * typical)
    if not same.size:
        return
    one, other = planes[same[0]], planes[same[0] + 1]
    if one.instance == other.instance and one.frame == other.frame:
        why = "the same image lies in two files"
    else:
        differ = [name for name in dict(one.traits) if dict(one.traits)[name] != dict(other.traits).get(name)]
        why = f"they differ in {', '.join(differ)}" if differ else "nothing in their headers tells them apart"
    found = f"{same.size} of {len(planes)} images at the place of another, the first {one.number} and {other.number} ({why})"
    raise _refuse(series, "doubled", found, "one image a place. Split or clean the series first")


def _check_gaps(series: Series, planes: list[Plane], gaps: NDArray[np.float64]) -> None:
    """Uneven gaps; those that are a multiple of the smallest are told as missing slices."""
    typical = float(np.median(gaps))
    uneven = np.flatnonzero(np.abs(gaps - typical) > GAP_TOLERANCE * typical)
    if not uneven.size:
        return
    one, other, gap = planes[uneven[0]], planes[uneven[0] + 1], float(gaps[uneven[0]])
    missing = round(gap / typical) - 1
    between = f"between images {one.number} and {other.number}"
    if missing >= 1 and abs(gap - (missing + 1) * typical) <= GAP_TOLERANCE * gap:
        raise _refuse(series, "missing", f"{missing} missing slices {between}", "a whole series. Export or copy it again")
    raise _refuse(series, "gaps", f"a gap of {gap:.2f} mm {between}, others of {typical:.2f} mm", "slices evenly spaced")


def _affine(first: Plane, step: NDArray[np.float64]) -> NDArray[np.float64]:
    """(column, row, slice) → LPS mm (DICOM PS3.3 C.7.6.2.1.1)."""
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.orientation[:3]) * first.spacing[1]
    affine[:3, 1] = np.array(first.orientation[3:]) * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    return affine
