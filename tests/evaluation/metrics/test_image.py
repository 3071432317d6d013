from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio, structural_similarity

from localdiff_cli.evaluation.metrics.image import (
    Compartment,
    DataRange,
    nrmse,
    psnr,
    region_figures,
    ssim_maps,
    ssim_of_slices,
)
from tests.evaluation.conftest import SHAPE, UNIT, make_case

WANG = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True}


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    case = make_case(3, 0.5)
    return np.pad(case.translation, 9), np.pad(case.reference, 9), np.pad(case.brain, 9)


@pytest.mark.parametrize("inside", ["whole", "brain"])
def test_figures_equal_scikit_image_on_the_uncropped_float64_volume(pair, inside):
    a, b, brain = pair
    mask = brain if inside == "brain" else np.ones_like(brain)
    found = region_figures(a, b, Compartment(inside, brain if inside == "brain" else None, "m"), UNIT, ssim_maps(a, b, UNIT))
    x, y = a.astype(float), b.astype(float)
    assert found.psnr.value == pytest.approx(peak_signal_noise_ratio(y[mask], x[mask], data_range=1.0), rel=1e-5)
    assert found.ssim.value == pytest.approx(structural_similarity(y, x, **WANG)[1][mask].mean(), abs=2e-6)
    slices = [structural_similarity(y[k], x[k], **WANG)[1] for k in range(len(y))]
    per_slice = [plane[mask[k]].mean() for k, plane in enumerate(slices) if mask[k].any()]
    assert found.ssim_slices.value == pytest.approx(np.mean(per_slice), abs=2e-6)
    assert found.mae.value == pytest.approx(np.abs(x - y)[mask].mean(), rel=1e-5)
    assert found.nrmse.value == pytest.approx(normalized_root_mse(y[mask], x[mask]), rel=1e-5)
    assert (found.mask_name, found.data_range, found.voxels) == ("m", UNIT, mask.sum())


def test_ssim_of_each_slice_is_nan_where_the_mask_is_not(pair):
    a, b, brain = pair
    values = ssim_of_slices(ssim_maps(a, b, UNIT), brain, a.shape)
    assert np.array_equal(np.isfinite(values), brain.any(axis=(1, 2)))


def test_swapping_the_images_keeps_psnr_ssim_and_mae(pair):
    a, b, brain = pair
    region = Compartment("brain", brain, "m")
    one, two = (region_figures(x, y, region, UNIT, ssim_maps(x, y, UNIT)) for x, y in ((a, b), (b, a)))
    for name in ("psnr", "ssim", "ssim_slices", "mae"):
        assert getattr(one, name).value == pytest.approx(getattr(two, name).value, rel=1e-5)


def test_identical_images_have_no_psnr_but_a_reason_and_perfect_ssim(pair):
    a, _, brain = pair
    found = region_figures(a, a, Compartment("brain", brain, "m"), UNIT, ssim_maps(a, a, UNIT))
    assert found.psnr.value is None
    assert "identical" in found.psnr.reason
    assert (found.ssim.value, found.mae.value, found.nrmse.value) == (1, 0, 0)


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_constant_reference_with_a_fixed_range_gives_defined_numbers(level):
    flat, other = np.full(SHAPE, level, np.float32), np.full(SHAPE, 0.25, np.float32)
    found = region_figures(other, flat, Compartment("whole", None, "w"), UNIT, ssim_maps(other, flat, UNIT))
    assert found.psnr.value == pytest.approx(-20 * np.log10(0.25))
    assert found.ssim.value == pytest.approx((2 * level * 0.25 + 1e-4) / (level**2 + 0.0625 + 1e-4), rel=1e-3)
    assert (found.nrmse.value is None) == (level == 0)


def test_constant_reference_without_a_range_gives_reasons():
    flat = np.full(SHAPE, 0.5, np.float32)
    span = DataRange(0.0, "reference, maximum − minimum")
    found = region_figures(flat + 1, flat, Compartment("whole", None, "w"), span, ssim_maps(flat + 1, flat, span))
    assert all("constant" in measure.reason for measure in (found.psnr, found.ssim, found.ssim_slices))
    assert found.mae.value == 1


def test_two_empty_images_agree_wholly():
    zero = np.zeros(SHAPE, np.float32)
    found = region_figures(zero, zero, Compartment("whole", None, "w"), UNIT, ssim_maps(zero, zero, UNIT))
    assert (found.ssim.value, found.ssim_slices.value) == (1, 1)


def test_empty_and_absent_masks_give_reasons(pair):
    a, b, brain = pair
    maps = ssim_maps(a, b, UNIT)
    empty = region_figures(a, b, Compartment("lesion", np.zeros_like(brain), "expert mask"), UNIT, maps)
    absent = region_figures(a, b, Compartment("lesion", None, "", "no lesion mask was given"), UNIT, maps)
    assert empty.voxels == 0
    assert "no voxel of expert mask" in empty.psnr.reason
    assert absent.ssim.reason == "no lesion mask was given"


def test_few_slices_have_no_3d_ssim_but_a_slice_mean():
    case = make_case(1)
    a, b, brain = case.translation[5:9], case.reference[5:9], case.brain[5:9]
    found = region_figures(a, b, Compartment("brain", brain, "m"), UNIT, ssim_maps(a, b, UNIT))
    assert "11 voxels" in found.ssim.reason
    assert 0 < found.ssim_slices.value < 1


def test_tiny_slices_have_neither():
    a = np.random.default_rng(0).random((12, 8, 8), np.float32)
    found = region_figures(a, a / 2, Compartment("whole", None, "w"), UNIT, ssim_maps(a, a / 2, UNIT))
    assert "11 voxels" in found.ssim.reason
    assert "11 voxels" in found.ssim_slices.reason


def test_psnr_follows_the_data_range():
    a, b = np.array([0.0, 1.0]), np.array([0.0, 3.0])
    assert psnr(a, b, DataRange(4.0, "")).value == pytest.approx(10 * np.log10(16 / 2), rel=1e-5)
    assert nrmse(a, b).value == pytest.approx(2 / 3, rel=1e-5)
