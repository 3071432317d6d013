"""The processes that train one network together: this one alone, or those that ``torchrun`` started, joined by Hugging Face
accelerate.

A step's batch is ``--accumulate`` times as many parts as there are processes. What a part holds depends on (seed, step, its
number) alone, so two processes of one part each see what one process of two parts sees, and the loss curve is the same to
rounding.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import AbstractContextManager, nullcontext
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from localdiff_cli.errors import UsageError

STOPPING = (signal.SIGTERM, signal.SIGUSR1)
"""What Slurm and torchrun send before they end a job."""


class Processes(Protocol):
    """Who trains: process ``rank`` of ``size``."""

    rank: int
    size: int

    def joined(self, network: nn.Module) -> nn.Module:
        """Return the network whose gradients are the mean over all processes."""

    def without_exchange(self) -> AbstractContextManager[None]:
        """Keep gradients in this process within the block, for a later part of the step to share."""

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of ``values`` over all processes."""

    def wait(self) -> None:
        """Until every process is here."""


class Alone:
    """One process: nothing to share."""

    rank, size = 0, 1

    def joined(self, network: nn.Module) -> nn.Module:
        """Return the network itself."""
        return network

    def without_exchange(self) -> AbstractContextManager[None]:
        """Nothing to hold back."""
        return nullcontext()

    def total(self, values: Tensor) -> Tensor:
        """Return the values themselves."""
        return values

    def wait(self) -> None:
        """Nobody to wait for."""


class Together:
    """The processes of one ``torchrun``: gloo between CPUs, NCCL between GPUs."""

    def __init__(self, device: torch.device) -> None:
        """Join the others. Raises :class:`UsageError` without accelerate."""
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise UsageError("several processes need accelerate: pip install 'localdiff[training]'", code="missing-extra") from error
        self._engine = Accelerator(cpu=device.type == "cpu", mixed_precision="no")
        self.rank, self.size = self._engine.process_index, self._engine.num_processes
        self._joined: nn.Module | None = None

    def joined(self, network: nn.Module) -> nn.Module:
        """Return the network in torch's DistributedDataParallel."""
        self._joined = self._engine.prepare_model(network)
        return self._joined

    def without_exchange(self) -> AbstractContextManager[None]:
        """DistributedDataParallel's ``no_sync``."""
        return self._engine.no_sync(self._joined)

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over the processes."""
        return self._engine.reduce(values.to(self._engine.device), "sum").cpu()

    def wait(self) -> None:
        """A barrier."""
        self._engine.wait_for_everyone()


def world_size() -> int:
    """Return how many processes ``torchrun`` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_device(name: str) -> str:
    """Return the device of this process: ``cuda`` or ``auto`` becomes the GPU of its own number on this node."""
    if world_size() > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return "cpu" if world_size() > 1 and name == "auto" else name


def processes(device: torch.device) -> Processes:
    """Return the processes that ``torchrun`` started, or this one alone."""
    return Together(device) if world_size() > 1 else Alone()


class StopSignals:
    """Within the block SIGTERM and SIGUSR1 are remembered in ``received``, not obeyed: a step is finished, a checkpoint
    written first.

    Outside the main thread the caller owns the signals.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[signal.Signals, Any] = {}

    def _remember(self, number: int, _: FrameType | None) -> None:
        self.received = number

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._remember) for number in STOPPING}
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
