"""One resumable training loop for every network: EMA, cosine rate, timed checkpoints, exact after a kill.

The batch of step k depends on (seed, k) alone, so a run that was killed and resumed makes the same weights.
"""

from __future__ import annotations

import copy
import math
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from localdiff_cli.errors import UsageError
from localdiff_cli.volumes.whole import sweep, whole_file

UNREADABLE = (
    pickle.UnpicklingError, ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""What reading a file that is no checkpoint of ours may raise."""

LossOf = Callable[[nn.Module, torch.Generator], Tensor]


@dataclass(frozen=True)
class LoopSettings:
    """``steps`` optimiser steps of ``batch_size`` slices; ``rate`` is the peak learning rate, reached after ``warmup`` steps.

    ``precision``: fp32, or bf16 for the network's forward pass (weights, loss and optimiser stay fp32).
    """

    steps: int = 4000
    batch_size: int = 8
    rate: float = 4e-4
    weight_decay: float = 1e-4
    warmup: int = 100
    ema: float = 0.998
    seed: int = 0
    checkpoint_minutes: float = 3.0
    report_every: int = 50
    precision: str = "fp32"


@dataclass(frozen=True)
class Progress:
    """What the loop reports: step, mean loss since the last report, seconds left, rate."""

    step: int
    steps: int
    loss: float
    seconds_left: float
    rate: float


class ReducedPrecision(nn.Module):
    """A network that runs in bfloat16 where that is safe (torch's autocast) and answers in float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        """What the network answers."""
        with torch.autocast(inputs[0].device.type, torch.bfloat16):
            return self.network(*inputs).float()


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


@dataclass(frozen=True, eq=False)
class Trainee:
    """What a checkpoint keeps of a training: the network, its moving average and the optimiser's state."""

    network: nn.Module
    average: nn.Module
    optimiser: torch.optim.Optimizer

    @property
    def parts(self) -> dict[str, Any]:
        """By the name under which the checkpoint holds them."""
        return {"network": self.network, "average": self.average, "optimiser": self.optimiser}


def train(
    network: nn.Module,
    loss_of: LossOf,
    settings: LoopSettings,
    checkpoint: Path,
    report: Callable[[Progress], None],
    on_checkpoint: Callable[[nn.Module, int], None] | None = None,
    identity: Mapping[str, Any] | None = None,
) -> tuple[nn.Module, list[tuple[int, float]]]:
    """Train ``network``; return its moving average and the loss curve ``[(step, loss)]``.

    ``checkpoint`` is a file outside any bundle; an existing one of the same settings is resumed, of others refused.
    ``identity`` says what is trained on what (JSON values): a checkpoint of another identity is refused as well.
    Raises :class:`UsageError` for such a checkpoint, and where the loss is no longer finite.
    """
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=settings.weight_decay)
    trainee = Trainee(network, copy.deepcopy(network), optimiser)
    first, curve, spent = _resume(checkpoint, trainee, settings, identity)
    network.train()
    run = network if settings.precision == "fp32" else ReducedPrecision(network)
    since, started, losses = time.monotonic(), time.monotonic(), []
    for step in range(first, settings.steps):
        losses.append(_step(run, network, trainee.average, optimiser, loss_of, settings, step))
        if (step + 1) % settings.report_every == 0 or step + 1 == settings.steps:
            left = (time.monotonic() - started) / (step + 1 - first) * (settings.steps - step - 1)
            curve.append((step + 1, sum(losses) / len(losses)))
            report(Progress(step + 1, settings.steps, curve[-1][1], left, learning_rate(settings, step)))
            losses = []
        if time.monotonic() - since > settings.checkpoint_minutes * 60 or step + 1 == settings.steps:
            state = {"settings": asdict(settings), "step": step + 1, "curve": curve, "seconds": spent + time.monotonic() - started}
            _save(checkpoint, trainee, state | ({} if identity is None else {"identity": dict(identity)}))
            if on_checkpoint is not None:
                on_checkpoint(trainee.average, step + 1)
            since = time.monotonic()
    return trainee.average.eval(), curve


def _step(
    run: nn.Module, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer, loss_of: LossOf, settings: LoopSettings,
    step: int,
) -> float:  # fmt: skip
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(settings, step)
    torch.manual_seed((settings.seed * 1_000_003 + step) % 2**63)
    loss = loss_of(run, step_generator(settings.seed, step))
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    _update_average(average, network, min(settings.ema, (step + 1) / (step + 10)))
    value = float(loss.detach())
    if not math.isfinite(value):
        raise UsageError(f"step {step + 1}: the loss is {value}, the training diverged; lower --rate and start again with another --work")
    return value


def _save(path: Path, trainee: Trainee, state: dict[str, Any]) -> None:
    sweep(path)
    with whole_file(path) as partial:
        torch.save(state | {name: part.state_dict() for name, part in trainee.parts.items()}, partial)


def _load(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {"step": int(state["step"]), "curve": list(state["curve"]), "settings": dict(state["settings"])} | state
    except UNREADABLE as error:
        raise UsageError(f"{path}: not a checkpoint of localdiff ({type(error).__name__}). Remove it or use another --work") from error


def trained_seconds(checkpoint: Path) -> float:
    """How long a training took so far, all its sessions together."""
    return float(_load(checkpoint).get("seconds", 0.0))


def _resume(
    path: Path, trainee: Trainee, settings: LoopSettings, identity: Mapping[str, Any] | None
) -> tuple[int, list[tuple[int, float]], float]:
    """The first step to do, the loss curve and the seconds so far; the trainee is as it was at that step."""
    if not path.is_file():
        return 0, [], 0.0
    state = _load(path)
    wanted = asdict(settings) | dict(identity or {})
    held = state["settings"] | (state.get("identity") or {key: wanted[key] for key in identity or {}})
    differing = [f"{key} {held.get(key)} then, {wanted.get(key)} now" for key in wanted | held if held.get(key) != wanted.get(key)]
    if differing:
        raise UsageError(f"{path}: a checkpoint of another training ({'; '.join(differing)}). Remove it or use another --work")
    try:
        for name, part in trainee.parts.items():
            part.load_state_dict(state[name])
    except (LookupError, RuntimeError, ValueError) as error:
        raise UsageError(f"{path}: a checkpoint of another network. Remove it or use another --work") from error
    return state["step"], [(int(step), float(loss)) for step, loss in state["curve"]], float(state.get("seconds", 0.0))
