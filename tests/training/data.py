"""Small patients for training: as files, and as prepared slices."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from localdiff_cli.training.slices import PatientSlices
from tests.brains import write_brain


def write_patient(
    folder: Path, name: str, seed: int, *, lesion: bool = True, masked: bool = True, shape: tuple[int, int, int] = (40, 48, 6)
) -> None:
    """T1w, T2w (another intensity of the same texture), and where ``masked`` the mask of the lesion, on slices 3 and later only."""
    path = write_brain(folder / f"{name}_T1w.nii.gz", seed, shape)
    image = nib.load(path)
    t1 = np.asanyarray(image.dataobj).copy()
    healthy = np.asanyarray(nib.load(write_brain(folder / "healthy.nii.gz", seed, shape, lesion=False)).dataobj)
    (folder / "healthy.nii.gz").unlink()
    half = shape[2] // 2
    t1[..., :half] = healthy[..., :half]
    if not lesion:
        t1 = healthy
    nib.save(nib.Nifti1Image(t1, image.affine), path)
    t2 = np.where(t1 > 0, 1000 - t1, 0).astype(np.int16)
    nib.save(nib.Nifti1Image(t2, image.affine), folder / f"{name}_T2w.nii.gz")
    if masked:
        nib.save(nib.Nifti1Image((t1 != healthy).astype(np.uint8), image.affine), folder / f"{name}_mask.nii.gz")


def slices(name: str = "a", split: str = "train", n: int = 6, seed: int = 0, *, masked: bool = True, size: int = 32) -> PatientSlices:
    """Prepared slices in memory; the target is the condition itself, a lesion lies in the last slice."""
    rng = np.random.default_rng(seed)
    brain = np.zeros((n, size, size), bool)
    brain[:, 4:-4, 6:-6] = True
    y, x = np.mgrid[:size, :size] / size
    texture = 0.5 + 0.3 * np.sin(9 * x + rng.uniform(0, 6, (n, 1, 1))) * np.cos(7 * y + rng.uniform(0, 6, (n, 1, 1)))
    condition = np.rint(texture * 65535 * brain).astype(np.uint16)
    lesion = np.zeros_like(brain)
    lesion[-1, 10:14, 10:14] = masked
    return PatientSlices(name, split, condition, condition.copy(), brain, lesion, masked)


class Spy(torch.nn.Module):
    """A network of one weight that keeps each condition it was shown in ``seen``."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[torch.Tensor] = []

    def forward(self, x_t: torch.Tensor, condition: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.seen.append(condition)
        return x_t * self.weight
