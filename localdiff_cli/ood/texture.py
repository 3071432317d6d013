"""Regions that are too smooth to be tissue: inpainted, levelled or filled with one value, or fluid.

Tissue has texture at the scale of a few millimetres, a lesion too, if less than folds and nuclei have. A network that has
learnt lesions takes what is smoother for one all the same, since nothing it was shown was smoother.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

GRAIN_MM = 2.0
"""What is finer than this σ is noise."""
REACH_MM = 1.5
"""σ of the neighbourhood whose standard deviation is the texture of a place."""
RIM_MM = 2.0
"""The rim of a region is left out: its texture is that of the edge."""
LEAST_PIXELS = 20
"""A region with no more pixels inside its rim is judged with its rim."""
FLAT_SHARE = 0.1
"""A region is too smooth when so many of its pixels are."""
NEIGHBOURS = np.ones((3, 3), bool)


def too_smooth(condition: Tensor, mask: Tensor, brain: Tensor, least: float, spacing: float) -> Tensor:
    """Return the connected regions of ``mask``, slice by slice, that have less texture than tissue: in a tenth of the pixels
    inside their rim less than ``least`` times the median of the slice's brain.

    All ``(N, 1, H, W)``, ``mask`` and ``brain`` bool, ``spacing`` in mm; with ``least`` 0 there are none.
    """
    found = torch.zeros_like(mask)
    for row in range(len(mask)) if least > 0 else ():
        if mask[row].any():
            image, region, inside = (each[row, 0].cpu().numpy() for each in (condition, mask, brain))
            found[row, 0] = torch.from_numpy(_smooth_parts(image, region, inside, least, spacing))
    return found


def _smooth_parts(
    image: NDArray[np.float32], mask: NDArray[np.bool_], brain: NDArray[np.bool_], least: float, spacing: float
) -> NDArray[np.bool_]:
    texture, rim = texture_of(image, spacing), max(1, round(RIM_MM / spacing))
    inner = ndimage.binary_erosion(brain, iterations=rim)
    cut = least * float(np.median(texture[inner if inner.any() else brain]))
    parts, count = ndimage.label(mask, NEIGHBOURS)
    smooth = [number for number in range(1, count + 1) if _is_smooth(texture, parts == number, cut, rim)]
    return np.isin(parts, smooth)


def _is_smooth(texture: NDArray[np.float32], part: NDArray[np.bool_], cut: float, rim: int) -> bool:
    core = ndimage.binary_erosion(part, iterations=rim)
    return bool((texture[core if core.sum() > LEAST_PIXELS else part] < cut).mean() >= FLAT_SHARE)


def texture_of(image: NDArray[np.float32], spacing: float) -> NDArray[np.float32]:
    """Return the local standard deviation of a slice ``(H, W)`` without its grain."""
    smooth = ndimage.gaussian_filter(image.astype(np.float64), GRAIN_MM / spacing)
    mean, square = (ndimage.gaussian_filter(each, REACH_MM / spacing) for each in (smooth, smooth**2))
    texture: NDArray[np.float32] = np.sqrt(np.maximum(square - mean**2, 0)).astype(np.float32)
    return texture
