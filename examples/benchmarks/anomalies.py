"""Synthetic anomalies: spots of healthy slices whose intensity, texture or shape is changed, and a network that learns to find them.

No lesion and no mask of one is needed. The kinds are those of the literature: a shift of intensity, a piece of another slice mixed in
(Tan et al., *Detecting outliers with foreign patch interpolation*, 2022; Li et al., *CutPaste*, CVPR 2021), a texture laid over
(Zavrtanik et al., *DRAEM*, ICCV 2021), a patch without texture, and a warp as tissue that is pushed aside.

Batches are ``(N, 1, H, W)``, images in [0, 1], and draw from ``generator`` alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, grid_sample, interpolate

from localdiff_cli.training.augment import AugmentSettings, place, recontrast
from localdiff_cli.training.hard_negatives import blur
from localdiff_cli.training.loop import LossOf
from localdiff_cli.training.segmenter import LesionLoss, lesion_loss

RADII = (3.0, 20.0)
"""Half of a spot's longer axis in pixels, evenly spread over the logarithm; the shorter one is as long or down to half of that."""
SPOTS = 3
"""At most so many spots are changed in a slice, each in a way of its own."""
LEAST_BRAIN = 0.25
"""Slices with less brain than this share of the person's largest one are not learnt from."""
CHANGED = 0.015
"""A pixel of a spot is an anomaly where the image has changed by more than this nearby."""
WHOLE = 0.3
"""Share of the slices that are left as they are."""

Corruption = Callable[[Tensor, Tensor, Tensor, torch.Generator], Tensor]
"""Images, soft spots, middles of the spots ``(N, 2)`` in rows and columns, generator → images as they would be if all were changed."""


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return (low + (high - low) * torch.rand(n, generator=generator)).view(-1, 1, 1, 1)


