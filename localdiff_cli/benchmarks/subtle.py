"""Subtle anomalies: a lesion faded in steps to nothing. From which strength on is it seen by the detectors, and does it survive?

Condition and target are faded alike (insertions.py), so that the truth is known at every strength. Missed is judged against the lesions
that the frozen segmenter finds on the true contrast at full strength; the row of the true contrast says what it can still find.
At strength 0 no lesion is left: whatever is found there is invented.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from localdiff_cli.benchmarks import mri as bench_mri
from localdiff_cli.benchmarks.curves import draw_lines, legend_below
from localdiff_cli.benchmarks.insertions import fade
from localdiff_cli.benchmarks.judged import LOCAL_ROWS, Record, Slices, count, detects, in_mask, judged, mean, slices_of, usable
from localdiff_cli.benchmarks.mri import Bench, Row
from localdiff_cli.benchmarks.sizes import DELTA, Results
from localdiff_cli.benchmarks.table import Table, decimal, percent
from localdiff_cli.benchmarks.translation import patients

STRENGTHS = (1.0, 0.75, 0.5, 0.25, 0.0)
ROWS = (Row("true target contrast", "true"), *LOCAL_ROWS)


def faded(slices: Slices, strength: float, spacing: float) -> Slices:
    """The slices with a ``strength`` of their lesions' contrast, in the condition and in the truth."""

    def stack(images: np.ndarray) -> np.ndarray:
        triples = zip(images, slices.lesion & slices.brain, slices.brain, strict=True)
        return np.stack([fade(image, lesion, brain, strength, spacing) for image, lesion, brain in triples])

    return replace(slices, condition=stack(slices.condition), target=stack(slices.target)) if slices.numbers else slices


def measured(bench: Bench, rows: Sequence[Row], taken: Sequence[Slices], folder: Path) -> dict[float, Results]:
    """Every row at every strength on the slices whose lesion is found on the true contrast at full strength."""
    whole = [slices.with_lesion for slices in taken]
    seen = [[r["true_dice"] >= DELTA for r in judged(bench, ROWS[0], slices, folder)] for slices in whole]
    found = [slices.only(np.array(known, bool)) for slices, known in zip(whole, seen, strict=True)]
    results: dict[float, Results] = {}
    for strength in STRENGTHS:
        altered = [faded(slices, strength, bench.bundle.grid.spacing) for slices in found]
        results[strength] = {row.label: [judged(bench, row, slices, folder) for slices in altered] for row in rows}
        print(f"strength {strength:g}", flush=True)
    return results


def lost(record: Record) -> float:
    """1 if the segmenter does not find the lesion on the image."""
    return float(record["dice"] < DELTA)


def line_of(strength: float, row: Row, records: Sequence[Sequence[Record]]) -> dict[str, str]:
    """One row at one strength; a row without a detector flags nothing."""
    flagged = percent(mean(records, lambda r: float(r["flagged"]), "no slice")) if detects(row) else ""
    return {
        "strength": f"{strength:g}", "row": row.label, "slices / patients": count(records),
        "slices flagged %": flagged, **in_mask(row, records, "lesion"),
        "missed %": percent(mean(records, lost, "no slice")), "Dice": decimal(mean(records, lambda r: r["dice"], "no slice"), 2),
        "contrast in the condition": decimal(mean(records, lambda r: r["condition"], "no slice"), 3),
        "true contrast": decimal(mean(records, lambda r: r["target"], "no slice"), 3),
        "contrast": decimal(mean(records, lambda r: r["image"], "no slice"), 3),
    }  # fmt: skip


def measure(options: argparse.Namespace) -> list[Table]:
    """One table: strengths and rows."""
    bench = bench_mri.load(options.model, None, None)
    cases = [p for p in patients(bench.bundle, options.data, options.split, options.work) if p.masked]
    rows = usable(bench, ROWS)
    results = measured(bench, rows, [slices_of(case, options.every) for case in cases], options.work / "subtle")
    lines = [line_of(strength, row, by_row[row.label]) for strength, by_row in results.items() for row in rows]
    account = bench_mri.account_of(bench, rows, cases, options.split, options.every) | {"strengths": STRENGTHS}
    about = f"{len(cases)} {options.split} patients, every {options.every}. slice"
    return [Table(f"subtle-{bench.bundle.name}-{options.split}", lines, about, account, lambda canvas: _draw(canvas, rows, results))]


def _draw(canvas: Any, rows: Sequence[Row], results: dict[float, Results]) -> None:
    """Seen by the detector, missed, and contrast, against the strength."""
    panels = canvas.subplots(1, 3)
    ticks = [f"{strength:g}" for strength in results]

    def against_strength(axes: Any, title: str, value: Callable[[Record], float | None], scale: float, shown: Sequence[Row]) -> None:
        # A row without a value keeps its place in the order of colours.
        intervals = {r.label: [mean(each[r.label] if r in shown else [], value, "") for each in results.values()] for r in rows}
        draw_lines(axes, ticks, intervals, scale)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("strength of the lesion")

    against_strength(panels[0], "missed, % of lesions found at full strength", lost, 100, rows)
    against_strength(panels[1], "contrast of lesion to ring", lambda r: r["image"], 1, rows)
    against_strength(panels[2], "lesion in B, %", lambda r: r["covered"], 100, [row for row in rows if detects(row)])
    legend_below(canvas, panels[0])
