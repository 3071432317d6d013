"""The translator's network: MONAI's diffusion U-Net on a space-to-depth grid, conditional by concatenation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from localdiff_cli.startup import load_monai

BACKGROUND = -1.0
"""The background of a target in the network's range [−1, 1]."""
Levels = Annotated[tuple[Annotated[int, Field(ge=1, le=1024)], ...], Field(min_length=1, max_length=8)]
"""Channels of each level of a network."""


@dataclass(frozen=True)
class NetworkSettings:
    """Size of the network: ``space_to_depth`` pixels become channels before it; the rest is MONAI's.

    A ``told`` network sees a second condition channel, the soft OOD map M: an expert that knows where it is asked to draw.
    """

    space_to_depth: Annotated[int, Field(ge=1, le=16)] = 4
    channels: Levels = (64, 96, 160)
    num_res_blocks: Annotated[int, Field(ge=1, le=8)] = 2
    attention_levels: tuple[bool, ...] = (False, False, True)
    num_head_channels: Annotated[int, Field(ge=0, le=1024)] = 32
    told: bool = False

    @property
    def multiple(self) -> int:
        """Rows and columns of the input must be a multiple of this."""
        return self.space_to_depth * 2 ** (len(self.channels) - 1)


class TranslatorNetwork(nn.Module):
    """Predicts ε, x_0 or v of the target from x_t, the condition and t.

    Space-to-depth keeps white noise white and masks local, at a fraction of the cost. ``image_channels``: 1, or 3 for colour.
    """

    def __init__(self, settings: NetworkSettings, image_channels: int = 1) -> None:
        super().__init__()
        load_monai()
        from monai.networks.nets import DiffusionModelUNet

        self.settings = settings
        block = settings.space_to_depth**2
        depth = image_channels * block
        self.unet = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=2 * depth + (block if settings.told else 0),
            out_channels=depth,
            channels=settings.channels,
            attention_levels=settings.attention_levels,
            num_res_blocks=settings.num_res_blocks,
            num_head_channels=settings.num_head_channels,
            use_flash_attention=True,
        )

    def forward(self, x_t: Tensor, condition: Tensor, t: Tensor) -> Tensor:
        """``x_t`` ``(N, C, H, W)`` in the network's range, ``condition`` in [0, 1], ``t`` ``(N,)`` → ``(N, C, H, W)``.

        ``condition`` is ``(N, C, H, W)``: c; for a told network ``(N, C + 1, H, W)``: c and M.
        """
        factor = self.settings.space_to_depth
        channels = x_t.shape[1]
        shown = [pixel_unshuffle(2 * condition[:, :channels] - 1, factor)]
        if self.settings.told:
            shown.append(pixel_unshuffle(condition[:, channels:], factor))
        stacked = torch.cat([pixel_unshuffle(x_t, factor), *shown], dim=1)
        return pixel_shuffle(self.unet(stacked, timesteps=t), factor)


def told_network(network: TranslatorNetwork) -> TranslatorNetwork:
    """Return the same network with a further input for M whose weights are 0: it answers as before until it has learnt to
    use M."""
    settings = replace(network.settings, told=True)
    made = TranslatorNetwork(settings)
    weights = network.state_dict()
    first = "unet.conv_in.conv.weight"
    held = weights[first]
    silent = held.new_zeros(held.shape[0], settings.space_to_depth**2, *held.shape[2:])
    made.load_state_dict({**weights, first: torch.cat([held, silent], dim=1)})
    return made.to(held.device)
