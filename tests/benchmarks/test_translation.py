"""A translator beside its yardsticks: the columns it has the parts for, and the sampling that the bundle names."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from examples.benchmarks import translation, variants
from localdiff_cli.bundle import load_translator
from localdiff_cli.segmentation.detector import SegmenterDetector

CPU = torch.device("cpu")


def measured(bench, patient, bundle):
    patient = replace(patient, target=(0.9 * patient.target).astype(np.uint16))  # the polynomial of the fixture is the identity
    return translation.measure(bundle, patient, bench.settings, 2, 1, CPU)


def test_a_row_has_the_yardsticks_and_the_default_detectors_sample(bench, patient, monkeypatch):
    before = measured(bench, patient, bench.bundle)
    assert "regression" not in before
    assert float(before["polynomial"].split(" / ")[0]) > 0
    monkeypatch.setattr(variants, "load", lambda bundle, name: load_translator(bundle, CPU))
    assert "regression" in measured(bench, patient, bench.bundle)


def test_the_bundles_default_detector_is_asked(bench, patient, monkeypatch):
    named = {"detector": "segmenter", "detector_model": "a-tumour-finder"}
    supervised, finder = (
        replace(bench.bundle, metadata=bench.bundle.metadata | {"defaults": each}) for each in ({"detector": "segmenter"}, named)
    )
    opened = []
    monkeypatch.setattr(translation, "open_bundle", opened.append)
    monkeypatch.setattr(translation, "load_segmenter", lambda bundle, device: bundle)
    detector = translation.default_detector(supervised, CPU)
    assert isinstance(detector, SegmenterDetector)
    translation.default_detector(finder, CPU)
    assert opened == [bench.bundle.condition.segmenter, "a-tumour-finder"]
    assert not isinstance(translation.default_detector(bench.bundle, CPU), SegmenterDetector)


def test_the_expert_takes_part_in_the_local_sample(bench, patient, monkeypatch):
    with_expert = measured(bench, patient, bench.bundle)
    if float(with_expert["OOD share"]) == 0:
        pytest.fail("the tiny detector finds nothing: the test says nothing")
    monkeypatch.setattr(translation, "load_expert", lambda bundle, device: load_translator(bundle, device))
    assert measured(bench, patient, bench.bundle)["local, 1 sample"] != with_expert["local, 1 sample"]


def test_without_the_expert_the_local_sample_is_training_free(bench, patient, monkeypatch):
    changed = replace(patient, target=(0.9 * patient.target).astype(np.uint16))
    both = [translation.measure(bench.bundle, changed, bench.settings, 2, 1, CPU, expert=flag) for flag in (True, False)]
    assert both[0]["local, 1 sample"] != both[1]["local, 1 sample"]
    assert both[0]["plain, 1 sample"] == both[1]["plain, 1 sample"]
