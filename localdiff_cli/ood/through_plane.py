"""M of a volume seen from the side: a lesion goes on from slice to slice, what a network fancies in one alone does not.

M is averaged over neighbouring slices. Of the connected regions in three dimensions only those are sure in which the
average comes near 1 somewhere. A slice that hardly shows its part of a sure region takes it from its neighbours; what is
not sure stays in M as a suspicion.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

REACH = 3.0
"""Standard deviations beyond which a neighbour counts nothing."""
NOTHING, ALL = 0.1, 0.35
"""Averages that give M = 0 and M = 1: of thick slices, the neighbours on one side alone outweigh a slice that shows nothing."""
MARKED = 0.2
"""M from which a pixel belongs to a region."""
SHOWN = 0.5
"""A slice whose own M marks this share of its part of a sure region keeps its outline there: its neighbours have others."""
SUSPECTED = 0.15
"""M of what is not sure is no more than this."""
IN_VOLUME = np.ones((3, 3, 3), bool)
"""Neighbours that make one region of a volume: faces, edges and corners."""
IN_SLICE = np.array([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))], bool)
"""The same within a slice."""


def seen_from_the_side(ood_map: Tensor, brain: Tensor, sigma: float, peak: float) -> Tensor:
    """Return M of consecutive slices in the light of their neighbours.

    ``ood_map`` ``(S, 1, H, W)`` in [0, 1], 0 outside ``brain``, bool; ``sigma`` > 0, standard deviation of the average in
    slices; a region is sure in which the average reaches ``peak``.
    """
    whole, everywhere = ood_map[:, 0].cpu().numpy(), brain[:, 0].cpu().numpy()
    (found,) = ndimage.find_objects(everywhere.any(axis=0).astype(np.uint8), max_label=1)
    if found is None:
        return ood_map
    box = (slice(None), *found)  # where some slice has brain
    own, inside = whole[box], everywhere[box]
    average = averaged(own, inside, sigma)
    spread = np.clip((average - NOTHING) / (ALL - NOTHING), 0, 1)
    regions = (spread >= MARKED) & inside
    sure = ndimage.binary_propagation(regions & (average >= peak), IN_VOLUME, mask=regions)
    shown = _shown(sure, own >= MARKED)
    outlined = ndimage.binary_propagation(shown & (own >= MARKED), IN_SLICE, mask=own >= MARKED)
    suspected = np.minimum(own, SUSPECTED)
    seen = np.zeros_like(whole)
    seen[box] = np.where(outlined, own, np.where(sure & ~shown, np.maximum(spread, suspected), suspected))
    return torch.from_numpy(seen)[:, None].to(ood_map.device)


def _shown(sure: NDArray[np.bool_], marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The parts of sure regions, slice by slice, of which enough is marked by the slice itself."""
    parts, count = ndimage.label(sure, IN_SLICE)
    shares = ndimage.mean(marked, parts, np.arange(1, count + 1)) if count else []
    enough: NDArray[np.bool_] = np.concatenate([[False], np.asarray(shares) >= SHOWN])[parts]
    return enough


def averaged(ood_map: NDArray[np.float32], brain: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    """Return the mean of M over the slices with the weights of a Gaussian of ``sigma`` slices; ``(S, H, W)`` all.

    In each pixel only slices count that have brain there: neither the ends of a volume nor the brain's rim pale.
    """
    total, weight = (_through_slices(stack, sigma) for stack in (ood_map, brain))
    mean: NDArray[np.float32] = np.divide(total, weight, out=np.zeros_like(total), where=brain)
    return mean.clip(0, 1)


def _through_slices(stack: NDArray[Any], sigma: float) -> NDArray[np.float32]:
    """The weighted sum over slices, 0 beyond the ends."""
    reach = math.ceil(REACH * sigma)
    summed: NDArray[np.float32] = ndimage.gaussian_filter1d(stack.astype(np.float32), sigma, axis=0, mode="constant", radius=reach)
    return summed
