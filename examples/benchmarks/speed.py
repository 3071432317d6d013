"""How fast, side by side in one run: ratios, never promises. Translation against other samplers of the same network, and by stage.

``python -m examples.benchmarks.speed`` works on the volume in ``examples/data``; ``--data`` takes patients of your own.

The runs take turns and the least time counts (timing.py). Nothing that is timed is kept from another run: only figures of one run
stand side by side. PatchCore against anomalib is in speed_patchcore.py.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from examples.benchmarks import mri, speed_passes, speed_patchcore, speed_start
from examples.benchmarks.mri import Bench, Row
from examples.benchmarks.other_samplers import Published, monai, published
from examples.benchmarks.table import Table, save, to_tsv
from examples.benchmarks.timing import Timing, by_turns, clocked
from examples.benchmarks.translation import chunk_of, patients
from localdiff_cli.batch.discover import discover
from localdiff_cli.batch.report import recorded_arguments
from localdiff_cli.bundle import load_translator
from localdiff_cli.diffusion.device import automatic_batch
from localdiff_cli.diffusion.noise import INITIAL, NoiseKey
from localdiff_cli.errors import NoInputError
from localdiff_cli.options import DetectorOptions, TranslateOptions
from localdiff_cli.recipes.translate import TranslateRecipe
from localdiff_cli.tasks.sampling import SliceSampler
from localdiff_cli.tasks.slices import Chunk
from localdiff_cli.training.pairs import Pair, read_pairs
from localdiff_cli.training.slices import PatientSlices
from localdiff_cli.training.translator import psnr

REPEATS = 3
MAX_SLICES = 20
"""The published scheme is slow: more slices than these are thinned out."""
STAGES = ("Prepare", "Read", "Detect", "Network", "Write")
OURS = "localdiff, as the bundle says"


@dataclass(frozen=True, eq=False)
class Slices:
    """What is translated: a patient's slices, their true target ``(N, H, W)``, and M and B of the detector."""

    patient: str
    chunk: Chunk
    target: NDArray
    ood_map: Tensor
    ood_mask: Tensor

    def parts(self, size: int) -> list[Slices]:
        """``size`` slices at a time."""
        return [self._part(slice(first, first + size)) for first in range(0, len(self.target), size)]

    def _part(self, rows: slice) -> Slices:
        chunk = Chunk(self.chunk.numbers[rows], tuple(range(len(self.target[rows]))), self.chunk.condition[rows], self.chunk.brain[rows])
        return Slices(self.patient, chunk, self.target[rows], self.ood_map[rows], self.ood_mask[rows])


@dataclass(frozen=True, eq=False)
class Way:
    """One way to draw slices, ``batch`` at a time; ``detects`` where it needs the detector, whose time then counts too."""

    draw: Callable[[Slices], Tensor]
    steps: int
    batch: int
    detects: bool

    def images(self, work: list[Slices]) -> list[NDArray]:
        """The images ``(N, H, W)`` in [0, 1] of all patients."""
        return [torch.cat([self.draw(part) for part in one.parts(self.batch)])[:, 0].numpy() for one in work]


def measure(options: argparse.Namespace) -> list[Table]:
    """Translation against other samplers, by stage, the start-up apart, against its own forward passes; PatchCore against anomalib."""
    bench = mri.load(options.model, None, None)
    cases = patients(bench.bundle, options.data, options.split, options.work)
    if not cases:
        raise NoInputError(f"{', '.join(map(str, options.data))}: no patient of the split {options.split} with both contrasts")
    pairs = read_pairs(options.data, bench.bundle.condition.contrast, bench.bundle.target.contrast)
    pair = next(p for p in pairs if p.name == cases[0].name)
    tables = [
        _translate(bench, cases, options), _stages(bench, pair), speed_start.table(bench.bundle, pair, REPEATS),
        speed_passes.table(bench.bundle, pair, {OURS: {}, "--mode plain": {"mode": "plain"}}, partial(_volume, bench), REPEATS),
    ]  # fmt: skip
    return tables + ([speed_patchcore.table(bench.bundle, cases, options.work, REPEATS)] if bench.bundle.has_detector else [])


def machine() -> dict[str, Any]:
    """What the figures depend on: threads and versions."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "monai", "faiss-cpu", "numpy")}
    return {"threads": torch.get_num_threads(), "repeats": REPEATS, "versions": versions}


def slices_of(bench: Bench, patient: PatientSlices, every: int) -> Slices:
    """Every n-th slice of a patient, with M and B of the bundle's own detector."""
    chunk, target, _ = chunk_of(patient, every)
    ood_map, mask = _region(bench, chunk)
    return Slices(patient.name, chunk, target, ood_map, mask)


