"""Any volume onto one grid: re-ordered where that is all it takes, interpolated where allowed, refused otherwise."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.placement import (
    CaseGrid,
    Placement,
    canonical_affine,
    labels_onto_grid,
    onto_grid,
    placement_of,
    read_canonical,
    same_place,
)
from localdiff_cli.volumes.reader import open_volume
from tests.brains import write_brain

ORIENTATIONS = ("RAS", "LPS", "PIR", "SLA", "ASR", "IPL")


def smooth(shape=(30, 34, 26), seed=3):
    """A smooth random image, so that interpolation is exact to a per cent or so."""
    return ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3).astype(np.float32)


def save(path, array, affine):
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def oblique(spacing=(1.0, 1.2, 2.0), degrees=(12, -7, 20), origin=(5.0, -8.0, 3.0)):
    """An affine of a turned grid."""
    a, b, c = np.radians(degrees)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = x @ y @ z @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_canonical_affine_sends_every_voxel_to_where_the_file_says_it_is(tmp_path, orientation):
    """Each voxel holds its own number: the world position of the canonical array's must be that of the stored array's."""
    stored = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    ras = nib.Nifti1Image(stored, oblique())
    turn = nib.orientations.ornt_transform(nib.io_orientation(ras.affine), nib.orientations.axcodes2ornt(orientation))
    image = ras.as_reoriented(turn)
    nib.save(image, tmp_path / "a.nii.gz")
    volume = open_volume(tmp_path / "a.nii.gz")
    canonical, affine = read_canonical(volume), canonical_affine(volume)
    data = np.asanyarray(image.dataobj)
    for place in np.ndindex(canonical.shape):
        at = np.argwhere(data == canonical[place])[0]
        assert np.allclose(affine @ (*place, 1), image.affine @ (*at, 1), atol=1e-4)


def test_the_same_voxels_in_another_orientation_are_one_place_and_a_shift_is_not(tmp_path):
    write_brain(tmp_path / "a.nii.gz", seed=1)
    image = nib.load(tmp_path / "a.nii.gz")
    turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt("PIR"))
    nib.save(image.as_reoriented(turn), tmp_path / "b.nii.gz")
    a, b = (placement_of(open_volume(tmp_path / name)) for name in ("a.nii.gz", "b.nii.gz"))
    assert same_place(a, b)
    for shift in ((0.5, 0, 0), (0, 0, -3)):
        moved = a.affine.copy()
        moved[:3, 3] += shift
        assert not same_place(Placement(moved, a.shape), a)
    assert same_place(Placement(a.affine + 1e-4, a.shape), a)
    assert not same_place(Placement(a.affine, (a.shape[0] - 1, *a.shape[1:])), a)


def test_an_image_moved_with_its_header_comes_back_to_the_same_voxels(tmp_path):
    """World-space truth: an image of a linear function of position, sampled on two turned grids."""

    def linear(affine, shape):
        index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
        return ((index @ affine[:3, :3].T + affine[:3, 3]) @ (0.3, -0.2, 0.5) + 40).astype(np.float32)

    one, other = oblique(), oblique((0.9, 1.1, 1.5), (-5, 9, 3), (-1.0, -14.0, 1.0))
    a = save(tmp_path / "a.nii.gz", linear(one, (20, 18, 14)), one)
    b = save(tmp_path / "b.nii.gz", linear(other, (40, 44, 36)), other)
    grid = CaseGrid(open_volume(a), resample=True)
    found = grid.bring(b, "reference")
    true = read_canonical(grid.volume)
    inside = np.ones(true.shape, bool) if found.covered is None else ndimage.binary_erosion(found.covered, iterations=1)
    assert inside.mean() > 0.3
    assert np.allclose(found.array[inside], true[inside], atol=0.05)
    assert "interpolated linearly" in found.how


def test_what_lies_outside_the_field_of_view_is_0_and_said():
    array = np.ones((6, 6, 6), np.float32)
    shifted = np.eye(4)
    shifted[0, 3] = 2
    moved, covered = onto_grid(array, Placement(shifted, (6, 6, 6)), Placement(np.eye(4), (6, 6, 6)))
    assert (covered == (np.arange(6) >= 2)[:, None, None]).all()
    assert (moved == covered).all()


def test_a_grid_of_one_slice_is_covered_by_itself_whatever_the_rounding():
    affine = oblique()
    moved, covered = onto_grid(np.full((1, 5, 5), 7, np.float32), Placement(affine, (1, 5, 5)), Placement(affine + 1e-9, (1, 5, 5)))
    assert covered.all()
    assert np.allclose(moved, 7)


def test_a_coarser_grid_is_averaged_not_sampled():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(48, 48, 48)).astype(np.float32)
    coarse = np.diag([3.0, 3.0, 3.0, 1.0])
    moved, _ = onto_grid(noise, Placement(np.eye(4), noise.shape), Placement(coarse, (16, 16, 16)))
    assert moved.std() < 0.35


@pytest.mark.parametrize("shift", [(2, 0, 0), (0, 0, 20)])
def test_another_grid_is_refused_unless_it_may_be_resampled_with_the_way_out_named(tmp_path, shift):
    a = write_brain(tmp_path / "a.nii.gz", seed=1)
    image = nib.load(a)
    affine = image.affine.copy()
    affine[:3, 3] += shift
    b = save(tmp_path / "b.nii.gz", np.asanyarray(image.dataobj), affine)
    with pytest.raises(VolumeError, match=r"b\.nii\.gz: the baseline has shape .* --resample-ref"):
        CaseGrid(open_volume(a)).bring(b, "baseline")


def test_a_mask_moves_with_its_header_and_keeps_its_size(tmp_path):
    mask = np.zeros((40, 40, 20), np.uint8)
    mask[12:24, 14:26, 6:14] = 1
    a = save(tmp_path / "a.nii.gz", mask, np.eye(4))
    finer = np.diag([0.5, 0.5, 0.5, 1.0])
    finer[:3, 3] = -0.25
    b = save(tmp_path / "b.nii.gz", np.repeat(np.repeat(np.repeat(mask, 2, 0), 2, 1), 2, 2), finer)
    found, how = CaseGrid(open_volume(a), resample=True).mask(b, "truth")
    own, _ = CaseGrid(open_volume(a)).mask(a, "truth")
    assert np.array_equal(found, own)
    assert own.sum() == mask.sum()
    assert "0.5 × 0.5 × 0.5 mm" in how


def test_nan_becomes_0_and_its_voxels_are_known_also_after_interpolation(tmp_path):
    array = smooth()
    array[10, 10, 10] = np.nan
    a = save(tmp_path / "a.nii.gz", array, np.eye(4))
    shifted = np.eye(4)
    shifted[0, 3] = 0.5
    b = save(tmp_path / "b.nii.gz", smooth(), shifted)
    own = CaseGrid(open_volume(a)).bring(a, "translation")
    assert own.holes is not None
    assert own.holes.sum() == 1
    assert np.isfinite(own.array).all()
    moved = CaseGrid(open_volume(b), resample=True).bring(a, "reference")
    assert moved.holes is not None
    assert moved.holes.sum() == 2


def test_labels_move_without_making_new_ones_between_them():
    labels = np.zeros((8, 20, 20), np.float32)
    labels[:, 4:10], labels[:, 10:16] = 1, 4
    own, target = Placement(np.diag([3.0, 1, 1, 1]), labels.shape), Placement(np.diag([3.0, 0.7, 0.7, 1]), (8, 28, 28))
    found, covered = labels_onto_grid(labels, own, target)
    assert set(np.unique(found)) == {0, 1, 4}
    assert covered.all()
    assert np.mean(found == 4) == pytest.approx(6 / 20, abs=0.03)
