from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from localdiff_cli.errors import VolumeError
from localdiff_cli.evaluation.metrics.case import evaluate_case
from localdiff_cli.evaluation.metrics.catalogue import JUDGED, split_arm
from localdiff_cli.evaluation.metrics.image import REGIONS, DataRange
from localdiff_cli.evaluation.metrics.segmentation import dice
from localdiff_cli.evaluation.settings import FigureSettings
from tests.evaluation.conftest import make_case, without


def test_every_figure_is_in_the_catalogue_and_has_a_value_or_a_reason(results):
    for result in results:
        for key, measure in result.metrics.items():
            assert split_arm(key)[1].label
            assert (measure.value is None) == bool(measure.reason)


def test_figures_come_from_the_right_arrays(settings):
    case = make_case(1, 0.8)
    found = evaluate_case(case, settings).metrics
    inside = case.brain
    mse = {arm: np.mean((image - case.reference)[inside] ** 2) for arm, image in (("", case.translation), ("baseline_", case.baseline))}
    for arm, error in mse.items():
        assert found[f"{arm}psnr_brain"].value == pytest.approx(-10 * np.log10(error), rel=1e-4)
    outside = np.abs(case.translation - case.reference)[inside & ~case.truth].mean()
    assert found["mae_outside"].value == pytest.approx(outside, rel=1e-4)
    assert found["dice"].value == pytest.approx(dice(case.segmentation, case.truth), rel=1e-5)
    assert (found["reference_dice"].value, found["baseline_dice"].value) == (1, 0)
    assert found["reference_contrast"].value == pytest.approx(0.3, abs=0.1)
    assert found["contrast_difference"].value == pytest.approx(-0.06, abs=0.01)
    assert found["contrast_error"].value == -found["contrast_difference"].value
    assert found["baseline_contrast_difference"].value == pytest.approx(-0.3, abs=0.02)
    assert found["ood_dice"].value == 1


def test_the_result_is_picklable_and_small(results):
    assert len(pickle.dumps(results[0])) < 60_000
    assert pickle.loads(pickle.dumps(results[0])).metrics == results[0].metrics


def test_only_slices_that_show_brain_have_rows(results):
    brain = make_case(0).brain
    assert [each.index for each in results[0].slices] == list(np.flatnonzero(brain.any(axis=(1, 2))))


def test_skull_is_set_to_zero_by_default_and_kept_on_request():
    case = make_case(0)
    skull = replace(case, translation=case.translation + 0.5 * ~case.brain)
    stripped, whole = (evaluate_case(skull, FigureSettings(skull_strip=strip)).metrics for strip in (True, False))
    assert stripped["psnr_whole"] == evaluate_case(case, FigureSettings()).metrics["psnr_whole"]
    assert whole["psnr_whole"].value < stripped["psnr_whole"].value
    assert whole["psnr_brain"].value == stripped["psnr_brain"].value


def test_without_masks_only_whole_and_brain_are_judged(settings):
    keys = ("truth", "segmentation", "reference_segmentation", "baseline_segmentation", "baseline", "ood_map", "ood_mask")
    found = evaluate_case(without(make_case(0), *keys), settings)
    assert {region for key in found.metrics if (region := key.rpartition("_")[2]) in REGIONS} == {"whole", "brain"}
    assert not {split_arm(key)[1].group for key in found.metrics}.intersection((*JUDGED, "lesion", "ood"))
    assert (found.lesion_name, found.evidence) == ("", {})


def test_without_an_expert_mask_the_reference_segmentation_stands_in(settings):
    found = evaluate_case(without(make_case(0), "truth"), settings)
    assert found.lesion_name == "segmenter on the true contrast"
    assert "reference_dice" not in found.metrics
    assert found.metrics["dice"].value == 1


def test_an_empty_truth_gives_reasons_not_nan(settings):
    found = evaluate_case(make_case(4, lesion=False), settings).metrics
    assert "no voxel" in found["psnr_lesion"].reason
    assert "no lesion voxel" in found["contrast"].reason
    assert found["dice"].value == 1
    assert "no voxel" in found["ood_auroc"].reason
    assert found["psnr_outside"].value == found["psnr_brain"].value


