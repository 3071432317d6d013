from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from localdiff_cli.evaluation.metrics.segmentation import compare_masks, components, dice, slice_dice, surface_distances
from tests.evaluation.conftest import ball

SPACING = (3.0, 1.0, 0.5)
A, B = ball((9, 20, 18), (4, 9, 8), (3, 5, 4)), ball((9, 20, 18), (4, 11, 9), (2, 5, 5))
EMPTY = np.zeros_like(A)


def brute_distances(a, b, spacing):
    """From each surface voxel of a to the nearest surface voxel of b; faces in all directions, outside the volume counts as outside."""

    def surface(mask):
        padded = np.pad(mask, 1)
        shifted = [np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1] for axis in range(3) for step in (1, -1)]
        return np.argwhere(mask & ~np.logical_and.reduce(shifted)) * spacing

    return np.sqrt(((surface(a)[:, None] - surface(b)[None]) ** 2).sum(-1)).min(1)


def test_figures_equal_brute_force():
    found = compare_masks(A, B, SPACING, tolerance_mm=1.0)
    one, two = brute_distances(A, B, SPACING), brute_distances(B, A, SPACING)
    assert found.dice.value == pytest.approx(2 * (A & B).sum() / (A.sum() + B.sum()), rel=1e-5)
    assert found.hd95_mm.value == pytest.approx(max(np.percentile(one, 95), np.percentile(two, 95)), rel=1e-5)
    near = (one <= 1.0).sum() + (two <= 1.0).sum()
    assert found.surface_dice.value == pytest.approx(near / (one.size + two.size), rel=1e-5)
    assert found.volume_difference_mm3.value == pytest.approx((int(A.sum()) - int(B.sum())) * 1.5, rel=1e-5)


def test_touching_masks_at_the_volume_edge_equal_brute_force():
    a, b = np.zeros((4, 6, 6), bool), np.zeros((4, 6, 6), bool)
    a[:3, :4, :4] = True
    b[1:, 2:, 2:] = True
    one, two = surface_distances(a, b, SPACING)
    assert sorted(one) == pytest.approx(sorted(brute_distances(a, b, SPACING)))
    assert sorted(two) == pytest.approx(sorted(brute_distances(b, a, SPACING)))


@pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning")  # MONAI calls itself in a deprecated way
def test_hausdorff_and_surface_dice_equal_monai():
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("monai.metrics")
    a, b = (torch.from_numpy(mask.astype(np.float32))[None, None] for mask in (A, B))
    found = compare_masks(A, B, SPACING, tolerance_mm=1.0)
    hd95 = metrics.compute_hausdorff_distance(a, b, include_background=True, percentile=95, spacing=SPACING)
    surface = metrics.compute_surface_dice(a, b, class_thresholds=[1.0], include_background=True, spacing=SPACING)
    assert found.hd95_mm.value == pytest.approx(hd95.item(), rel=1e-4)
    assert found.surface_dice.value == pytest.approx(surface.item(), rel=1e-4)


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        (EMPTY, EMPTY, (1, 0, 1, None, None, 0)),
        (A, EMPTY, (0, None, 0, None, 0, A.sum() * 1.5)),
        (EMPTY, A, (0, None, 0, 0, None, -A.sum() * 1.5)),
        (A, A, (1, 0, 1, 1, 1, 0)),
    ],
    ids=["empty-empty", "invented", "missed", "equal"],
)
def test_every_empty_case_is_defined_as_the_table_says(prediction, truth, expected):
    found = compare_masks(prediction, truth, SPACING, tolerance_mm=0.0)
    for (name, measure), value in zip(vars(found).items(), expected, strict=True):
        assert measure.value == value, name
        assert (measure.value is None) == bool(measure.reason)


def test_swapping_the_masks_swaps_sensitivity_and_precision_and_negates_the_volume():
    many = A | ball(A.shape, (4, 17, 15), (1, 1, 1))
    one, two = compare_masks(many, B, SPACING, 1.0), compare_masks(B, many, SPACING, 1.0)
    assert (one.dice, one.hd95_mm, one.surface_dice) == (two.dice, two.hd95_mm, two.surface_dice)
    assert (one.lesion_sensitivity, one.lesion_precision) == (two.lesion_precision, two.lesion_sensitivity)
    assert one.volume_difference_mm3.value == -two.volume_difference_mm3.value


def test_lesions_are_counted_as_3d_components():
    truth, prediction = np.zeros((3, 9, 9), bool), np.zeros((3, 9, 9), bool)
    truth[0, 0, 0] = truth[1, 1, 1] = True  # joined by a corner: one lesion
    truth[2, 8, 8] = truth[0, 8, 0] = True  # two more
    prediction[1, 1, 1] = prediction[0, 8, 0] = prediction[0, 4, 4] = True
    found = compare_masks(prediction, truth, (1, 1, 1), 1.0)
    assert found.lesion_sensitivity.value == pytest.approx(2 / 3, rel=1e-5)
    assert found.lesion_precision.value == pytest.approx(2 / 3, rel=1e-5)
    assert components(truth)[1] == 3


def test_a_single_slice_is_judged_in_2d():
    a, b = np.zeros((1, 20, 20), bool), np.zeros((1, 20, 20), bool)
    a[0, 5:15, 5:15] = True
    b[0, 4:16, 4:16] = True
    found = compare_masks(a, b, (5.0, 1.0, 1.0), 1.0)
    # In 3D every pixel of a lone slice would be surface, and the inner ones of a would count as near.
    assert surface_distances(a, b, (5, 1, 1))[0].size == 36
    assert found.hd95_mm.value == pytest.approx(2**0.5, rel=1e-5)
    assert found.surface_dice.value == pytest.approx((36 + 40) / (36 + 44), rel=1e-5)


def test_a_single_voxel_volume_has_a_distance():
    one = np.ones((1, 1, 1), bool)
    assert compare_masks(one, one, (1, 1, 1), 0.0).hd95_mm.value == 0


def test_slice_dice_equals_dice_of_each_slice():
    expected = [dice(A[k], B[k]) for k in range(len(A))]
    assert slice_dice(A, B) == pytest.approx(expected)
    assert slice_dice(EMPTY, EMPTY) == pytest.approx(np.ones(len(A)))


@settings(deadline=None, max_examples=50)
@given(arrays(bool, (3, 4, 4)), arrays(bool, (3, 4, 4)))
def test_all_figures_are_in_range_or_have_a_reason(a, b):
    found = compare_masks(a, b, SPACING, 1.0)
    for name in ("dice", "surface_dice", "lesion_sensitivity", "lesion_precision"):
        value = getattr(found, name).value
        assert value is None or 0 <= value <= 1
    assert found.hd95_mm.value is None or found.hd95_mm.value >= 0


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2))
def test_mirroring_both_masks_changes_nothing(axis):
    assert compare_masks(np.flip(A, axis), np.flip(B, axis), SPACING, 1.0) == compare_masks(A, B, SPACING, 1.0)


def test_components_equal_scipy():
    noise = np.random.default_rng(0).random((8, 8, 8)) > 0.8
    assert components(noise)[1] == ndimage.label(noise, np.ones((3, 3, 3)))[1]
