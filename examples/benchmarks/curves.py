"""Figures of shares against strata or strengths: a line for each way of sampling, with the interval of each point as a bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from localdiff_cli.evaluation.cohort.statistics import Interval


def draw_lines(axes: Any, ticks: Sequence[str], lines: Mapping[str, Sequence[Interval]], scale: float = 1) -> None:
    """One errorbar line for each entry of ``lines`` over evenly spaced ``ticks``; points without an estimate are left out.

    The lines stand a little apart, so that their bars do not hide each other.
    """
    for number, (name, intervals) in enumerate(lines.items()):
        offset = 0.08 * (number - (len(lines) - 1) / 2)
        known = [(i + offset, interval) for i, interval in enumerate(intervals) if interval.estimate is not None]
        below, above = zip(*(_reach(interval) for _, interval in known), strict=True) if known else ((), ())
        values = [scale * (interval.estimate or 0) for _, interval in known]
        bars = [[scale * v for v in below], [scale * v for v in above]]
        axes.errorbar([x for x, _ in known], values, bars, label=name, marker="o", markersize=4, capsize=3, linewidth=1.2)
    axes.set_xticks(range(len(ticks)), ticks, fontsize=7)
    axes.set_xlim(-0.5, len(ticks) - 0.5)


def _reach(interval: Interval) -> tuple[float, float]:
    """From the estimate down and up to the ends of its interval; 0 without one."""
    if interval.estimate is None or interval.low is None or interval.high is None:
        return 0.0, 0.0
    return max(0.0, interval.estimate - interval.low), max(0.0, interval.high - interval.estimate)


def legend_below(canvas: Any, axes: Any) -> None:
    """The lines' names, once for the whole figure."""
    handles, names = axes.get_legend_handles_labels()
    canvas.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=8)
