"""Latent diffusion: Local Diffusion on the grid of an autoencoder.

The condition is masked on its pixels, where the method defines it, and then encoded; B and M are pooled to the latent grid
by their maximum, so that no OOD pixel is lost; outside B the OOD branch is held at the latent of the background image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from localdiff_cli.adapters.files import fill, read_tensors, unusable
from localdiff_cli.adapters.monai_config import Config, arguments_of, read_config
from localdiff_cli.diffusion.fusion import LocalSettings, Process, Region, ShowsAnomaly, local, plain
from localdiff_cli.diffusion.network import BACKGROUND
from localdiff_cli.diffusion.space import Space
from localdiff_cli.startup import load_monai


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """``encode``: images ``(N, 1, H, W)`` in [−1, 1] → latents ``(N, C, H / factor, W / factor)`` as the diffusion model
    knows them.

    ``decode`` is the way back. Both must be deterministic.
    """

    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    factor: int

    def space(self, shape: tuple[int, int], *, condition: Callable[[Tensor], Tensor] | None = None) -> Space:
        """Return the latent space of slices of ``shape`` (rows, columns).

        ``condition`` takes a condition ``(N, 1, H, W)`` in [0, 1] to what the network is shown; None: the same encoder.
        Raise ``ValueError`` where the shape is no multiple of the factor.
        """
        if any(size % self.factor for size in shape):
            raise ValueError(f"slices of {shape[0]} × {shape[1]}: expected multiples of {self.factor}, the autoencoder's factor")
        background = self.encode(torch.full((1, 1, *shape), BACKGROUND))
        return Space(condition or self._latent, background, clip=False, image=self._latent)

    def _latent(self, image: Tensor) -> Tensor:
        return self.encode(2 * image - 1)

    def region(self, region: Region) -> Region:
        """Return a slice's region on the latent grid: a latent is OOD where any of its pixels is."""
        if region.crop is not None:
            raise ValueError("a crop of pixels: expected none; make it of the latent region")
        mask = max_pool2d(region.mask.to(region.map.dtype), self.factor) > 0
        return Region(mask, max_pool2d(region.map, self.factor), seen=region.mask)


def plain_in_latents(process: Process, autoencoder: Autoencoder, condition: Tensor, z_T: Tensor) -> Tensor:
    """Run the ordinary reverse process in ``process.space`` and decode the result: see :func:`local_in_latents`."""
    return autoencoder.decode(plain(process, condition, z_T)).clamp(-1, 1)


def local_in_latents(
    process: Process,
    autoencoder: Autoencoder,
    condition: Tensor,
    z_T: Tensor,
    region: Region,
    settings: LocalSettings,
    shows: ShowsAnomaly | None = None,
) -> Tensor:
    """Run Local Diffusion in latents: ``condition`` ``(N, 1, H, W)`` in [0, 1] and ``region`` on pixels, ``z_T`` noise
    ``(N, C, h, w)``.

    ``process.space`` is :meth:`Autoencoder.space`'s. Return the decoded x_0 ``(N, 1, H, W)`` in [−1, 1]; ``shows`` is asked
    with decoded estimates.
    """
    asked = None if shows is None else (lambda z0: shows(autoencoder.decode(z0).clamp(-1, 1)))
    return autoencoder.decode(local(process, condition, z_T, autoencoder.region(region), settings, asked)).clamp(-1, 1)


def from_monai_autoencoder(
    weights: Path, config: Config, *, scale: float = 1.0, image_range: tuple[float, float] = (-1.0, 1.0)
) -> Autoencoder:
    """Return MONAI's ``AutoencoderKL``: its mean latents times ``scale`` (MONAI's ``scale_factor``, 1 / standard
    deviation).

    ``config``: a bundle's configuration, or the autoencoder's arguments alone. ``image_range``: what its images were scaled
    to. Raise :class:`ModelError` for anything that cannot be represented.
    """
    load_monai()
    from monai.networks.nets import AutoencoderKL

    written = read_config(config)
    found = arguments_of(written, "AutoencoderKL")
    arguments = dict(written if found is None else found)
    if arguments.get("spatial_dims") != 2 or not isinstance(arguments.get("channels"), list | tuple):
        raise unusable("AutoencoderKL", f"arguments {sorted(arguments)}", "a 2D autoencoder with its channels")
    try:
        network = AutoencoderKL(**arguments)
    except (TypeError, ValueError) as error:
        raise unusable("AutoencoderKL", f"arguments that make no network ({error})", "MONAI's") from error
    fill(network, read_tensors(weights), weights)
    low, high = image_range

    def encode(images: Tensor) -> Tensor:
        return network.encode(low + (high - low) * (images + 1) / 2)[0] * scale

    def decode(latents: Tensor) -> Tensor:
        return 2 * (network.decode(latents / scale) - low) / (high - low) - 1

    return Autoencoder(encode, decode, 2 ** (len(arguments["channels"]) - 1))
