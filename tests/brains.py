"""Small synthetic brains on disk."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np


def brain(seed: int = 0, shape: tuple[int, int, int] = (40, 48, 6), *, lesion: bool = True) -> np.ndarray:
    """A small skull-stripped 'brain', int16, 0 outside: texture and, as a lesion, a dark blob."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    inside = x**2 + y**2 + 0.3 * z**2 < 0.7
    texture = 500 + 80 * np.sin(7 * x + seed) * np.cos(5 * y) + 30 * rng.standard_normal(shape)
    if lesion:
        texture[(x - 0.3) ** 2 + (y - 0.2) ** 2 < 0.03] = 120
    return np.where(inside, np.clip(texture, 50, 900), 0).astype(np.int16)


def write_brain(
    path: Path,
    seed: int = 0,
    shape: tuple[int, int, int] = (40, 48, 6),
    spacing: tuple[float, float, float] = (4, 4, 20),
    *,
    lesion: bool = True,
) -> Path:
    """A small brain as NIfTI, LPS, by default 160 × 192 × 120 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = 70, 80, -30
    nib.save(nib.Nifti1Image(brain(seed, shape, lesion=lesion), affine), path)
    return path


def contradict(path: Path, by: tuple[float, float, float]) -> None:
    """Give a NIfTI a q-form that is its place and an s-form whose axes are that place's times ``by``, both with code 1."""
    image = nib.load(path)
    data, affine = np.asanyarray(image.dataobj), image.affine
    image.set_qform(affine, 1)
    image.set_sform(affine @ np.diag([*by, 1]), 1)
    nib.save(nib.Nifti1Image(data, None, image.header), path)
