"""One resumable training loop for every network: EMA, cosine rate, timed checkpoints, exact after a kill, in one process or
several.

The batch of step k depends on (seed, k) alone, so a run that was killed and resumed makes the same weights. It comes in
parts, drawn separately: ``accumulate`` of them in each process (training/processes.py).
"""

from __future__ import annotations

import copy
import hashlib
import math
import pickle
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from localdiff_cli.batch.workers import Terminated
from localdiff_cli.errors import UsageError
from localdiff_cli.training.processes import Alone, Processes, StopSignals
from localdiff_cli.volumes.whole import sweep, whole_file

UNREADABLE = (
    pickle.UnpicklingError, ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""What reading a file that is no checkpoint of ours may raise."""

LossOf = Callable[[nn.Module, torch.Generator], Tensor]


@dataclass(frozen=True)
class LoopSettings:
    """``steps`` optimiser steps of ``batch_size`` slices; ``rate`` is the peak learning rate, reached after ``warmup`` steps.

    ``precision``: fp32, or bf16 for the network's forward pass (weights, loss and optimiser stay fp32). ``accumulate`` parts of
    ``batch_size`` slices make a step in each process. ``compiled``: through torch.compile.
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
    accumulate: int = 1
    compiled: bool = False


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
        """Return what the network answers."""
        with torch.autocast(inputs[0].device.type, torch.bfloat16):
            return self.network(*inputs).float()


def part_seed(seed: int, step: int, part: int = 0) -> int:
    """Return the seed of one part of a step's batch; of a later part hashed, since torch's generator on a CPU heeds 32
    bits."""
    if part == 0:
        return (seed * 1_000_003 + step) % 2**63
    return int.from_bytes(hashlib.sha256(f"{seed} {step} {part}".encode()).digest()[:4], "big")


def step_generator(seed: int, step: int, part: int = 0) -> torch.Generator:
    """Return the random source of one part of a step's batch, whatever came before it."""
    return torch.Generator().manual_seed(part_seed(seed, step, part))


def learning_rate(settings: LoopSettings, step: int) -> float:
    """Return the learning rate: linear warm-up, then a cosine to zero."""
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


@dataclass
class Course:
    """How far a training is: steps done, the loss curve, the losses since its last point, the seconds of earlier sessions."""

    step: int
    curve: list[tuple[int, float]]
    losses: list[float]
    seconds: float

    def add(self, loss: float) -> None:
        """One more step."""
        self.step += 1
        self.losses.append(loss)

    def close(self) -> None:
        """One more point of the curve: the mean of the losses since the last one."""
        self.curve.append((self.step, sum(self.losses) / len(self.losses)))
        self.losses = []


def train(
    network: nn.Module, loss_of: LossOf, settings: LoopSettings, checkpoint: Path, report: Callable[[Progress], None],
    on_checkpoint: Callable[[nn.Module, int], None] | None = None, identity: Mapping[str, Any] | None = None, team: Processes | None = None,
) -> tuple[nn.Module, list[tuple[int, float]]]:  # fmt: skip
    """Train ``network``; return its moving average and the loss curve ``[(step, loss)]``.

    ``checkpoint`` is a file outside any bundle; an existing one of the same settings is resumed, of others refused.
    ``identity`` says what is trained on what (JSON values): a checkpoint of another identity is refused as well. ``team``:
    the processes that train together (None: this one alone); the first reports and writes. SIGTERM or SIGUSR1 to any of
    them ends the training after its step with a checkpoint and raises :class:`Terminated`. Raise :class:`UsageError` for
    such a checkpoint, and where the loss is no longer finite.
    """
    team = team or Alone()
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=settings.weight_decay)
    trainee = Trainee(network, copy.deepcopy(network), optimiser)
    course = _resume(checkpoint, trainee, settings, identity, team)
    first, started = course.step, time.monotonic()
    network.train()
    run = _runnable(network, settings, team)

    def keep() -> None:
        seconds = course.seconds + time.monotonic() - started
        state = {"step": course.step, "curve": course.curve, "losses": course.losses, "seconds": seconds}
        _save(checkpoint, trainee, state | _kind(settings, identity, team))

    since = started
    with StopSignals() as signals:
        while course.step < settings.steps:
            loss, stopping = _step(run, trainee, loss_of, settings, course.step, team, signals)
            course.add(loss)
            done = course.step == settings.steps
            if course.step % settings.report_every == 0 or done:
                course.close()
                if team.rank == 0:
                    left = (time.monotonic() - started) / (course.step - first) * (settings.steps - course.step)
                    report(Progress(course.step, settings.steps, course.curve[-1][1], left, learning_rate(settings, course.step - 1)))
            if team.rank == 0 and (time.monotonic() - since > settings.checkpoint_minutes * 60 or done or stopping):
                keep()
                if on_checkpoint is not None and not (stopping and not done):
                    on_checkpoint(trainee.average, course.step)
                since = time.monotonic()
            if stopping and not done:
                raise Terminated(f"stopped after step {course.step} of {settings.steps}; the same command goes on from there")
    team.wait()
    return trainee.average.eval(), course.curve


