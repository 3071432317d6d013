"""The patches both are given, what each row says of them, and a row that says why anomalib could not run."""

import numpy as np
import pytest
import torch

from examples.benchmarks import speed_patchcore
from examples.benchmarks.anomalib_process import VERSION
from examples.benchmarks.speed_patchcore import (
    BACKBONE,
    PRODUCT,
    Patches,
    Scored,
    floors,
    lines_of,
    our_fit,
    our_scores,
    patches_of,
    timings_of,
)
from examples.benchmarks.timing import Timing
from localdiff_cli.bundle import load_detector, open_bundle
from localdiff_cli.errors import UsageError
from localdiff_cli.ood.patchcore import MemoryBank
from tests.training.data import slices


@pytest.fixture
def patches():
    generator = torch.Generator().manual_seed(0)
    fit = torch.randn(200, 8, generator=generator)
    query = [torch.randn(n, 8, generator=generator) for n in (5, 3)]
    query[1][0] += 10
    return Patches(fit, query, [np.zeros(5, bool), np.array([True, False, False])])


def test_patches_to_fit_on_hold_no_lesion_and_queries_know_theirs(models_folder):
    detector = load_detector(open_bundle(str(models_folder / "t1-to-t2")), 0.02, torch.device("cpu"))
    patient = slices("a", n=4)
    patient.lesion[:] = False
    patient.lesion[2:, 8:20, 8:20] = True
    healthy = slices("a", n=4)
    healthy.lesion[:] = False
    marked, unmarked = patches_of(detector, [patient]), patches_of(detector, [healthy])
    assert 0 < len(marked.fit) < len(unmarked.fit)
    assert [len(q) for q in marked.query] == [len(labels) for labels in marked.lesion]
    assert [labels.any() for labels in marked.lesion] == [False, True]
    assert torch.equal(torch.cat(marked.query), torch.cat(unmarked.query))


def test_our_bank_is_a_tenth_and_our_scores_find_what_is_far(patches):
    bank = our_fit(patches)
    assert bank.shape == (20, 8)
    scored = our_scores(MemoryBank(bank), patches.query)
    assert scored.patches.shape == (8,)
    assert scored.patches.argmax() == 5
    assert scored.slices[1] > scored.slices[0]


def test_rows_give_ratios_auroc_and_the_difference_of_scores(patches):
    ours = Scored(20, np.arange(8.0), np.array([1.0, 2.0]))
    theirs = Scored(20, np.arange(8.0) + 0.5, np.array([1.0, 2.0]))
    names = ("fit, localdiff", f"fit, anomalib {VERSION}", "predict, localdiff", f"predict, anomalib {VERSION}")
    timings = {name: Timing((t, 2 * t), s) for name, t, s in zip(names, (1.0, 4.0, 2.0, 3.0), (ours, theirs) * 2, strict=True)}
    lines = lines_of(timings, patches, "")
    assert [line["row"] for line in lines] == list(names)
    assert [line["times ours"] for line in lines] == ["1.00", "4.00", "1.00", "1.50"]
    assert {line["patch AUROC"] for line in lines} == {"0.7143"}
    assert [line["largest difference of scores"] for line in lines] == ["0", "0.5"] * 2


def test_the_floors_of_predict_stand_beside_it(models_folder, tmp_path, monkeypatch):
    def refused(*_):
        raise UsageError("anomalib cannot be installed: no network", code="anomalib")

    monkeypatch.setattr(speed_patchcore, "anomalib", refused)
    detector = load_detector(open_bundle(str(models_folder / "t1-to-t2")), 0.02, torch.device("cpu"))
    found = patches_of(detector, [slices("a", n=4)])
    assert len(found.asked) == len(found.query) == 2
    timings, reason = timings_of(found, detector.bank, tmp_path, 1, floors(detector, found))
    *programs, backbone, product = lines_of(timings, found, reason)
    assert [line["row"] for line in (backbone, product)] == [BACKBONE, PRODUCT]
    for line in (backbone, product):
        assert float(line["s"]) >= 0
        assert float(line["times ours"]) >= 0
        assert line["patch AUROC"] == ""
        assert line.keys() == programs[0].keys() == programs[1].keys()


def test_without_anomalib_its_rows_say_why(patches, tmp_path, monkeypatch):
    def refused(*_):
        raise UsageError("anomalib cannot be installed: no network", code="anomalib")

    monkeypatch.setattr(speed_patchcore, "anomalib", refused)
    timings, reason = timings_of(patches, MemoryBank(patches.fit), tmp_path / "work", 1)
    lines = lines_of(timings, patches, reason)
    assert [line["s"].startswith("n/a (anomalib cannot be installed") for line in lines] == [False, True, False, True]
    assert all(line.keys() == lines[0].keys() for line in lines)
