from __future__ import annotations

from dataclasses import replace

from localdiff_cli.evaluation.cohort.summary import summarise
from localdiff_cli.evaluation.metrics.case import evaluate_case
from localdiff_cli.evaluation.report.headline import contrast_sentences, headline
from tests.evaluation.conftest import make_case, without


def test_missed_and_invented_stand_in_one_sentence(summary):
    missed, invented = (summary.misdiagnosis.rate(key) for key in ("missed", "invented"))
    said = headline(summary)
    assert f"Of {missed.total} slices whose lesion the segmenter finds on the true contrast, it misses {missed.count}" in said.sentence
    assert f"Of {invented.total} slices without a lesion, it sees one that is not there in {invented.count}" in said.sentence
    assert any("baseline (plain) misses 100 %" in sentence for sentence in said.further)
    assert any("false alarm" in sentence for sentence in said.further)


def test_where_one_cannot_be_said_the_other_still_is(results, settings):
    said = headline(summarise(results[-1:], settings)).sentence
    assert "Whether lesions were erased cannot be said: no lesion-bearing slice" in said
    assert "slices without a lesion" in said


def test_without_masks_it_says_what_cannot_be_said(settings):
    keys = ("truth", "segmentation", "reference_segmentation", "baseline_segmentation", "ood_map", "ood_mask")
    found = summarise([evaluate_case(without(make_case(0), *keys), settings)], settings)
    said = headline(found).sentence
    assert "cannot be said: neither lesion masks nor a segmenter were given" in said
    assert "PSNR inside the brain" in said
    assert contrast_sentences(found) == ()


def test_without_a_segmenter_it_says_so(settings):
    case = without(make_case(0), "segmentation", "reference_segmentation", "baseline_segmentation")
    assert "no segmenter was run" in headline(summarise([evaluate_case(case, settings)], settings)).sentence


def test_identical_images_still_have_a_headline(settings):
    case = without(make_case(0), "truth", "segmentation", "reference_segmentation", "baseline_segmentation", "ood_map", "ood_mask")
    same = evaluate_case(replace(case, translation=case.reference), settings)
    assert "mean error inside the brain is 0" in headline(summarise([same], settings)).sentence


def test_a_stand_in_for_the_truth_is_named(settings):
    found = summarise([evaluate_case(without(make_case(0), "truth"), settings)], settings)
    assert any("No expert masks" in sentence for sentence in headline(found).further)


def test_contrast_is_told_for_both_arms(summary):
    assert len(contrast_sentences(summary)) == 3
    assert "slope" in contrast_sentences(summary)[0]