def _kind(settings: LoopSettings, identity: Mapping[str, Any] | None, team: Processes) -> dict[str, Any]:
    """What tells one training from another. Parts count, not who does them: other processes may go on, the same to rounding."""
    account = asdict(settings) | {"accumulate": settings.accumulate * team.size}
    return {"settings": account} | ({} if identity is None else {"identity": dict(identity)})


def _runnable(network: nn.Module, settings: LoopSettings, team: Processes) -> nn.Module:
    run: Any = team.joined(network)
    if settings.compiled:
        run = torch.compile(run)
    return run if settings.precision == "fp32" else ReducedPrecision(run)


def _step(
    run: nn.Module, trainee: Trainee, loss_of: LossOf, settings: LoopSettings, step: int, team: Processes, signals: StopSignals
) -> tuple[float, bool]:
    """One optimiser step; the mean loss over its parts in all processes, and whether one of them was told to stop."""
    for group in trainee.optimiser.param_groups:
        group["lr"] = learning_rate(settings, step)
    trainee.optimiser.zero_grad(set_to_none=True)
    loss = 0.0
    for part in range(settings.accumulate):
        number = part * team.size + team.rank
        torch.manual_seed(part_seed(settings.seed, step, number))
        with nullcontext() if part + 1 == settings.accumulate else team.without_exchange():
            share = loss_of(run, step_generator(settings.seed, step, number)) / settings.accumulate
            share.backward()
        loss += float(share.detach())
    nn.utils.clip_grad_norm_(trainee.network.parameters(), 1.0)
    trainee.optimiser.step()
    _update_average(trainee.average, trainee.network, min(settings.ema, (step + 1) / (step + 10)))
    value, stopping = team.total(torch.tensor([loss / team.size, float(signals.received != 0)], dtype=torch.float64)).tolist()
    if not math.isfinite(value):
        raise UsageError(f"step {step + 1}: the loss is {value}, the training diverged; lower --rate and start again with another --work")
    return value, stopping > 0


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
    """Return how long a training took so far, all its sessions together."""
    return float(_load(checkpoint).get("seconds", 0.0))


def _resume(path: Path, trainee: Trainee, settings: LoopSettings, identity: Mapping[str, Any] | None, team: Processes) -> Course:
    """How far the checkpoint is, the start without one; the trainee is as it was at that step."""
    if not path.is_file():
        return Course(0, [], [], 0.0)
    state = _load(path)
    wanted = _kind(settings, identity, team)["settings"] | dict(identity or {})
    known = state.get("identity") or {key: wanted[key] for key in identity or {}}
    held = {"accumulate": 1, "compiled": False} | state["settings"] | known
    differing = [f"{key} {held.get(key)} then, {wanted.get(key)} now" for key in wanted | held if held.get(key) != wanted.get(key)]
    if differing:
        raise UsageError(f"{path}: a checkpoint of another training ({'; '.join(differing)}). Remove it or use another --work")
    try:
        for name, part in trainee.parts.items():
            part.load_state_dict(state[name])
    except (LookupError, RuntimeError, ValueError) as error:
        raise UsageError(f"{path}: a checkpoint of another network. Remove it or use another --work") from error
    curve = [(int(step), float(loss)) for step, loss in state["curve"]]
    return Course(state["step"], curve, list(state.get("losses", [])), float(state.get("seconds", 0.0)))
