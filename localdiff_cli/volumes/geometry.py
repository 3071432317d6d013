"""Geometry: from any stored orientation to canonical axial slices and to the network's grid, and exactly back.

*Canonical* is ``(slice, row, column)`` with slices running to Superior, rows to Posterior and columns to Left: each slice is
displayed as a radiologist expects it. Nothing is interpolated on the way there; only the step to the network's grid is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

CANONICAL = ("S", "P", "L")
MAX_IN_PLANE_SPACING_MM = 4.0


@dataclass(frozen=True)
class Frame:
    """How a stored 3D array maps to canonical slices.

    ``axes[i]`` is the stored axis that becomes canonical axis ``i``; ``flips[i]`` says whether it runs backwards.
    ``shape`` and ``spacing`` (mm) are those of the canonical array.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]

    @property
    def slice_axis(self) -> int:
        """The stored axis along which canonical slices are taken."""
        return self.axes[0]

    def stored_index(self, k: int) -> int:
        """Return the stored index of canonical slice ``k`` (the map is its own inverse)."""
        return self.shape[0] - 1 - k if self.flips[0] else k

    def slice_to_canonical(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Turn a stored 2D slice (stored axis order, slice axis removed) into a canonical one; a view."""
        image = stored if self.axes[1] < self.axes[2] else stored.T
        return image[:: -1 if self.flips[1] else 1, :: -1 if self.flips[2] else 1]

    def slice_to_stored(self, canonical: NDArray[Any]) -> NDArray[Any]:
        """Return the inverse of :meth:`slice_to_canonical`; a view."""
        image = canonical[:: -1 if self.flips[1] else 1, :: -1 if self.flips[2] else 1]
        return image if self.axes[1] < self.axes[2] else image.T


def frame_of(affine: NDArray[Any], shape: tuple[int, int, int]) -> Frame:
    """Return the frame of a stored array from its affine (RAS mm, 4 × 4) and its shape.

    Oblique volumes get the closest axes, each stored axis used once. Raise ``ValueError`` for a singular affine.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not spacing.all() or abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-6:
        raise ValueError("singular affine")
    orientation = nib.orientations.io_orientation(affine)
    wanted = nib.orientations.axcodes2ornt(CANONICAL)
    axes, flips = [], []
    for world_axis, direction in wanted:
        stored_axis = int(np.flatnonzero(orientation[:, 0] == world_axis)[0])
        axes.append(stored_axis)
        flips.append(bool(orientation[stored_axis, 1] != direction))
    return Frame(
        axes=(axes[0], axes[1], axes[2]),
        flips=(flips[0], flips[1], flips[2]),
        shape=(shape[axes[0]], shape[axes[1]], shape[axes[2]]),
        spacing=(float(spacing[axes[0]]), float(spacing[axes[1]]), float(spacing[axes[2]])),
    )


def _keys_cubic(x: NDArray[Any]) -> NDArray[Any]:
    """Keys' cubic convolution kernel, a = −0.5 (Keys 1981, eq. 15)."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _triangle(x: NDArray[Any]) -> NDArray[Any]:
    return np.clip(1 - np.abs(x), 0, None)


def resampling_matrix(n_in: int, positions: NDArray[Any], step: float, *, cubic: bool) -> NDArray[np.float32]:
    """Return the interpolation along one axis as a matrix ``(len(positions), n_in)``.

    ``positions`` are in input pixels; ``step`` is the output spacing in input pixels: above 1 the kernel widens, so that
    nothing aliases. Positions on input pixels with ``step ≤ 1`` give exact rows of the identity. Outside the input is 0.
    """
    width = max(step, 1.0)
    distance = (positions[:, None] - np.arange(n_in)[None, :]) / width
    weights = _keys_cubic(distance) if cubic else _triangle(distance)
    if width > 1:
        reach = (2 if cubic else 1) * width
        inside = (positions > -0.5) & (positions < n_in - 0.5)
        total = weights.sum(axis=1, keepdims=True)
        interior = (positions > reach) & (positions < n_in - 1 - reach)
        norm = np.where(interior | (inside & (total[:, 0] > 0)), total[:, 0], width)
        weights = weights / norm[:, None]
    return weights.astype(np.float32)


def resampled(rows: NDArray[np.float32], image: NDArray[np.float32], columns: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``rows @ image @ columns.T`` through sparse matrices: the last bits of a dense product depend on the number of
    threads."""
    return (csr_array(columns) @ (csr_array(rows) @ image).T).T


@dataclass(frozen=True)
class Grid:
    """The network's in-plane grid over a canonical slice.

    ``shape`` (rows, columns) pixels of ``spacing`` mm; pixel (0, 0) lies at native pixel ``origin``; the native slice has
    ``native_shape`` pixels of ``native_spacing`` mm.
    """

    shape: tuple[int, int]
    spacing: float
    origin: tuple[float, float]
    native_shape: tuple[int, int]
    native_spacing: tuple[float, float]

    def _positions_in(self, axis: int) -> NDArray[Any]:
        return self.origin[axis] + np.arange(self.shape[axis]) * (self.spacing / self.native_spacing[axis])

    def _positions_out(self, axis: int) -> NDArray[Any]:
        step = self.native_spacing[axis] / self.spacing
        return (np.arange(self.native_shape[axis]) - self.origin[axis]) * step

    def _matrices(self, *, inwards: bool, cubic: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rows, columns = (
            resampling_matrix(self.native_shape[axis], self._positions_in(axis), self.spacing / self.native_spacing[axis], cubic=cubic)
            if inwards
            else resampling_matrix(self.shape[axis], self._positions_out(axis), self.native_spacing[axis] / self.spacing, cubic=cubic)
            for axis in (0, 1)
        )
        return rows, columns

    @cached_property
    def _tables(self) -> dict[tuple[bool, bool], tuple[NDArray[np.float32], NDArray[np.float32]]]:
        return {(i, c): self._matrices(inwards=i, cubic=c) for i in (True, False) for c in (True, False)}

    def to_network(self, image: NDArray[Any], *, cubic: bool = True) -> NDArray[np.float32]:
        """Resample a canonical slice ``(native rows, columns)`` to the network's grid ``(rows, columns)``."""
        rows, columns = self._tables[True, cubic]
        return resampled(rows, image.astype(np.float32, copy=False), columns)

    def to_native(self, image: NDArray[Any], *, cubic: bool = True) -> NDArray[np.float32]:
        """Bring a network slice back to the canonical native grid."""
        rows, columns = self._tables[False, cubic]
        return resampled(rows, image.astype(np.float32, copy=False), columns)


def _axis_extent(brain: NDArray[Any], axis: int) -> tuple[int, int]:
    used = np.flatnonzero(brain.any(axis=tuple(a for a in range(3) if a != axis)))
    return (int(used[0]), int(used[-1])) if used.size else (0, brain.shape[axis] - 1)


def grid_for(brain: NDArray[Any], frame: Frame, spacing: float, shape: tuple[int, int], multiple: int) -> Grid:
    """Return the grid centred on a canonical ``brain`` mask ``(slices, rows, columns)``.

    Its size is ``shape``, grown to the next ``multiple`` where the brain would not fit: nothing is cut off. Its pixel
    (0, 0) lies on a native pixel, so that equal spacings need no interpolation at all.
    """
    size, origin = [], []
    for axis in (0, 1):
        low, high = _axis_extent(brain, axis + 1)
        native = frame.spacing[axis + 1]
        needed = int(np.ceil((high - low + 3) * native / spacing))
        n = max(shape[axis], -(-needed // multiple) * multiple)
        size.append(n)
        origin.append(float(np.round((low + high) / 2 - (n - 1) / 2 * spacing / native)))
    return Grid(
        shape=(size[0], size[1]),
        spacing=spacing,
        origin=(origin[0], origin[1]),
        native_shape=(frame.shape[1], frame.shape[2]),
        native_spacing=(frame.spacing[1], frame.spacing[2]),
    )
