"""From probability to lesions: threshold and the smallest 3D component kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def drop_small(mask: NDArray[np.bool_], voxel_mm3: float, min_volume: float) -> NDArray[np.bool_]:
    """Remove 3D components (26-neighbourhood) smaller than ``min_volume`` mm³ from a mask ``(slices, rows, columns)``."""
    if min_volume <= 0 or not mask.any():
        return mask
    labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1) * voxel_mm3
    keep = sizes >= min_volume
    keep[0] = False
    return keep[labels]
