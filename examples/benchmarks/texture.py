"""Other hallucinations: noise, blur or ringing inside a disc of a healthy slice. Is it detected, is it kept, is a lesion made of it?

The disc lies at a random place of the brain of a lesion-free slice; the condition is spoilt there at several strengths (insertions.py),
and its translation is compared with that of the untouched slice, of the same noise. **Kept** is told by detail: the standard deviation,
inside the disc, of what a Gaussian of 2 pixels takes away, as a multiple of the untouched slice's, in the condition and in the
translation. A texture kept whole has the same multiple in both; one that is healed, or never seen, has 1 in the translation.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from examples.benchmarks import mri as bench_mri
from examples.benchmarks.curves import draw_lines, legend_below
from examples.benchmarks.insertions import TEXTURES, disc_in, spoil_texture
from examples.benchmarks.judged import (
    Record,
    Slices,
    count,
    detects,
    in_mask,
    key_of,
    marked,
    mean,
    remembered,
    slices_of,
    translate,
    usable,
)
from examples.benchmarks.mri import Bench, Row
from examples.benchmarks.table import Table, decimal, percent
from examples.benchmarks.translation import patients
from localdiff_cli.evaluation.cohort.statistics import Interval
from localdiff_cli.evaluation.metrics.misdiagnosis import MisdiagnosisSettings

RADIUS = 12
"""Of the disc, pixels (mm on the bundles' grid)."""
PER_PATIENT = 3
"""Slices of a patient at most, evenly spaced."""
DETAIL_SIGMA = 2.0
STRENGTHS = {"noise": (0.025, 0.05, 0.1), "blur": (1.0, 2.0, 4.0), "ringing": (1.0, 2.0, 4.0)}
UNTOUCHED = ("untouched", 0.0)
STEPS = (UNTOUCHED, *((kind, strength) for kind in TEXTURES for strength in STRENGTHS[kind]))
ROWS = (
    Row("plain", "none"),
    Row("local, segmenter map, expert", "segmenter", expert=True),
    Row("local, patchcore", "patchcore"),
)


def with_discs(slices: Slices) -> Slices:
    """At most ``PER_PATIENT`` of the lesion-free slices; the disc of each stands in the place of the lesion."""
    hosts = slices.hosts
    discs = [disc_in(brain, RADIUS, _drawn(hosts.patient, number)) for brain, number in zip(hosts.brain, hosts.numbers, strict=True)]
    fitting = np.flatnonzero([disc is not None for disc in discs])
    chosen = fitting[np.unique(np.linspace(0, len(fitting) - 1, min(PER_PATIENT, len(fitting))).round().astype(int))]
    wanted = np.zeros(len(discs), bool)
    wanted[chosen] = True
    regions = [disc for disc, kept in zip(discs, wanted, strict=True) if kept and disc is not None]
    return replace(hosts.only(wanted), lesion=np.stack(regions)) if regions else hosts.only(wanted)


def _drawn(patient: str, number: int) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(patient.encode()), number])


def spoilt(slices: Slices, kind: str, strength: float) -> Slices:
    """The slices with a texture inside their discs."""
    if (kind, strength) == UNTOUCHED:
        return slices
    triples = zip(slices.condition, slices.lesion, slices.numbers, strict=True)
    made = [spoil_texture(image, disc, kind, strength, _drawn(slices.patient, number)) for image, disc, number in triples]
    return replace(slices, condition=np.stack(made))


def detail(image: NDArray[np.float32], region: NDArray[np.bool_]) -> float:
    """Standard deviation inside ``region`` of what a Gaussian of ``DETAIL_SIGMA`` pixels takes away."""
    return float((image - ndimage.gaussian_filter(image, DETAIL_SIGMA))[region].std())


def compare(bench: Bench, row: Row, slices: Slices) -> list[Record]:
    """One record for each slice and step of :data:`STEPS`."""
    untouched = translate(bench, row, slices)
    records = []
    for kind, strength in STEPS:
        changed = spoilt(slices, kind, strength)
        image, mask = untouched if changed is slices else translate(bench, row, changed)
        marks = marked(bench, image, slices.brain)
        for i in range(len(slices.numbers)):
            figures = _figures(slices, changed.condition[i], untouched[0][i], image[i], mask[i], marks[i], i)
            records.append({"number": slices.numbers[i], "kind": kind, "strength": strength} | figures)
    return records


