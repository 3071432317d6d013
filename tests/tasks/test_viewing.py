"""The cases of a report's viewer: which, with which layers, and what becomes of one that cannot be read again."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from localdiff_cli.tasks.evaluation import CaseFiles
from localdiff_cli.tasks.viewing import shown_cases, view_of
from tests.brains import brain, write_brain


@pytest.fixture
def files(tmp_path):
    """A case with all roles but one, and a source map beside the translation."""
    made = {role: write_brain(tmp_path / f"{role}_T2w.nii.gz", seed, lesion=False) for seed, role in enumerate(("local", "plain", "true"))}
    condition = write_brain(tmp_path / "a_T1w.nii.gz", 7)
    affine = nib.load(condition).affine
    lesion = (brain(7) == 120).astype(np.uint8)
    nib.Nifti1Image(lesion, affine).to_filename(tmp_path / "a_mask.nii.gz")
    nib.Nifti1Image(2 * lesion, affine).to_filename(tmp_path / "local_T2w_source.nii.gz")
    nib.Nifti1Image(lesion * np.float32(0.5), affine).to_filename(tmp_path / "local_T2w_std.nii.gz")
    return CaseFiles("a", "a", made["local"], made["true"], tmp_path / "a_mask.nii.gz", made["plain"], condition=condition)


def test_a_case_shows_condition_plain_local_and_truth_with_lesions_source_and_spread_over_them(files):
    case = view_of(files, "a (worst)", {"translation": "Local Diffusion", "baseline": "plain"})
    assert [(each.name, each.kind) for each in case.layers] == [
        ("condition", "image"), ("plain", "image"), ("Local Diffusion", "image"), ("truth", "image"),
        ("lesions", "labels"), ("source: 1 IND, 2 OOD, 3 fused, 4 unknown", "labels"), ("spread of samples", "heat"),
    ]  # fmt: skip
    assert set(np.unique(case.layers[5].data)) == {0, 2}


def test_an_interval_beside_the_translation_is_shown_by_its_width(files, tmp_path):
    lesion, affine = (brain(7) == 120).astype(np.float32), nib.load(files.condition).affine
    nib.Nifti1Image(0.1 + 0 * lesion, affine).to_filename(tmp_path / "local_T2w_lo.nii.gz")
    assert len(view_of(files, "a", {}).layers) == 7
    nib.Nifti1Image(0.2 + 0.6 * lesion, affine).to_filename(tmp_path / "local_T2w_hi.nii.gz")
    width = view_of(files, "a", {}).layers[-1]
    assert (width.name, width.kind) == ("width of the interval", "heat")
    shown = width.low + width.data / 255 * (width.high - width.low)
    assert sorted({round(float(v), 2) for v in np.unique(shown)}) == [0.1, 0.7]


def test_nothing_outside_the_brain_of_the_translation_is_shown(files, tmp_path):
    head = np.full(brain(7).shape, 900, np.int16)
    nib.Nifti1Image(head, nib.load(files.condition).affine).to_filename(files.condition)
    case = view_of(files, "a", {})
    outside = case.layers[2].data == 0
    assert (case.layers[0].data[outside & (case.layers[3].data == 0)] == 0).all()


@pytest.mark.parametrize(
    ("worst", "best", "shown"),
    [
        (["a", "b", "c"], ["z", "y", "x"], [("a", "worst"), ("b", "worst"), ("z", "best"), ("y", "best")]),
        (["a"], [], [("a", "worst")]),
        ([], [], []),
    ],
)
def test_two_of_the_worst_and_of_the_best_are_shown(worst, best, shown):
    assert shown_cases(worst, best) == shown
