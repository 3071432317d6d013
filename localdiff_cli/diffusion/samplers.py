"""Reverse processes: one loop over explicit (t, t_prev) pairs, and one equation for each sampler.

A denoiser gives the x_0 estimate, ``(x_t, t) → x_0``; a step moves x_t to x_{t_prev}. A state carries what the next step
needs, so that a process may be stopped, split into branches, fused and resumed at any pair.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from localdiff_cli.diffusion.schedule import CLEAN, Schedule, StepPair

Denoise = Callable[[Tensor, int], Tensor]
NoiseOf = Callable[[int], Tensor]
"""Step number → standard normal noise of the shape of x_t."""


class State(NamedTuple):
    """``x`` is x_t; ``x0`` the last estimate, made at timestep ``t_of_x0`` (None before the first step)."""

    x: Tensor
    x0: Tensor | None = None
    t_of_x0: int | None = None


class Step(Protocol):
    """Moves x_t to x_{t_prev}, given the x_0 estimate at t, the state before it and a source of noise for this step."""

    def __call__(self, schedule: Schedule, state: State, x0: Tensor, pair: StepPair, noise: Callable[[], Tensor]) -> Tensor: ...


class Model(Protocol):
    """Any conditional diffusion network: ``x_t``, ``condition`` ``(N, C, H, W)``, ``t`` ``(N,)`` → ε, x_0 or v, as its
    schedule says."""

    def __call__(self, x_t: Tensor, condition: Tensor, t: Tensor) -> Tensor: ...


def denoiser(model: Model, schedule: Schedule, condition: Tensor, *, clip: bool = True) -> Denoise:
    """Return the x_0 estimate of ``model`` for a fixed ``condition``; ``clip`` keeps it in the network's range [−1, 1]."""

    def denoise(x_t: Tensor, t: int) -> Tensor:
        times = torch.full((x_t.shape[0],), t, device=x_t.device)
        x0 = schedule.to_x0(model(x_t, condition, times), x_t, t)
        return x0.clamp(-1, 1) if clip else x0

    return denoise


def ddim_step(schedule: Schedule, state: State, x0: Tensor, pair: StepPair, noise: Callable[[], Tensor], *, eta: float = 0.0) -> Tensor:
    """Take a step of DDIM (Song et al. 2021, eq. 12); ``eta`` 0 is deterministic, 1 is DDPM's ancestral step for any pair."""
    now, then = schedule.alpha_bar(pair[0]), schedule.alpha_bar(pair[1])
    epsilon = (state.x - math.sqrt(now) * x0) / math.sqrt(1 - now)
    sigma = eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
    x = math.sqrt(then) * x0 + math.sqrt(max(1 - then - sigma**2, 0.0)) * epsilon
    return x if sigma == 0 else x + sigma * noise()


def ddpm_step(schedule: Schedule, state: State, x0: Tensor, pair: StepPair, noise: Callable[[], Tensor]) -> Tensor:
    """Take a step of DDPM (Ho et al. 2020, eq. 7): the posterior q(x_{t_prev} | x_t, x_0) between any two timesteps."""
    now, then = schedule.alpha_bar(pair[0]), schedule.alpha_bar(pair[1])
    ratio = now / then
    mean = (math.sqrt(then) * (1 - ratio) * x0 + math.sqrt(ratio) * (1 - then) * state.x) / (1 - now)
    sigma = math.sqrt((1 - then) / (1 - now) * (1 - ratio))
    return mean if sigma == 0 else mean + sigma * noise()


def _log_snr(alpha_bar: float) -> float:
    alpha_bar = max(alpha_bar, sys.float_info.min)  # schedules may end in pure noise, ᾱ = 0
    return 0.5 * math.log(alpha_bar / (1 - alpha_bar))


def dpm_solver_step(schedule: Schedule, state: State, x0: Tensor, pair: StepPair, noise: Callable[[], Tensor]) -> Tensor:
    """Take a step of DPM-Solver++(2M) (Lu et al. 2022, algorithm 2); first order at the first step and onto the clean
    image."""
    if pair[1] == CLEAN:
        return x0
    now, then = schedule.alpha_bar(pair[0]), schedule.alpha_bar(pair[1])
    h = _log_snr(then) - _log_snr(now)
    estimate = x0
    if state.x0 is not None and state.t_of_x0 is not None:
        r = (_log_snr(now) - _log_snr(schedule.alpha_bar(state.t_of_x0))) / h
        estimate = x0 + (x0 - state.x0) / (2 * r)
    return math.sqrt((1 - then) / (1 - now)) * state.x - math.sqrt(then) * math.expm1(-h) * estimate


STEPS: dict[str, Step] = {"ddim": ddim_step, "ddpm": ddpm_step, "dpmpp": dpm_solver_step}
"""The step of every sampler that choices.py names."""


def step_of(name: str, eta: float = 0.0) -> Step:
    """Return the step of a sampler by name; ``eta`` belongs to DDIM. Raise ``ValueError`` for another name.

    A step onto the clean image gives the estimate itself, with every sampler:

    >>> x_t, x0 = torch.full((1, 1, 2, 2), 0.8), torch.full((1, 1, 2, 2), 0.25)
    >>> {round(float(step_of(name)(Schedule(), State(x_t), x0, (0, CLEAN), torch.Tensor).mean()), 6) for name in STEPS}
    {0.25}
    """
    if name not in STEPS:
        raise ValueError(f"sampler: found {name!r}; expected one of {', '.join(STEPS)}")
    return partial(ddim_step, eta=eta) if name == "ddim" else STEPS[name]


def advance(step: Step, denoise: Denoise, schedule: Schedule, state: State, number: int, pair: StepPair, noise_of: NoiseOf) -> State:
    """Take one step of the reverse process; ``number`` counts from the first pair and keys the noise."""
    x0 = denoise(state.x, pair[0])
    return State(step(schedule, state, x0, pair, lambda: noise_of(number)), x0, pair[0])


def sample(
    step: Step, denoise: Denoise, schedule: Schedule, state: State, pairs: Iterable[tuple[int, StepPair]], noise_of: NoiseOf
) -> State:
    """Walk numbered ``pairs``; this is the plain sampler when they are all the pairs."""
    for number, pair in pairs:
        state = advance(step, denoise, schedule, state, number, pair, noise_of)
    return state
