"""Coverage and width of limits whose right answers are known by hand, by region."""

from dataclasses import replace

import numpy as np
import pytest

from localdiff_cli.errors import VolumeError
from localdiff_cli.evaluation.metrics.case import evaluate_case
from tests.evaluation.conftest import make_case, without


def with_limits(case, below, above, source=None):
    """Limits that far below and above the reference itself."""
    return replace(case, low=case.reference - np.float32(below), high=case.reference + np.float32(above), source=source)


def test_limits_around_the_truth_cover_everything_and_are_as_wide_as_they_are(settings):
    found = evaluate_case(with_limits(make_case(), 0.1, 0.2), settings).metrics
    for region in ("brain", "lesion"):
        assert found[f"coverage_{region}"].value == 1
        assert found[f"width_{region}"].value == pytest.approx(0.3, rel=1e-5)
    assert "coverage_drawn" not in found


def test_a_lesion_outside_its_limits_is_not_hidden_by_the_brain(settings):
    case = make_case()
    wrong = replace(case, low=case.reference - 0.1, high=np.where(case.truth, case.reference - 0.05, case.reference + 0.1))
    found = evaluate_case(wrong, settings).metrics
    assert found["coverage_lesion"].value == 0
    assert found["coverage_brain"].value == pytest.approx(1 - case.truth.sum() / case.brain.sum(), rel=1e-4)


def test_regions_of_the_source_map_are_told_apart_and_an_absent_one_has_a_reason(settings):
    case = make_case()
    source = np.where(case.brain, 1, 0).astype(np.uint8)
    source[case.truth] = 3
    low = np.where(case.truth, 1.0, case.reference - 0.1).astype(np.float32)
    found = evaluate_case(replace(case, low=low, high=low + 0.2, source=source), settings).metrics
    assert (found["coverage_ordinary"].value, found["coverage_drawn"].value) == (1, 0)
    assert found["coverage_unknown"].value is None
    assert "called unknown" in found["coverage_unknown"].reason


def test_without_both_limits_nothing_is_said(settings):
    found = evaluate_case(without(with_limits(make_case(), 0.1, 0.1), "high"), settings).metrics
    assert not any(key.startswith(("coverage", "width")) for key in found)


def test_swapped_limits_and_limits_of_another_shape_are_refused(settings):
    case = with_limits(make_case(), 0.1, 0.1)
    with pytest.raises(VolumeError, match="Were they swapped"):
        evaluate_case(replace(case, low=case.high, high=case.low), settings)
    with pytest.raises(VolumeError, match="low is 12 × 40 × 36"):
        evaluate_case(replace(case, low=case.low[1:]), settings)
