"""Fit an OOD expert that is told where it draws: it sees x_t, the whole condition and the soft OOD map M.

Most of the maps are a lesion network's, with its real errors; the others are made from the expert masks, grown, shrunk,
shifted, with islands that are no lesion. Every region a map points at counts in the loss, whatever it holds: told a
ventricle, the expert learns to draw a ventricle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from localdiff_cli.diffusion.schedule import Schedule
from localdiff_cli.training.augment import AugmentSettings, grown, place, random_blob, recontrast
from localdiff_cli.training.harm import EQUAL, HarmSettings, harm_penalty
from localdiff_cli.training.loop import LossOf
from localdiff_cli.training.translator import Drawable, first_or_any

Finder = Callable[[Tensor, Tensor], Tensor]
"""Condition and brain, each ``(N, 1, H, W)`` → M in [0, 1] of that shape."""


@dataclass(frozen=True)
class ToldSettings:
    """``healthy_share`` of the slices show no lesion. ``found``: share of the maps that the lesion network makes.
    ``reach``: pixels around a map that count fully; the rest of the brain counts ``elsewhere``, a lesion ``lesion`` times
    as much. ``first``: share of the timesteps that are the last one, T − 1, where it is decided whether there is a lesion."""

    healthy_share: float = 0.35
    found: float = 0.8
    reach: int = 6
    elsewhere: float = 0.1
    lesion: float = 2.0
    first: float = 0.4


def told_loss(
    lesions: Drawable, healthy: Drawable, schedule: Schedule, augment: AugmentSettings, settings: ToldSettings,
    find: Finder | None, batch_size: int, harm: HarmSettings = EQUAL,
) -> LossOf:  # fmt: skip
    """Return the loss of one step: squared error of the prediction, given c and M, weighted towards the region of M and the
    lesion. ``find`` makes the map of a slice as it was augmented; None: slices are drawn with their maps. ``harm``: what an
    invented and an erased lesion cost beyond it."""

    def loss_of(network: nn.Module, generator: torch.Generator) -> Tensor:
        is_healthy = (torch.rand(batch_size, generator=generator) < settings.healthy_share).view(-1, 1, 1, 1)
        with_lesion, without = (torch.cat(slices.draw(batch_size, generator), dim=1) for slices in (lesions, healthy))
        placed = place(torch.where(is_healthy, without, with_lesion), augment, generator)
        condition, target, brain, lesion = placed[:, :4].split(1, dim=1)
        inside = (brain > 0.5).float()
        lesion = (lesion > 0.5).float() * inside
        condition = recontrast(condition, inside, augment, generator)
        by_network = (torch.rand(batch_size, generator=generator) < settings.found).view(-1, 1, 1, 1)
        found = placed[:, 4:5] if find is None else find(condition, inside)
        ood_map = torch.where(by_network, found, made_map(lesion, generator)) * inside
        weight = region_weight(ood_map, lesion, inside, settings)
        t = first_or_any(batch_size, schedule.num_train_timesteps, settings.first, generator)
        device = next(network.parameters()).device
        x0 = 2 * target.clamp(0, 1) * inside - 1
        noise = torch.randn(x0.shape, generator=generator)
        x0, noise, t, weight = (tensor.to(device) for tensor in (x0, noise, t, weight))
        predicted = network(schedule.add_noise(x0, noise, t), torch.cat([condition, ood_map], dim=1).to(device), t)
        cost = (predicted - schedule.training_target(x0, noise, t)).square()
        penalty = harm_penalty(harm, lesion)
        if penalty is not None:
            cost = cost + penalty(predicted, x0)
        return (weight * cost).sum() / weight.sum()

    return loss_of


def made_map(lesion: Tensor, generator: torch.Generator) -> Tensor:
    """Return a map as a detector might make it from the true ``lesion`` ``(N, 1, H, W)`` of 0 and 1: grown or shrunk,
    shifted, soft, of some certainty, in half of the slices with an island where no lesion is."""
    n, shape = len(lesion), (lesion.shape[-2], lesion.shape[-1])
    radius = torch.randint(-3, 8, (n,), generator=generator).tolist()
    shift = torch.randint(-4, 5, (n, 2), generator=generator).tolist()
    moved = torch.stack([grown(one[None], r)[0].roll(tuple(by), dims=(-2, -1)) for one, r, by in zip(lesion, radius, shift, strict=True)])
    island = random_blob(n, shape, generator) * (torch.rand(n, generator=generator) < 0.5).float().view(-1, 1, 1, 1)
    certainty, doubt = 0.4 + 0.6 * torch.rand(n, 1, 1, 1, generator=generator), 0.2 + 0.6 * torch.rand(n, 1, 1, 1, generator=generator)
    return avg_pool2d(torch.maximum(moved * certainty, island * doubt), 5, 1, 2)


def region_weight(ood_map: Tensor, lesion: Tensor, inside: Tensor, settings: ToldSettings) -> Tensor:
    """Return how much each pixel counts, ``(N, 1, H, W)``: the region of M and the lesion, little elsewhere, least outside
    the brain."""
    near = (grown(torch.maximum(ood_map, lesion), settings.reach) > 0.1).float()
    within = settings.elsewhere + (1 - settings.elsewhere) * near + (settings.lesion - 1) * lesion
    return inside * within + (1 - inside) * settings.elsewhere / 4
