"""What a network of its own would buy for the bands in every voxel, against curves by the drawn intensity, which cost nothing.

``python -m examples.benchmarks.paper --part quantile --model t1-to-flair --data DATA… --split test --every 5``

A small U-Net sees the condition, M and what was drawn, and learns by pinball loss on the training people how far below and above the true
value may lie. Both kinds of band then get their margins from the val people, as ``calibrate`` does it, so that both keep the same promise
there. The narrower one on val is the better one; the people of ``--split`` show how it comes out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from monai.networks.nets import UNet
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from examples.benchmarks.harm import load
from examples.benchmarks.promise import LEVEL, UNIT, curves_from, kind_of, region_lines
from examples.benchmarks.table import Table
from localdiff_cli.errors import UsageError
from localdiff_cli.evaluation.metrics.intervals import PARTS, interval_figures, interval_regions
from localdiff_cli.guarantees import intervals
from localdiff_cli.guarantees.intervals import Curve, Residuals
from localdiff_cli.tasks.calibration import Measurement
from localdiff_cli.tasks.judged import draw, ready_for
from localdiff_cli.tasks.translation import TranslateWork
from localdiff_cli.training.people import Person, digest, people, slices_of, stamps
from localdiff_cli.volumes.whole import whole_file

STEPS, BATCH, RATE, SEED = 2000, 8, 1e-3, 0
CHANNELS = (16, 32, 64, 64)
RARE = 4.0
"""What the expert drew counts so many times in the loss: it is a small part of the brain."""
TAIL = (1 - LEVEL) / 2
CURVES, NETWORK = "curves by intensity", "a network of its own"
Limits = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Scan:
    """A person's slices ``(N, H, W)``: condition, M, what was drawn and the true target in [0, 1]; source labels, brain, lesion."""

    name: str
    kind: str
    condition: NDArray[np.float32]
    ood_map: NDArray[np.float32]
    image: NDArray[np.float32]
    true: NDArray[np.float32]
    source: NDArray[np.uint8]
    lesion: NDArray[np.bool_]

    def seen(self, first: int, last: int) -> Tensor:
        """What the network is given of some slices, ``(n, 3, H, W)``."""
        return torch.from_numpy(np.stack([each[first:last] for each in (self.condition, self.ood_map, self.image)], axis=1))


def scans(work: TranslateWork, split: str, options: argparse.Namespace) -> list[Scan]:
    """The people of a split who have a true target, each as it was translated."""
    found = people(options.data, work.bundle.condition.contrast, work.bundle.target.contrast, split)
    return [scan for person in found if person.target is not None and (scan := _scan(work, person, options)) is not None]


def _scan(work: TranslateWork, person: Person, options: argparse.Namespace) -> Scan | None:
    """One person, from ``--work`` if the same files were translated with the same settings; None for files that cannot be used."""
    path = options.work / "quantile" / f"{digest([work.settings, stamps(person), options.every])}.npz"
    if not path.is_file():
        slices = slices_of(person, ready_for(work), options.work / "slices", print)
        if slices is None:
            return None
        rows = list(range(0, len(slices.numbers), options.every))
        (drawn,) = draw(work, slices, rows, [work.mask.threshold])
        assert drawn.true is not None
        assert drawn.source is not None
        arrays = {
            "condition": (slices.condition[rows] / 65535).astype(np.float16), "ood_map": drawn.ood_map.astype(np.float16),
            "image": drawn.local.astype(np.float16), "true": drawn.true.astype(np.float16), "source": drawn.source,
            "lesion": drawn.lesions != 0,
        }  # fmt: skip
        with whole_file(path) as partial, partial.open("wb") as handle:
            np.savez_compressed(handle, allow_pickle=False, **arrays)
        print(f"translated {person.name}", flush=True)
    with np.load(path) as kept:
        images = {name: kept[name].astype(np.float32) for name in ("condition", "ood_map", "image", "true")}
        return Scan(person.name, kind_of(person), **images, source=kept["source"], lesion=kept["lesion"])


def network() -> nn.Module:
    """From condition, M and image to how far the limits lie below and above the image, before they are made positive."""
    strides = [2] * (len(CHANNELS) - 1)
    return cast("nn.Module", UNet(2, 3, 2, CHANNELS, strides, num_res_units=1))


def fitted(train: Sequence[Scan], path: Path, steps: int = STEPS) -> nn.Module:
    """The network after so many steps of pinball loss, people drawn alike; from ``path`` if it was fitted before."""
    torch.manual_seed(SEED)
    model = network()
    if path.is_file():
        model.load_state_dict(load_file(path))
        return model.eval()
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for step, (seen, true, weight) in enumerate(_batches(train, steps), start=1):
        loss = pinball(*_limits(model(seen), seen[:, 2]), true, weight)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            print(f"quantile: step {step} of {steps}, loss {loss.item():.5f}", flush=True)
    with whole_file(path) as partial:
        save_file(model.state_dict(), partial)
    return model.eval()


