"""Regions that are too smooth to be tissue and no brighter or darker than what surrounds them: levelled or inpainted.

Tissue has texture at the scale of a few millimetres, a lesion too, if less than folds and nuclei have. A network that has
learnt lesions takes what is smoother for one all the same, since nothing it was shown was smoother. A lesion without
texture, such as a cyst, stands out by its brightness.
"""

from __future__ import annotations

from dataclasses import dataclass

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
"""A region may be too smooth when so many of its pixels are."""
STANDS_OUT = 0.8
"""Robust SDs of the slice's brain by which the smooth pixels of a region that can be seen differ from its surroundings."""
GAP_MM, SURROUNDINGS_MM = 1.0, 6.0
"""How far from a region its surroundings begin and end."""
NEIGHBOURS = np.ones((3, 3), bool)


def too_smooth(condition: Tensor, mask: Tensor, brain: Tensor, least: float, spacing: float) -> Tensor:
    """Return the connected regions of ``mask``, slice by slice, that have less texture than tissue (in a tenth of the pixels
    inside their rim less than ``least`` times the median of the slice's brain) and do not stand out there.

    All ``(N, 1, H, W)``, ``mask`` and ``brain`` bool, ``spacing`` in mm; with ``least`` 0 there are none.
    """
    found = torch.zeros_like(mask)
    for row in range(len(mask)) if least > 0 else ():
        if mask[row].any():
            image, regions, inside = (each[row, 0].cpu().numpy() for each in (condition, mask, brain))
            found[row, 0] = torch.from_numpy(_Slice(image, regions, inside, spacing).smooth_regions(least))
    return found


@dataclass(frozen=True, eq=False)
class _Slice:
    """A slice ``(H, W)`` with its regions and brain."""

    image: NDArray[np.float32]
    regions: NDArray[np.bool_]
    brain: NDArray[np.bool_]
    spacing: float

    def smooth_regions(self, least: float) -> NDArray[np.bool_]:
        texture, inner = texture_of(self.image, self.spacing), self._inside_rim(self.brain)
        smooth = texture < least * float(np.median(texture[inner if inner.any() else self.brain]))
        parts, count = ndimage.label(self.regions, NEIGHBOURS)
        return np.isin(parts, [number for number in range(1, count + 1) if self._is_levelled(parts == number, smooth)])

    def _is_levelled(self, part: NDArray[np.bool_], smooth: NDArray[np.bool_]) -> bool:
        core = self._inside_rim(part)
        flat = smooth & (core if core.sum() > LEAST_PIXELS else part)
        if flat.sum() < FLAT_SHARE * max(core.sum() if core.sum() > LEAST_PIXELS else part.sum(), 1):
            return False
        around = self._grown(part, SURROUNDINGS_MM) & ~self._grown(part, GAP_MM) & self.brain & ~self.regions
        if not around.any():
            return True
        values = self.image[self.brain]
        deviation = 1.4826 * float(np.median(np.abs(values - np.median(values))))
        return abs(float(self.image[flat].mean()) - float(self.image[around].mean())) < STANDS_OUT * deviation

    def _inside_rim(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return ndimage.binary_erosion(mask, iterations=self._pixels(RIM_MM))

    def _grown(self, mask: NDArray[np.bool_], by: float) -> NDArray[np.bool_]:
        return ndimage.binary_dilation(mask, iterations=self._pixels(by))

    def _pixels(self, length: float) -> int:
        return max(1, round(length / self.spacing))


def texture_of(image: NDArray[np.float32], spacing: float) -> NDArray[np.float32]:
    """Return the local standard deviation of a slice ``(H, W)`` without its grain."""
    smooth = ndimage.gaussian_filter(image.astype(np.float64), GRAIN_MM / spacing)
    mean, square = (ndimage.gaussian_filter(each, REACH_MM / spacing) for each in (smooth, smooth**2))
    texture: NDArray[np.float32] = np.sqrt(np.maximum(square - mean**2, 0)).astype(np.float32)
    return texture
