"""What a bundle's interval network buys for the bands in every voxel, against curves by the drawn intensity, which cost nothing.

``python -m examples.benchmarks.paper --part quantile --model t1-to-flair --data DATA… --split test --every 5``

Both learnt from training people (``fit interval``; the curves as ``calibrate --bands-from`` learns them) and both get their margins from
the val people, as ``calibrate`` gives them, so that both keep the same promise there. The narrower one on val is the better one; the
people of ``--split`` show how it comes out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from examples.benchmarks.harm import load
from examples.benchmarks.promise import CURVES, LEVEL, SHIPPED, bands_of, coverage_of, curves_from, measured, region_lines
from examples.benchmarks.table import Table
from localdiff_cli.bundle import load_interval
from localdiff_cli.errors import UsageError
from localdiff_cli.guarantees.intervals import beside_network
from localdiff_cli.tasks.calibration import Measurement

NETWORK, CONSTANT = "interval network alone", "constant by region"


def measure(options: argparse.Namespace) -> list[Table]:
    """One table: each way to begin bands, on val and on ``--split``. Raises :class:`UsageError` without people for a step, and
    :class:`ModelError` for a bundle without the network."""
    work = load(options.model)
    network = load_interval(work.bundle, torch.device("cpu"))
    by = Measurement(work, (work.mask.threshold,), options.every, options.work, print, network=network)
    found = {split: [each.drawn for each in measured(by, split, options) if each.drawn.true.size] for split in ("val", options.split)}
    if not all(found.values()):
        raise UsageError(f"--part quantile: expected people with a true target in the splits val and {options.split}", code="no-input")
    curves = curves_from(replace(by, network=None), options)[0]
    made: list[dict[str, str]] = []
    for name, shapes, begun in (
        (SHIPPED, beside_network(curves), True), (NETWORK, {}, True), (CURVES, curves, False), (CONSTANT, {}, False),
    ):  # fmt: skip
        people = {split: [each if begun else replace(each, begun=None) for each in group] for split, group in found.items()}
        bands = bands_of(people["val"], shapes)
        for split, group in people.items():
            made += region_lines(name, split, [coverage_of(each, bands) for each in group])
    about = f"margins from {len(found['val'])} val people, every {options.every}. slice"
    account = {"bundle": work.bundle.name, "settings": work.settings, "level": LEVEL}
    return [Table(f"quantile-{work.bundle.name}-{options.split}", made, about, account, lambda canvas: _draw(canvas, made))]


def _draw(canvas: Any, made: Sequence[dict[str, str]]) -> None:
    axes = canvas.subplots()
    for name in (SHIPPED, NETWORK, CURVES, CONSTANT):
        own = [line for line in made if line["band"] == name]
        axes.plot(
            [float(line["width"].split()[0]) for line in own], [f"{line['people']}: {line['region']}" for line in own], "o", label=name
        )
    axes.set(xlabel="mean width, share of the range", xlim=(0, 1))
    axes.legend(fontsize=7)
