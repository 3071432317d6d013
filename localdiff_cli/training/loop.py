"""One resumable training loop for every network: EMA, cosine rate, timed checkpoints, exact after a kill.

The batch of step k depends on (seed, k) alone, so a run that was killed and resumed makes the same weights.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from localdiff_cli.errors import UsageError
from localdiff_cli.volumes.writer import whole_file

LossOf = Callable[[nn.Module, torch.Generator], Tensor]


@dataclass(frozen=True)
class LoopSettings:
    """``steps`` optimiser steps of ``batch_size`` slices; ``rate`` is the peak learning rate, reached after ``warmup`` steps."""

    steps: int = 4000
    batch_size: int = 8
    rate: float = 4e-4
    weight_decay: float = 1e-4
    warmup: int = 100
    ema: float = 0.998
    seed: int = 0
    checkpoint_minutes: float = 3.0
    report_every: int = 50


@dataclass(frozen=True)
class Progress:
    """What the loop reports: step, mean loss since the last report, seconds left, rate."""

    step: int
    steps: int
    loss: float
    seconds_left: float
    rate: float


def step_generator(seed: int, step: int) -> torch.Generator:
    """The random source of one step, whatever came before it."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


def learning_rate(settings: LoopSettings, step: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < settings.warmup:
        return settings.rate * (step + 1) / settings.warmup
    return settings.rate * 0.5 * (1 + math.cos(math.pi * (step - settings.warmup) / max(1, settings.steps - settings.warmup)))


def _update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)


def train(
    network: nn.Module,
    loss_of: LossOf,
    settings: LoopSettings,
    checkpoint: Path,
    report: Callable[[Progress], None],
    on_checkpoint: Callable[[nn.Module, int], None] | None = None,
) -> tuple[nn.Module, list[tuple[int, float]]]:
    """Train ``network``; return its moving average and the loss curve ``[(step, loss)]``.

    ``checkpoint`` is a file outside any bundle; an existing one of the same settings is resumed, of others refused.
    """
    average = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=settings.weight_decay)
    first, curve = _resume(checkpoint, network, average, optimiser, settings)
    network.train()
    since, started, losses = time.monotonic(), time.monotonic(), []
    for step in range(first, settings.steps):
        losses.append(_step(network, average, optimiser, loss_of, settings, step))
        if (step + 1) % settings.report_every == 0 or step + 1 == settings.steps:
            left = (time.monotonic() - started) / (step + 1 - first) * (settings.steps - step - 1)
            curve.append((step + 1, sum(losses) / len(losses)))
            report(Progress(step + 1, settings.steps, curve[-1][1], left, learning_rate(settings, step)))
            losses = []
        if time.monotonic() - since > settings.checkpoint_minutes * 60 or step + 1 == settings.steps:
            _save(checkpoint, network, average, optimiser, settings, step + 1, curve)
            if on_checkpoint is not None:
                on_checkpoint(average, step + 1)
            since = time.monotonic()
    return average.eval(), curve


def _step(network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer, loss_of: LossOf, settings: LoopSettings, step: int) -> float:
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(settings, step)
    torch.manual_seed((settings.seed * 1_000_003 + step) % 2**63)
    loss = loss_of(network, step_generator(settings.seed, step))
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    _update_average(average, network, min(settings.ema, (step + 1) / (step + 10)))
    return float(loss.detach())


def _save(
    path: Path, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer, settings: LoopSettings, step: int, curve: list
) -> None:
    state = {
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "settings": asdict(settings),
        "step": step,
        "curve": curve,
    }
    with whole_file(path) as partial:
        torch.save(state, partial)


def _resume(path: Path, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer, settings: LoopSettings) -> tuple[int, list]:
    if not path.is_file():
        return 0, []
    state: dict[str, Any] = torch.load(path, weights_only=True)
    if state["settings"] != asdict(settings):
        raise UsageError(f"{path}: a checkpoint of other settings ({state['settings']}); expected {asdict(settings)}. Remove it or use another --work")
    network.load_state_dict(state["network"])
    average.load_state_dict(state["average"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"]), [tuple(point) for point in state["curve"]]
