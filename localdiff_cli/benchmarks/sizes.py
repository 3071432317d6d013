"""Size and complexity: which lesions are lost? Real ones by area, boundary, components and contrast, and inserted ones by size.

A lesion here is all of the lesion on one slice. Found: Dice of the frozen segmenter's marks with it ≥ 0.1. Missed: of those found on the
true target contrast, the share not found on the translation. Unlike in misdiagnosis.py small lesions count too, since size is the question.

Real lesions are split at the terciles of the slices measured (which are in the lines' names). Inserted ones come from a pool of all lesion
slices of the split, split at the terciles of its areas; every lesion-free slice gets one of each third, of another patient. As a control
healthy tissue of another patient is put in the same way: what is found there, the insertion alone did.
"""

from __future__ import annotations

import argparse
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from skimage.measure import perimeter_crofton

from localdiff_cli.benchmarks import mri as bench_mri
from localdiff_cli.benchmarks.curves import draw_lines, legend_below
from localdiff_cli.benchmarks.insertions import Donor, Mask, components, donor_of, insert
from localdiff_cli.benchmarks.judged import LOCAL_ROWS, Record, Slices, count, judged, mean, slices_of, usable
from localdiff_cli.benchmarks.mri import Bench, Row
from localdiff_cli.benchmarks.table import Table, decimal, percent
from localdiff_cli.benchmarks.translation import patients
from localdiff_cli.evaluation.misdiagnosis import MisdiagnosisSettings

DELTA = MisdiagnosisSettings().delta
LEAST_PIXELS = 30
"""Smaller components are not counted as such, and not inserted."""
CONTROL = "healthy tissue (control)"
QUALITIES = (("area", "area", " cm²"), ("irregularity", "boundary irregularity", ""), ("condition", "contrast in the condition", ""))

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
    for key, quality, unit in QUALITIES:
        low, high = np.quantile([r[key] for r in records if r[key] is not None], (1 / 3, 2 / 3)).tolist()
        names = (f"< {low:.2f}{unit}", f"{low:.2f} to {high:.2f}{unit}", f"≥ {high:.2f}{unit}")
        ends = ((-math.inf, low), (low, high), (high, math.inf))
        made += [Stratum(quality, name, _between(key, *pair)) for name, pair in zip(names, ends, strict=True)]
    numbers = (("1", 1, 2), ("2", 2, 3), ("3 or more", 3, math.inf))
    return made + [Stratum("components", name, _between("components", low, high)) for name, low, high in numbers]


def _between(key: str, low: float, high: float) -> Callable[[Record], bool]:
    return lambda record: record[key] is not None and low <= record[key] < high


def real_lesions(bench: Bench, rows: Sequence[Row], taken: Sequence[Slices], folder: Path) -> Results:
    """Every row on every lesion slice, with the lesion's shape."""
    results: Results = {}
    for row in rows:
        for slices in (each.with_lesion for each in taken):
            shapes = [shape_of(lesion, bench.bundle.grid.spacing) for lesion in slices.lesion & slices.brain]
            records = [a | b for a, b in zip(judged(bench, row, slices, folder), shapes, strict=True)]
            results.setdefault(row.label, []).append(records)
        print(f"real lesions: {row.label}", flush=True)
    return results


def donors_of(taken: Sequence[Slices], spacing: float) -> list[Donor]:
    """Every lesion of the split as a donor."""

    def made() -> Iterator[Donor | None]:
        for s in taken:
            for i, number in enumerate(s.numbers):
                yield donor_of(s.patient, number, s.condition[i], s.target[i], s.brain[i], s.lesion[i], spacing)

    return [donor for donor in made() if donor is not None and donor.pixels >= LEAST_PIXELS]


def thirds(donors: Sequence[Donor], spacing: float) -> dict[str, list[Donor]]:
    """The donors by area, split at its terciles."""
    area = np.array([donor.pixels for donor in donors]) * spacing**2 / 100
    low, high = np.quantile(area, (1 / 3, 2 / 3)).tolist()
    names = (f"< {low:.1f} cm²", f"{low:.1f} to {high:.1f} cm²", f"≥ {high:.1f} cm²")
    which = (area >= low).astype(int) + (area >= high)
    return {name: [donor for donor, third in zip(donors, which, strict=True) if third == k] for k, name in enumerate(names)}


def healthy_donors(taken: Sequence[Slices], shapes: Sequence[Donor], spacing: float) -> list[Donor]:
    """Healthy tissue of every lesion-free slice, in the shape of a lesion of another patient."""
    made = []
    for host in (each.hosts for each in taken):
        for i, number in enumerate(host.numbers):
            images = host.condition[i], host.target[i]
            placed = _first_that_fits(shapes, host.patient, number, *images, host.brain[i], spacing)
            donor = donor_of(host.patient, number, *images, host.brain[i], placed[2], spacing) if placed else None
            made += [donor] if donor else []
    return made


def _first_that_fits(
    donors: Sequence[Donor], patient: str, number: int, condition: Any, target: Any, brain: Mask, spacing: float
) -> tuple[Any, Any, Mask] | None:
    """The slice with the first donor of another patient that fits, in an order drawn for the slice."""
    for i in np.random.default_rng([zlib.crc32(patient.encode()), number]).permutation(len(donors)):
        made = insert(donors[i], condition, target, brain, spacing) if donors[i].patient != patient else None
        if made is not None:
            return made
    return None


def with_inserted(hosts: Slices, donors: Sequence[Donor], spacing: float) -> Slices:
    """The hosts with a donor each; those that none fits into are left out."""
    arrays = (hosts.numbers, hosts.condition, hosts.target, hosts.brain)
    made = [_first_that_fits(donors, hosts.patient, n, c, t, b, spacing) for n, c, t, b in zip(*arrays, strict=True)]
    kept = hosts.only(np.array([each is not None for each in made], bool))
    changed = [each for each in made if each is not None]
    if not changed:
        return kept
    condition, target, lesion = map(np.stack, zip(*changed, strict=True))
    return replace(kept, condition=condition, target=target, lesion=lesion)


