"""The interval network: how far below and above the drawn value the true one may lie, pixel by pixel (quantile regression).

It sees the condition, M and what was drawn, and learns both limits by pinball loss (training/interval.py). Nothing is
promised of them as they are: intervals.py moves them until a cohort's patients lie between them as often as was asked. A
good network makes the band narrow where the picture is easy to draw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad, pixel_shuffle, pixel_unshuffle, softplus

from localdiff_cli.startup import load_monai
from localdiff_cli.threads import apart

PLANES = 3
"""What it sees: condition, M, drawn image."""
NARROW = 3.0
"""Taken from what the last layer says, so that a fresh network's band is about 0.05 of the range on either side."""


@dataclass(frozen=True)
class IntervalSettings:
    """The network's size, ``space_to_depth`` pixels as channels and ``channels`` by level; the ``level`` that it has learnt:
    the share of true values between its limits."""

    space_to_depth: Annotated[int, Field(ge=1, le=16)] = 2
    channels: Annotated[tuple[Annotated[int, Field(ge=1, le=1024)], ...], Field(min_length=1, max_length=8)] = (32, 64, 96, 128)
    level: Annotated[float, Field(ge=0.5, le=0.99)] = 0.9

    @property
    def multiple(self) -> int:
        """Rows and columns that the network takes are multiples of this; others are padded."""
        return self.space_to_depth * 2 ** (len(self.channels) - 1)


class IntervalNetwork(nn.Module):
    """MONAI's residual U-Net on a space-to-depth grid: two distances for every pixel."""

    def __init__(self, settings: IntervalSettings) -> None:
        super().__init__()
        load_monai()
        from monai.networks.nets import UNet

        self.settings = settings
        depth = settings.space_to_depth**2
        strides = (2,) * (len(settings.channels) - 1)
        self.unet = UNet(2, PLANES * depth, 2 * depth, settings.channels, strides, num_res_units=1, norm="INSTANCE")

    def forward(self, seen: Tensor) -> Tensor:
        """``seen`` ``(N, 3, H, W)``: condition, M and drawn image in [0, 1] → the distances below and above the image,
        ``(N, 2, H, W)``, shares of the range above 0."""
        factor, (height, width) = self.settings.space_to_depth, seen.shape[-2:]
        padded = pad(seen, (0, -width % self.settings.multiple, 0, -height % self.settings.multiple))
        out = pixel_shuffle(self.unet(pixel_unshuffle(2 * padded - 1, factor)), factor)
        return softplus(out[..., :height, :width] - NARROW)


@torch.inference_mode()
def distances(network: IntervalNetwork, condition: Tensor, ood_map: Tensor, image: Tensor) -> Tensor:
    """Return how far the limits lie below and above ``image``, ``(N, 2, H, W)`` float32 on the CPU; all inputs
    ``(N, 1, H, W)``.

    Slices run separately on a CPU, so that the result does not depend on the batch or the threads.
    """
    seen = torch.cat([condition, ood_map, image], dim=1).float()
    if not len(seen):
        return seen[:, :2]
    device = next(network.parameters()).device
    return torch.cat(apart(network, seen.split(1))) if device.type == "cpu" else network(seen.to(device)).cpu()
