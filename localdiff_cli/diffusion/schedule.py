"""The noise schedule: ᾱ_t from MONAI's scheduler, and the explicit (t, t_prev) pairs that every sampler walks.

MONAI's own step loop spaces the steps one way and walks them another (its error grows for few steps); here the pairs say both.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from localdiff_cli.startup import load_monai

Prediction = Literal["epsilon", "sample", "v_prediction"]
PREDICTIONS: tuple[Prediction, ...] = ("epsilon", "sample", "v_prediction")
CLEAN = -1
"""The timestep of a noise-free image: ᾱ = 1."""

StepPair = tuple[int, int]


@dataclass(frozen=True)
class Schedule:
    """A trained model's noise schedule.

    ``name`` and the betas are MONAI's (``linear_beta``, ``scaled_linear_beta``, ``cosine``, ``sigmoid_beta``);
    ``prediction`` is what the network predicts: epsilon, sample (x_0) or v_prediction.
    """

    name: str = "linear_beta"
    num_train_timesteps: Annotated[int, Field(ge=1, le=100_000)] = 1000
    beta_start: Annotated[float, Field(ge=1e-9, le=0.999)] = 1e-4
    beta_end: Annotated[float, Field(ge=1e-9, le=0.999)] = 2e-2
    prediction: Prediction = "sample"

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """ᾱ_t for t = 0 … T − 1, float64."""
        load_monai()
        from monai.networks.schedulers import DDPMScheduler

        betas: dict[str, Any] = {} if self.name == "cosine" else {"beta_start": self.beta_start, "beta_end": self.beta_end}
        scheduler = DDPMScheduler(num_train_timesteps=self.num_train_timesteps, schedule=self.name, clip_sample=False, **betas)
        return scheduler.alphas_cumprod.double()

    def alpha_bar(self, t: int) -> float:
        """Return ᾱ_t; 1 for the clean image (t = −1).

        >>> schedule = Schedule()
        >>> schedule.alpha_bar(-1), round(schedule.alpha_bar(499), 3), round(schedule.alpha_bar(999), 6)
        (1.0, 0.079, 4e-05)
        """
        return 1.0 if t == CLEAN else float(self.alphas_cumprod[t])

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε; ``x0``, ``noise`` ``(N, C, H, W)``, ``t`` ``(N,)``."""
        alpha_bar = self.alphas_cumprod.to(x0.dtype).to(x0.device)[t].view(-1, 1, 1, 1)
        return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise

    def training_target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return what the network is asked to predict for this ``prediction`` type."""
        if self.prediction == "sample":
            return x0
        if self.prediction == "epsilon":
            return noise
        alpha_bar = self.alphas_cumprod.to(x0.dtype).to(x0.device)[t].view(-1, 1, 1, 1)
        return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x0

    def to_x0(self, prediction: Tensor, x_t: Tensor, t: int) -> Tensor:
        """Return the x_0 estimate from the network's output at timestep ``t``."""
        if self.prediction == "sample":
            return prediction
        alpha_bar = self.alpha_bar(t)
        signal, sigma = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
        if self.prediction == "epsilon":
            return (x_t - sigma * prediction) / signal
        return signal * x_t - sigma * prediction


@dataclass(frozen=True)
class GivenSchedule(Schedule):
    """A schedule by its own ᾱ_t, ``alpha_bars`` for t = 0 … T − 1, as another library made them; names and betas do not apply.

    Raises ``ValueError`` unless there are T of them, falling from below 1 to 0 or more. A network that predicts ε has no x_0
    estimate at ᾱ = 0.
    """

    name: str = "given"
    alpha_bars: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        values = self.alpha_bars
        lowest = sys.float_info.min if self.prediction == "epsilon" else 0.0
        if not values or len(values) != self.num_train_timesteps or not values[0] < 1 or not values[-1] >= lowest:
            raise ValueError(f"alpha_bars: found {len(values)} values; expected {self.num_train_timesteps}, below 1, at least {lowest:g}")
        if not all(later < earlier for earlier, later in pairwise(values)):
            raise ValueError("alpha_bars: found values that do not fall; expected less signal at every timestep")

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """ᾱ_t for t = 0 … T − 1, float64."""
        return torch.tensor(self.alpha_bars, dtype=torch.float64)


def step_pairs(num_train_timesteps: int, steps: int) -> tuple[StepPair, ...]:
    """Return ``steps`` pairs (t, t_prev) from T − 1 down to the clean image (−1), evenly spaced.

    Raise ``ValueError`` unless 1 ≤ ``steps`` ≤ T.

    >>> step_pairs(1000, 4)
    ((999, 749), (749, 499), (499, 249), (249, -1))
    """
    if not 1 <= steps <= num_train_timesteps:
        raise ValueError(f"steps: found {steps}; expected 1 to {num_train_timesteps}")
    times = np.round(np.linspace(num_train_timesteps - 1, CLEAN, steps + 1)).astype(int).tolist()
    return tuple(pairwise(times))
