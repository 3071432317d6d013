"""The lesion network: MONAI's residual U-Net on a space-to-depth grid, one probability per pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad, pixel_shuffle, pixel_unshuffle

from localdiff_cli.startup import load_monai
from localdiff_cli.threads import apart


@dataclass(frozen=True)
class LesionNetworkSettings:
    """Size of the network: ``space_to_depth`` pixels become channels; ``channels`` by level, halving the grid at each."""

    space_to_depth: Annotated[int, Field(ge=1, le=16)] = 2
    channels: Annotated[tuple[Annotated[int, Field(ge=1, le=1024)], ...], Field(min_length=1, max_length=8)] = (32, 64, 128, 192)
    num_res_units: Annotated[int, Field(ge=0, le=8)] = 2
    dropout: Annotated[float, Field(ge=0, le=0.99)] = 0.1

    @property
    def multiple(self) -> int:
        """Rows and columns of the input must be a multiple of this."""
        return self.space_to_depth * 2 ** (len(self.channels) - 1)


class LesionNetwork(nn.Module):
    """Logits of lesion for every pixel of a normalised slice."""

    def __init__(self, settings: LesionNetworkSettings) -> None:
        super().__init__()
        load_monai()
        from monai.networks.nets import UNet

        self.settings = settings
        depth = settings.space_to_depth**2
        self.unet = UNet(
            spatial_dims=2,
            in_channels=depth,
            out_channels=depth,
            channels=settings.channels,
            strides=(2,) * (len(settings.channels) - 1),
            num_res_units=settings.num_res_units,
            norm="INSTANCE",
            dropout=settings.dropout,
        )

    def forward(self, image: Tensor) -> Tensor:
        """``image`` ``(N, 1, H, W)`` in [0, 1] → logits ``(N, 1, H, W)``."""
        factor = self.settings.space_to_depth
        return pixel_shuffle(self.unet(pixel_unshuffle(2 * image - 1, factor)), factor)


@torch.inference_mode()
def lesion_probability(network: LesionNetwork, image: Tensor, brain: Tensor, *, mirror: bool = True) -> Tensor:
    """Return P(lesion) ``(N, 1, H, W)``, 0 outside ``brain``; ``mirror`` averages with the left-right mirrored slice.

    Slices run separately on a CPU, so that the result does not depend on the batch or the threads. Of any size: another
    network's grid, on which this one serves as detector or classifier, is padded with background to what this one needs.
    """
    height, width = image.shape[-2:]
    margins = (0, -width % network.settings.multiple, 0, -height % network.settings.multiple)

    def probability(x: Tensor) -> Tensor:
        return network(pad(x, margins)).sigmoid()[..., :height, :width]

    def one(x: Tensor) -> Tensor:
        return (probability(x) + probability(x.flip(-1)).flip(-1)) / 2 if mirror else probability(x)

    if not len(image):
        return torch.zeros_like(image)
    found = torch.cat(apart(one, image.split(1))) if image.device.type == "cpu" else one(image)
    return found * brain
