"""Lines with bars: points without an estimate are left out, and rows without points keep their colour."""

from __future__ import annotations

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from examples.benchmarks.curves import draw_lines, legend_below
from localdiff_cli.evaluation.cohort.statistics import Interval


def interval(estimate, low=None, high=None):
    return Interval(estimate, low, high, 0.95, 5)


def test_lines_show_what_is_known():
    canvas = Figure()
    axes = canvas.subplots()
    lines = {"a": [interval(0.2, 0.1, 0.4), interval(None), interval(0.5)], "b": [], "c": [interval(0.3)] * 3}
    draw_lines(axes, ["x", "y", "z"], lines, 100)
    legend_below(canvas, axes)
    first, empty, last = axes.containers
    assert first.lines[0].get_ydata().tolist() == [20, 50]
    bar = first.lines[2][0].get_segments()[0]
    assert bar[:, 1].tolist() == pytest.approx([10, 40])
    assert len(empty.lines[0].get_ydata()) == 0
    assert to_hex(last.lines[0].get_color()) == to_hex("C2")
    assert [text.get_text() for text in axes.get_xticklabels()] == ["x", "y", "z"]
    assert [text.get_text() for text in canvas.legends[0].get_texts()] == ["a", "b", "c"]
