"""Volumes side by side at the same place: each on the grid of the first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.volumes.reader import SliceReader, Volume

SAME_MM = 1e-2


def canonical_affine(volume: Volume) -> NDArray[np.float64]:
    """The affine of a volume's canonical array: (slice, row, column) to RAS mm, 4 × 4."""
    turn, frame = np.zeros((4, 4)), volume.frame
    turn[3, 3] = 1
    for canonical, (stored, flip) in enumerate(zip(frame.axes, frame.flips, strict=True)):
        turn[stored, canonical], turn[stored, 3] = (-1, frame.shape[canonical] - 1) if flip else (1, 0)
    return volume.affine @ turn


def on_grid(volume: Volume, grid: Volume, *, nearest: bool) -> tuple[NDArray[np.float32], bool]:
    """All canonical slices of ``volume`` at the voxels of ``grid``, float32, and whether they had to be interpolated (0 where it ends)."""
    array = np.empty(volume.frame.shape, np.float32)
    for k, image in SliceReader(volume):
        array[k] = image
    own, target = canonical_affine(volume), canonical_affine(grid)
    if volume.frame.shape == grid.frame.shape and np.allclose(own, target, rtol=0, atol=SAME_MM):
        return array, False
    from scipy import ndimage

    way = np.linalg.inv(own) @ target
    order = 0 if nearest else 1
    return ndimage.affine_transform(array, way[:3, :3], way[:3, 3], output_shape=grid.frame.shape, order=order, prefilter=False), True
