"""Small synthetic brains for the tests of ``localdiff_cli/volumes``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from .synthetic import brain_array, save_nifti


@pytest.fixture
def brain_file(tmp_path: Path) -> Path:
    """A skull-stripped brain, int16, last-axis slices, compressed."""
    return save_nifti(tmp_path / "sub-01_T1w.nii.gz", brain_array().astype(np.int16))
