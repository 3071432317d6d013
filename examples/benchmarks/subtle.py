"""Subtle anomalies: a lesion faded in steps to nothing. From which strength on is it seen by the detectors, and does it survive?

Condition and target are faded alike, so that the truth is known at every strength: real lesions to flat tissue, and inserted ones to the
lesion-free slice as it is (insertions.py). Flat tissue may itself be detected; only the second series ends in nothing at all. Missed is
judged against the lesions that the frozen segmenter finds on the true contrast at full strength, and the row of the true contrast says
what it can still find. At strength 0 no lesion is left: whatever is found there is invented.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.benchmarks import mri as bench_mri
from examples.benchmarks.curves import draw_lines, legend_below
from examples.benchmarks.inserted import donors_of, with_inserted
from examples.benchmarks.insertions import Donor, erase
from examples.benchmarks.judged import LOCAL_ROWS, Record, Slices, count, detects, in_mask, judged, mean, slices_of, usable
from examples.benchmarks.mri import Bench, Row
from examples.benchmarks.sizes import DELTA, Results
from examples.benchmarks.table import Table, decimal, percent
from examples.benchmarks.translation import patients

STRENGTHS = (1.0, 0.75, 0.5, 0.25, 0.0)
ROWS = (Row("true target contrast", "true"), *LOCAL_ROWS)


Pair = tuple[Slices, Slices]
"""A patient's slices with the lesion at full strength, and with none."""


def erased(slices: Slices, spacing: float) -> Slices:
    """The slices with their lesions levelled to the surroundings, in the condition and in the truth."""

    def stack(images: np.ndarray) -> np.ndarray:
        triples = zip(images, slices.lesion & slices.brain, slices.brain, strict=True)
        return np.stack([erase(image, lesion, brain, spacing) for image, lesion, brain in triples])

    return replace(slices, condition=stack(slices.condition), target=stack(slices.target)) if slices.numbers else slices


def real_pairs(taken: Sequence[Slices], spacing: float) -> list[Pair]:
    """Real lesions, and flat tissue in their place."""
    return [(slices.with_lesion, erased(slices.with_lesion, spacing)) for slices in taken]


def inserted_pairs(taken: Sequence[Slices], donors: Sequence[Donor], spacing: float) -> list[Pair]:
    """Lesions of other patients in lesion-free slices, and the slices as they are."""
    pairs = []
    for hosts in (slices.hosts for slices in taken):
        full = with_inserted(hosts, donors, spacing)
        pairs.append((full, hosts.only(np.isin(hosts.numbers, full.numbers))))
    return pairs


def faded(full: Slices, gone: Slices, strength: float) -> Slices:
    """The lesion at a ``strength``: 1 is ``full`` and 0 ``gone``, in the condition and in the truth."""

    def blend(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
        return (strength * a + (1 - strength) * b).astype(np.float32)

    return replace(full, condition=blend(full.condition, gone.condition), target=blend(full.target, gone.target))


def measured(bench: Bench, rows: Sequence[Row], pairs: Sequence[Pair], folder: Path) -> dict[float, Results]:
    """Every row at every strength on the slices whose lesion is found on the true contrast at full strength."""
    seen = [np.array([r["true_dice"] >= DELTA for r in judged(bench, ROWS[0], full, folder)], bool) for full, _ in pairs]
    found = [(full.only(known), gone.only(known)) for (full, gone), known in zip(pairs, seen, strict=True)]
    results: dict[float, Results] = {}
    for strength in STRENGTHS:
        altered = [faded(full, gone, strength) for full, gone in found]
        results[strength] = {row.label: [judged(bench, row, slices, folder) for slices in altered] for row in rows}
        print(f"subtle: strength {strength:g}", flush=True)
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
    """Real lesions and inserted ones, a table each: strengths and rows."""
    bench = bench_mri.load(options.model, None, None)
    cases = [p for p in patients(bench.bundle, options.data, options.split, options.work) if p.masked]
    rows, spacing = usable(bench, ROWS), bench.bundle.grid.spacing
    taken = [slices_of(case, options.every) for case in cases]
    pool = donors_of([slices_of(case, 1) for case in cases], spacing)
    account = bench_mri.account_of(bench, rows, cases, options.split, options.every) | {"strengths": STRENGTHS}
    about = f"{len(cases)} {options.split} patients, every {options.every}. slice"
    tables = []
    for name, pairs in (("subtle", real_pairs(taken, spacing)), ("subtle-inserted", inserted_pairs(taken, pool, spacing))):
        results = measured(bench, rows, pairs, options.work / "subtle")
        lines = [line_of(strength, row, by_row[row.label]) for strength, by_row in results.items() for row in rows]
        draw = partial(_draw, rows=rows, results=results)
        tables.append(Table(f"{name}-{bench.bundle.name}-{options.split}", lines, about, account, draw))
    return tables


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