def _batches(train: Sequence[Scan], steps: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Random slices of random people, half of them mirrored: what the network sees, the truth, how much each pixel counts."""
    random = np.random.default_rng(SEED)
    shape = tuple(min(scan.image.shape[axis] for scan in train) for axis in (1, 2))
    for _ in range(steps):
        chosen = [(scan, int(random.integers(len(scan.image)))) for scan in (train[k] for k in random.integers(len(train), size=BATCH))]
        seen = torch.cat([_middle(scan.seen(row, row + 1), shape) for scan, row in chosen])
        true, source = (
            torch.stack([_middle(torch.from_numpy(getattr(scan, name)[row]), shape) for scan, row in chosen]) for name in ("true", "source")
        )
        weight = (source > 0).float() * (1 + (RARE - 1) * (source > 1).float())
        flip = torch.from_numpy(random.random(BATCH) < 0.5)
        yield tuple(torch.where(flip.view(-1, *[1] * (x.ndim - 1)), x.flip(-1), x) for x in (seen, true, weight))  # type: ignore[misc]


def _middle(plane: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The middle of ``(…, H, W)``: large brains have larger grids."""
    top, left = (plane.shape[-2] - shape[0]) // 2, (plane.shape[-1] - shape[1]) // 2
    return plane[..., top : top + shape[0], left : left + shape[1]]


def _limits(out: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    below, above = nn.functional.softplus(out - 3).unbind(1)
    return image - below, image + above


def pinball(low: Tensor, high: Tensor, true: Tensor, weight: Tensor) -> Tensor:
    """The pinball losses of both limits, at TAIL and 1 − TAIL, averaged by ``weight``."""
    lost = sum(torch.maximum(q * (true - limit), (q - 1) * (true - limit)) for limit, q in ((low, TAIL), (high, 1 - TAIL)))
    return (weight * lost).sum() / weight.sum()


@torch.inference_mode()
def by_network(model: nn.Module, scan: Scan) -> Limits:
    """The network's limits of every pixel."""
    parts = [scan.seen(first, first + BATCH) for first in range(0, len(scan.image), BATCH)]
    pairs = [_limits(model(part), part[:, 2]) for part in parts]
    low, high = (torch.cat(each).double().numpy() for each in zip(*pairs, strict=True))
    return low, high


def by_curves(curves: dict[str, Curve], scan: Scan) -> Limits:
    """The limits that curves give, each region by its own."""
    low, high = np.zeros(scan.image.shape), np.zeros(scan.image.shape)
    for region, labels in PARTS.items():
        inside = intervals.among(scan.source, labels)
        low[inside], high[inside] = intervals.start(scan.image[inside], region, curves)
    return low, high


def residuals(scan: Scan, limits: Limits) -> Residuals:
    """As ``intervals.residuals``, of limits that are given."""
    found: Residuals = {}
    for region, labels in PARTS.items():
        inside = intervals.among(scan.source, labels)
        found[region] = intervals.counted(limits[0][inside], limits[1][inside], scan.true[inside].astype(np.float64))
    return found


def figures(scan: Scan, limits: Limits, margins: dict[str, float | None]) -> dict[str, float]:
    """Coverage and width of one person's pixels, by region, once the limits are moved; all of the range where nothing is promised."""
    low, high = np.zeros(scan.image.shape), np.ones(scan.image.shape)
    for region, labels in PARTS.items():
        inside, margin = intervals.among(scan.source, labels), margins[region]
        if margin is not None:
            low[inside], high[inside] = intervals.moved(limits[0][inside], limits[1][inside], margin)
    brain = scan.source > 0
    lesion = scan.lesion[brain] if scan.lesion[brain].any() else None
    regions = interval_regions(np.ones(int(brain.sum()), bool), lesion, scan.source[brain])
    told = interval_figures(low[brain].astype(np.float32), high[brain].astype(np.float32), scan.true[brain], regions, UNIT)
    return {key: figure.value for key, figure in told.items() if figure.value is not None}


def measure(options: argparse.Namespace) -> list[Table]:
    """One table: both kinds of band on val and on ``--split``. Raises :class:`UsageError` without people for a step."""
    work = load(options.model)
    train, val, checked = (scans(work, split, options) for split in ("train", "val", options.split))
    if not (train and val and checked):
        raise UsageError("--part quantile: expected people with a true target in the splits train, val and --split", code="no-input")
    by = Measurement(work, (work.mask.threshold,), options.every, options.work, print)
    curves, model = curves_from(by, options)[0], fitted(train, options.work / "quantile" / f"{work.bundle.hash[:12]}.safetensors")
    ways = {CURVES: lambda scan: by_curves(curves, scan), NETWORK: lambda scan: by_network(model, scan)}
    made: list[dict[str, str]] = []
    for name, way in ways.items():
        own = [residuals(scan, way(scan)) for scan in val]
        margins = {region: intervals.margin(own, region, LEVEL) for region in PARTS}
        for split, group in {"val": val, options.split: checked}.items():
            made += region_lines(name, split, [figures(scan, way(scan), margins) for scan in group])
    about = f"learnt from {len(train)} training people, margins from {len(val)} val people, every {options.every}. slice"
    account = {"bundle": work.bundle.name, "settings": work.settings, "level": LEVEL, "steps": STEPS, "batch": BATCH, "channels": CHANNELS}
    return [Table(f"quantile-{work.bundle.name}-{options.split}", made, about, account, lambda canvas: _draw(canvas, made))]


def _draw(canvas: Any, made: Sequence[dict[str, str]]) -> None:
    axes = canvas.subplots()
    for name in (CURVES, NETWORK):
        own = [line for line in made if line["band"] == name]
        axes.plot(
            [float(line["width"].split()[0]) for line in own], [f"{line['people']}: {line['region']}" for line in own], "o", label=name
        )
    axes.set(xlabel="mean width, share of the range", xlim=(0, 1))
    axes.legend(fontsize=7)
