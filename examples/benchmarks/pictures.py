"""One page of pictures of patients chosen by rule.

``python -m examples.benchmarks.pictures --model t1-to-flair --data DATA --out PAGE.png``

The rule: every patient with a lesion in order of names, up to ``--count``, each on the slice where the expert mask is largest, or on
``--slices`` spread evenly over those with a lesion.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from examples.benchmarks import mri
from examples.benchmarks.mri import Bench, Row
from examples.benchmarks.translation import chunk_of, patients
from localdiff_cli.training.slices import PatientSlices
from localdiff_cli.volumes.whole import whole_file


def columns_of(bench: Bench) -> tuple[Row, ...]:
    """Truth, plain, Local Diffusion as published, and with the expert where there is one."""
    source = bench.bundle.defaults.detector
    rows = (Row(f"true {bench.bundle.target.contrast}", "true"), Row("plain", "none"), Row("local, no expert", source))
    return (*rows, Row("local, expert", source, expert=True)) if bench.networks.expert else rows


def chosen_slices(patient: PatientSlices, count: int) -> list[PatientSlices]:
    """The slice on which the lesion is largest; with ``count`` above 1, that many spread evenly over those with one."""
    size = patient.lesion.sum(axis=(1, 2))
    bearing = np.flatnonzero(size > min(40, size.max() - 1))
    rows = [int(size.argmax())] if count == 1 else bearing[np.unique(np.linspace(0, len(bearing) - 1, count).astype(int))].tolist()
    names = ("condition", "target", "brain", "lesion")
    return [replace(patient, **{name: getattr(patient, name)[k : k + 1] for name in names}) for k in rows]


def panels(bench: Bench, patient: PatientSlices) -> tuple[list[NDArray], NDArray[np.bool_], NDArray[np.bool_]]:
    """Condition and every column's image, the lesion and B, each ``(H, W)``."""
    chunk, target, lesion = chunk_of(patient, 1)
    truth = torch.from_numpy(lesion)[:, None]
    images = [bench.image(row, patient, chunk, target, truth)[0] for row in columns_of(bench)]
    _, mask = bench.region(Row("", bench.bundle.defaults.detector), chunk, truth)
    return [chunk.condition[0, 0].numpy(), *images], lesion[0], mask[0, 0].numpy()


def page(bench: Bench, cases: list[PatientSlices], out: Path) -> None:
    """Draw the page: a row a patient, the lesion outlined in yellow on truth, B in blue on the condition."""
    from matplotlib.figure import Figure

    titles = [bench.bundle.condition.contrast, *(row.label for row in columns_of(bench))]
    canvas = Figure(figsize=(2.1 * len(titles), 2.5 * len(cases)), facecolor="black", layout="constrained")
    axes = canvas.subplots(len(cases), len(titles), squeeze=False)
    for line, patient in zip(axes, cases, strict=True):
        images, lesion, mask = panels(bench, patient)
        for place, (axis, image) in enumerate(zip(line, images, strict=True)):
            axis.imshow(image, cmap="gray", vmin=0, vmax=0.85)
            for outline, colour in ((mask if place == 0 else None, "deepskyblue"), (lesion if place == 1 else None, "gold")):
                if outline is not None and outline.any():
                    axis.contour(outline, levels=[0.5], colors=colour, linewidths=0.8)
            axis.axis("off")
        line[0].text(2, images[0].shape[0] - 4, patient.name, color="white", fontsize=6)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, color="white", fontsize=8)
    with whole_file(out) as partial:
        canvas.savefig(partial, format=out.suffix[1:], dpi=70)


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="t1-to-flair")
    parser.add_argument("--data", nargs="+", type=Path, required=True)
    parser.add_argument("--split", default="test", choices=("val", "test"))
    parser.add_argument("--count", type=int, default=8, help="patients at most")
    parser.add_argument("--slices", type=int, default=1, help="slices of each patient")
    parser.add_argument("--work", type=Path, default=Path("bench.work"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    bench = mri.load(options.model, None, None)
    found = [p for p in patients(bench.bundle, options.data, options.split, options.work) if p.lesion.any()]
    chosen = sorted(found, key=lambda p: p.name)[: options.count]
    page(bench, [one for p in chosen for one in chosen_slices(p, options.slices)], options.out)


if __name__ == "__main__":
    main()
