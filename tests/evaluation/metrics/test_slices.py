from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from localdiff_cli.evaluation.metrics.misdiagnosis import judge_slices
from tests.evaluation.conftest import make_case


def test_a_slice_row_equals_scikit_image_on_that_slice(results):
    case, k = make_case(1, 0.9), 4
    row = next(each for each in results[1].slices if each.index == k).metrics
    a, b, brain = case.translation[k].astype(float), case.reference[k].astype(float), case.brain[k]
    ssim = structural_similarity(b, a, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True)[1]
    assert row["psnr_brain"].value == pytest.approx(peak_signal_noise_ratio(b[brain], a[brain], data_range=1.0), rel=1e-5)
    assert row["ssim_brain"].value == pytest.approx(ssim[brain].mean(), abs=2e-6)
    assert row["mae_brain"].value == pytest.approx(np.abs(a - b)[brain].mean(), rel=1e-5)
    assert row["brain_pixels"].value == brain.sum()
    assert row["truth_pixels"].value == case.truth[k].sum()


def test_slice_verdicts_add_up_to_the_volume(results, settings):
    for result in results:
        verdicts = judge_slices(result.evidence[""], settings.misdiagnosis)
        for column, metric in (("missed", "missed_slices"), ("invented", "invented_slices"), ("lesion_bearing", "lesion_bearing_slices")):
            total = sum(each.metrics[column].value for each in result.slices)
            assert total == getattr(verdicts, column).sum() == result.metrics[metric].value


def test_the_mean_of_the_slices_is_the_volume_s_slice_mean(results):
    mean = np.mean([each.metrics["ssim_brain"].value for each in results[0].slices])
    assert results[0].metrics["ssim_slices_brain"].value == pytest.approx(mean, abs=1e-5)
