"""A segmenter that fails on the true contrast itself does not judge: its figures are withheld, everywhere and with the reason."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from localdiff_cli.errors import LimitMissedError
from localdiff_cli.evaluation.cohort.judge import judge_of
from localdiff_cli.evaluation.cohort.limits import check_fail_under
from localdiff_cli.evaluation.cohort.summary import summarise
from localdiff_cli.evaluation.metrics.case import evaluate_case
from localdiff_cli.evaluation.report.document import SCHEMA, to_document
from localdiff_cli.evaluation.report.headline import headline
from localdiff_cli.evaluation.report.page import render_report
from localdiff_cli.evaluation.report.tables import lesions_tsv, metrics_tsv
from tests.evaluation.conftest import make_case, without
from tests.evaluation.report.test_document import faults


@pytest.fixture(scope="module")
def blind(settings):
    """Three patients whose lesions the segmenter does not see even on the true contrast."""
    cases = [make_case(seed) for seed in range(3)]
    seen = [replace(case, reference_segmentation=np.roll(case.truth, 12, axis=1)) for case in cases]
    return summarise([evaluate_case(case, settings) for case in seen], settings)


def test_the_headline_says_first_that_it_cannot_be_said_why_and_what_helps(blind):
    told = headline(blind)
    assert told.sentence.startswith("Whether lesions were missed or invented cannot be said: on the true contrast itself the segmenter")
    assert "at least 0.3 needed" in told.sentence
    assert "PSNR inside the brain" in told.sentence
    assert "--seg" in told.further[0]
    assert "--segmenter" in told.further[0]


def test_no_figure_of_the_segmenter_is_compared(blind):
    assert blind.misdiagnosis is None
    assert blind.lesions == ()
    for key in ("dice", "baseline_dice", "lesion_sensitivity", "missed_slices", "lesions_found"):
        assert blind.metric(key).mean.estimate is None
        assert "withheld" in blind.metric(key).reasons[0]
        assert blind.comparison(key) is None
    assert blind.metric("reference_dice").mean.estimate < 0.3
    assert blind.metric("contrast_error").mean.estimate is not None
    assert blind.comparison("psnr_brain") is not None


def test_the_report_the_tables_and_the_document_say_so(blind):
    page = render_report(blind)
    assert "withheld: on the true contrast" in page
    assert "<h2>Lesion by lesion" not in page
    document = to_document(blind)
    assert faults(json.loads(json.dumps(document)), SCHEMA) == []
    assert document["judge"]["reason"].startswith("withheld")
    assert metrics_tsv(blind).count("withheld: on the true contrast") == 3
    assert "withheld" in lesions_tsv(blind)


@pytest.mark.parametrize("limit", ["missed=1", "invented=1", "dice=0"])
def test_a_limit_on_a_withheld_figure_is_missed(blind, limit):
    with pytest.raises(LimitMissedError, match="withheld"):
        check_fail_under(limit, blind)


def test_a_judge_that_can_judge_is_left_alone(summary, results, settings):
    assert summary.judge is not None
    assert summary.judge.usable
    assert summary.withheld == ""
    assert summary.lesions
    assert judge_of({"a": results[:1]}, 1.0).usable
    stricter = summarise(results, replace(settings, judge_dice=1.0))
    assert stricter.withheld == ""


def test_without_expert_masks_or_lesions_nobody_can_say(settings):
    for case in (without(make_case(0), "truth"), make_case(6, lesion=False), without(make_case(1), "reference_segmentation")):
        assert summarise([evaluate_case(case, settings)], settings).judge is None


def test_a_patient_without_a_lesion_does_not_lift_the_judge(blind, settings):
    healthy = evaluate_case(make_case(6, lesion=False), settings)
    assert summarise([*blind.volumes, healthy], settings).judge == blind.judge
