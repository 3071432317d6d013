"""Orientation, and the network's grid."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localdiff_cli.volumes.geometry import Grid, frame_of, grid_for, resampling_matrix
from tests.volumes.canonical import to_canonical

from .synthetic import ORIENTATIONS, affine_of, ellipsoid


def frame(shape=(40, 50, 10), spacing=(1.0, 1.0, 3.0), rotation=0.0):
    return frame_of(affine_of(spacing, rotation), shape)


def smooth_image(shape: tuple[int, int], spacing: tuple[float, float]) -> np.ndarray:
    """A slice whose finest detail measures 12 mm, faded out towards the edge."""
    rows, columns = ((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing, strict=True))
    y, x = np.meshgrid(rows, columns, indexing="ij")
    radius = np.hypot(y / (shape[0] * spacing[0]), x / (shape[1] * spacing[1])) * 2
    return ((1 + 0.5 * np.cos(x / 4) * np.sin(y / 5)) * np.clip(1.4 - 1.6 * radius, 0, 1) ** 2).astype(np.float32)


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_canonical_array_is_the_same_in_every_orientation(orientation):
    array = np.arange(3 * 4 * 5).reshape(3, 4, 5)
    image = nib.Nifti1Image(array.astype(np.int16), affine_of((1, 2, 3)))
    turned = image.as_reoriented(orientation)
    expected = to_canonical(frame_of(image.affine, array.shape), array)
    frame = frame_of(turned.affine, turned.shape)
    np.testing.assert_array_equal(to_canonical(frame, np.asarray(turned.dataobj)), expected)
    assert frame.shape == expected.shape
    assert frame.spacing == (3, 2, 1)


def test_canonical_runs_to_superior_posterior_left():
    array = np.zeros((3, 4, 5))
    array[0, 0, 4] = 1  # RAS storage: leftmost, most posterior, uppermost
    assert to_canonical(frame_of(np.eye(4), array.shape), array)[-1, -1, -1] == 1


@pytest.mark.parametrize("orientation", ORIENTATIONS[::5], ids=str)
def test_slices_go_to_canonical_and_back(orientation):
    turned = nib.Nifti1Image(np.random.default_rng(0).random((3, 4, 5)), np.eye(4)).as_reoriented(orientation)
    array, frame = np.asarray(turned.dataobj), frame_of(turned.affine, turned.shape)
    for k in range(frame.shape[0]):
        stored = np.take(array, frame.stored_index(k), axis=frame.slice_axis)
        image = frame.slice_to_canonical(stored)
        np.testing.assert_array_equal(image, to_canonical(frame, array)[k])
        np.testing.assert_array_equal(frame.slice_to_stored(image), stored)


def test_oblique_volume_takes_the_nearest_axes_and_its_own_spacing():
    oblique = frame(rotation=20, spacing=(0.9, 1.1, 4.0))
    assert oblique.axes == frame().axes
    np.testing.assert_allclose(oblique.spacing, (4.0, 1.1, 0.9), rtol=1e-12)


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([1.0, 1, 0, 1]),
        np.diag([1.0, np.nan, 1, 1]),
        np.diag([1.0, np.inf, 1, 1]),
        np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    ],
    ids=["zero column", "NaN", "infinite", "parallel columns"],
)
def test_singular_affine_is_refused(affine):
    with pytest.raises(ValueError, match="singular"):
        frame_of(affine, (4, 4, 4))


def test_tiny_but_regular_voxels_are_not_singular():
    assert frame_of(np.diag([1e-4, 1e-4, 1e-4, 1]), (4, 4, 4)).spacing == pytest.approx((1e-4,) * 3)


@pytest.mark.parametrize("cubic", [True, False])
def test_equal_spacing_resamples_to_the_bit(cubic):
    image = np.random.default_rng(0).random((40, 50), dtype=np.float32)
    grid = Grid((48, 64), 0.9375, (-4.0, -7.0), (40, 50), (0.9375, 0.9375))
    sent = grid.to_network(image, cubic=cubic)
    np.testing.assert_array_equal(sent[4:44, 7:57], image)
    assert not sent[:4].any()
    np.testing.assert_array_equal(grid.to_native(sent, cubic=cubic), image)


@pytest.mark.parametrize("spacing", [0.5, 0.94, 1.2, 2.0])
def test_smooth_image_survives_the_way_to_the_network_and_back(spacing):
    native = (spacing, spacing * 1.1)
    shape = (int(160 / native[0]), int(150 / native[1]))
    image = smooth_image(shape, native)
    frame = frame_of(np.diag([native[1], native[0], 3, 1]), (shape[1], shape[0], 1))
    grid = grid_for(np.ones((1, *shape), bool), frame, 1.0, (208, 176), 16)
    error = grid.to_native(grid.to_network(image)) - image
    assert np.sqrt(np.mean(error**2)) < 0.01
    assert np.abs(error).max() < 0.05


@settings(max_examples=60, deadline=None)
@given(step=st.floats(0.3, 4.0), offset=st.floats(-2, 2), cubic=st.booleans())
def test_constant_stays_constant_in_the_interior(step, offset, cubic):
    positions = offset + np.arange(40) * step
    weights = resampling_matrix(60, positions, step, cubic=cubic)
    inside = (positions > 2 * max(step, 1)) & (positions < 59 - 2 * max(step, 1))
    np.testing.assert_allclose(weights.sum(axis=1)[inside], 1, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(step=st.floats(0.3, 4.0), offset=st.floats(-50, 50))
def test_linear_weights_never_overshoot(step, offset):
    weights = resampling_matrix(30, offset + np.arange(30) * step, step, cubic=False)
    assert weights.min() >= 0
    assert weights.sum(axis=1).max() <= 1 + 1e-5


def test_nothing_aliases_on_a_coarser_grid():
    stripes = np.tile(np.array([0.0, 1.0], np.float32), (60, 30))
    coarse = Grid((14, 14), 4.0, (2.0, 2.0), (60, 60), (1.0, 1.0)).to_network(stripes)
    np.testing.assert_allclose(coarse[2:-2, 2:-2], 0.5, atol=0.02)


def test_outside_the_native_slice_is_zero():
    grid = Grid((100, 100), 1.0, (-30.0, -30.0), (40, 40), (1.0, 1.0))
    sent = grid.to_network(np.ones((40, 40), np.float32))
    assert sent.sum() == 40 * 40


@pytest.mark.parametrize("spacing", [0.5, 1.0, 2.0])
def test_grid_is_centred_on_the_brain(spacing):
    shape = (5, 90, 80)
    brain = np.zeros(shape, bool)
    brain[1:4, 30:50, 10:60] = True
    grid = grid_for(brain, frame_of(np.diag([spacing, spacing, 3, 1]), shape[::-1]), 1.0, (64, 112), 16)
    sent = grid.to_network(brain[2], cubic=False) > 0.5
    rows, columns = (np.flatnonzero(sent.any(axis=axis)) for axis in (1, 0))
    assert abs((rows[0] + rows[-1]) / 2 - 31.5) <= 1
    assert abs((columns[0] + columns[-1]) / 2 - 55.5) <= 1


def test_grid_grows_to_the_next_multiple_for_a_larger_brain():
    brain = np.ones((3, 250, 170), bool)
    grid = grid_for(brain, frame_of(np.eye(4), (170, 250, 3)), 1.0, (208, 176), 16)
    assert grid.shape == (256, 176)
    assert grid.to_network(brain[0], cubic=False).sum() == pytest.approx(250 * 170)


def test_ordinary_brain_leaves_the_grid_at_the_bundles_size():
    brain = ellipsoid((5, 181, 181)) < 1
    assert grid_for(brain, frame_of(np.eye(4), (181, 181, 5)), 1.0, (208, 176), 16).shape == (208, 176)
