"""What every adapter makes: a network conditioned by concatenation, with the noise schedule that it was trained with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, NamedTuple, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from localdiff_cli.diffusion.schedule import Schedule
from localdiff_cli.diffusion.space import Space

TwoIn = Annotated[int, Field(ge=2, le=2, description="x_t and the condition; in a bundle no other number")]
OneOut = Annotated[int, Field(ge=1, le=1)]
Blocks = Annotated[int, Field(ge=1, le=8)]
Channels = Annotated[int, Field(ge=1, le=1024)]
HeadChannels = Annotated[int, Field(ge=0, le=1024)]
Epsilon = Annotated[float, Field(ge=0, le=1)]
ConditionValue = Annotated[float, Field(ge=-1000, le=1000)]
"""Ranges that bundles keep to; a network made from a file of one's own may be of any size."""


class UNetSettings(Protocol):
    """A U-Net that takes x_t and the condition as the channels of one image.

    ``condition_range`` is what the condition's [0, 1] becomes for it; ``condition_first`` puts the condition's channels
    before x_t's.
    """

    @property
    def in_channels(self) -> int: ...
    @property
    def out_channels(self) -> int: ...
    @property
    def condition_range(self) -> tuple[float, float]: ...
    @property
    def condition_first(self) -> bool: ...
    @property
    def multiple(self) -> int:
        """Rows and columns of the input must be a multiple of this."""
        ...


class ConcatenatedNetwork(nn.Module, ABC):
    """A library's U-Net behind the call that Local Diffusion makes; ``predict`` is the library's own call."""

    def __init__(self, unet: nn.Module, settings: UNetSettings) -> None:
        super().__init__()
        self.unet, self.settings = unet, settings

    @abstractmethod
    def predict(self, stacked: Tensor, t: Tensor) -> Tensor:
        """``stacked`` ``(N, in_channels, H, W)``, ``t`` ``(N,)`` → ε, x_0 or v ``(N, out_channels, H, W)``."""

    def forward(self, x_t: Tensor, condition: Tensor, t: Tensor) -> Tensor:
        """``x_t`` ``(N, C, H, W)``, ``condition`` ``(N, K, H, W)`` in [0, 1] (or a latent), ``t`` ``(N,)`` → like ``x_t``."""
        low, high = self.settings.condition_range
        shown = low + (high - low) * condition
        return self.predict(torch.cat([shown, x_t] if self.settings.condition_first else [x_t, shown], dim=1), t)


class Translator(NamedTuple):
    """A pre-trained model and its ``schedule``; ``clip``: it was sampled with its x_0 estimates kept in [−1, 1]."""

    model: ConcatenatedNetwork
    schedule: Schedule
    clip: bool = True

    @property
    def space(self) -> Space:
        """For the ``space`` of a process on pixels."""
        return Space(clip=self.clip)
