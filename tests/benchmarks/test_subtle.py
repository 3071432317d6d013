"""Faded lesions: judged against what is found at full strength."""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from examples.benchmarks import judged, subtle
from examples.benchmarks.inserted import donors_of
from tests.benchmarks.test_judged import finder  # noqa: F401
from tests.benchmarks.test_mri import Threshold
from tests.training.data import slices


@pytest.fixture
def cases():
    """Three patients with bright lesions in two of three slices; of the third patient none is bright enough to be found."""
    made = []
    for i, name in enumerate("abc"):
        patient = slices(name, n=3, seed=i)
        patient.lesion[1:, 8:16, 9:17] = True
        target = np.where(patient.lesion, 65000 if name != "c" else 30000, 20000).astype(np.uint16) * patient.brain
        made.append(replace(patient, target=target))
    return made


@pytest.fixture
def options(finder, cases, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.setattr(subtle, "patients", lambda *_: cases)
    monkeypatch.setattr(subtle.bench_mri, "load", lambda *_: replace(finder, segmenter=Threshold()))
    return argparse.Namespace(model="t1-to-t2", data=[tmp_path], split="val", every=2, work=tmp_path / "work")


def test_condition_and_truth_fade_alike(cases):
    taken = judged.slices_of(cases[0], 1)
    ((full, gone),) = subtle.real_pairs([taken], 4.0)
    half = subtle.faded(full, gone, 0.5)
    ring = 20000 / 65535
    assert half.target[half.lesion] - ring == pytest.approx((full.target[full.lesion] - ring) / 2, abs=1e-4)
    assert not np.array_equal(half.condition, full.condition)
    assert np.array_equal(half.condition[~half.lesion], full.condition[~half.lesion])


def test_an_inserted_lesion_fades_to_the_slice_as_it_is(cases):
    taken = [judged.slices_of(case, 1) for case in cases]
    full, gone = subtle.inserted_pairs(taken, donors_of(taken, 4.0), 4.0)[0]
    assert full.numbers == gone.numbers == (0,)
    assert np.array_equal(subtle.faded(full, gone, 0.0).condition, taken[0].hosts.condition)
    assert np.array_equal(subtle.faded(full, gone, 1.0).target, full.target)
    assert full.lesion.any()
    assert not gone.lesion.any()


def test_the_true_contrast_loses_its_lesions_as_they_fade(options):
    table, inserted = subtle.measure(options)
    true = [line for line in table.rows if line["row"] == "true target contrast"]
    assert [line["strength"] for line in true] == ["1", "0.75", "0.5", "0.25", "0"]
    assert {line["slices / patients"] for line in table.rows} == {"2 / 2"}
    assert [line["missed %"].split(" ")[0] for line in true] == ["0.0", "0.0", "100.0", "100.0", "100.0"]
    assert [float(line["true contrast"].split(" ")[0]) for line in true] == sorted(
        (float(line["true contrast"].split(" ")[0]) for line in true), reverse=True
    )
    assert true[0]["lesion in B %"] == ""
    assert table.rows[2]["lesion in B %"] != ""
    assert (table.stem, inserted.stem) == ("subtle-t1-to-t2-val", "subtle-inserted-t1-to-t2-val")
    for each in (table, inserted):
        canvas = Figure()
        each.draw(canvas)
        assert len(canvas.axes) == 3
