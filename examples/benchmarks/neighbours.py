"""A 2.5D condition, for the through-plane experiment: the translator sees the slices above and below as well.

It starts from the translator's weights, with new input channels that say nothing at first, and is trained as long as the variant
``further`` (variants.py) trains the 2D network, here always in fp32.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from examples.benchmarks.mri import Bench
from examples.benchmarks.translation import patients
from examples.benchmarks.variants import VARIANTS
from examples.benchmarks.weights import Training, fit, obtain
from localdiff_cli.batch.report import recorded_arguments
from localdiff_cli.bundle import TRANSLATOR, Bundle, load_translator, open_bundle, schedule_of
from localdiff_cli.diffusion.device import on_device
from localdiff_cli.diffusion.fusion import Process, plain
from localdiff_cli.diffusion.network import TranslatorNetwork
from localdiff_cli.diffusion.noise import INITIAL, NoiseKey
from localdiff_cli.diffusion.samplers import Model, step_of
from localdiff_cli.diffusion.schedule import Schedule, step_pairs
from localdiff_cli.training.augment import AugmentSettings, place, recontrast
from localdiff_cli.training.loop import LoopSettings, LossOf
from localdiff_cli.training.slices import PatientSlices
from localdiff_cli.training.translator import ChosenSlices, denoising_loss, healthy_slices

SEEN = 3
"""Slices that make a 2.5D condition: a slice itself, the one before and the one after it."""


class NeighbourNetwork(nn.Module):
    """A translator whose condition ``(N, 3, H, W)`` is the slice, the one before and the one after it; at first it heeds the slice only."""

    def __init__(self, network: TranslatorNetwork) -> None:
        super().__init__()
        self.factor = network.settings.space_to_depth
        self.unet = copy.deepcopy(network.unet)
        first: Any = self.unet.conv_in
        wider = nn.Conv2d(first.in_channels + (SEEN - 1) * self.factor**2, first.out_channels, 3, padding=1)
        with torch.no_grad():
            wider.weight.zero_()[:, : first.in_channels] = first.conv.weight
            wider.bias.copy_(first.conv.bias)  # type: ignore[union-attr]
        first.conv = wider

    def forward(self, x_t: Tensor, condition: Tensor, t: Tensor) -> Tensor:
        """``x_t`` ``(N, 1, H, W)``, ``condition`` ``(N, 3, H, W)`` in [0, 1], ``t`` ``(N,)`` → ``(N, 1, H, W)``."""
        stacked = torch.cat([pixel_unshuffle(x_t, self.factor), pixel_unshuffle(2 * condition - 1, self.factor)], dim=1)
        return pixel_shuffle(self.unet(stacked, timesteps=t), self.factor)


def with_neighbours(stack: NDArray) -> NDArray:
    """``(S, H, W)`` → ``(S, 3, H, W)``: each slice, the one before and the one after it; the end slices stand in for what is not there."""
    before, after = np.concatenate([stack[:1], stack[:-1]]), np.concatenate([stack[1:], stack[-1:]])
    return np.stack([stack, before, after], axis=1)


def _drawn(slices: ChosenSlices, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A batch: condition ``(n, 3, H, W)``, target ``(n, 1, H, W)``, brains ``(n, 3, H, W)``; patients as ``translator.draw`` draws them."""
    weights = torch.tensor([len(rows) ** 0.5 for rows in slices.rows])
    conditions, targets, brains = [], [], []
    for who in torch.multinomial(weights, n, replacement=True, generator=generator).tolist():
        patient, rows = slices.patients[who], slices.rows[who]
        row = int(rows[int(torch.randint(len(rows), (1,), generator=generator))])
        near = np.clip([row, row - 1, row + 1], 0, len(patient.condition) - 1)
        assert patient.target is not None
        conditions.append(patient.condition[near])
        targets.append(patient.target[row][None])
        brains.append(patient.brain[near])
    condition, target = (torch.from_numpy(np.stack(s).astype(np.float32) / 65535) for s in (conditions, targets))
    return condition, target, torch.from_numpy(np.stack(brains).astype(np.float32))


