"""Bring a volume onto another volume's grid: the axes re-ordered where that is all it takes, otherwise interpolated, never
silently."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.masks import mask_content
from localdiff_cli.volumes.reader import SliceReader, open_volume
from localdiff_cli.volumes.volume import Volume

Array = NDArray[np.float32]

SAME_PLACE_VOXELS = 0.1
"""Two grids are one where no corner of theirs lies further apart than this share of a voxel."""

LEAST_SHOWN = 0.05
"""Weight of image, not air, in an interpolated voxel from which on it holds a value."""


@dataclass(frozen=True)
class Placement:
    """Where a canonical array lies: ``affine`` (4 × 4) maps (slice, row, column) to RAS mm, ``shape`` is the array's."""

    affine: NDArray[np.float64]
    shape: tuple[int, int, int]


def canonical_affine(volume: Volume) -> NDArray[np.float64]:
    """Return the affine of a volume's canonical array: (slice, row, column) to RAS mm, 4 × 4."""
    frame = volume.frame
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for canonical_axis, (stored_axis, flip) in enumerate(zip(frame.axes, frame.flips, strict=True)):
        turn[stored_axis, canonical_axis] = -1 if flip else 1
        turn[stored_axis, 3] = frame.shape[canonical_axis] - 1 if flip else 0
    return volume.affine @ turn


def placement_of(volume: Volume) -> Placement:
    """Return the placement of a volume's canonical array."""
    return Placement(canonical_affine(volume), volume.frame.shape)


def same_place(a: Placement, b: Placement) -> bool:
    """Return whether two canonical arrays hold the same voxels of space, however their files store them."""
    if a.shape != b.shape:
        return False
    corners = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in a.shape))], np.float64)
    apart = np.linalg.norm((corners @ (a.affine - b.affine).T)[:, :3], axis=1).max()
    return bool(apart <= SAME_PLACE_VOXELS * np.linalg.norm(b.affine[:3, :3], axis=0).min())


Move = Callable[[Array, Placement, Placement], tuple[Array, NDArray[np.bool_]]]
"""An array, where it lies and where it shall lie → the array there, and what its field of view covers."""


def onto_grid(array: Array, own: Placement, target: Placement) -> tuple[Array, NDArray[np.bool_]]:
    """Return an array interpolated linearly at the voxels of ``target``, and which of these its field of view covers; 0
    where it does not.

    Where the target's voxels are larger the array is smoothed first, so that nothing aliases.
    """
    mapping = np.linalg.inv(own.affine) @ target.affine
    smooth = _antialiased(array, np.abs(mapping[:3, :3]).max(axis=1))
    found = ndimage.affine_transform(
        smooth, mapping[:3, :3], mapping[:3, 3], output_shape=target.shape, order=1, mode="nearest", prefilter=False
    )
    covered = _covered(mapping, array.shape, target.shape)
    return np.where(covered, found, np.float32(0)), covered


def image_onto_grid(array: Array, own: Placement, target: Placement) -> tuple[Array, NDArray[np.bool_]]:
    """Do as :func:`onto_grid`, for an image in which 0 is air: air is not mixed into the values at its edge, which would
    darken them.

    The image reaches up to a voxel further into the air for it: a brain mask says where it ends.
    """
    shown, covered = onto_grid((array != 0).astype(np.float32), own, target)
    found, _ = onto_grid(array, own, target)
    return np.divide(found, shown, out=np.zeros_like(found), where=shown > LEAST_SHOWN), covered


def labels_onto_grid(array: Array, own: Placement, target: Placement) -> tuple[Array, NDArray[np.bool_]]:
    """Do as :func:`onto_grid`, for numbers that are names, not amounts: a voxel gets the label that fills at least half of
    it, else 0."""
    found, covered = np.zeros(target.shape, np.float32), np.ones(target.shape, bool)
    for label in np.unique(array[array != 0]):
        share, covered = onto_grid((array == label).astype(np.float32), own, target)
        found[share >= 0.5] = label
    return found, covered


def _antialiased(array: Array, steps: NDArray[np.float64]) -> Array:
    """The array smoothed along each axis on which a step of the target, in voxels, is longer than one."""
    sigma = 0.5 * np.sqrt(np.clip(steps**2 - 1, 0, None))
    return ndimage.gaussian_filter(array, np.where(sigma < 0.1, 0, sigma), mode="nearest") if (sigma >= 0.1).any() else array


