"""Lesions by size and complexity: shapes by hand, strata that part them, and the whole part on tiny bundles."""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from examples.benchmarks import judged, sizes
from localdiff_cli.errors import UsageError
from tests.benchmarks.test_judged import finder  # noqa: F401
from tests.training.data import slices


@pytest.fixture
def cases():
    """Three patients whose lesions lie in the last two of four slices, of different sizes."""
    made = [slices(name, n=4, seed=i) for i, name in enumerate("abc")]
    for i, each in enumerate(made):
        each.lesion[2:, 8 : 14 + i, 9:15] = True
    return made


def disc(radius, shape=(80, 80)):
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (y - 40) ** 2 + (x - 40) ** 2 <= radius**2


def test_shapes_of_known_figures():
    round_one = sizes.shape_of(disc(20), 2.0)
    assert round_one["area"] == pytest.approx(np.pi * 20**2 * 4 / 100, rel=0.02)
    assert round_one["irregularity"] == pytest.approx(1, abs=0.06)
    bar = np.zeros((80, 80), bool)
    bar[40:44, 5:75] = True
    bar[2:9, 2:9] = True
    long_one = sizes.shape_of(bar, 1.0)
    assert long_one["irregularity"] > 4
    assert (long_one["components"], round_one["components"]) == (2, 1)


def test_every_lesion_is_in_one_stratum_of_each_quality():
    records = [{"area": a, "irregularity": 1 + a, "condition": -a, "components": 1 + int(a) % 4} for a in np.linspace(0.5, 9, 30)]
    made = sizes.strata(records)
    for quality in {stratum.quality for stratum in made}:
        own = [stratum for stratum in made if stratum.quality == quality]
        assert [sum(stratum.holds(r) for stratum in own) for r in records] == [1] * 30
        if quality != "components":
            assert [sum(map(stratum.holds, records)) for stratum in own] == [10, 10, 10]


def test_missed_counts_only_what_the_true_contrast_shows():
    assert sizes.missed({"dice": 0.05, "true_dice": 0.5}) == 1
    assert sizes.missed({"dice": 0.5, "true_dice": 0.5}) == 0
    assert sizes.missed({"dice": 0.0, "true_dice": 0.05}) is None


@pytest.fixture
def options(finder, cases, monkeypatch, tmp_path):  # noqa: F811
    """The part's options, on tiny bundles and patients."""
    monkeypatch.setattr(sizes, "patients", lambda *_: cases)
    monkeypatch.setattr(sizes.bench_mri, "load", lambda *_: finder)
    return argparse.Namespace(model="t1-to-t2", data=[tmp_path], split="val", every=3, work=tmp_path / "work")


def test_the_part_gives_a_line_for_each_stratum_and_row(options):
    (table,) = sizes.measure(options)
    assert table.stem == "sizes-t1-to-t2-val"
    assert len(table.rows) == 12 * 3
    assert {line["row"] for line in table.rows} == {row.label for row in judged.LOCAL_ROWS}
    assert (table.rows[0]["lesion in B %"], table.rows[1]["lesion in B %"] != "") == ("", True)
    assert [line["slices / patients"] for line in table.rows[:9:3]] == ["1 / 1"] * 3
    canvas = Figure()
    table.draw(canvas)
    assert len(canvas.axes) == 4


def test_without_an_expert_plain_remains(options, finder, monkeypatch):  # noqa: F811
    without = replace(finder, networks=replace(finder.networks, expert=None))
    monkeypatch.setattr(sizes.bench_mri, "load", lambda *_: without)
    (table,) = sizes.measure(options)
    assert {line["row"] for line in table.rows} == {"plain"}


def test_slices_without_a_lesion_are_refused(options, cases, monkeypatch):
    monkeypatch.setattr(sizes, "patients", lambda *_: [replace(case, lesion=case.lesion & False) for case in cases])
    with pytest.raises(UsageError, match="no lesion"):
        sizes.measure(options)
