"""Augmentation of a training batch on the network's grid: place, contrast and, on request, region."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate, max_pool2d


@dataclass(frozen=True)
class AugmentSettings:
    """How much training slices vary.

    ``rotation`` (degrees), ``scale`` and ``shift`` (share of the field of view) are half-ranges; ``contrast`` is the half-range
    of the log contrast factor, ``gamma`` that of a smooth bend, ``noise`` the largest standard deviation added to the condition.
    ``region`` is the probability that condition and target are both restricted to a random smooth blob.
    """

    rotation: float = 10.0
    scale: float = 0.1
    shift: float = 0.04
    contrast: float = 0.25
    gamma: float = 0.25
    noise: float = 0.03
    region: float = 0.0


def _uniform(n: int, generator: torch.Generator, half_range: float) -> Tensor:
    return (torch.rand(n, generator=generator) * 2 - 1) * half_range


def grown(images: Tensor, reach: int) -> Tensor:
    """Return the largest value within ``reach`` pixels of each, a square, of ``(N, C, H, W)``; the smallest where ``reach``
    is negative.

    Rows and columns one after the other: the same values as over the square at once, at the cost of its sides.
    """
    if reach < 0:
        return -grown(-images, -reach)
    return max_pool2d(max_pool2d(images, (2 * reach + 1, 1), 1, (reach, 0)), (1, 2 * reach + 1), 1, (0, reach))


def place(images: Tensor, settings: AugmentSettings, generator: torch.Generator) -> Tensor:
    """Rotate, scale, shift and mirror ``(N, C, H, W)``, all channels of a slice alike; bilinear, zero outside."""
    n, _, height, width = images.shape
    angle = _uniform(n, generator, math.radians(settings.rotation))
    scale = torch.exp(_uniform(n, generator, settings.scale))
    mirror = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    aspect = height / width
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = scale * torch.cos(angle) * mirror
    theta[:, 0, 1] = -scale * torch.sin(angle) * aspect
    theta[:, 1, 0] = scale * torch.sin(angle) / aspect * mirror
    theta[:, 1, 1] = scale * torch.cos(angle)
    theta[:, :, 2] = torch.stack([_uniform(n, generator, 2 * settings.shift) for _ in range(2)], dim=1)
    return grid_sample(images, affine_grid(theta, list(images.shape), align_corners=False), align_corners=False)


def recontrast(condition: Tensor, brain: Tensor, settings: AugmentSettings, generator: torch.Generator) -> Tensor:
    """Vary the condition as scanners do: contrast about the median, a monotone bend, a smooth field, noise; 0 outside ``brain``.

    ``condition`` ``(N, 1, H, W)`` in [0, 1], ``brain`` of the same shape.
    """
    n = condition.shape[0]
    factor = torch.exp(_uniform(n, generator, settings.contrast)).view(-1, 1, 1, 1)
    exponent = torch.exp(_uniform(n, generator, settings.gamma)).view(-1, 1, 1, 1)
    middle = torch.where(brain > 0.5, condition, torch.nan).flatten(1).nanmedian(dim=1).values.nan_to_num(0.5)
    middle = middle.view(-1, 1, 1, 1).clamp(0.1, 0.9)
    field = interpolate(torch.randn(n, 1, 3, 3, generator=generator) * 0.03, condition.shape[-2:], mode="bicubic", align_corners=True)
    bent = middle * (condition.clamp(min=0) / middle).pow(exponent)
    varied = middle + (bent - middle) * factor + field
    sigma = torch.rand(n, generator=generator).view(-1, 1, 1, 1) * settings.noise
    noise = torch.randn(condition.shape, generator=generator) * sigma
    return (varied + noise).clamp(0, 1) * (brain > 0.5)


def random_blob(n: int, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Return random smooth regions ``(n, 1, H, W)`` of 0 and 1: a coarse Gaussian field above a random level near its peak."""
    coarse = torch.randn(n, 1, 6, 5, generator=generator)
    field = interpolate(coarse, shape, mode="bicubic", align_corners=True)
    level = 0.55 + 0.4 * torch.rand(n, generator=generator)
    threshold = torch.stack([f.flatten().quantile(q) for f, q in zip(field, level, strict=True)]).view(-1, 1, 1, 1)
    return (field >= threshold).to(field.dtype)


def restrict_regions(condition: Tensor, target: Tensor, settings: AugmentSettings, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Keep, with probability ``region`` per slice, condition and target (both background 0) inside a random blob only."""
    n = condition.shape[0]
    chosen = (torch.rand(n, generator=generator) < settings.region).view(-1, 1, 1, 1)
    blob = random_blob(n, (condition.shape[-2], condition.shape[-1]), generator)
    keep = torch.where(chosen, blob, torch.ones_like(blob))
    return condition * keep, target * keep
