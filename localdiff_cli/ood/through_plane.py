"""M of a volume seen from the side: a lesion goes on from slice to slice, what a network fancies in one alone does not.

M is averaged over neighbouring slices. Of the connected regions in three dimensions only those are sure in which the
average comes near 1 somewhere; a slice that hardly shows its part of such a region takes it from its neighbours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

REACH = 3.0
"""Standard deviations beyond which a neighbour counts nothing."""
NOTHING, ALL = 0.1, 0.35
"""Averages that give M = 0 and M = 1: of thick slices, both neighbours together outweigh a slice that shows nothing."""
SHOWN = 0.5
"""A slice whose own M marks this share of its part of the sure regions keeps it: its neighbours have other outlines."""
AROUND = np.ones((3, 3, 3), bool)
"""Neighbours that make one region of a volume: faces, edges and corners."""


@dataclass(frozen=True, eq=False)
class SideView:
    """M in [0, 1], and where a region of it is ``sure``, bool; of consecutive slices, ``(S, 1, H, W)``."""

    ood_map: Tensor
    sure: Tensor


def seen_from_the_side(ood_map: Tensor, brain: Tensor, sigma: float, threshold: float, peak: float) -> SideView:
    """Return M of consecutive slices in the light of their neighbours.

    ``ood_map`` ``(S, 1, H, W)`` in [0, 1], 0 outside ``brain``, bool; ``sigma`` > 0, standard deviation of the average in
    slices. Regions begin where the average, spread from NOTHING to ALL, reaches ``threshold``; those are sure in which the
    average itself reaches ``peak``.
    """
    average = averaged(ood_map, brain, sigma)
    spread = ((average - NOTHING) / (ALL - NOTHING)).clamp(0, 1)
    regions = ((spread >= threshold) & brain)[:, 0].cpu().numpy()
    certain = regions & (average >= peak)[:, 0].cpu().numpy()
    sure = torch.from_numpy(ndimage.binary_propagation(certain, AROUND, mask=regions))[:, None].to(brain.device)
    own = sure & (ood_map >= threshold)
    shown = (_pixels(own) >= SHOWN * _pixels(sure))[:, None, None, None]
    return SideView(torch.where(shown, ood_map, spread), torch.where(shown, own, sure))


def _pixels(mask: Tensor) -> Tensor:
    return mask.flatten(1).sum(dim=1)


def averaged(ood_map: Tensor, brain: Tensor, sigma: float) -> Tensor:
    """Return the mean of M over the slices with the weights of a Gaussian of ``sigma`` slices; shapes as above.

    In each pixel only slices count that have brain there: neither the ends of a volume nor the brain's rim pale.
    """
    inside = brain.cpu().numpy()
    total, weight = (_through_slices(stack.cpu().numpy(), sigma) for stack in (ood_map, brain))
    mean = np.divide(total, weight, out=np.zeros_like(total), where=inside)
    return torch.from_numpy(mean).clamp(0, 1).to(ood_map.device)


def _through_slices(stack: NDArray[Any], sigma: float) -> NDArray[np.float32]:
    """The weighted sum over slices, 0 beyond the ends."""
    reach = math.ceil(REACH * sigma)
    summed: NDArray[np.float32] = ndimage.gaussian_filter1d(stack.astype(np.float32), sigma, axis=0, mode="constant", radius=reach)
    return summed
