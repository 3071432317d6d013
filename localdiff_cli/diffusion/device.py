"""Device and precision: use what was asked for, or stop with the reason."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from localdiff_cli.diffusion.samplers import Model
from localdiff_cli.errors import DeviceError
from localdiff_cli.threads import apart

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str) -> torch.device:
    """Return the device for ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``. Raise :class:`DeviceError` where it is not
    there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"--device {name}: not a device; expected auto, cpu, cuda, cuda:N or mps") from error
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise DeviceError(f"--device {name}: {torch.cuda.device_count()} CUDA devices found; use --device cpu, or a PyTorch built for CUDA")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"--device {name}: not available on this machine; use --device cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"--device {name}: not supported; expected auto, cpu, cuda, cuda:N or mps")
    return device


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Return the context in which a network runs. Raise :class:`DeviceError` for reduced precision on a CPU: it is far
    slower there."""
    if precision == "fp32":
        return nullcontext()
    if device.type == "cpu":
        raise DeviceError(f"--precision {precision}: many times slower than fp32 on a CPU; use fp32, or a GPU")
    return torch.autocast(device.type, dtype=PRECISIONS[precision])


def automatic_batch(device: torch.device) -> int:
    """Return the number of slices at a time: enough to fill a GPU, or many for each thread of a CPU, so that the threads
    seldom wait for the last of them."""
    return 16 if device.type != "cpu" else max(32, 4 * torch.get_num_threads())


def on_device(model: Callable[[Tensor, Tensor, Tensor], Tensor], device: torch.device, precision: str) -> Model:
    """Return a network as a model whose result does not depend on the batch, nor on the number of threads.

    On a CPU each slice runs alone on one thread, since the last bits of a matrix product depend on its size and on the
    threads that share it, and batching gains nothing there. On a GPU the batch runs as one.
    """

    def run(x_t: Tensor, condition: Tensor, t: Tensor) -> Tensor:
        with autocast(device, precision):
            if device.type != "cpu":
                return model(x_t, condition, t).float()
            return torch.cat(apart(lambda i: model(x_t[i : i + 1], condition[i : i + 1], t[i : i + 1]), range(len(x_t))))

    return run