def _field(images: Tensor, cells: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Smooth noise of unit variance on a grid of ``cells``, of the images' shape."""
    coarse = torch.randn(len(images), 1, *cells, generator=generator)
    field = interpolate(coarse, images.shape[-2:], mode="bicubic", align_corners=True)
    return field / field.std(dim=(2, 3), keepdim=True)


def spots(brain: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return one soft spot with an uneven rim in each ``brain`` of 0 and 1, from 0 to 1, and the middles ``(N, 2)``."""
    n, _, height, width = brain.shape
    chances = brain.flatten(1) + 1e-6
    middle = torch.multinomial(chances, 1, generator=generator)[:, 0]
    middles = torch.stack([middle // width, middle % width], dim=1).float()
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    angle, stretch = math.pi * _uniform(n, 0, 1, generator), _uniform(n, 1, 2, generator)
    away = [axis[None, None] - middles[:, i].view(-1, 1, 1, 1) for i, axis in enumerate((rows, columns))]
    along = angle.cos() * away[0] + angle.sin() * away[1]
    across = (angle.cos() * away[1] - angle.sin() * away[0]) * stretch
    radius = torch.exp(_uniform(n, math.log(RADII[0]), math.log(RADII[1]), generator))
    reach = radius * (1 + 0.25 * _field(brain, (9, 8), generator)).clamp(min=0.4)
    edge = _uniform(n, 0.5, 2.5, generator)
    return torch.sigmoid((reach - torch.hypot(along, across)) / edge) * brain, middles


def shifted(images: Tensor, spot: Tensor, middles: Tensor, generator: torch.Generator) -> Tensor:
    """Intensity: brighter or darker by 0.04 to 0.3 of the range, evenly or unevenly."""
    n = len(images)
    sign = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0).view(-1, 1, 1, 1)
    uneven = 1 + 0.3 * _field(images, (12, 10), generator) * (torch.rand(n, generator=generator) < 0.5).float().view(-1, 1, 1, 1)
    return images + sign * _uniform(n, 0.04, 0.3, generator) * uneven


def foreign(images: Tensor, spot: Tensor, middles: Tensor, generator: torch.Generator) -> Tensor:
    """Texture: a piece of another slice, from elsewhere in it, mixed in with 0.4 to 1."""
    n, (height, width) = len(images), images.shape[-2:]
    by = [int(torch.randint(-size // 4, size // 4 + 1, (1,), generator=generator)) for size in (height, width)]
    other = images.roll(1, dims=0).roll(by, dims=(-2, -1))
    other = torch.where(other > 0, other, images)  # not the air beside a brain
    return images + _uniform(n, 0.4, 1, generator) * (other - images)


def textured(images: Tensor, spot: Tensor, middles: Tensor, generator: torch.Generator) -> Tensor:
    """Texture: mottles of 0.03 to 0.12 of the range and two to six pixels."""
    n, (height, width) = len(images), images.shape[-2:]
    cells = int(torch.randint(2, 7, (1,), generator=generator))
    return images + _uniform(n, 0.03, 0.12, generator) * _field(images, (height // cells, width // cells), generator)


def smooth(images: Tensor, spot: Tensor, middles: Tensor, generator: torch.Generator) -> Tensor:
    """Texture: blurred by two to five pixels within the brain, with a grain of 0.01 of the range."""
    sigma = 2 + 3 * torch.rand(len(images), generator=generator)
    blurred = blur(images, sigma) / blur((images > 0).float(), sigma).clamp(min=1e-3)
    return blurred + 0.01 * torch.randn(images.shape, generator=generator)


def pushed(images: Tensor, spot: Tensor, middles: Tensor, generator: torch.Generator) -> Tensor:
    """Shape: tissue pushed from the spot's middle, or drawn to it, by up to a fifth of its breadth."""
    n, _, height, width = images.shape
    wide = spot.sum(dim=(1, 2, 3)).clamp(min=4).sqrt().view(-1, 1, 1)
    strength = _uniform(n, 0.2, 0.6, generator)[:, 0] * torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0).view(-1, 1, 1)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    away = [axis[None] - middles[:, i].view(-1, 1, 1) for i, axis in enumerate((rows, columns))]
    amount = strength * torch.exp(-(away[0].square() + away[1].square()) / (2 * (wide / 2).square()))
    at = [(axis[None] - amount * far) * 2 / (size - 1) - 1 for axis, far, size in zip((rows, columns), away, (height, width), strict=True)]
    return grid_sample(images, torch.stack([at[1], at[0]], dim=-1), align_corners=True, padding_mode="border")


CORRUPTIONS: tuple[Corruption, ...] = (shifted, foreign, textured, smooth, pushed)


def corrupted(images: Tensor, brain: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the images with up to ``SPOTS`` spots changed in most of them, and where, ``(N, 1, H, W)`` of 0 and 1."""
    whole = torch.rand(len(images), generator=generator) < WHOLE
    images, anomaly = images * brain, torch.zeros_like(images)
    for count in range(SPOTS):
        left = whole | (torch.rand(len(images), generator=generator) < count / SPOTS)
        spot, middles = spots(brain, generator)
        spot = spot * (~left).float().view(-1, 1, 1, 1)
        kind = torch.randint(len(CORRUPTIONS), (len(images),), generator=generator)
        changed = images.clone()
        for number, corruption in enumerate(CORRUPTIONS):
            if (those := kind == number).any():
                changed[those] = corruption(images[those], spot[those], middles[those], generator)
        result = (images + spot * (changed - images)).clamp(0, 1) * brain
        nearby = avg_pool2d((result - images).abs(), 5, 1, 2)
        anomaly, images = torch.maximum(anomaly, ((spot > 0.5) & (nearby > CHANGED)).float() * brain), result
    return images, anomaly


def anomaly_loss(people: Sequence[tuple[NDArray[np.uint16], NDArray[np.bool_]]], augment: AugmentSettings, batch_size: int) -> LossOf:
    """Return the loss of one step: overlap plus cross-entropy on corrupted slices of healthy people, each as often as any other.

    ``people``: condition ``(S, H, W)``, 65535 = 1.0, and brain of each.
    """
    areas = [brain.sum(axis=(1, 2)) for _, brain in people]
    used = [np.flatnonzero(area >= LEAST_BRAIN * area.max()) for area in areas]

    def loss_of(network: nn.Module, generator: torch.Generator) -> Tensor:
        drawn = []
        for _ in range(batch_size):
            who = int(torch.randint(len(people), (1,), generator=generator))
            row = int(used[who][int(torch.randint(len(used[who]), (1,), generator=generator))])
            condition, brain = people[who]
            drawn.append(np.stack([condition[row] / np.float32(65535), np.float32(brain[row])]))
        image, inside = place(torch.from_numpy(np.stack(drawn)), augment, generator).split(1, dim=1)
        inside = (inside > 0.5).float()
        image, anomaly = corrupted(image, inside, generator)
        image = recontrast(image, inside, augment, generator)
        return lesion_loss(network(image), anomaly, torch.ones_like(inside), LesionLoss())

    return loss_of
