"""Fit the conditional diffusion network on slices that count as healthy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from localdiff_cli.diffusion.network import BACKGROUND
from localdiff_cli.diffusion.schedule import Schedule
from localdiff_cli.errors import UsageError
from localdiff_cli.training.augment import AugmentSettings, place, recontrast, restrict_regions
from localdiff_cli.training.loop import LossOf
from localdiff_cli.training.slices import PatientSlices

BACKGROUND_WEIGHT = 0.1
"""Pixels outside the brain (for the expert: its region) count this much in the loss: they are known, yet must stay background."""


@dataclass(frozen=True)
class HealthySlices:
    """Index of the slices used: for each patient the rows of its arrays. Patients are drawn alike, whatever their slice count."""

    patients: tuple[PatientSlices, ...]
    rows: tuple[NDArray[np.intp], ...]

    @property
    def count(self) -> int:
        """Number of slices."""
        return sum(len(rows) for rows in self.rows)


def healthy_slices(patients: list[PatientSlices], split: str) -> HealthySlices:
    """The lesion-free slices of a split; every slice of a patient without a mask.

    Raises :class:`UsageError` where there are none.
    """
    chosen = [(p, np.flatnonzero(p.lesion_free)) for p in patients if p.split == split and p.target is not None]
    chosen = [(p, rows) for p, rows in chosen if rows.size]
    if not chosen:
        raise UsageError(f"no lesion-free slices in the {split} split; expected pairs with a target")
    return HealthySlices(tuple(p for p, _ in chosen), tuple(rows for _, rows in chosen))


def draw(slices: HealthySlices, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A random batch: condition, target, brain, lesion, each ``(n, 1, H, W)`` float32."""
    weights = torch.tensor([len(rows) ** 0.5 for rows in slices.rows])
    who = torch.multinomial(weights, n, replacement=True, generator=generator).tolist()
    conditions, targets, masks = [], [], []
    for i in who:
        patient, rows = slices.patients[i], slices.rows[i]
        row = rows[int(torch.randint(len(rows), (1,), generator=generator))]
        assert patient.target is not None
        conditions.append(patient.condition[row])
        targets.append(patient.target[row])
        masks.append(np.stack([patient.brain[row], patient.lesion[row]]))
    condition, target = (torch.from_numpy(np.stack(s).astype(np.float32) / 65535)[:, None] for s in (conditions, targets))
    brain, lesion = torch.from_numpy(np.stack(masks).astype(np.float32)).split(1, dim=1)
    return condition, target, brain, lesion


def translator_loss(slices: HealthySlices, schedule: Schedule, augment: AugmentSettings, batch_size: int) -> LossOf:
    """The loss of one step: squared error of the network's prediction at stratified random timesteps."""

    def loss_of(network: nn.Module, generator: torch.Generator) -> Tensor:
        condition, target, brain, _ = draw(slices, batch_size, generator)
        condition, target, brain = place(torch.cat([condition, target, brain], dim=1), augment, generator).split(1, dim=1)
        inside = (brain > 0.5).float()
        condition = recontrast(condition, inside, augment, generator)
        condition, target = restrict_regions(condition, target.clamp(0, 1) * inside, augment, generator)
        return denoising_loss(network, schedule, condition, target, inside, generator)

    return loss_of


def denoising_loss(
    network: nn.Module, schedule: Schedule, condition: Tensor, target: Tensor, inside: Tensor, generator: torch.Generator
) -> Tensor:
    """Squared error of the prediction at stratified random timesteps; images ``(N, 1, H, W)`` in [0, 1], little weight off ``inside``."""
    device = next(network.parameters()).device
    x0 = 2 * target - 1
    t = stratified_times(len(x0), schedule.num_train_timesteps, generator)
    noise = torch.randn(x0.shape, generator=generator)
    x0, noise, t, condition, inside = (tensor.to(device) for tensor in (x0, noise, t, condition, inside))
    predicted = network(schedule.add_noise(x0, noise, t), condition, t)
    weight = BACKGROUND_WEIGHT + (1 - BACKGROUND_WEIGHT) * inside
    return (weight * (predicted - schedule.training_target(x0, noise, t)).square()).sum() / weight.sum()


def stratified_times(n: int, timesteps: int, generator: torch.Generator) -> Tensor:
    """One random timestep in each of ``n`` equal parts of [0, T), shuffled: less variance than independent draws."""
    parts = (torch.arange(n) + torch.rand(n, generator=generator)) / n
    return (parts[torch.randperm(n, generator=generator)] * timesteps).long().clamp(max=timesteps - 1)


@torch.inference_mode()
def mean_prediction(predict: Callable[[Tensor, Tensor, Tensor], Tensor], schedule: Schedule, condition: Tensor, samples: int = 2) -> Tensor:
    """The posterior mean as the network sees it from pure noise at the last timestep, in [0, 1]: a quick check while training."""
    total = torch.zeros_like(condition)
    last = schedule.num_train_timesteps - 1
    for sample in range(samples):
        generator = torch.Generator().manual_seed(sample)
        x_t = torch.randn(condition.shape, generator=generator).to(condition.device)
        predicted = predict(x_t, condition, torch.full((condition.shape[0],), last, device=condition.device))
        total += schedule.to_x0(predicted, x_t, last)
    return ((total / samples - BACKGROUND) / 2).clamp(0, 1)
