"""Spoilt textures: where they lie, what is compared with what."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
from matplotlib.figure import Figure

from examples.benchmarks import judged, texture
from examples.benchmarks.mri import Row
from tests.benchmarks.test_judged import finder  # noqa: F401
from tests.training.data import slices


@pytest.fixture
def cases(monkeypatch):
    monkeypatch.setattr(texture, "RADIUS", 6)
    return [slices(name, n=6, seed=i) for i, name in enumerate("ab")]


def test_discs_lie_in_a_few_healthy_slices_spread_over_the_patient(cases):
    taken = texture.with_discs(judged.slices_of(cases[0], 1))
    assert taken.numbers == (0, 2, 4)
    assert ((taken.lesion.sum(axis=(1, 2)) > 100) & ~(taken.lesion & ~taken.brain).any(axis=(1, 2))).all()
    assert np.array_equal(taken.lesion, texture.with_discs(judged.slices_of(cases[0], 1)).lesion)
    assert len(np.unique(taken.lesion, axis=0)) > 1


def test_patients_without_room_for_a_disc_have_no_slices(cases, monkeypatch):
    monkeypatch.setattr(texture, "RADIUS", 14)
    assert texture.with_discs(judged.slices_of(cases[0], 1)).numbers == ()


def test_the_untouched_slice_is_its_own_yardstick(bench, cases, monkeypatch):
    monkeypatch.setattr(texture, "STEPS", (texture.UNTOUCHED, ("noise", 0.1), ("blur", 4.0)))
    records = texture.compare(bench, Row("plain", "none"), texture.with_discs(judged.slices_of(cases[0], 3)))
    assert len(records) == 2 * 3
    untouched = texture.at([records], texture.UNTOUCHED)[0]
    assert all((r["change"], r["change_elsewhere"], r["detail"], r["condition_detail"]) == (0, 0, 1, 1) for r in untouched)
    noisy = texture.at([records], ("noise", 0.1))[0]
    assert all(r["change"] > 0 and r["condition_detail"] > 1 for r in noisy)
    blurred = texture.at([records], ("blur", 4.0))[0]
    assert all(r["condition_detail"] < 1 for r in blurred)


def test_the_part_gives_a_line_for_each_step_and_row_and_is_not_measured_twice(finder, cases, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.setattr(texture, "patients", lambda *_: cases)
    monkeypatch.setattr(texture.bench_mri, "load", lambda *_: finder)
    monkeypatch.setattr(texture, "STRENGTHS", {"noise": (0.1,), "blur": (4.0,), "ringing": (2.0,)})
    monkeypatch.setattr(texture, "STEPS", (texture.UNTOUCHED, ("noise", 0.1), ("blur", 4.0), ("ringing", 2.0)))
    monkeypatch.setattr(texture, "PER_PATIENT", 1)
    options = argparse.Namespace(model="t1-to-t2", data=[tmp_path], split="val", every=2, work=tmp_path / "work")
    (table,) = texture.measure(options)
    assert len(table.rows) == len(texture.STEPS) * 3
    assert table.rows[0]["disc in B %"] == ""
    assert table.rows[1]["disc in B %"] != ""
    canvas = Figure()
    table.draw(canvas)
    assert len(canvas.axes) == 6
    monkeypatch.setattr(texture, "compare", lambda *_: pytest.fail("measured again"))
    assert texture.measure(options)[0].rows == table.rows
