"""The voxels do not depend on the number of threads: measured in processes of their own, with the shipped networks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from localdiff_cli.threads import apart

DATA = Path(__file__).resolve().parents[1] / "examples" / "data" / "sub-openms19"


def test_slices_come_back_in_order_each_on_one_thread_and_the_caller_keeps_its_own():
    before = torch.get_num_threads()
    seen = apart(lambda k: (k, torch.get_num_threads(), torch.is_grad_enabled()), range(7))
    assert seen == [(k, 1, False) for k in range(7)]
    assert torch.get_num_threads() == before


def test_an_error_in_a_slice_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        apart(lambda k: 1 / k, [1, 0])


@pytest.fixture(scope="module")
def slab(tmp_path_factory):
    """Three slices of a real brain, shifted so that they are resampled, and their brain mask."""
    import nibabel as nib

    folder = tmp_path_factory.mktemp("slab")
    for kind in ("T1w", "brain"):
        image = nib.load(DATA / f"sub-openms19_{kind}.nii.gz").slicer[:, :, 20:23]
        affine = image.affine @ torch.diag(torch.tensor([1.13, 0.87, 1.0, 1.0])).double().numpy()
        nib.save(nib.Nifti1Image(image.get_fdata(dtype="float32"), affine), folder / f"sub-1_{kind}.nii.gz")
    return folder


def test_the_bytes_of_a_translation_are_the_same_with_any_number_of_threads(slab, tmp_path):
    made = {}
    for threads in ("1", "2", "3"):
        out = tmp_path / threads
        once = ["--steps", 1, "--branch-step", 0, "--fusion-step", 0]  # each network once a slice
        options = ["--model", "t1-to-flair", "--detector", "patchcore", *once, "--save-map", "--jobs", 0, "--quiet"]
        files = ["--in", slab / "sub-1_T1w.nii.gz", "--brain", slab / "sub-1_brain.nii.gz", "--out", out]
        command = [sys.executable, "-m", "localdiff_cli.app", "translate", *files, *options]
        subprocess.run([str(part) for part in command], check=True, env=os.environ | {"OMP_NUM_THREADS": threads})
        made[threads] = [path.read_bytes() for path in sorted(out.glob("*.nii.gz"))]
    assert len(made["1"]) == 2
    assert made["1"] == made["2"] == made["3"]
