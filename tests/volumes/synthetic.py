"""Small synthetic brains as real files, and the few steps that many tests take with them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.reader import SliceReader, open_volume
from localdiff_cli.volumes.volume import Volume
from localdiff_cli.volumes.writer import SliceWriter

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
ORIENTATIONS = [
    np.array(list(zip(axes, flips, strict=True)), dtype=float) for axes in permutations(range(3)) for flips in product((1, -1), repeat=3)
]
GEOMETRY_FIELDS = [
    *("dim", "pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
]


def ellipsoid(shape: tuple[int, int, int], fill: float = 0.8) -> np.ndarray:
    """Distance from the centre in units of the brain's radius: below 1 is brain."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape), indexing="ij")
    return np.sqrt(sum(axis**2 for axis in axes)) / fill


def brain_array(shape: tuple[int, int, int] = (22, 26, 11), seed: int = 0) -> np.ndarray:
    """A skull-stripped brain without symmetry, float64 of whole numbers: background 0, tissue 600–1500."""
    rng = np.random.default_rng(seed)
    radius = ellipsoid(shape)
    tissue = 1000 + 300 * np.cos(7 * radius) + rng.normal(0, 40, shape)
    return np.rint(np.where(radius < 1, tissue, 0))


def affine_of(spacing: tuple[float, float, float], rotation_degrees: float = 0.0) -> np.ndarray:
    """An RAS affine, oblique about two axes where a rotation is given."""
    a = np.deg2rad(rotation_degrees)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag(spacing)
    affine[:3, 3] = (-31.5, 17.25, 8.125)
    return affine


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None, kind: type = nib.Nifti1Image) -> Path:
    """Write ``array`` (its own dtype) and give the path back."""
    kind(array, affine_of((1.0, 1.2, 3.0)) if affine is None else affine).to_filename(path)
    return path


def canonical(path: Path) -> np.ndarray:
    """All canonical slices ``(slices, rows, columns)`` float32."""
    slices = dict(SliceReader(open_volume(path)))
    return np.stack([slices[k] for k in range(len(slices))])


def write_like(volume: Volume, path: Path, slices: np.ndarray, dtype: str = "float32", scale: tuple[float, float] = (1.0, 0.0)) -> Path:
    """Write canonical ``slices`` with the geometry of ``volume``."""
    with SliceWriter(path, volume, dtype=dtype, description="localdiff synthetic T2w", scale=scale) as writer:
        for k in SliceReader(volume).order():
            writer.write(k, slices[k])
    return path


def copy_through(path: Path, out: Path, dtype: str = "float32") -> Path:
    """Read a volume and write it again, as ``translate`` does with other values."""
    return write_like(open_volume(path), out, canonical(path), dtype)


def error_of(action: Callable[[], object]) -> VolumeError | None:
    """The error with which ``action`` refuses a volume, None where it does not."""
    try:
        action()
    except VolumeError as error:
        return error
    return None


def real(*parts: str) -> Path:
    """A file of the shared research data; skips the test with the reason where it is absent."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"real volumes: {path} is absent (the research data folder is not shipped)")
    return path
