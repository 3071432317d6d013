"""True lesion masks made wrong on purpose: how good must an OOD map be?"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

FAULTS = ("erode", "dilate", "shift", "holes", "islands", "noise")
REDRAWN = "noise redrawn each step"
"""The fault ``noise``, drawn anew for every step of the reverse process: see noisy_maps.py."""
NOISE_SIGMA = 2.0
"""The noise on M is as smooth as white noise after a Gaussian of this many pixels."""


def spoil(mask: Tensor, brain: Tensor, fault: str, size: float) -> Tensor:
    """``mask`` bool ``(N, 1, H, W)`` with a fault, inside ``brain``; slices without a mask stay without, but for ``islands`` and ``noise``.

    ``erode``, ``dilate``, ``shift`` (to the right) by ``size`` pixels; ``holes``: that share of the mask is cut out in discs of 4 pixels;
    ``islands``: that many false discs of radius 8 a slice; ``noise``: M plus smooth noise of that standard deviation, cut at 0.5, on
    every slice. Raises ``ValueError`` for another fault.
    """
    if fault == "noise":
        return noisy(mask, brain, size, draw=0)
    rng = np.random.default_rng(0)
    spoilt = [_spoil(m, b, fault, size, rng) for m, b in zip(mask[:, 0].numpy(), brain[:, 0].numpy(), strict=True)]
    return torch.from_numpy(np.stack(spoilt))[:, None] & brain


def noisy(mask: Tensor, brain: Tensor, size: float, draw: int) -> Tensor:
    """``mask`` as M in {0, 1} plus smooth Gaussian noise of standard deviation ``size``, cut at 0.5; each ``draw`` has its own noise."""
    white = np.random.default_rng(draw).standard_normal(mask.shape)
    smooth = ndimage.gaussian_filter(white, (0, 0, NOISE_SIGMA, NOISE_SIGMA), mode="wrap")
    return (mask + torch.from_numpy(size * smooth / smooth.std()) >= 0.5) & brain


def _spoil(mask: np.ndarray, brain: np.ndarray, fault: str, size: float, rng: np.random.Generator) -> np.ndarray:
    if fault == "islands":
        return mask | _discs(brain, int(size), 8, rng)
    if not mask.any():
        return mask
    if fault == "erode":
        return ndimage.distance_transform_edt(mask) > size
    if fault == "dilate":
        return ndimage.distance_transform_edt(~mask) <= size
    if fault == "shift":
        return np.roll(mask, int(size), axis=1)
    if fault == "holes":
        count = max(1, round(size * mask.sum() / 50))
        return mask & ~_discs(mask, count, 4, rng)
    raise ValueError(f"unknown fault {fault}; expected one of {', '.join(FAULTS)}")


def _discs(where: np.ndarray, count: int, radius: int, rng: np.random.Generator) -> np.ndarray:
    """Discs whose centres are drawn from ``where``."""
    centres = np.argwhere(where)
    far = np.ones(where.shape, bool)
    if len(centres) and count:
        rows, columns = centres[rng.integers(len(centres), size=count)].T
        far[rows, columns] = False
    else:
        return np.zeros_like(where)
    return ndimage.distance_transform_edt(far) <= radius
