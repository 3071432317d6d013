"""Hard negatives for a lesion network: what a scanner, age or healthy anatomy makes dark, flat or blurred without a lesion.

Each function takes and returns a batch ``(N, C, H, W)`` on the network's grid and draws from ``generator`` alone.
Cerebrospinal fluid is found by its darkness on T1w; on another contrast :func:`widen_fluid` leaves the slices as they are
unless they are as dark.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, grid_sample, interpolate, pad

from localdiff_cli.training.augment import grown, random_blob
from localdiff_cli.volumes.looks import lesions_are_bright

FLUID_BELOW = 0.25
"""Fluid on T1w: below this on the scale of the robust window, −3 robust SDs."""
DEEP_PIXELS = 17
"""Ventricles lie at least this far inside the brain; the cisterns and sulci nearer its rim are not widened."""
RESIDUE_PIXELS = 14
"""Residues reach this far into the brain mask."""


@dataclass(frozen=True)
class HardNegatives:
    """How often a slice is changed, each a probability (that of ``residue`` at most: many a blob lies off the rim):
    ``widen`` ventricles by up to ``widest`` pixels, ``flat`` or ``blurred`` patches, a wholly ``soft`` slice, a ``bright``
    rim as contrast agent leaves it, a part ``shaded`` as far from the coil, bright ``residue`` at the rim: sinuses, dura and
    muscle that a brain mask left in."""

    widen: float = 0.3
    widest: float = 7.0
    flat: float = 0.1
    blurred: float = 0.1
    soft: float = 0.2
    bright: float = 0.1
    shaded: float = 0.2
    residue: float = 0.2


def negatives_for(contrast: str) -> HardNegatives:
    """Return how often a slice of this contrast is changed: where lesions are bright, what shines at the rim may be one."""
    return HardNegatives(residue=0.0) if lesions_are_bright(contrast) else HardNegatives()


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image ``(N, 1, H, W)`` with a Gaussian of its own ``sigma`` ``(N,)`` pixels; 0 leaves it as it is."""
    if images.device.type != "cpu":
        return blur_on_card(images, sigma)
    blurred = [
        image if width <= 0 else torch.from_numpy(gaussian_filter(image.numpy(), (0, width, width), mode="nearest", truncate=3))
        for image, width in zip(images, sigma.tolist(), strict=True)
    ]
    return torch.stack(blurred)


def blur_on_card(images: Tensor, sigma: Tensor) -> Tensor:
    """Return the same as one convolution for all images, without leaving the device; equal to scipy's to rounding."""
    n, channels, height, width = images.shape
    reach = int(3 * float(sigma.max()) + 0.5)
    if reach == 0:
        return images
    at = torch.arange(-reach, reach + 1, device=images.device)
    kernel = torch.exp(-0.5 * (at / sigma.clamp(min=1e-3)[:, None]).square()) * (at.abs() <= (3 * sigma + 0.5).floor()[:, None])
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
    flat = images.reshape(1, n * channels, height, width)
    for shape, margins in (((-1, 1, 2 * reach + 1, 1), (0, 0, reach, reach)), ((-1, 1, 1, 2 * reach + 1), (reach, reach, 0, 0))):
        flat = conv2d(pad(flat, margins, mode="replicate"), kernel.view(shape), groups=n * channels)
    return flat.view_as(images)


def deep_fluid(condition: Tensor, brain: Tensor, lesion: Tensor) -> Tensor:
    """Return the ventricles as T1w shows them, ``(N, 1, H, W)`` of 0 and 1: dark, deep inside ``brain`` and no lesion."""
    core = grown(brain, -DEEP_PIXELS)
    return (condition < FLUID_BELOW).float() * core * (1 - lesion)


