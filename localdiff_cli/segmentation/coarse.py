"""A lesion network of a coarser grid, on slices of a finer one: they are averaged before, and its answer is interpolated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from localdiff_cli.segmentation.network import LesionNetwork, lesion_probability

MOST_OF_IT = 0.5
"""A coarse pixel belongs to the brain when this much of it does."""


@dataclass(frozen=True, eq=False)
class CoarseFinder:
    """``network`` on pixels that are ``factor`` times as long as those it is given."""

    network: LesionNetwork
    factor: int

    def __call__(self, condition: Tensor, brain: Tensor) -> Tensor:
        """Return P(lesion) of slices ``(N, 1, H, W)`` on their own grid, 0 outside ``brain``, on the CPU."""
        if not len(condition):
            return torch.zeros_like(condition)
        device, k, (height, width) = next(self.network.parameters()).device, self.factor, condition.shape[-2:]
        margins = (0, -width % k, 0, -height % k)
        coarse, share = (avg_pool2d(pad(each.to(device, torch.float32), margins), k) for each in (condition, brain))
        found = lesion_probability(self.network, coarse, share > MOST_OF_IT)
        fine = interpolate(found, scale_factor=k, mode="bilinear", align_corners=False) if k > 1 else found
        return (fine[..., :height, :width] * brain.to(device)).cpu()
