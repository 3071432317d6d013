"""Inserted lesions: whose they are, where they go, the control, and the whole part on tiny bundles."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
from matplotlib.figure import Figure

from examples.benchmarks import inserted, judged
from tests.benchmarks.test_judged import finder  # noqa: F401
from tests.benchmarks.test_sizes import cases  # noqa: F401


def test_donors_come_from_other_patients_and_leave_the_rest_alone(cases):  # noqa: F811
    taken = [judged.slices_of(case, 1) for case in cases]
    donors = inserted.donors_of(taken, 4.0)
    assert [(d.patient, d.number, d.pixels) for d in donors[:3]] == [("a", 2, 36), ("a", 3, 36), ("b", 2, 42)]
    groups = inserted.thirds(donors, 4.0)
    assert [{d.patient for d in group} for group in groups.values()] == [{"a"}, {"b"}, {"c"}]
    of_b = list(groups.values())[1]
    altered = inserted.with_inserted(taken[0].hosts, of_b, 4.0)
    assert altered.numbers == (0, 1)
    assert altered.lesion.sum(axis=(1, 2)).tolist() == [42, 42]
    assert np.array_equal(altered.condition[~altered.lesion], taken[0].hosts.condition[~altered.lesion])
    assert inserted.with_inserted(taken[1].hosts, of_b, 4.0).numbers == ()


def test_the_control_is_healthy_tissue(cases):  # noqa: F811
    taken = [judged.slices_of(case, 1) for case in cases]
    control = inserted.healthy_donors(taken, inserted.donors_of(taken, 4.0), 4.0)
    assert {(d.patient, d.number) for d in control} == {(name, number) for name in "abc" for number in (0, 1)}
    host = taken[0].hosts
    of_a = next(d for d in control if (d.patient, d.number) == ("a", 0))
    inside = host.condition[0][of_a.mask]
    assert of_a.condition[of_a.mask] - of_a.condition[of_a.mask].mean() == pytest.approx(inside - inside.mean(), abs=1e-5)


def test_the_part_gives_a_line_for_each_size_and_row_and_the_control(finder, cases, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.setattr(inserted, "patients", lambda *_: cases)
    monkeypatch.setattr(inserted.bench_mri, "load", lambda *_: finder)
    options = argparse.Namespace(model="t1-to-t2", data=[tmp_path], split="val", every=3, work=tmp_path / "work")
    (table,) = inserted.measure(options)
    assert table.stem == "sizes-inserted-t1-to-t2-val"
    assert [line["slices / patients"] for line in table.rows] == ["2 / 2"] * 9 + ["3 / 3"] * 3
    assert table.rows[-1]["missed %"] == "n/a (no lesion)"
    assert table.rows[0]["missed %"] != "n/a (no lesion)"
    assert [line["row"] for line in table.rows[:3]] == [row.label for row in judged.LOCAL_ROWS]
    canvas = Figure()
    table.draw(canvas)
    assert len(canvas.axes) == 2
