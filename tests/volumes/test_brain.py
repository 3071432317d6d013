"""Where the brain is: support, extraction, or a mask that the user brings."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes import brain as brain_module
from localdiff_cli.volumes.brain import auto_brain, brain_from_file, extract_brain, looks_stripped, support, whole_image
from localdiff_cli.volumes.prepare import survey
from localdiff_cli.volumes.reader import SliceReader, open_volume

from .synthetic import affine_of, brain_array, canonical, ellipsoid, real, save_nifti

STRIPPED = ["sub-bratsgli00001", "sub-bratsreg002a", "sub-kirby113", "sub-openms07", "sub-openms19"]


def auto(path: Path):
    reader = SliceReader(open_volume(path))
    found = survey(reader)
    return auto_brain(reader, found.background, found.tolerance)


@pytest.fixture
def no_extraction(monkeypatch):
    """Extraction is answered at once with a brain of 1.4 litres, and its calls are counted."""
    calls = []

    def extract(head):
        calls.append(head.shape)
        return ellipsoid(head.shape, 0.7) < 1

    monkeypatch.setattr(brain_module, "extract_brain", extract)
    return calls


def head_file(path: Path, slices: int = 40, spacing: float = 5.0, noise: float = 0.0) -> Path:
    """A head with skull, 5 mm voxels, 4.2 litres: everything inside an ellipsoid of 200 × 240 mm."""
    head = np.where(ellipsoid((40, 48, slices), 0.95) < 1, 900, noise)
    return save_nifti(path, (head + brain_array((40, 48, slices)) / 10).astype(np.int16), affine_of((spacing, spacing, spacing)))


def test_support_is_what_differs_from_the_background_with_holes_filled(tmp_path):
    array = np.full((12, 12, 2), 432, np.int16)
    array[3:9, 3:9, 0] = 900
    array[5, 5, 0] = 432  # a ventricle as dark as the background
    array[0, 0, 0] = 440  # within the tolerance
    reader = SliceReader(open_volume(save_nifti(tmp_path / "a.nii", array, np.eye(4))))
    mask = support(reader, 432, 20)
    assert mask[0].sum() == 36
    assert not mask[1].any()


def test_infinite_voxels_are_not_brain(tmp_path):
    array = np.zeros((9, 9, 1), np.float32)
    array[4, 4], array[0, 0], array[1, 1] = 1, np.inf, np.nan
    assert support(SliceReader(open_volume(save_nifti(tmp_path / "a.nii", array))), 0, 0.1).sum() == 1


@pytest.mark.parametrize("background", [0, 432])
def test_stripped_brain_is_taken_by_its_support(tmp_path, no_extraction, background):
    tissue = brain_array((40, 48, 40))
    array = np.where(tissue > 0, tissue, background).astype(np.int16)
    brain = auto(save_nifti(tmp_path / "a.nii.gz", array, affine_of((3.5, 3.5, 3.5))))
    assert brain.source.startswith("support")
    assert brain.doubts == ()
    assert brain.mask.sum() == (tissue > 0).sum()
    assert no_extraction == []


def test_head_is_sent_to_extraction(tmp_path, no_extraction):
    brain = auto(head_file(tmp_path / "a.nii.gz"))
    assert brain.source == "deepbet"
    assert no_extraction == [(40, 48, 40)]


def test_head_with_nan_is_extracted_where_nan_counts_as_zero(tmp_path, monkeypatch):
    path = head_file(tmp_path / "a.nii.gz")
    array = np.asarray(nib.load(path).dataobj, dtype=np.float32)
    array[0, 0, 0] = np.nan
    save_nifti(path, array, affine_of((5, 5, 5)))
    monkeypatch.setattr(brain_module, "extract_brain", lambda head: np.isfinite(head) & (ellipsoid(head.shape, 0.7) < 1))
    monkeypatch.setattr(brain_module, "looks_stripped", lambda *_: False)
    assert auto(path).mask.any()


def test_slab_of_a_head_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(VolumeError, match="--brain FILE") as caught:
        auto(head_file(tmp_path / "a.nii.gz", slices=10))
    assert caught.value.code == "brain"
    assert "50 mm" in str(caught.value)
    assert "60 mm" in str(caught.value)
    assert "10 slices" in str(caught.value)


def test_stripped_slab_is_taken_with_a_doubt(tmp_path):
    brain = auto(save_nifti(tmp_path / "a.nii.gz", brain_array((40, 48, 6)).astype(np.int16), affine_of((3, 3, 3))))
    assert brain.source.startswith("support")
    assert any("slab" in doubt for doubt in brain.doubts)


@pytest.mark.parametrize("share", [0.05, 1.0])
def test_extraction_that_makes_no_sense_is_refused(tmp_path, monkeypatch, share):
    monkeypatch.setattr(brain_module, "extract_brain", lambda head: ellipsoid(head.shape, 10.0 if share == 1 else 0.2) < 1)
    with pytest.raises(VolumeError, match="--brain none") as caught:
        auto(head_file(tmp_path / "a.nii.gz"))
    assert caught.value.code == "brain"


def test_head_without_any_brain_is_refused(tmp_path, monkeypatch):
    def nothing(_):
        raise ValueError("nothing in it looks like a brain")

    monkeypatch.setattr(brain_module, "extract_brain", nothing)
    with pytest.raises(VolumeError, match="looks like a brain") as caught:
        auto(head_file(tmp_path / "a.nii.gz"))
    assert caught.value.code == "brain"


def test_brain_of_unlikely_size_is_doubted(tmp_path, no_extraction):
    brain = auto(save_nifti(tmp_path / "a.nii.gz", brain_array((40, 48, 40)).astype(np.int16), affine_of((2, 2, 2))))
    assert any("unlike an adult brain" in doubt for doubt in brain.doubts)


@pytest.mark.parametrize(("half", "doubted"), [(18, False), (5, True)], ids=["a brain's cross-section", "a lesion's"])
def test_a_mask_too_small_for_a_brain_is_doubted_in_a_slab_too(tmp_path, half, doubted):
    mask = np.zeros((40, 48, 6), np.uint8)
    mask[20 - half : 20 + half, 24 - half : 24 + half] = 1
    volume = open_volume(save_nifti(tmp_path / "a.nii.gz", brain_array((40, 48, 6)).astype(np.int16), affine_of((3, 3, 3))))
    given = brain_from_file(save_nifti(tmp_path / "m.nii.gz", mask, affine_of((3, 3, 3))), volume)
    assert [f"{4 * half**2 * 9 / 100:.0f} cm²" in doubt for doubt in given.doubts] == [True] * doubted


def test_whole_image_is_everything_but_background(tmp_path):
    reader = SliceReader(open_volume(head_file(tmp_path / "a.nii.gz")))
    found = survey(reader)
    assert whole_image(reader, found.background, found.tolerance).mask.mean() > 0.4


def test_full_field_without_background_is_not_stripped():
    volume = type("V", (), {"frame": type("F", (), {"shape": (40, 40, 40), "spacing": (2.0, 2.0, 2.0)})})
    assert not looks_stripped(np.ones((40, 40, 40), bool), volume)


# --- a mask that is brought ---


def test_given_mask_is_read_in_canonical_order(tmp_path, brain_file):
    mask = (brain_array() > 0).astype(np.uint8)
    brain = brain_from_file(save_nifti(tmp_path / "m.nii.gz", mask), open_volume(brain_file))
    np.testing.assert_array_equal(brain.mask, canonical(brain_file) > 0)
    assert brain.source == "given: m.nii.gz (binary: 0 and 1, cut at 0.5)"


@pytest.mark.parametrize("change", ["shape", "place", "orientation"])
def test_mask_on_another_grid_is_refused(tmp_path, brain_file, change):
    image = nib.Nifti1Image((brain_array() > 0).astype(np.uint8), affine_of((1.0, 1.2, 3.0)))
    other = {
        "shape": image.slicer[:-1],
        "place": nib.Nifti1Image(np.asarray(image.dataobj), affine_of((1.0, 1.2, 3.1))),
        "orientation": image.as_reoriented(np.array([[0, -1], [1, 1], [2, 1]])),
    }[change]
    other.to_filename(tmp_path / "m.nii.gz")
    with pytest.raises(VolumeError, match="same grid") as caught:
        brain_from_file(tmp_path / "m.nii.gz", open_volume(brain_file))
    assert caught.value.code == "other-grid"
    assert "m.nii.gz" in str(caught.value)


def test_empty_mask_is_refused(tmp_path, brain_file):
    with pytest.raises(VolumeError, match="empty") as caught:
        brain_from_file(save_nifti(tmp_path / "m.nii.gz", np.zeros((22, 26, 11), np.uint8)), open_volume(brain_file))
    assert caught.value.code == "brain"


# --- real volumes ---


@pytest.mark.parametrize("subject", STRIPPED)
def test_real_stripped_volumes_are_recognised(subject, no_extraction):
    brain = auto(real("t1t2", subject, f"{subject}_T1w.nii.gz"))
    assert brain.source.startswith("support")
    assert no_extraction == []


def test_real_non_zero_background_is_not_brain(no_extraction):
    path = real("t1t2", "sub-openms07", "sub-openms07_T1w.nii.gz")
    found = survey(SliceReader(open_volume(path)))
    assert found.background == 432
    assert 0.1 < auto(path).mask.mean() < 0.25


def test_real_heads_are_sent_to_extraction(no_extraction):
    with real("lgg", "participants.tsv").open() as table:
        heads = [row["participant_id"] for row in csv.DictReader(table, delimiter="\t") if row["split"] == "val" and row["skull"] == "True"]
    assert {auto(real("lgg", head, f"{head}_T1w.nii.gz")).source for head in heads[:3]} == {"deepbet"}


@pytest.mark.slow
def test_deepbet_finds_the_brain_of_a_real_head():
    path = real("t1t2", "sub-spmavg152", "sub-spmavg152_T1w.nii.gz")
    mask = extract_brain(canonical(path))
    volume = open_volume(path)
    litres = mask.sum() * np.prod(volume.frame.spacing) * 1e-6
    assert 1.2 < litres < 2.2
    middle = np.argwhere(mask).mean(axis=0) / mask.shape
    np.testing.assert_allclose(middle, 0.5, atol=0.12)
    assert ndimage.label(mask, np.ones((3, 3, 3)))[1] == 1
    np.testing.assert_array_equal(ndimage.binary_fill_holes(mask), mask)