def widen_fluid(images: Tensor, fluid: Tensor, chosen: Tensor, widest: float, generator: torch.Generator) -> Tensor:
    """Push tissue away from ``fluid`` by up to ``widest`` pixels in the ``chosen`` slices, all channels alike: a smooth
    warp, bilinear."""
    n, _, height, width = images.shape
    hill = blur(fluid, 6.0 * chosen)
    slope_rows, slope_columns = torch.gradient(hill, dim=(2, 3))
    steepest = torch.sqrt(slope_rows.square() + slope_columns.square()).amax(dim=(1, 2, 3)).clamp(min=1e-4)
    amount = widest * torch.rand(n, generator=generator) * chosen / steepest
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    amount = amount.view(-1, 1, 1)
    grid = torch.stack(
        [columns + amount * slope_columns[:, 0] * 2 / (width - 1), rows + amount * slope_rows[:, 0] * 2 / (height - 1)], dim=-1
    )
    return torch.where(chosen.view(-1, 1, 1, 1) > 0, grid_sample(images, grid, align_corners=True), images)


def spoil(condition: Tensor, brain: Tensor, lesion: Tensor, settings: HardNegatives, generator: torch.Generator) -> Tensor:
    """Add flat and blurred patches off the lesion, soft slices, residues, shades and bright rims; ``condition``, ``brain``,
    ``lesion`` ``(N, 1, H, W)``."""
    n, shape = len(condition), (condition.shape[-2], condition.shape[-1])

    def chosen(probability: float) -> Tensor:
        return (torch.rand(n, generator=generator) < probability).float().view(-1, 1, 1, 1)

    patch = random_blob(n, shape, generator) * brain * (1 - grown(lesion, 4))
    edge = avg_pool2d(patch, 5, 1, 2)
    mean = (condition * patch).sum(dim=(2, 3), keepdim=True) / patch.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    condition = condition + chosen(settings.flat) * edge * (mean - condition)
    sigma = (1.5 + 3 * torch.rand(n, generator=generator)) * chosen(settings.blurred).flatten()
    condition = condition + edge * (blur(condition, sigma) - condition)
    condition = blur(condition, (0.5 + 1.5 * torch.rand(n, generator=generator)) * chosen(settings.soft).flatten())
    left = random_blob(n, shape, generator) * (brain - grown(brain, -RESIDUE_PIXELS)) * (1 - grown(lesion, 4))
    value = 0.7 + 0.3 * torch.rand(n, 1, 1, 1, generator=generator)
    condition = condition + chosen(settings.residue) * avg_pool2d(left, 3, 1, 1) * (value - condition)
    condition = condition * (1 - chosen(settings.shaded) * shade(brain, generator))
    rim = brain - grown(brain, -7)
    veins = interpolate(torch.randn(n, 1, 24, 20, generator=generator), shape, mode="bicubic", align_corners=True).clamp(min=0)
    return ((condition + chosen(settings.bright) * 0.25 * veins * rim).clamp(0, 1)) * brain


def shade(brain: Tensor, generator: torch.Generator) -> Tensor:
    """Return by what share a smooth shade darkens each slice, ``(N, 1, H, W)`` up to 0.35: a Gaussian of 12 to 40 pixels
    about a point of the rim of ``brain``."""
    n, _, height, width = brain.shape
    rim = (brain - grown(brain, -3)).flatten(1)
    at = torch.multinomial(torch.where(rim.sum(dim=1, keepdim=True) > 0, rim, torch.ones_like(rim)), 1, generator=generator)
    rows, columns = (at // width).view(-1, 1, 1, 1), (at % width).view(-1, 1, 1, 1)
    apart = (torch.arange(height).view(1, 1, -1, 1) - rows).square() + (torch.arange(width).view(1, 1, 1, -1) - columns).square()
    sigma = 12 + 28 * torch.rand(n, 1, 1, 1, generator=generator)
    depth = 0.1 + 0.25 * torch.rand(n, 1, 1, 1, generator=generator)
    return depth * torch.exp(-0.5 * apart / sigma.square())
