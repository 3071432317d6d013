"""The parts that are rows of mri.py: sampling modes, detectors, fusion, wrong maps, samplers, each on the same patients."""

from __future__ import annotations

import argparse
from typing import Any

from examples.benchmarks import mri as bench_mri
from examples.benchmarks.mri import Row
from examples.benchmarks.table import Table
from examples.benchmarks.translation import patients
from examples.benchmarks.wrong_maps import FAULTS, REDRAWN

SIZES = {
    "erode": (2, 4, 8), "dilate": (4, 8, 16), "shift": (4, 8, 16), "holes": (0.25, 0.5, 0.75), "islands": (1, 3), "noise": (0.25, 0.5, 1),
}  # fmt: skip
PLAIN = Row("plain", "none")
TEN = (("steps", 10),)
LATE = (*TEN, ("fusion_step", 1))
"""The fusion part walks ten steps, whatever the bundle's default."""


def _sampled(steps: int, joint: int) -> Row:
    """The segmenter's map and the expert with so many DDIM steps, the last ``joint`` of them after fusion."""
    label = f"segmenter, expert, ddim, {steps} steps, {joint} joint"
    return Row(label, "segmenter", True, changes=(("steps", steps), ("fusion_step", joint)))


def _with(source: str, **changes: object) -> Row:
    """Ten steps, fused one before the end, but for what is changed."""
    told = ", ".join(f"{name} {value}" for name, value in changes.items())
    return Row(f"{source}, expert, {told}", source, True, changes=tuple((dict(LATE) | changes).items()))


ROWS: dict[str, tuple[Row, ...]] = {
    "mri": bench_mri.TABLE,
    "fusion": (
        Row("true target contrast", "true"),
        Row("plain", "none", changes=TEN),
        *(_with("truth", fusion_step=k) for k in (0, 1, 2, 4)),
        *(_with("truth", branch_step=k) for k in (2, 5, 8)),
        *(_with("truth", context=v) for v in (0.0, 0.5, 0.8, 1.0)),
        _with("segmenter", soft=True),
        _with("segmenter", soft=False),
        Row("segmenter, expert, dilate_mm 0", "segmenter", True, changes=LATE, mask_changes=(("dilate_mm", 0.0),)),
        Row("segmenter, expert, dilate_mm 8", "segmenter", True, changes=LATE, mask_changes=(("dilate_mm", 8.0),)),
        Row("segmenter, expert, guided", "segmenter", True, changes=(*LATE, ("guided", True))),
    ),
    "wrong-map": (
        PLAIN,
        Row("true mask", "truth", True),
        *(Row(f"{fault} {size:g}", "truth", True, wrong=(fault, size)) for fault in FAULTS for size in SIZES[fault]),
        *(Row(f"{REDRAWN}, {size:g}", "truth", True, wrong=(REDRAWN, size)) for size in SIZES["noise"]),
    ),
    "expert": (
        PLAIN,
        *(
            Row(f"share {share:g}, τ {tau:g}", "segmenter", True, mask_changes=(("threshold", tau),), variant=f"share-{share:g}")
            for share in (0.05, 0.25, 0.75)
            for tau in (0.1, 0.3, 0.6)
        ),
        *(Row(f"the bundle's expert, τ {tau:g}", "segmenter", True, mask_changes=(("threshold", tau),)) for tau in (0.1, 0.3, 0.6)),
    ),
    "augment": tuple(
        Row(f"{told}, {where}", source, variant=variant)
        for told, variant in (("400 steps more", "further"), ("400 steps more, regions", "further-regions"))
        for where, source in (("plain", "none"), ("local, true mask", "truth"), ("local, segmenter map", "segmenter"))
    ),
    "sampling": (
        Row("true target contrast", "true"),
        Row("polynomial", "polynomial"),
        Row("regression", "regression", variant="regression"),
        *(Row(f"plain, ddim, {n} steps, mean of 10", "none", samples=10, changes=(("steps", n),)) for n in (2, 4, 10)),
        *(Row(f"plain, ddim, {n} steps", "none", changes=(("steps", n),)) for n in (1, 2, 4, 10)),
        *(Row(f"plain, dpmpp, {n} steps", "none", changes=(("sampler", "dpmpp"), ("steps", n))) for n in (4, 10)),
        Row("plain, ddpm, 50 steps", "none", changes=(("sampler", "ddpm"), ("steps", 50))),
        *(_sampled(steps, last) for last in (0, 1) for steps in (1, 2, 4, 10) if last < steps / 2),
    ),
}
"""The rows of each part."""


def measure(part: str, options: argparse.Namespace) -> list[Table]:
    """The rows of a part as a table; those that ask for an expert or a variant that is not there are left out."""
    bench = bench_mri.load(options.model, None, None)
    rows = tuple(filter(bench.can, ROWS[part]))
    cases = [p for p in patients(bench.bundle, options.data, options.split, options.work) if p.masked]
    lines = bench_mri.table(bench_mri.run(bench, rows, cases, options.every, options.work / "mri"))
    stem = f"{part}-{bench.bundle.name}-{options.split}"
    shown = (*bench_mri.SHOWN, *(("mask_dice",) if part == "wrong-map" else ()))
    account = {"shown": shown} | bench_mri.account_of(bench, rows, cases, options.split, options.every)
    about = f"{len(cases)} {options.split} patients, every {options.every}. slice"
    return [Table(stem, lines, about, account, lambda canvas: _missed_and_invented(canvas, stem, lines))]


def _missed_and_invented(canvas: Any, title: str, table: list[dict[str, str]]) -> None:
    """Missed against invented slices, one point a row."""

    def share(line: dict[str, str], key: str) -> float | None:
        return None if line[key].startswith("n/a") else float(line[key].split(" ")[0])

    points = [(share(line, "invented %"), share(line, "missed %"), line["row"]) for line in table]
    known = [(x, y, name) for x, y, name in points if x is not None and y is not None]
    axes = canvas.subplots()
    for number, (x, y, name) in enumerate(known):
        axes.scatter([x], [y], label=f"{number + 1} {name}", s=30)
        axes.annotate(str(number + 1), (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.set(xlabel="invented, % of lesion-free slices", ylabel="missed, % of found lesions", title=title, ylim=(-3, 103))
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
