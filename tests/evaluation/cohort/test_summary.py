from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from localdiff_cli.errors import NoInputError
from localdiff_cli.evaluation.cohort.statistics import Bootstrap, paired_test
from localdiff_cli.evaluation.cohort.summary import patient_values, summarise


def test_means_are_over_patients(summary, results):
    values = [result.metrics["psnr_brain"].value for result in results]
    found = summary.metric("psnr_brain")
    assert found.mean.estimate == pytest.approx(np.mean(values), rel=1e-5)
    assert found.median == pytest.approx(np.median(values), rel=1e-5)
    assert found.mean.low < found.mean.estimate < found.mean.high
    assert found.mean.n == 7


def test_a_patient_s_volumes_are_averaged_first(results, settings):
    twice = replace(results[0], name="sub-00_ses-2", patient=results[0].patient)
    found = summarise([*results, twice], settings)
    assert (len(found.volumes), len(found.patients)) == (8, 7)
    assert found.metric("psnr_brain").mean == summarise(results, settings).metric("psnr_brain").mean


def test_missing_numbers_are_counted_with_their_reasons(summary):
    found = summary.metric("psnr_lesion")
    assert (found.mean.n, found.missing) == (6, 1)
    assert "no voxel" in found.reasons[0]


def test_comparison_with_the_baseline_is_paired_by_patient(summary, results, settings):
    own, base = ([result.metrics[f"{arm}psnr_brain"].value for result in results] for arm in ("", "baseline_"))
    expected = paired_test(own, base, Bootstrap(settings.confidence, settings.resamples, settings.seed))
    assert summary.comparison("psnr_brain") == expected
    assert summary.comparison("contrast") is None


def test_contrast_agreement_tells_kept_from_erased(summary):
    assert summary.contrast[""].n == 6
    assert summary.contrast[""].bias.value > summary.contrast["baseline_"].bias.value
    assert summary.contrast["baseline_"].bias.value < -0.2


def test_order_of_the_results_does_not_matter(results, settings):
    assert summarise(results[::-1], settings).metrics == summarise(results, settings).metrics


def test_some_volumes_without_masks_are_counted_as_missing(results, settings):
    bare = replace(results[0], name="sub-77", patient="sub-77", metrics={"psnr_brain": results[0].metrics["psnr_brain"]}, evidence={})
    found = summarise([*results, bare], settings)
    assert found.metric("dice").missing == 1
    assert "not given" in found.metric("dice").reasons[0]
    assert "sub-77" not in patient_values({"sub-77": [bare]}, "dice")


def test_no_result_is_an_error(settings):
    with pytest.raises(NoInputError):
        summarise([], settings)
