"""The detectors' part: pooled AUROC, a common cut, and the table from detection to lesions."""

import argparse
from dataclasses import replace

import numpy as np
import pytest
import torch

from examples.benchmarks import detectors
from examples.benchmarks.mri import Row
from localdiff_cli.errors import UsageError
from localdiff_cli.evaluation.metrics.ood_maps import auroc


def intensity(condition, brain):
    """A scorer: the condition itself."""
    return condition * brain, condition.flatten(1).amax(dim=1)


def test_pooled_auroc_is_that_of_all_scores_together():
    rng = np.random.default_rng(0)
    positives = [rng.normal(1, 1, n) for n in (5, 0, 8)]
    negatives = [rng.normal(0, 1, n).round(1) for n in (7, 9, 3)]
    found = detectors.pooled_auroc(positives, negatives)
    assert found.estimate == pytest.approx(auroc(np.concatenate(positives), np.sort(np.concatenate(negatives))), rel=1e-5)
    assert found.low < found.estimate < found.high
    assert detectors.pooled_auroc([np.empty(0)] * 3, negatives).estimate is None


def test_scores_are_computed_once(tmp_path):
    calls = []

    def scorer(condition, brain):
        calls.append(len(condition))
        return intensity(condition, brain)

    stored = detectors.Stored(scorer, tmp_path)
    condition, brain = torch.rand(2, 1, 4, 4), torch.ones(2, 1, 4, 4, dtype=torch.bool)
    first, again = stored(condition, brain), stored(condition, brain)
    assert torch.equal(first.score, again.score)
    assert first.seconds == again.seconds
    stored(condition.flip(-1), brain)
    assert calls == [2, 2]


def test_the_cut_flags_the_share_of_healthy_brain_that_was_asked_for(bench, patient, tmp_path):
    stored = detectors.Stored(intensity, tmp_path)
    tau = detectors.cut_of(bench, stored, [patient], 1)
    chunk, _, lesion = detectors.chunk_of(patient, 1)
    flagged = detectors.CutDetector(stored, tau)(chunk.condition, chunk.brain).ood_map.bool()
    free = torch.from_numpy(~lesion.any(axis=(1, 2)))
    share = (flagged[free] & chunk.brain[free]).sum() / chunk.brain[free].sum()
    assert share == pytest.approx(bench.bundle.defaults.false_alarm, rel=0.1)


def test_a_detector_that_knows_the_lesion_has_perfect_figures(bench, patient, tmp_path):
    truth = torch.from_numpy(patient.lesion)[:, None].float()
    stored = detectors.Stored(lambda condition, brain: (truth, truth.flatten(1).amax(dim=1)), tmp_path)
    knowing = replace(bench, detector=lambda name, _: detectors.CutDetector(stored, 0.5))
    found = detectors.find(knowing, Row("knowing", "knowing"), stored, patient, 1)
    assert found.figures == {"AUPRO": 1, "average precision": 1, "Dice": 1}
    assert found.counts["covered"] == found.counts["lesion"] > 0 == found.counts["flagged"]
    line = detectors.detection_line([found] * 3)
    assert line["pixel AUROC"] == line["slice AUROC"] == "1.000"
    assert line["lesion covered %"] == "100.0"


@pytest.fixture
def options(bench, patient, tmp_path, monkeypatch):
    names = {"train": "a", "val": "bcd", "test": "efg"}

    def patients(bundle, data, split, work):
        return [replace(patient, name=name, condition=np.roll(patient.condition, k, 1)) for k, name in enumerate(names.get(split, ""))]

    monkeypatch.setattr(detectors, "patients", patients)
    monkeypatch.setattr(detectors, "read_pairs", lambda *_: [])
    monkeypatch.setattr(detectors.mri, "load", lambda *_: bench)
    monkeypatch.setattr(detectors, "DISAGREEMENT", {"samples": 2, "steps": 2})
    return argparse.Namespace(model="t1-to-t2", data=[tmp_path], split="test", every=2, work=tmp_path / "work")


def test_every_detector_has_a_line_from_detection_to_lesions(options, monkeypatch):
    (table,) = detectors.measure(options)
    names = [line["detector"] for line in table.rows]
    assert names[:3] == ["true target contrast", "plain", "patchcore"]
    assert {"mahalanobis", "asymmetry", "darkness", "disagreement", "segmenter", "segmenter, cut at 0.5"} < set(names)
    assert all(line["missed %"] and set(line) == set(detectors.COLUMNS) for line in table.rows)
    assert not table.rows[1]["pixel AUROC"]
    assert table.rows[2]["times PatchCore"] == "1.00"
    assert set(table.settings["tau_a"]) == set(names[2:-1])
    monkeypatch.setattr(detectors.mri, "measure", None)
    monkeypatch.setattr(detectors, "fit_bank", None)
    assert detectors.measure(options)[0].rows == table.rows


def test_without_held_out_patients_nothing_is_compared(options, monkeypatch):
    monkeypatch.setattr(detectors, "patients", lambda *_: [])
    with pytest.raises(UsageError, match="0 val and 0 test patients"):
        detectors.measure(options)