def _covered(mapping: NDArray[np.float64], shape: tuple[int, ...], target: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Which target voxels have their centre inside the array's outermost voxel edges."""
    places = np.ogrid[tuple(slice(0, n) for n in target)]
    covered = np.ones(target, bool)
    for axis, n in enumerate(shape):
        at = sum(mapping[axis, j] * places[j] for j in range(3)) + mapping[axis, 3]
        covered &= (at > -0.5 - 1e-6) & (at < n - 0.5 + 1e-6)
    return covered


class ArrayReader(SliceReader):
    """Canonical slices of an array that lies on a volume's grid already; ``path`` is the file it came from, for messages."""

    def __init__(self, array: Array, grid: Volume, path: Path) -> None:
        self.volume = replace(grid, path=path)
        self._array = array

    def read(self, k: int) -> Array:
        """Return canonical slice ``k`` as ``(rows, columns)`` float32."""
        return self._array[k]


@dataclass(frozen=True)
class OnGrid:
    """A volume brought onto a grid: its ``array`` there, what its field of view ``covered`` (None: all), and ``how`` it came.

    ``array`` is 0 where the file holds NaN or infinity; ``holes`` (None: none) are the voxels that such a value had a part in.
    """

    path: Path
    array: Array
    covered: NDArray[np.bool_] | None
    holes: NDArray[np.bool_] | None
    how: str


@dataclass(frozen=True)
class CaseGrid:
    """The one grid of a case, that of ``volume``; ``resample``: whether volumes of other grids may be interpolated onto it."""

    volume: Volume
    resample: bool = False

    def bring(self, path: Path, what: str, values: Callable[[Array], Array] | None = None, move: Move = onto_grid) -> OnGrid:
        """Bring any volume onto this grid, canonical float32; ``values`` is applied to what was read before ``move``
        interpolates it.

        Raise :class:`VolumeError` for another grid where resampling is not allowed.
        """
        volume = open_volume(path, self.volume.affine_from)
        own, target = placement_of(volume), placement_of(self.volume)
        array = read_canonical(volume)
        array = array if values is None else values(array)
        finite = np.isfinite(array)
        whole = bool(finite.all())
        array = array if whole else np.where(finite, array, np.float32(0))
        if same_place(own, target):
            as_stored = volume.frame.axes == self.volume.frame.axes and volume.frame.flips == self.volume.frame.flips
            how = "same grid" if as_stored else "same voxels, stored in another orientation"
            return OnGrid(path, array, None, None if whole else ~finite, how)
        if not self.resample:
            raise _other_grid(volume, self.volume, what)
        moved, covered = move(array, own, target)
        holes = None if whole else onto_grid((~finite).astype(np.float32), own, target)[0] > 0
        steps = " × ".join(f"{step:.3g}" for step in volume.frame.spacing)
        how = f"interpolated linearly from another grid ({steps} mm)"
        return OnGrid(path, moved, None if covered.all() else covered, holes, how)

    def image(self, path: Path, what: str) -> OnGrid:
        """Return an image on this grid: as :meth:`bring`, and where it is interpolated 0 counts as air."""
        return self.bring(path, what, move=image_onto_grid)

    def mask(self, path: Path, what: str) -> tuple[NDArray[np.bool_], str]:
        """Return a mask on this grid, bool, and how it came there: read by what its values mean, interpolated, cut at a
        half.

        Raise as :meth:`bring`, and for what is no mask.
        """
        said: list[str] = []

        def marked(array: Array) -> Array:
            content = mask_content(array, f"{path}: taken as the {what}")
            said.extend([] if content.plain else [content.said])
            return content.hard(array).astype(np.float32)

        found = self.bring(path, what, marked)
        return found.array >= 0.5, "; ".join((found.how, *said))

    def map(self, path: Path) -> Array:
        """Return an OOD map on this grid, in [0, 1]; a lesion mask in its place counts as 0 and 1. Raise as :meth:`bring`."""
        return self.bring(path, "OOD map", lambda array: mask_content(array, f"{path}: taken as the OOD map").as_map().soft(array)).array

    def labels(self, path: Path, what: str, known: Collection[int]) -> NDArray[np.uint8]:
        """Return a volume of labels on this grid. Raise as :meth:`bring`, and for values that are not among the ``known``
        ones."""
        found = self.bring(path, what, move=labels_onto_grid).array
        others = np.setdiff1d(np.unique(found), np.array([*known], np.float32))
        if others.size:
            told = ", ".join(f"{value:g}" for value in others[:3])
            labels = ", ".join(map(str, known))
            raise VolumeError(f"{path}: found {told} in the {what}; expected the labels {labels}. Name the {what} itself", code="labels")
        return found.astype(np.uint8)

    def reader(self, image: OnGrid) -> ArrayReader:
        """Return the slices of a volume brought onto this grid."""
        return ArrayReader(image.array, self.volume, image.path)


def read_canonical(volume: Volume) -> Array:
    """Return all canonical slices of a volume, ``(slices, rows, columns)`` float32."""
    reader = SliceReader(volume)
    array = np.empty(volume.frame.shape, np.float32)
    for k, image in reader:
        array[k] = image
    return array


def _other_grid(volume: Volume, grid: Volume, what: str) -> VolumeError:
    return VolumeError(
        f"{volume.path}: the {what} has shape {volume.shape} and another place in space than {grid.path} with shape {grid.shape}; "
        "expected the same grid. Resample it onto that grid with --resample-ref",
        code="other-grid",
    )
