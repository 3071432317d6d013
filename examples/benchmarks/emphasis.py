"""What the emphasis of the OOD branch buys and costs, with the detector's map and with the true masks as the map.

``python -m examples.benchmarks.paper --part emphasis --model t1-to-flair --data DATA --split val --every 1``

Everybody of a split who has target and lesions is translated as ``localdiff translate`` does by default but for ``--emphasis``, with
the bundle's detector and with ``--map`` of the lesions; the frozen segmenter of the target contrast judges. Where the figures of the
true masks are good and those of the detector's map are not, the map is what limits them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from examples.benchmarks import harm, mri
from examples.benchmarks.table import Table
from localdiff_cli.errors import UsageError
from localdiff_cli.evaluation.cohort.statistics import Bootstrap
from localdiff_cli.evaluation.metrics.harm import Drawn
from localdiff_cli.ood.detector import from_map
from localdiff_cli.options import DetectorOptions, TranslateOptions
from localdiff_cli.recipes.detector import mask_settings
from localdiff_cli.recipes.translate import unknown_settings
from localdiff_cli.tasks.judged import draw, ready_for
from localdiff_cli.tasks.translation import TranslateWork
from localdiff_cli.training.people import Person, Slices, digest, people, slices_of, stamps
from localdiff_cli.volumes.whole import write_text

VERSION = 2
"""Of what a record holds."""
EMPHASES = (0.5, 0.75, 1.0, 1.25, 1.5)
"""Beside the bundle's own."""
PLAIN = "plain"
SHOWN = (
    "row", "patients", "missed %", "invented %", "contrast", "contrast true", "slope", "psnr_ring", "psnr_lesion", "psnr_brain", "dice",
)  # fmt: skip

Record = dict[str, Any]
"""The figures of one person's image (mri.py)."""


def by_true_mask(work: TranslateWork) -> TranslateWork:
    """The same work as with ``--map`` of the true masks."""
    brought = DetectorOptions(map=Path("mask"))
    mask = mask_settings(work.bundle, brought)
    return replace(work, mask=mask, unknown=unknown_settings(TranslateOptions(), work.bundle, mask.threshold, by_map=True))


def images(work: TranslateWork, slices: Slices, rows: Sequence[int], emphases: Sequence[float]) -> Iterator[tuple[str, np.ndarray]]:
    """Each row's label and image, ``(N, H, W)`` in [0, 1]: the truth, plain, and every emphasis with each of the two maps."""
    true = torch.from_numpy((slices.lesions[list(rows)] != 0) & slices.brain[list(rows)])[:, None]
    ways = (("detector's map", work, None), ("true mask", by_true_mask(work), from_map(true.float())))
    for name, own, known in ways:
        drawn: list[Drawn] = list(draw(own, slices, rows, [own.mask.threshold], emphases, known))
        if known is None:
            assert drawn[0].true is not None
            yield "true target contrast", drawn[0].true
            yield PLAIN, drawn[0].plain
        for emphasis, each in zip(emphases, drawn, strict=True):
            yield f"{name}, emphasis {emphasis:g}", each.local


def measure_person(work: TranslateWork, bench: mri.Bench, slices: Slices, every: int, emphases: Sequence[float]) -> dict[str, Record]:
    """One person's figures, by row."""
    rows = range(0, len(slices.numbers), every)
    brain, lesion = slices.brain[list(rows)], slices.lesions[list(rows)] != 0
    found = dict(images(work, slices, rows, emphases))
    true = found["true target contrast"]
    return {label: mri.figures_of(bench, image, true, brain, lesion) for label, image in found.items()}


def remembered(
    work: TranslateWork, bench: mri.Bench, person: Person, emphases: Sequence[float], options: argparse.Namespace
) -> dict[str, Record] | None:
    """A person's figures, from ``--work`` if the same files were translated with the same settings; None for files that cannot be used,
    and for a person without a lesion or a target."""
    if person.target is None or person.lesions is None:
        return None
    key = [VERSION, work.settings, bench.hashes, list(emphases), stamps(person), options.every]
    path = options.work / "emphasis" / f"{digest(key)}.json"
    if not path.is_file():
        slices = slices_of(person, ready_for(work), options.work / "cache" / "harm", print)
        if slices is None:
            return None
        measured = measure_person(work, bench, slices, options.every, emphases) if slices.lesions.any() else {}
        write_text(path, json.dumps(measured))
        print(f"emphasis: {person.name}", flush=True)
    record: dict[str, Record] = json.loads(path.read_text(encoding="utf-8"))
    return record or None


def line(label: str, records: Sequence[Record]) -> dict[str, str]:
    """One row of the table: means and shares over people, with intervals."""
    nothing = dict.fromkeys(mri.FIGURES)
    whole = mri.summary_row(label, [nothing | record for record in records], None, Bootstrap())
    true = [record["contrast"] - record["bias"] for record in records if record["bias"] is not None]
    whole["contrast true"] = f"{np.mean(true):.3f}" if true else "n/a"
    return {name: whole[name] for name in SHOWN}


def measure(options: argparse.Namespace) -> list[Table]:
    """One table. Raises :class:`UsageError` where nobody has target and lesions, or it is not known how disease looks on the target."""
    work, bench = harm.load(options.model), mri.load(options.model, None, None)
    emphases = sorted({*EMPHASES, work.sample.local.emphasis})
    everybody = people(options.data, work.bundle.condition.contrast, work.bundle.target.contrast, options.split)
    found = [remembered(work, bench, person, emphases, options) for person in everybody]
    records = [each for each in found if each is not None]
    if not records:
        raise UsageError(
            f"--split {options.split}: found nobody with {work.bundle.target.contrast} and lesions; expected at least one person"
        )
    lines = [line(label, [record[label] for record in records]) for label in records[0]]
    stem, about = f"emphasis-{work.bundle.name}-{options.split}", f"{len(records)} {options.split} patients, every {options.every}. slice"
    account = {
        "bundle": work.bundle.name, "hashes": bench.hashes, "settings": work.settings, "sampling": asdict(work.sample),
        "split": options.split, "every": options.every,
    }  # fmt: skip
    return [Table(stem, lines, about, account, lambda canvas: _draw(canvas, records, emphases))]


def _draw(canvas: Any, records: Sequence[dict[str, Record]], emphases: Sequence[float]) -> None:
    """The image around the lesions, and missed and invented slices, against the contrast."""

    def mean(label: str, key: str) -> float:
        return float(np.mean([record[label][key] for record in records if record[label][key] is not None]))

    def share(label: str, of: str, among: str) -> float:
        return 100 * sum(record[label][of] for record in records) / max(1, sum(record[label][among] for record in records))

    left, right = canvas.subplots(1, 2)
    for name in ("detector's map", "true mask"):
        labels = [PLAIN, *(f"{name}, emphasis {each:g}" for each in emphases)]
        contrasts = [mean(label, "contrast") for label in labels]
        left.plot(contrasts, [mean(label, "psnr_ring") for label in labels], marker="o", label=name)
        right.plot(contrasts, [share(label, "missed", "found") for label in labels], marker="o", label=f"missed, {name}")
        right.plot(contrasts, [share(label, "invented", "free") for label in labels], marker="s", linestyle=":", label=f"invented, {name}")
    left.set(xlabel="contrast of the lesions", ylabel="PSNR around the lesions, dB")
    right.set(xlabel="contrast of the lesions", ylabel="% of slices")
    for axes in (left, right):
        axes.legend(fontsize=7)