def _figures(slices: Slices, condition: Any, before: Any, image: Any, mask: NDArray[np.bool_], marks: NDArray[np.bool_], i: int) -> Record:
    disc, rest = slices.lesion[i], slices.brain[i] & ~slices.lesion[i]
    difference = np.abs(image - before)
    return {
        "covered": float(mask[disc].mean()), "elsewhere": float(mask[rest].mean()),
        "condition_change": float(np.abs(condition - slices.condition[i])[disc].mean()),
        "change": float(difference[disc].mean()), "change_elsewhere": float(difference[rest].mean()),
        "condition_detail": detail(condition, disc) / detail(slices.condition[i], disc),
        "detail": detail(image, disc) / detail(before, disc),
        "invented": bool((marks & disc).sum() > MisdiagnosisSettings().invented_pixels),
    }  # fmt: skip


def measured(bench: Bench, rows: Sequence[Row], taken: Sequence[Slices], folder: Path) -> dict[str, list[list[Record]]]:
    """Row → patient → slices and steps."""
    results: dict[str, list[list[Record]]] = {}
    for row in rows:
        for slices in taken:
            key, make = [*key_of(bench, row, slices), STEPS], partial(compare, bench, row, slices)
            results.setdefault(row.label, []).append(remembered(folder, key, make) if slices.numbers else [])
        print(f"texture: {row.label}", flush=True)
    return results


def at(records: Sequence[Sequence[Record]], step: tuple[str, float]) -> list[list[Record]]:
    """The records of one step."""
    return [[r for r in own if (r["kind"], r["strength"]) == step] for own in records]


def line_of(step: tuple[str, float], row: Row, records: Sequence[Sequence[Record]]) -> dict[str, str]:
    """One row at one step; plain has no detector."""
    own = at(records, step)

    def number(key: str, digits: int) -> str:
        return decimal(mean(own, lambda r: r[key], "no slice"), digits)

    return {
        "texture": step[0] if step == UNTOUCHED else f"{step[0]} {step[1]:g}", "row": row.label, "slices / patients": count(own),
        **in_mask(row, own, "disc"),
        "change of the condition": number("condition_change", 3), "change in the disc": number("change", 3),
        "change elsewhere": number("change_elsewhere", 3), "detail × in the condition": number("condition_detail", 2),
        "detail × in the translation": number("detail", 2),
        "lesion invented in the disc %": percent(mean(own, lambda r: float(r["invented"]), "no slice")),
    }  # fmt: skip


def measure(options: argparse.Namespace) -> list[Table]:
    """One table: textures and rows."""
    bench = bench_mri.load(options.model, None, None)
    cases = [p for p in patients(bench.bundle, options.data, options.split, options.work) if p.masked]
    rows = usable(bench, ROWS)
    results = measured(bench, rows, [with_discs(slices_of(case, options.every)) for case in cases], options.work / "texture")
    lines = [line_of(step, row, results[row.label]) for step in STEPS for row in rows]
    settings = {"strengths": STRENGTHS, "radius": RADIUS, "slices_per_patient": PER_PATIENT}
    account = bench_mri.account_of(bench, rows, cases, options.split, options.every) | settings
    about = f"{len(cases)} {options.split} patients, every {options.every}. slice, at most {PER_PATIENT} of a patient"
    return [Table(f"texture-{bench.bundle.name}-{options.split}", lines, about, account, lambda canvas: _draw(canvas, rows, results))]


def _draw(canvas: Any, rows: Sequence[Row], results: dict[str, list[list[Record]]]) -> None:
    """For each kind: above how much of the disc lies in B, below the detail of the translation, against that of the condition."""
    panels = canvas.subplots(2, len(TEXTURES), sharey="row")
    for kind, (above, below) in zip(TEXTURES, panels.T, strict=True):
        steps = [UNTOUCHED, *((kind, strength) for strength in STRENGTHS[kind])]

        def curve(row: Row, key: str, steps: list[tuple[str, float]] = steps) -> list[Interval]:
            return [mean(at(results[row.label], step), lambda r: r[key], "no slice") for step in steps]

        ticks = [f"{strength:g}" for _, strength in steps]
        # Plain has no detector, but keeps its colour.
        draw_lines(above, ticks, {row.label: curve(row, "covered") if detects(row) else [] for row in rows}, 100)
        draw_lines(below, ticks, {**{row.label: curve(row, "detail") for row in rows}, "condition": curve(rows[0], "condition_detail")})
        above.set(title=kind, ylim=(-3, 103))
        below.set(xlabel="strength", yscale="log")
        below.set_yticks((0.25, 0.5, 1, 2, 4), ("1/4", "1/2", "1", "2", "4"))
        below.minorticks_off()
    panels[0, 0].set_ylabel("disc in B, %")
    panels[1, 0].set_ylabel("detail, × untouched")
    legend_below(canvas, panels[1, 0])
