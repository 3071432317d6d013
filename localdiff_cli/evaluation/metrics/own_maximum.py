"""Figures as most translation papers compute them: the whole volume, each image over its own maximum, data range 1.

Air counts as a hit, and one hot voxel rescales an image: such figures are for a comparison with papers, never with figures
inside the brain. Images are 0 outside the brain, in units in which air is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.evaluation.metrics.image import DataRange, psnr, ssim_maps, ssim_of_slices
from localdiff_cli.evaluation.metrics.measure import Measure, measured, missing

RANGE = DataRange(1.0, "each image over its own maximum")
NAMES = ("psnr_own_max", "ssim_slices_own_max", "mae_own_max")


def own_maximum_figures(image: NDArray[Any], reference: NDArray[Any]) -> dict[str, Measure]:
    """Return the PSNR (dB), mean SSIM of whole slices and mean absolute error of ``(slices, rows, columns)``, each image
    over its own maximum.

    An image that holds values below 0 (a z-score) or nothing above 0 has no maximum to go by: a reason instead of numbers.
    """
    for label, array in (("image", image), ("reference", reference)):
        if array.min() < 0 or array.max() <= 0:
            reason = f"the {label} runs from {array.min():.3g} to {array.max():.3g}: its maximum is no scale"
            return dict.fromkeys(NAMES, missing(reason))
    a, b = image / np.float32(image.max()), reference / np.float32(reference.max())
    maps = ssim_maps(a, b, RANGE, volume=False)
    ssim = missing(maps.slices_reason) if maps.slices is None else measured(np.mean(ssim_of_slices(maps, None, a.shape)))
    return dict(zip(NAMES, (psnr(a, b, RANGE), ssim, measured(np.mean(np.abs(a - b), dtype=np.float64))), strict=True))