def neighbour_loss(slices: ChosenSlices, schedule: Schedule, augment: AugmentSettings, batch_size: int) -> LossOf:
    """The translator's loss with the neighbouring slices in the condition, placed and recontrasted alike."""

    def loss_of(network: nn.Module, generator: torch.Generator) -> Tensor:
        images = place(torch.cat(_drawn(slices, batch_size, generator), dim=1), augment, generator)
        condition, target, brains = images.split((SEEN, 1, SEEN), dim=1)
        inside = (brains > 0.5).float()
        condition, own = recontrast(condition, inside, augment, generator), inside[:, :1]
        return denoising_loss(network, schedule, condition, target.clamp(0, 1) * own, own, generator)

    return loss_of


def training_of(bundle: Bundle, data: list[Path], work: Path) -> Training:
    """What the network is trained on and how: the lesion-free training slices of ``data``, from the bundle's translator."""
    base = load_translator(bundle, torch.device("cpu"))
    assert isinstance(base, TranslatorNetwork)
    base.requires_grad_(True)
    further, augment = VARIANTS["further"], AugmentSettings()
    slices = healthy_slices(patients(bundle, data, "train", work), "train")
    digest = hashlib.sha256()
    for patient, rows in zip(slices.patients, slices.rows, strict=True):
        digest.update(patient.condition[rows].tobytes())
    identity = {"base": bundle.metadata["files"][TRANSLATOR], "augment": asdict(augment), "slices": digest.hexdigest()[:16]}
    loop = LoopSettings(steps=further.steps, rate=further.rate)
    return Training(
        f"neighbours-{bundle.name}", lambda: NeighbourNetwork(base),
        neighbour_loss(slices, schedule_of(bundle), augment, loop.batch_size), loop, identity,
        f"{bundle.name} with a 2.5D condition: {slices.count} lesion-free slices of {len(slices.patients)} training patients",
    )  # fmt: skip


def trained(bench: Bench, options: argparse.Namespace, command: str) -> Model:
    """The network, from ``models/bench`` or trained now."""
    training = training_of(bench.bundle, options.data, options.work)
    return on_device(obtain(training, options.work, command), bench.networks.device, "fp32")


def translate(model: Model, bench: Bench, patient: PatientSlices, rows: slice) -> NDArray:
    """A plain sample of some of a patient's slices, ``(N, H, W)`` in [0, 1], with the noise that the 2D rows have."""
    settings, schedule = bench.settings, bench.networks.schedule
    condition = torch.from_numpy(with_neighbours(patient.condition)[rows].astype(np.float32) / 65535)
    brain = torch.from_numpy(patient.brain[rows])[:, None]
    shape, numbers = (condition.shape[2], condition.shape[3]), list(range(len(condition)))
    key = NoiseKey(settings.seed, 0, patient.name, settings.noise == "shared")
    noise_of: Callable[[int], Tensor] = lambda number: key.batch(number, numbers, shape)  # noqa: E731
    process = Process(
        model, schedule, step_of(settings.sampler, settings.eta), step_pairs(schedule.num_train_timesteps, settings.steps), noise_of
    )
    x0 = plain(process, condition, noise_of(INITIAL))
    return (((x0 + 1) / 2).clamp(0, 1) * brain)[:, 0].numpy()


def main() -> None:
    """Make the weights again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="translator bundle")
    parser.add_argument("--data", required=True, nargs="+", type=Path, help="the patients that the base was trained on")
    parser.add_argument("--work", type=Path, default=Path("bench.work"), help="checkpoints; an interrupted training goes on from there")
    parser.add_argument("--out", type=Path, default=Path("models/bench"))
    options = parser.parse_args()
    command = f"python -m examples.benchmarks.neighbours {recorded_arguments(sys.argv[1:])}"
    fit(training_of(open_bundle(options.model), options.data, options.work), options.out, options.work, command)


if __name__ == "__main__":
    main()
