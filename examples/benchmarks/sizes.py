"""Size and complexity: which lesions are lost? By area, boundary, number of components and contrast.

A lesion here is all of the lesion on one slice. Found: Dice of the frozen segmenter's marks with it ≥ 0.1. Missed: of those found on the
true target contrast, the share not found on the translation. Unlike in misdiagnosis.py small lesions count too, since size is the question.

Lesions are split at the terciles of the slices measured, which are in the lines' names.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from skimage.measure import perimeter_crofton

from examples.benchmarks import mri as bench_mri
from examples.benchmarks.curves import draw_lines, legend_below
from examples.benchmarks.insertions import Mask, components
from examples.benchmarks.judged import LOCAL_ROWS, Record, Slices, count, in_mask, judged, mean, slices_of, usable
from examples.benchmarks.mri import Bench, Row
from examples.benchmarks.table import Table, decimal, percent
from examples.benchmarks.translation import patients
from localdiff_cli.errors import UsageError
from localdiff_cli.evaluation.metrics.misdiagnosis import MisdiagnosisSettings

DELTA = MisdiagnosisSettings().delta
LEAST_PIXELS = 30
"""Smaller components are not counted as such, and not inserted."""
QUALITIES = (("area", "area, cm²", 1), ("irregularity", "boundary irregularity", 2), ("condition", "contrast in the condition", 3))
"""Key of the record, its name, and decimals."""

Results = dict[str, list[list[Record]]]
"""Row → patient → slice."""


@dataclass(frozen=True)
class Stratum:
    """Lesions alike in one ``quality``: those of which ``holds`` is true."""

    quality: str
    name: str
    holds: Callable[[Record], bool]


def shape_of(lesion: Mask, spacing: float) -> Record:
    """``area`` in cm², ``irregularity`` of the largest component, perimeter² / (4π area): 1 for a disc, and number of ``components``."""
    parts, largest = components(lesion, LEAST_PIXELS), components(lesion, 1)[0]
    irregularity = perimeter_crofton(largest) ** 2 / (4 * math.pi * largest.sum())
    return {"area": float(lesion.sum()) * spacing**2 / 100, "irregularity": float(irregularity), "components": max(1, len(parts))}


def strata(records: Sequence[Record]) -> list[Stratum]:
    """The strata of real lesions: thirds of what is a number, and 1, 2 or more components."""
    made = []
    for key, quality, digits in QUALITIES:
        low, high = np.quantile([r[key] for r in records if r[key] is not None], (1 / 3, 2 / 3)).tolist()
        names = (f"< {low:.{digits}f}", f"{low:.{digits}f} to {high:.{digits}f}", f"≥ {high:.{digits}f}")
        ends = ((-math.inf, low), (low, high), (high, math.inf))
        made += [Stratum(quality, name, _between(key, *pair)) for name, pair in zip(names, ends, strict=True)]
    numbers = (("1", 1, 2), ("2", 2, 3), ("3 or more", 3, math.inf))
    return made + [Stratum("components", name, _between("components", low, high)) for name, low, high in numbers]


def _between(key: str, low: float, high: float) -> Callable[[Record], bool]:
    return lambda record: record[key] is not None and low <= record[key] < high


def measured(bench: Bench, rows: Sequence[Row], taken: Sequence[Slices], folder: Path) -> Results:
    """Every row on every lesion slice, with the lesion's shape."""
    results: Results = {}
    for row in rows:
        for slices in (each.with_lesion for each in taken):
            shapes = [shape_of(lesion, bench.bundle.grid.spacing) for lesion in slices.lesion & slices.brain]
            records = [a | b for a, b in zip(judged(bench, row, slices, folder), shapes, strict=True)]
            results.setdefault(row.label, []).append(records)
        print(f"sizes: {row.label}", flush=True)
    return results


def missed(record: Record) -> float | None:
    """1 if the lesion is lost, 0 if not, None if it is not found on the true contrast either."""
    return float(record["dice"] < DELTA) if record["true_dice"] >= DELTA else None


def line_of(row: Row, records: Sequence[Sequence[Record]]) -> dict[str, str]:
    """One row of a stratum."""

    def share(value: Callable[[Record], float | None], empty: str = "no slice") -> str:
        return percent(mean(records, value, empty))

    return {
        "row": row.label, "slices / patients": count(records),
        "found on the true contrast %": share(lambda r: float(r["true_dice"] >= DELTA)),
        "found on the translation %": share(lambda r: float(r["dice"] >= DELTA)), "missed %": share(missed, "none found"),
        "Dice": decimal(mean(records, lambda r: r["dice"], "no slice"), 2), **in_mask(row, records, "lesion"),
        "true contrast": decimal(mean(records, lambda r: r["target"], "no slice"), 2),
        "contrast": decimal(mean(records, lambda r: r["image"], "no slice"), 2),
    }  # fmt: skip


def within(results: Results, stratum: Stratum) -> Results:
    """The records of one stratum."""
    return {row: [[r for r in records if stratum.holds(r)] for records in by_patient] for row, by_patient in results.items()}


def measure(options: argparse.Namespace) -> list[Table]:
    """A line for each stratum and row."""
    bench = bench_mri.load(options.model, None, None)
    cases = [p for p in patients(bench.bundle, options.data, options.split, options.work) if p.masked]
    rows = usable(bench, LOCAL_ROWS)
    results = measured(bench, rows, [slices_of(case, options.every) for case in cases], options.work / "sizes")
    records = [record for by_patient in next(iter(results.values())) for record in by_patient]
    if not records:
        raise UsageError(f"every {options.every}. slice of {len(cases)} {options.split} patients: no lesion; use --every 1, or other data")
    parts = [(stratum, within(results, stratum)) for stratum in strata(records)]
    lines = [{"quality": each.quality, "lesions": each.name} | line_of(row, part[row.label]) for each, part in parts for row in rows]
    account = bench_mri.account_of(bench, rows, cases, options.split, options.every)
    about = f"{len(cases)} {options.split} patients, every {options.every}. slice"
    return [Table(f"sizes-{bench.bundle.name}-{options.split}", lines, about, account, lambda canvas: _draw(canvas, parts))]


def _draw(canvas: Any, parts: Sequence[tuple[Stratum, Results]]) -> None:
    """A panel for each quality."""
    qualities = list(dict.fromkeys(stratum.quality for stratum, _ in parts))
    panels = canvas.subplots(1, len(qualities), sharey=True)
    for axes, quality in zip(panels, qualities, strict=True):
        own = [(stratum.name, part) for stratum, part in parts if stratum.quality == quality]
        draw_missed(axes, quality, [name.replace(" to ", " to\n") for name, _ in own], [part for _, part in own])
    panels[0].set_ylabel("missed, % of found lesions")
    legend_below(canvas, panels[0])


def draw_missed(axes: Any, title: str, ticks: list[str], parts: Sequence[Results]) -> None:
    """Missed against strata, a line for each row."""
    draw_lines(axes, ticks, {row: [mean(part[row], missed, "none found") for part in parts] for row in parts[0]}, 100)
    axes.set(ylim=(-3, 103))
    axes.set_title(title, fontsize=9)
