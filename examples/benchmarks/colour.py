"""Colour: photographs in RGB. Are colour defects, and colour shifts of equal brightness, detected, and kept or restored?

``python -m examples.benchmarks.paper --part colour --data PHOTOGRAPHS --split test`` measures;
``python -m examples.benchmarks.photographs --data PHOTOGRAPHS --out models/bench`` makes the weights again.

Two tables: the rows of photographs.py in RGB, and colour shifts planted in good photographs. A shift moves an ellipse towards red or
green at the same luminance, so that a detector that sees luminance only is blind to it.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from examples.benchmarks import photographs
from examples.benchmarks import super_resolution as sr
from examples.benchmarks.photographs import LUMA, Bench, Photograph, luminance
from examples.benchmarks.super_resolution import Row
from examples.benchmarks.table import Table, decimal, percent
from localdiff_cli.evaluation.metrics.ood_maps import auroc

TOWARDS = {"red": (1.0, -LUMA[0] / LUMA[1], 0.0), "green": (-LUMA[1] / LUMA[0], 1.0, 0.0)}
"""Directions of equal luminance in RGB."""


@dataclass(frozen=True)
class Shifting:
    """``size``: largest change of a channel; the ellipse's half ``axes`` as shares of the image; ``kept``: below it a shift is restored."""

    size: float = 0.2
    axes: tuple[float, float] = (0.12, 0.18)
    kept: float = 0.5


SHIFTED = tuple(
    row for row in photographs.ROWS if row.source in ("true", "condition", "none") or (not row.published and row.local.context == 0.5)
)


def shifted(photograph: Photograph, towards: str, shifting: Shifting) -> Photograph:
    """A good photograph with a shift planted in its middle, where the part lies; its mask says where. The colours stay in [0, 1]."""
    height, width = photograph.image.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height) / height - 0.5, torch.arange(width) / width - 0.5, indexing="ij")
    mask = ((rows / shifting.axes[0]) ** 2 + (columns / shifting.axes[1]) ** 2 <= 1)[None]
    direction = torch.tensor(TOWARDS[towards])[:, None, None]
    direction = direction * shifting.size / direction.abs().max()
    room = torch.where(direction > 0, 1 - photograph.image, photograph.image) / direction.abs().clamp(min=1e-6)
    step = torch.where(direction == 0, 1.0, room).amin(dim=0, keepdim=True).clamp(0, 1)
    return replace(photograph, kind=f"towards {towards}", image=photograph.image + mask * step * direction, mask=mask)


def kept_share(made: NDArray, usual: NDArray, true: NDArray, inside: NDArray[np.bool_]) -> float:
    """How much of a shift is left in ``made``, each ``(3, H, W)``: 1 as in ``true``, 0 as in the ``usual`` photograph without it."""
    found, planted = ((image - usual)[:, inside].mean(axis=1, dtype=np.float64) for image in (made, true))
    return float(found @ planted / (planted @ planted))


@dataclass(frozen=True, eq=False)
class ShiftBench:
    """Photographs with planted shifts, measured by a bench in colour and by one that sees luminance."""

    colour: Bench
    grey: Bench
    shifting: Shifting

    @cached_property
    def _usual(self) -> dict[int, Photograph]:
        return {photograph.number: photograph for photograph in self.colour.photographs}

    def judged(self, row: Row, case: Photograph) -> dict[str, Any]:
        """Figures of one shifted photograph: share of the shift kept, PSNR, and the chance that a shifted pixel outranks another."""
        image, mask = self.colour.image(row, case)
        inside = case.mask[0].numpy()
        condition = sr.low_resolution(case.image[None], photographs.FACTOR)
        return {
            "kept": kept_share(image[0].numpy(), self._usual[case.number].image.numpy(), case.image.numpy(), inside),
            "psnr": sr.decibels(image[0].numpy(), case.image.numpy()),
            "ood": float(mask.float().mean()),
            "auroc": _ranked(self.colour, case, condition, inside),
            "auroc_grey": _ranked(self.grey, case, luminance(condition), inside),
        }


def _ranked(bench: Bench, case: Photograph, condition: Tensor, inside: NDArray[np.bool_]) -> float:
    score = bench.categories[case.category].finder(condition, sr.everywhere(condition)).score[0, 0].numpy()
    return auroc(score[inside], np.sort(score[~inside]))


def summary_row(row: Row, own: list[dict[str, Any]], shifting: Shifting) -> dict[str, str]:
    """One line of the table; intervals are 95 % bootstrap intervals over shifted photographs."""

    def values(key: str) -> NDArray[Any]:
        return np.array([case[key] for case in own if case[key] is not None])

    return {
        "row": row.label,
        "photographs": str(len(own)),
        "shift kept": sr.mean_of(values("kept"), partial(decimal, digits=2)),
        "shifts restored to usual %": sr.mean_of(values("kept") < shifting.kept, percent),
        "psnr": sr.mean_of(values("psnr"), partial(decimal, digits=2)),
        "pixel AUROC, RGB": sr.mean_of(values("auroc"), partial(decimal, digits=3)),
        "pixel AUROC, luminance": sr.mean_of(values("auroc_grey"), partial(decimal, digits=3)),
        "OOD region %": f"{100 * values('ood').mean():.1f}",
    }


def measure(options: argparse.Namespace) -> list[Table]:
    """The part: colour defects, and planted shifts."""
    in_colour, in_grey = (photographs.read_photographs(options.data[0], colour) for colour in (True, False))
    return [photographs.table_of(in_colour, f"colour-defects-{options.split}", options), _shift_table(in_colour, in_grey, options)]


def _shift_table(in_colour: list[Photograph], in_grey: list[Photograph], options: argparse.Namespace) -> Table:
    shifting, stem = Shifting(), f"colour-shifts-{options.split}"
    colour, weights = photographs.bench_of(in_colour, options)
    bench = ShiftBench(colour, replace(colour, photographs=in_grey), shifting)
    usual = [p for p in photographs.first(in_colour, options.split, options.most) if not p.defective]
    cases = [shifted(photograph, towards, shifting) for photograph in usual for towards in TOWARDS]
    settings = {"sampling": asdict(colour.sampling), "detector": asdict(colour.detecting), "shifting": asdict(shifting)}
    lines = []
    for row in SHIFTED:
        key = [weights, settings, asdict(row), options.split]
        own = [
            sr.measured_once(options.work / "colour", [*key, case.number, case.kind], partial(bench.judged, row, case)) for case in cases
        ]
        lines.append(summary_row(row, own, shifting))
        print(f"{stem}, {row.label}: {len(cases)} photographs", flush=True)
    account = {"split": options.split, "weights": weights, **settings, "rows": [asdict(row) for row in SHIFTED]}
    about = f"{len(usual)} good {options.split} photographs, each shifted towards {' and '.join(TOWARDS)} at equal luminance"
    return Table(stem, lines, f"{about}; unit: the shifted photograph", account, lambda canvas: _draw(canvas, stem, lines))


def _draw(canvas: Any, title: str, lines: list[dict[str, str]]) -> None:
    """How much of the shift each row keeps."""
    axes = canvas.subplots()
    axes.barh([line["row"] for line in lines], [float(line["shift kept"].split(" ")[0]) for line in lines])
    axes.set(xlabel="share of the colour shift kept (1: as it is, 0: restored to usual)", title=title)
    axes.invert_yaxis()