def inserted_lesions(
    bench: Bench, rows: Sequence[Row], taken: Sequence[Slices], donors: dict[str, list[Donor]], folder: Path
) -> dict[str, Results]:
    """Every row on every lesion-free slice with a lesion of each group of donors."""
    results: dict[str, Results] = {}
    for group, members in donors.items():
        altered = [with_inserted(slices.hosts, members, bench.bundle.grid.spacing) for slices in taken]
        results[group] = {row.label: [judged(bench, row, slices, folder) for slices in altered] for row in rows}
        print(f"inserted: {group}", flush=True)
    return results


def missed(record: Record) -> float | None:
    """1 if the lesion is lost, 0 if not, None if it is not found on the true contrast either."""
    return float(record["dice"] < DELTA) if record["true_dice"] >= DELTA else None


def line_of(row: str, records: Sequence[Sequence[Record]]) -> dict[str, str]:
    """One row of a stratum."""

    def share(value: Callable[[Record], float | None], empty: str = "no slice") -> str:
        return percent(mean(records, value, empty))

    return {
        "row": row, "slices / patients": count(records), "found on the true contrast %": share(lambda r: float(r["true_dice"] >= DELTA)),
        "found on the translation %": share(lambda r: float(r["dice"] >= DELTA)), "missed %": share(missed, "none found"),
        "Dice": decimal(mean(records, lambda r: r["dice"], "no slice"), 2), "lesion in B %": share(lambda r: r["covered"]),
        "rest of brain in B %": share(lambda r: r["elsewhere"]),
        "true contrast": decimal(mean(records, lambda r: r["target"], "no slice"), 2),
        "contrast": decimal(mean(records, lambda r: r["image"], "no slice"), 2),
    }  # fmt: skip


def within(results: Results, stratum: Stratum) -> Results:
    """The records of one stratum."""
    return {row: [[r for r in records if stratum.holds(r)] for records in by_patient] for row, by_patient in results.items()}


def measure(options: argparse.Namespace) -> list[Table]:
    """Real lesions and inserted ones, a table each."""
    bench = bench_mri.load(options.model, None, None)
    cases = [p for p in patients(bench.bundle, options.data, options.split, options.work) if p.masked]
    rows, spacing, folder = usable(bench, LOCAL_ROWS), bench.bundle.grid.spacing, options.work / "sizes"
    taken = [slices_of(case, options.every) for case in cases]
    pool = donors_of([slices_of(case, 1) for case in cases], spacing)
    donors = thirds(pool, spacing)
    donors[CONTROL] = healthy_donors(taken, pool, spacing)
    account = bench_mri.account_of(bench, rows, cases, options.split, options.every)
    about = f"{len(cases)} {options.split} patients, every {options.every}. slice"
    end = f"{bench.bundle.name}-{options.split}"
    real = real_table(f"sizes-{end}", about, account, real_lesions(bench, rows, taken, folder))
    return [real, inserted_table(f"sizes-inserted-{end}", about, account, inserted_lesions(bench, rows, taken, donors, folder))]


def real_table(stem: str, about: str, account: dict[str, Any], results: Results) -> Table:
    """A line for each stratum and row."""
    found = strata([record for records in next(iter(results.values())) for record in records])
    parts = [(stratum, within(results, stratum)) for stratum in found]
    lines = [
        {"quality": stratum.quality, "lesions": stratum.name} | line_of(row, records)
        for stratum, part in parts
        for row, records in part.items()
    ]

    def draw(canvas: Any) -> None:
        qualities = list(dict.fromkeys(stratum.quality for stratum in found))
        panels = canvas.subplots(1, len(qualities), sharey=True)
        for axes, quality in zip(panels, qualities, strict=True):
            own = [(stratum.name, part) for stratum, part in parts if stratum.quality == quality]
            _draw_missed(axes, quality, [name for name, _ in own], [part for _, part in own])
        panels[0].set_ylabel("missed, % of found lesions")
        legend_below(canvas, panels[0])

    return Table(stem, lines, about, account, draw)


def inserted_table(stem: str, about: str, account: dict[str, Any], results: dict[str, Results]) -> Table:
    """A line for each group of donors and row; nothing can be missed in the control."""
    lines = []
    for group, part in results.items():
        void = {"missed %": "n/a (no lesion)", "Dice": "n/a (no lesion)"} if group == CONTROL else {}
        lines += [{"inserted": group} | line_of(row, records) | void for row, records in part.items()]

    def draw(canvas: Any) -> None:
        axes, alarms = canvas.subplots(1, 2, sharey=True)
        lesions = [group for group in results if group != CONTROL]
        _draw_missed(axes, "inserted lesion", lesions, [results[group] for group in lesions])
        found = {row: [mean(results[g][row], lambda r: float(r["dice"] >= DELTA), "") for g in results] for row in results[CONTROL]}
        draw_lines(alarms, [group.replace(" (", "\n(") for group in results], found, 100)
        axes.set_ylabel("missed, % of found lesions")
        alarms.set(title="found on the translation, %", ylim=(-3, 103))
        legend_below(canvas, axes)

    return Table(stem, lines, about, account, draw)


def _draw_missed(axes: Any, title: str, ticks: list[str], parts: Sequence[Results]) -> None:
    draw_lines(axes, ticks, {row: [mean(part[row], missed, "none found") for part in parts] for row in parts[0]}, 100)
    axes.set(ylim=(-3, 103))
    axes.set_title(title, fontsize=9)
