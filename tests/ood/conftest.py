"""Real slices and one loaded backbone for the tests of ``localdiff_cli/ood``."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor

from localdiff_cli.ood.backbone import Backbone, load_backbone

LGG = Path(__file__).resolve().parents[3] / "shared" / "data" / "lgg"
SIZE = (224, 192)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small tensors: threads would only fight over the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    return load_backbone()


@pytest.fixture(scope="session")
def healthy_slices() -> list[tuple[Tensor, Tensor]]:
    """Tumour-free FLAIR slices (condition, brain), each (1, 224, 192), of four training patients."""
    return [pair for name in ("sub-CS4941", "sub-CS4943", "sub-CS5393", "sub-CS5395") for pair in _read_healthy(name)]


def _read_healthy(name: str) -> list[tuple[Tensor, Tensor]]:
    if not (LGG / name).is_dir():
        pytest.skip(f"real slices: {LGG / name} is absent (the research data folder is not shipped)")
    flair, brain, mask = (_axial(name, kind) for kind in ("FLAIR", "brain", "mask"))
    pixels = flair[brain > 0]
    median = np.median(pixels)
    z = (flair - median) / (1.4826 * np.median(np.abs(pixels - median)))
    condition = np.clip((z + 4) / 10, 0, 1).astype(np.float32) * (brain > 0)
    chosen = [i for i in range(len(brain)) if (brain[i] > 0).sum() > 8000 and not mask[i].any()]
    return [(_tensor(condition[i]), _tensor(brain[i] > 0)) for i in chosen]


def _axial(name: str, kind: str) -> np.ndarray:
    """Slices (z, y, x) of one RAS volume, cropped to SIZE around the middle."""
    volume = nib.as_closest_canonical(nib.load(LGG / name / f"{name}_{kind}.nii.gz"))
    slices = np.asarray(volume.dataobj, dtype=np.float32).transpose(2, 1, 0)
    top, left = ((have - want) // 2 for have, want in zip(slices.shape[1:], SIZE, strict=True))
    return slices[:, top : top + SIZE[0], left : left + SIZE[1]]


def _tensor(plane: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(plane))[None]


@pytest.fixture(scope="session")
def phantom() -> tuple[Tensor, Tensor]:
    """Three textured discs (condition, brain), (3, 1, 96, 80); the last slice shows no brain."""
    rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(80.0), indexing="ij")
    radius = ((rows - 48) ** 2 + (columns - 40) ** 2).sqrt()
    brain = torch.stack([radius < 34, radius < 27, radius < 0])[:, None]
    texture = 0.4 + 0.1 * torch.sin(rows / 5) + 0.1 * torch.cos(columns / 3)
    noise = 0.02 * torch.randn(3, 1, 96, 80, generator=torch.Generator().manual_seed(5))
    return ((texture + noise) * brain).clamp(0, 1), brain