def test_a_constant_image_gives_defined_numbers(settings):
    case = make_case(0)
    found = evaluate_case(replace(case, translation=np.full_like(case.reference, 0.4)), settings).metrics
    assert found["psnr_brain"].value > 0
    assert found["contrast"].value == 0
    assert "does not vary" in found["slice_contrast_correlation"].reason
    flat = replace(case, reference=np.zeros_like(case.reference), data_range=DataRange(0.0, "reference inside brain"))
    found = evaluate_case(flat, settings).metrics
    assert all("range" in found[key].reason for key in ("psnr_brain", "ssim_brain", "contrast", "contrast_difference"))
    assert found["mae_brain"].value > 0


def test_an_empty_brain_gives_reasons(settings):
    case = replace(make_case(0), brain=np.zeros((13, 40, 36), bool))
    found = evaluate_case(case, settings)
    assert "no voxel" in found.metrics["psnr_brain"].reason
    assert (found.slices, found.pictures) == ((), None)


def test_different_grids_are_refused_with_both_sizes(settings):
    case = replace(make_case(0), baseline=np.zeros((13, 40, 35)))
    with pytest.raises(VolumeError, match=r"sub-00: baseline is 13 × 40 × 35, the reference 13 × 40 × 36"):
        evaluate_case(case, settings)


def test_values_that_are_not_finite_are_refused(settings):
    case = make_case(0)
    broken = case.translation.copy()
    broken[3, 3, :2] = np.nan
    with pytest.raises(VolumeError, match="translation holds 2 values"):
        evaluate_case(replace(case, translation=broken), settings)


def test_a_2d_array_is_refused(settings):
    with pytest.raises(VolumeError, match="expected"):
        evaluate_case(replace(make_case(0), reference=np.zeros((4, 4))), settings)


def test_a_left_right_swapped_translation_is_noted(settings):
    case = make_case(0)
    swapped = evaluate_case(replace(case, translation=case.translation[..., ::-1]), settings)
    assert "mirrored" in swapped.notes[0]
    assert "sub-00" in swapped.notes[0]
    assert evaluate_case(case, settings).notes == ()


def test_lesion_outside_the_brain_counts_for_the_segmenter_but_not_for_the_image(settings):
    case = make_case(0)
    beyond = case.truth.copy()
    beyond[0, 0, :5] = True
    found, inside = evaluate_case(replace(case, truth=beyond), settings).metrics, evaluate_case(case, settings).metrics
    assert all(found[key] == inside[key] for key in ("psnr_lesion", "psnr_ring", "psnr_outside", "contrast"))
    assert found["dice"].value < inside["dice"].value


def test_integer_masks_and_images_are_taken(settings):
    case = make_case(0)
    whole = replace(
        case, brain=case.brain.astype(np.uint8), truth=case.truth.astype(np.uint8), segmentation=case.segmentation.astype(np.int16)
    )
    assert evaluate_case(whole, settings).metrics == evaluate_case(case, settings).metrics


def test_inputs_are_left_as_they_were(settings):
    case = make_case(0)
    before = {name: value.copy() for name, value in vars(case).items() if isinstance(value, np.ndarray)}
    evaluate_case(case, settings)
    assert all(np.array_equal(value, getattr(case, name)) for name, value in before.items())


def test_a_single_slice_volume_is_judged(settings):
    case = make_case(1)
    flat = {name: value[5:6] for name, value in vars(case).items() if isinstance(value, np.ndarray)}
    found = evaluate_case(replace(case, **flat), settings).metrics
    assert "11 voxels" in found["ssim_brain"].reason
    assert found["ssim_slices_brain"].value > 0
    assert found["surface_dice"].value == 1


def test_nothing_here_imports_torch_or_monai():
    code = (
        "import sys, pkgutil, importlib, localdiff_cli.evaluation as e\n"
        "[importlib.import_module(m.name) for m in pkgutil.walk_packages(e.__path__, e.__name__ + '.')]\n"
        "print(sorted({'torch', 'monai', 'nibabel', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
