"""Inserted lesions by size: with the truth known in both contrasts, on slices that were healthy.

The donors are the lesions of all slices of the split, parted at the terciles of their areas; every lesion-free slice gets one of each
third, from another patient (insertions.py). As a control healthy tissue of another patient is put in the same way: what is found there
is the work of the insertion alone. Found and missed are those of sizes.py.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from examples.benchmarks import mri as bench_mri
from examples.benchmarks.curves import draw_lines, legend_below
from examples.benchmarks.insertions import Donor, Mask, donor_of, insert
from examples.benchmarks.judged import LOCAL_ROWS, Slices, judged, mean, slices_of, usable
from examples.benchmarks.mri import Bench, Row
from examples.benchmarks.sizes import DELTA, LEAST_PIXELS, Results, draw_missed, line_of
from examples.benchmarks.table import Table
from examples.benchmarks.translation import patients

CONTROL = "healthy tissue (control)"


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


def measured(
    bench: Bench, rows: Sequence[Row], taken: Sequence[Slices], donors: dict[str, list[Donor]], folder: Path
) -> dict[str, Results]:
    """Every row on every lesion-free slice with a lesion of each group of donors."""
    results: dict[str, Results] = {}
    for group, members in donors.items():
        altered = [with_inserted(slices.hosts, members, bench.bundle.grid.spacing) for slices in taken]
        results[group] = {row.label: [judged(bench, row, slices, folder) for slices in altered] for row in rows}
        print(f"inserted: {group}", flush=True)
    return results


def lines_of(rows: Sequence[Row], results: dict[str, Results]) -> list[dict[str, str]]:
    """A line for each group of donors and row; nothing can be missed in the control."""
    lines = []
    for group, part in results.items():
        void = {"missed %": "n/a (no lesion)", "Dice": "n/a (no lesion)"} if group == CONTROL else {}
        lines += [{"inserted": group} | line_of(row, part[row.label]) | void for row in rows]
    return lines


def measure(options: argparse.Namespace) -> list[Table]:
    """One table: groups of donors and rows."""
    bench = bench_mri.load(options.model, None, None)
    cases = [p for p in patients(bench.bundle, options.data, options.split, options.work) if p.masked]
    rows, spacing = usable(bench, LOCAL_ROWS), bench.bundle.grid.spacing
    taken = [slices_of(case, options.every) for case in cases]
    pool = donors_of([slices_of(case, 1) for case in cases], spacing)
    donors = thirds(pool, spacing) | {CONTROL: healthy_donors(taken, pool, spacing)}
    results = measured(bench, rows, taken, donors, options.work / "sizes")
    account = bench_mri.account_of(bench, rows, cases, options.split, options.every)
    account |= {"donors": {group: len(members) for group, members in donors.items()}}
    about = f"{len(cases)} {options.split} patients, every {options.every}. slice; {len(pool)} donors"
    stem = f"sizes-inserted-{bench.bundle.name}-{options.split}"
    return [Table(stem, lines_of(rows, results), about, account, lambda canvas: _draw(canvas, results))]


def _draw(canvas: Any, results: dict[str, Results]) -> None:
    """Missed by size, and what is found on the translation, the control beside it."""
    by_size, found = canvas.subplots(1, 2, sharey=True)
    lesions = [group for group in results if group != CONTROL]
    draw_missed(by_size, "inserted lesion: missed, % of found", lesions, [results[group] for group in lesions])
    shares = {row: [mean(results[g][row], lambda r: float(r["dice"] >= DELTA), "no slice") for g in results] for row in results[CONTROL]}
    draw_lines(found, [group.replace(" (", "\n(") for group in results], shares, 100)
    found.set_title("found on the translation, % of all", fontsize=9)
    legend_below(canvas, by_size)
