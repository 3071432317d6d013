"""Anomaly scores to set beside the bundle's PatchCore: other features, a Gaussian, and three that need no memory of healthy tissue.

A scorer takes ``condition`` ``(N, 1, H, W)`` float32 in [0, 1] and ``brain`` bool of that shape, and gives A ``(N, 1, H, W)``, 0 outside
the brain, and a score for each slice ``(N,)``. It judges slice by slice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import pixel_unshuffle

from examples.benchmarks.detection import HIGHEST, smoothed_brightness
from localdiff_cli.diffusion.network import TranslatorNetwork
from localdiff_cli.ood.backbone import Backbone, pad_slices
from localdiff_cli.ood.patchcore import MemoryBank, brain_patches, score_slice, upsample_and_smooth
from localdiff_cli.segmentation.network import LesionNetwork, lesion_probability
from localdiff_cli.tasks.sampling import SliceSampler
from localdiff_cli.tasks.slices import Chunk
from localdiff_cli.threads import apart

Scorer = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
SliceScorer = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""The same of one slice: ``(1, H, W)`` twice → A ``(1, H, W)`` and a scalar."""

SHRINKAGE = 0.01
SMOOTHING = 4.0
SEARCH = 12


def by_slice(score: SliceScorer) -> Scorer:
    """A scorer of one slice as one of many."""

    def scorer(condition: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
        found = apart(lambda pair: score(*pair), list(zip(condition, brain, strict=True)))
        return torch.stack([a for a, _ in found]), torch.stack([s for _, s in found])

    return scorer


def patchcore(backbone: Backbone, bank: MemoryBank) -> Scorer:
    """Distance to the nearest of the bank's healthy patches (ood/patchcore.py)."""
    return by_slice(lambda condition, brain: score_slice(backbone, bank, condition, brain))


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Healthy patch embeddings as one normal distribution: ``mean`` ``(D,)`` and ``precision`` ``(D, D)``, float32."""

    mean: Tensor
    precision: Tensor

    def distance(self, embeddings: Tensor) -> Tensor:
        """Mahalanobis distance ``(P,)`` of ``embeddings`` ``(P, D)``."""
        away = embeddings - self.mean
        return (away @ self.precision * away).sum(dim=1).clamp_min(0).sqrt()


def fit_gaussian(patches: Iterable[Tensor]) -> Gaussian:
    """The Gaussian of chunks of embeddings ``(P, D)``; the covariance is shrunk by 1 % of its mean variance, as PaDiM does it.

    Unlike PaDiM (Defard et al. 2021) it is the same at every position: slices of different heights have no position in common.
    """
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for chunk in patches:
        rows = chunk.double()
        count, total, squares = count + len(rows), total + rows.sum(dim=0), squares + rows.T @ rows
    mean = total / count
    covariance = squares / count - torch.outer(mean, mean)
    covariance += SHRINKAGE * covariance.diagonal().mean() * torch.eye(len(mean))
    return Gaussian(mean.float(), torch.linalg.inv(covariance).float().contiguous())


def mahalanobis(backbone: Backbone, gaussian: Gaussian) -> Scorer:
    """Distance of each patch to the Gaussian, spread over the pixels as PatchCore spreads its own."""

    def score(condition: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
        cells, embeddings = brain_patches(backbone, condition, brain)
        grid = torch.zeros(cells.shape)
        grid[cells] = gaussian.distance(embeddings)
        return upsample_and_smooth(grid, cells, brain[0])[None], grid.max()

    return by_slice(score)


class TranslatorEncoder(Backbone):
    """The translator's own encoder as PatchCore's backbone: it has seen healthy brains only, and the bundle carries it anyway.

    Features of the two deepest levels at the noisiest timestep, where x_t says nothing (it is 0) and only the condition speaks.
    """

    def __init__(self, network: TranslatorNetwork, timestep: int) -> None:
        super().__init__("translator's encoder", network, 1.0)
        self.network, self.timestep = network, timestep

    @torch.no_grad()
    def forward(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """``condition`` ``(N, 1, H, W)`` in [0, 1], padded as every backbone pads it → the fine and the coarse feature map."""
        from monai.networks.nets.diffusion_model_unet import get_timestep_embedding

        unet: Any = self.network.unet
        seen = pixel_unshuffle(2 * pad_slices(condition) - 1, self.network.settings.space_to_depth)
        time = get_timestep_embedding(torch.full((len(condition),), self.timestep), unet.block_out_channels[0])
        embedded, hidden, levels = unet.time_embed(time), unet.conv_in(torch.cat([torch.zeros_like(seen), seen], dim=1)), []
        for block in unet.down_blocks:
            hidden, states = block(hidden_states=hidden, temb=embedded, context=None)
            levels.append(states[len(block.resnets) - 1])
        return levels[-2], levels[-1]


def brightness(sign: float) -> Scorer:
    """The yardstick without a network (detection.py): smoothed brightness (sign 1) or darkness (−1), moved up to be ≥ 0."""

    def score(condition: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
        smooth = smoothed_brightness(condition[0].numpy(), brain[0].numpy(), sign) + 0.5
        return _scored(smooth, brain)

    return by_slice(score)


def asymmetry(window: tuple[float, float]) -> Scorer:
    """Left-right asymmetry times distance from the brain's median, both in robust SDs: a place unlike its mirror and unlike the rest.

    ``window`` (z_low, z_high) maps [0, 1] back to robust z, which is smoothed by a Gaussian of 4 pixels: A is √(|z − z mirrored| · |z|).
    A pixel whose mirror lies outside the brain counts as symmetric. On the val patients the product did better than |z| on either
    contrast, and than the asymmetry alone on FLAIR (not on T1w).
    """

    def score(condition: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
        inside = brain[0].numpy()
        z = np.where(inside, window[0] + condition[0].numpy() * (window[1] - window[0]), 0)
        line, smooth = mirror_line(condition[0].numpy(), inside), _smooth(z, inside)
        unlike = np.abs(smooth - mirrored(smooth, line)) * (inside & mirrored(inside, line))
        return _scored(np.sqrt(unlike * np.abs(smooth)), brain)

    return by_slice(score)


def mirrored(image: NDArray, line: int) -> NDArray:
    """The image ``(H, W)`` mirrored so that column j becomes column ``line`` − j; what leaves it comes in on the other side."""
    return np.roll(image[:, ::-1], line - image.shape[1] + 1, axis=1)


def mirror_line(image: NDArray, brain: NDArray[np.bool_]) -> int:
    """Twice the column of greatest symmetry of ``image`` ``(H, W)``, 0 outside the brain: within 6 pixels of the brain's centroid.

    Least Σ |smoothed image − mirrored|; the outline of the brain counts as much as what is in it. A head that is turned is not turned back.
    """
    if not brain.any():
        return brain.shape[1] - 1
    smooth = ndimage.gaussian_filter(image, 2.0)
    centre = round(2 * float(np.nonzero(brain)[1].mean()))
    return min(range(centre - SEARCH, centre + SEARCH + 1), key=lambda line: float(np.abs(smooth - mirrored(smooth, line)).sum()))


def _smooth(image: NDArray, brain: NDArray[np.bool_]) -> NDArray:
    """Gaussian over the brain's pixels only."""
    weight = ndimage.gaussian_filter(brain.astype(np.float64), SMOOTHING)
    return np.where(brain, ndimage.gaussian_filter(image.astype(np.float64), SMOOTHING) / np.maximum(weight, 1e-9), 0)


def disagreement(sampler: SliceSampler) -> Scorer:
    """Standard deviation between the translator's plain samples, smoothed: where it does not know what to draw.

    All slices share the noise, so that a slice's score does not depend on its number.
    """

    def score(condition: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
        nothing = torch.zeros_like(brain)[None]
        _, spread = sampler(Chunk((0,), (0,), condition[None], brain[None]), nothing.float(), nothing)
        return _scored(_smooth(spread[0, 0].numpy(), brain[0].numpy()), brain)

    return by_slice(score)


def segmenter(network: LesionNetwork) -> Scorer:
    """The probability of a segmenter that learnt from lesions; a slice scores its largest."""

    def scorer(condition: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
        found = lesion_probability(network, condition, brain).clamp(0, 1)
        return found, found.flatten(1).amax(dim=1)

    return scorer


def highest(score: Tensor, brain: Tensor) -> Tensor:
    """``(N,)``: the mean of the 60 highest pixels of each slice, as the yardstick's slice score."""
    return torch.stack([a[b].sort().values[-HIGHEST:].mean() if b.any() else a.new_zeros(()) for a, b in zip(score, brain, strict=True)])


def _scored(score: NDArray, brain: Tensor) -> tuple[Tensor, Tensor]:
    found = torch.from_numpy(np.ascontiguousarray(score, np.float32))[None] * brain
    return found, highest(found[None], brain[None])[0]