def _region(bench: Bench, chunk: Chunk) -> tuple[Tensor, Tensor]:
    return bench.region(Row("the bundle's detector", bench.bundle.defaults.detector), chunk, torch.zeros_like(chunk.brain))


def ways(bench: Bench) -> dict[str, Way]:
    """The rows: ours in its modes, the published scheme and MONAI's inferer with the same weights."""
    settings, batch = replace(bench.settings, mode="local"), automatic_batch(bench.networks.device)
    alone = replace(bench.networks, expert=None)

    def ours(**changes: Any) -> Way:
        how = replace(settings, **changes)
        return Way(partial(_ours, SliceSampler(bench.networks, how, "")), how.steps, batch, how.mode == "local")

    rows = {OURS: ours()}
    if bench.networks.expert:
        rows["localdiff, training-free (--expert none)"] = Way(
            partial(_ours, SliceSampler(alone, settings, "")), settings.steps, batch, True
        )
    scheme = Published()
    return rows | {
        f"localdiff, {'no ' if settings.ood_crop else ''}crop around the region": ours(ood_crop=not settings.ood_crop),
        "localdiff, half the steps": ours(steps=settings.steps // 2),
        "localdiff, --mode plain": ours(mode="plain"),
        "published scheme, same weights": Way(partial(_published, bench, scheme), scheme.steps, 1, True),
        "MONAI DiffusionInferer, same weights": Way(
            partial(_monai, bench, load_translator(bench.bundle, bench.networks.device)), settings.steps, batch, False
        ),
    }


def _ours(sampler: SliceSampler, work: Slices) -> Tensor:
    return replace(sampler, fingerprint=work.patient)(work.chunk, work.ood_map, work.ood_mask)[0]


def _published(bench: Bench, scheme: Published, work: Slices) -> Tensor:
    networks, condition = bench.networks, work.chunk.condition
    return _shown(published(networks.model, networks.schedule, condition, _noise(bench, work), work.ood_mask, scheme), work.chunk)


def _monai(bench: Bench, network: torch.nn.Module, work: Slices) -> Tensor:
    condition = work.chunk.condition
    return _shown(monai(network, bench.networks.schedule, condition, _noise(bench, work), bench.settings.steps), work.chunk)


def _noise(bench: Bench, work: Slices) -> Tensor:
    """The x_T that our own sampler would start from."""
    key = NoiseKey(bench.settings.seed, 0, work.patient, bench.settings.noise == "shared")
    return key.batch(INITIAL, work.chunk.active_numbers, (work.target.shape[1], work.target.shape[2]))


def _shown(x0: Tensor, chunk: Chunk) -> Tensor:
    return ((x0 + 1) / 2).clamp(0, 1) * chunk.brain


def _translate(bench: Bench, cases: list[PatientSlices], options: argparse.Namespace) -> Table:
    every = max(options.every, -(-sum(len(p.condition) for p in cases) // MAX_SLICES))
    work = [slices_of(bench, patient, every) for patient in cases]
    batch, rows = automatic_batch(bench.networks.device), ways(bench)

    def detect() -> list[NDArray]:
        return [_region(bench, part.chunk)[1].numpy() for one in work for part in one.parts(batch)]

    runs = {name: clocked(partial(way.images, work)) for name, way in rows.items()}
    timings = by_turns({"the detector": clocked(detect)} | runs, REPEATS)
    count, branched = sum(len(one.target) for one in work), sum(int(one.ood_mask.flatten(1).any(dim=1).sum()) for one in work)
    lines = _lines(rows, timings, work, count)
    about = (
        f"{count} slices with brain of {len(work)} patients (every {every}.), {branched} of them with an OOD region; CPU, "
        f"{torch.get_num_threads()} threads; least of {REPEATS} turns; detector and sampling, files and preparation apart"
    )
    account = {"bundle": bench.bundle.name, "hash": bench.bundle.hash, "every": every, "patients": [p.name for p in cases]}
    how = {"sampling": asdict(bench.settings), "defaults": asdict(bench.bundle.defaults), "published": asdict(Published())}
    return Table(f"speed-translate-{bench.bundle.name}", lines, about, account | how | machine(), partial(_draw_ratios, lines))


def _lines(rows: dict[str, Way], timings: dict[str, Timing], work: list[Slices], count: int) -> list[dict[str, str]]:
    detector = timings["the detector"].seconds
    spent = {name: timings[name].seconds + detector * way.detects for name, way in rows.items()}
    lines = []
    for name, way in rows.items():
        images = np.concatenate(timings[name].result)
        target, brain = np.concatenate([one.target for one in work]), torch.cat([one.chunk.brain for one in work])[:, 0].numpy()
        lines.append({
            "row": name, "steps": str(way.steps), "slices at a time": str(way.batch), "s a slice": f"{spent[name] / count:.3f}",
            "of which detector": f"{detector * way.detects / count:.3f}", "spread %": f"{100 * timings[name].spread:.0f}",
            "times ours": f"{spent[name] / spent[OURS]:.2f}", "PSNR brain": f"{psnr(images, target, brain):.2f}",
        })  # fmt: skip
    return lines


def _draw_ratios(lines: list[dict[str, str]], canvas: Any) -> None:
    axes = canvas.subplots()
    bars = axes.barh([line["row"] for line in lines], [float(line["times ours"]) for line in lines])
    axes.bar_label(bars, [f"{line['times ours']} ×, {line['PSNR brain']} dB" for line in lines], padding=3)
    axes.set(xlabel="time a slice, ours = 1", xscale="log")
    axes.invert_yaxis()
    axes.margins(x=0.3)


def _stages(bench: Bench, pair: Pair) -> Table:
    """``localdiff translate`` on one volume from file to file, by stage."""
    crop = bench.bundle.defaults.ood_crop
    modes: dict[str, dict[str, Any]] = {
        OURS: {}, f"{'no ' if crop else ''}crop around the region": {"ood_crop": not crop}, "--mode plain": {"mode": "plain"},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as out:
        runs = {name: clocked(_volume(bench, pair, Path(out) / str(k), changes)) for k, (name, changes) in enumerate(modes.items())}
        timings = by_turns(runs, REPEATS)
    lines = [_stage_line(name, timing) for name, timing in timings.items()]
    about = f"{pair.name}, file to file, models loaded; CPU, {torch.get_num_threads()} threads; stages of the first of {REPEATS} turns"
    account = {"bundle": bench.bundle.name, "hash": bench.bundle.hash, "volume": pair.name, "modes": modes}
    return Table(f"speed-stages-{bench.bundle.name}", lines, about, account | machine(), partial(_draw_stages, lines))


def _volume(bench: Bench, pair: Pair, out: Path, changes: Mapping[str, Any]) -> Callable[[], dict[str, float]]:
    """``translate`` on a volume, ready to run; it gives the seconds of its stages."""
    brain = str(pair.brain) if pair.brain else "auto"
    options = TranslateOptions(model=str(bench.bundle.path), brain=brain, device="cpu", **changes)
    work = TranslateRecipe(out, options, DetectorOptions()).load(lambda line: None)
    (item,) = discover(str(pair.condition), bench.bundle.condition.contrast).items
    return lambda: cast("dict[str, float]", work(item, lambda done, total: None).facts["Seconds"])


def _stage_line(name: str, timing: Timing[dict[str, float]]) -> dict[str, str]:
    total = timing.turns[0]
    shares = {f"{stage} %": f"{100 * timing.result.get(stage, 0) / total:.1f}" for stage in STAGES}
    outside = 100 * (1 - sum(timing.result.get(stage, 0) for stage in ("Detect", "Network")) / total)
    return {"row": name, "s a volume": f"{timing.seconds:.2f}", "spread %": f"{100 * timing.spread:.0f}"} | shares | {
        "outside the networks %": f"{outside:.1f}"
    }  # fmt: skip


def _draw_stages(lines: list[dict[str, str]], canvas: Any) -> None:
    axes = canvas.subplots()
    names, left = [line["row"] for line in lines], np.zeros(len(lines))
    for stage in STAGES:
        shares = np.array([float(line[f"{stage} %"]) for line in lines])
        axes.barh(names, shares, left=left, label=stage.lower())
        left += shares
    axes.set(xlabel="% of the time a volume takes", xlim=(0, 100))
    axes.invert_yaxis()
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


def main() -> None:
    """Measure and print; ``--out`` writes the tables with their settings and figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="t1-to-flair", help="translator bundle")
    parser.add_argument("--data", nargs="+", type=Path, default=[Path("examples/data")], help="folders or TSVs of pairs, as for fit")
    parser.add_argument("--split", default="train", choices=("train", "val", "test"), help="a folder without participants.tsv is train")
    parser.add_argument("--every", type=int, default=1, help="every n-th slice")
    parser.add_argument("--work", type=Path, default=Path("bench.work"), help="prepared slices, and anomalib's environment")
    parser.add_argument("--out", type=Path, help="folder for TSV, settings and figures")
    options = parser.parse_args()
    command = f"python -m examples.benchmarks.speed {recorded_arguments(sys.argv[1:])}".strip()
    for table in measure(options):
        print(f"\n{table.stem} ({table.about})\n{to_tsv(table.rows)}")
        if options.out:
            save(table, options.out, command)


if __name__ == "__main__":
    main()
