"""Slices changed on purpose: another patient's lesion put in, a lesion erased, the texture of a region spoilt.

Images are ``(H, W)`` float32 in [0, 1], masks ``(H, W)`` bool; whatever is not inside the given region stays as it was, bit for bit.

* **Insertion.** A donor is the largest component of a lesion on one slice, as its difference from the mean of the ring around it, in both
  contrasts. It is added to the mean of the host's ring at the place nearest to its own where it fits into the host's brain, so that it
  stands out from its new surroundings as much as from its old ones, and the truth is known in both contrasts.
* **Erasure.** A lesion, but for its grain, is levelled to the mean of its ring, up to the very edge of its mask: a feathered edge would
  leave an outline. What remains is flat tissue without folds, which may be conspicuous in itself.
* **Texture.** Noise, blur, or ringing as motion leaves it, inside a disc.

The rims of insertions and textures are feathered inwards over ``FEATHER`` pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from localdiff_cli.evaluation.metrics.lesion import ring_around

FEATHER = 2
RING_GAP, RING_WIDTH = 1.0, 5.0
"""The ring around a lesion, mm, as in mri.py."""
GRAIN_SIGMA = 1.5
"""What is smoother than this (pixels) belongs to a lesion's contrast, the rest is grain."""
CENTRE, GHOST = 0.04, 6.0
"""Ringing spares the lines of k-space up to this frequency (cycles a pixel); its echoes are so many pixels apart."""

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Donor:
    """A lesion to be inserted: where it comes from, its ``mask``, and both contrasts minus the mean of its ring, 0 outside the mask."""

    patient: str
    number: int
    mask: Mask
    condition: Image
    target: Image

    @property
    def pixels(self) -> int:
        """Its area."""
        return int(self.mask.sum())


def feather(mask: Mask) -> Image:
    """Weights of a change: 0 outside the mask, rising to 1 over ``FEATHER`` pixels inside it."""
    return np.clip(ndimage.distance_transform_edt(mask) / (FEATHER + 1), 0, 1).astype(np.float32)


def ring_of(mask: Mask, brain: Mask, spacing: float) -> Mask:
    """The brain around a region of one slice; ``spacing`` of its pixels in mm."""
    return ring_around(mask[None], brain[None], (1e3, spacing, spacing), RING_GAP, RING_WIDTH)[0]


def components(mask: Mask, least: int) -> list[Mask]:
    """The 8-connected components of at least ``least`` pixels, the largest first."""
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    return [labels == 1 + i for i in np.argsort(-sizes, kind="stable") if sizes[i] >= least]


def donor_of(patient: str, number: int, condition: Image, target: Image, brain: Mask, lesion: Mask, spacing: float) -> Donor | None:
    """The largest component of a slice's ``lesion``; None without a component or without brain around it that is no lesion."""
    inside = components(lesion & brain, 1)
    if not inside:
        return None
    ring = ring_of(inside[0], brain & ~lesion, spacing)
    if not ring.any():
        return None
    apart = [(image - image[ring].mean()) * inside[0] for image in (condition, target)]
    return Donor(patient, number, inside[0], *apart)


def insert(donor: Donor, condition: Image, target: Image, brain: Mask, spacing: float) -> tuple[Image, Image, Mask] | None:
    """Condition, target and truth with the donor's lesion; None where it does not fit into ``brain`` or has no ring there."""
    shift = _nearest_place(donor.mask, brain)
    if shift is None:
        return None
    mask = _moved(donor.mask, shift)
    ring, weight = ring_of(mask, brain, spacing), feather(mask)
    if not ring.any():
        return None

    def put(host: Image, difference: Image) -> Image:
        lesion = np.clip(host[ring].mean() + _moved(difference, shift), 0, 1)
        return np.where(mask, host + weight * (lesion - host), host).astype(np.float32)

    return put(condition, donor.condition), put(target, donor.target), mask


def _nearest_place(mask: Mask, brain: Mask) -> tuple[int, int] | None:
    """The smallest shift (rows, columns) after which the mask lies inside the brain, its rim of 2 pixels too."""
    footprint = ndimage.binary_dilation(mask, iterations=2).astype(np.float32)
    inside = signal.fftconvolve(brain.astype(np.float32), footprint[::-1, ::-1], mode="same")
    places = np.argwhere(inside > footprint.sum() - 0.5)
    if not len(places):
        return None
    # In a correlation of mode "same" the shift 0 lies at half the size.
    shifts = places - np.array(mask.shape) // 2
    best = shifts[np.argmin((shifts**2).sum(axis=1))]
    return int(best[0]), int(best[1])


def _moved(image: NDArray, shift: tuple[int, int]) -> NDArray:
    return np.roll(image, shift, axis=(0, 1))


def erase(image: Image, lesion: Mask, brain: Mask, spacing: float) -> Image:
    """``image`` with each lesion component, but for its grain, levelled to the mean of its ring."""
    erased = image.copy()
    for part in components(lesion & brain, 1):
        ring = ring_of(part, brain & ~lesion, spacing)
        if ring.any():
            contrast = _smooth_inside(image, part, GRAIN_SIGMA) - image[ring].mean()
            erased -= np.where(part, contrast, 0).astype(np.float32)
    return np.where(lesion, np.clip(erased, 0, 1), image)


def _smooth_inside(image: Image, mask: Mask, sigma: float) -> Image:
    """Gaussian means over the pixels of the mask alone."""
    weight = ndimage.gaussian_filter(mask.astype(np.float32), sigma)
    return ndimage.gaussian_filter(image * mask, sigma) / np.maximum(weight, 1e-6)


def disc_in(brain: Mask, radius: int, rng: np.random.Generator) -> Mask | None:
    """A disc inside the brain at a random place; None where none fits."""
    centres = np.argwhere(ndimage.distance_transform_edt(brain) > radius + 1)
    if not len(centres):
        return None
    row, column = centres[rng.integers(len(centres))]
    y, x = np.ogrid[: brain.shape[0], : brain.shape[1]]
    return (y - row) ** 2 + (x - column) ** 2 <= radius**2


def noise(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Gaussian noise of standard deviation ``strength``."""
    return image + rng.normal(0, strength, image.shape).astype(np.float32)


def blur(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """A Gaussian blur of ``strength`` pixels."""
    return ndimage.gaussian_filter(image, strength)


def ringing(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Bands of k-space lines, but for the centre, scaled by 1 + and 1 − ``strength`` in turn: edges echo every ``GHOST`` rows."""
    frequency = np.fft.fftfreq(image.shape[0])
    band = np.where(np.abs(frequency) <= CENTRE, 0.0, np.sign(np.cos(2 * np.pi * frequency * GHOST)))
    return np.fft.ifft(np.fft.fft(image, axis=0) * (1 + strength * band)[:, None], axis=0).real.astype(np.float32)


Texture = Callable[[Image, float, np.random.Generator], Image]
TEXTURES: dict[str, Texture] = {"noise": noise, "blur": blur, "ringing": ringing}


def spoil_texture(image: Image, region: Mask, kind: str, strength: float, rng: np.random.Generator) -> Image:
    """``image`` with a texture of :data:`TEXTURES` inside ``region``."""
    changed = np.clip(TEXTURES[kind](image, strength, rng), 0, 1)
    return np.where(region, image + feather(region) * (changed - image), image).astype(np.float32)
