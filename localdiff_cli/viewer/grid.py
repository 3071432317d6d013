"""Volumes side by side at the same place: each on the grid of the first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from localdiff_cli.volumes.placement import CaseGrid, Placement, onto_grid


def nearest(array: NDArray[np.float32], own: Placement, target: Placement) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return an array of labels at the voxels of ``target``, 0 where it ends, and where it does not end: labels are not
    mixed."""
    way, shape = np.linalg.inv(own.affine) @ target.affine, target.shape
    places = {"matrix": way[:3, :3], "offset": way[:3, 3], "output_shape": shape, "order": 0, "prefilter": False}
    inside = ndimage.affine_transform(np.ones_like(array), **places) > 0
    return ndimage.affine_transform(array, **places), inside


def on_grid(path: Path, grid: CaseGrid, *, labels: bool = False) -> tuple[NDArray[np.float32], bool]:
    """Return all canonical slices of a volume at the voxels of ``grid``, float32, and whether they had to be interpolated."""
    found = grid.bring(path, "volume", move=nearest if labels else onto_grid)
    return found.array, not found.how.startswith("same")
