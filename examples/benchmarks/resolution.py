"""What finer grids cost, and how calm a translation is from slice to slice.

Resolution: slices padded to 256² at 1 mm and up-sampled to 512² and 1024² are sampled plainly, locally, and locally with ``ood_crop``.
The network learnt at 1 mm, so finer grids lie outside its training scale: their fidelity says what happens when it is used there all
the same. The honest alternative is a row of its own: the network at 1 mm, its result up-sampled (its memory is that of the run at 1 mm).
Up-sampling adds no detail; no data finer than 1 mm is at hand.

Through-plane: slices are drawn one by one, sharing their noise or each with its own, or by a network that sees the neighbouring slices
as well (neighbours.py). Flicker is the mean |I_k − I_{k+1}| inside the brain that both slices have in common, over the true
contrast's own; that of the error I − target tells noise from anatomy.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import multiprocessing
import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from examples.benchmarks import mri, neighbours
from examples.benchmarks.mri import Bench, Row
from examples.benchmarks.table import Table, decimal
from examples.benchmarks.translation import chunk_of, patients
from localdiff_cli.batch.volume import peak_megabytes
from localdiff_cli.bundle import load_translator
from localdiff_cli.diffusion.network import TranslatorNetwork
from localdiff_cli.errors import UsageError
from localdiff_cli.evaluation.cohort.statistics import Bootstrap, bootstrap_mean
from localdiff_cli.ood.threshold import to_mask
from localdiff_cli.tasks.sampling import SliceSampler
from localdiff_cli.tasks.slices import Chunk
from localdiff_cli.training.slices import PatientSlices
from localdiff_cli.training.translator import psnr
from localdiff_cli.volumes.whole import whole_file, write_text

SIDE, FACTORS, SLICES = 256, (1, 2, 4), 3
"""Side of the padded slice at 1 mm, how much finer the grids are, and the number of patients (by name), each with its largest lesion."""
WAYS = ("plain", "local", "local, ood_crop")
DILATE_MM = 3.0
COMMAND = "python -m examples.benchmarks.paper --part resolution"
RUN, RUNS = 6, 8
"""Neighbouring slices about the largest lesion, and the number of patients (by name)."""


@dataclass(frozen=True)
class Job:
    """What a fresh process measures: a bundle, a way to sample, how much finer, and the file with the slices."""

    model: str
    way: str
    factor: int
    slices: str


def rows_around_largest(patient: PatientSlices, count: int) -> slice:
    """``count`` neighbouring slices about the one on which the lesion is largest."""
    k = int(patient.lesion.sum(axis=(1, 2)).argmax())
    first = min(max(0, k - count // 2), max(0, len(patient.lesion) - count))
    return slice(first, first + count)


def around_largest(patient: PatientSlices, count: int) -> PatientSlices:
    """The patient with these slices only."""
    rows = rows_around_largest(patient, count)
    return replace(patient, **{name: getattr(patient, name)[rows] for name in ("condition", "target", "brain", "lesion")})


def padded(stack: Tensor, side: int) -> Tensor:
    """``(N, 1, H, W)`` in the middle of ``(N, 1, side, side)``, background around."""
    height, width = stack.shape[-2:]
    top, left = (side - height) // 2, (side - width) // 2
    return pad(stack, (left, side - width - left, top, side - height - top))


def finer(stack: Tensor, factor: int) -> Tensor:
    """``(N, 1, H, W)`` in [0, 1] on a grid ``factor`` times as fine, cubic."""
    return stack if factor == 1 else interpolate(stack, scale_factor=factor, mode="bicubic", align_corners=False).clamp(0, 1)


def finer_mask(mask: Tensor, factor: int) -> Tensor:
    """A mask on that grid: every pixel becomes ``factor`` × ``factor``."""
    return mask.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)


def translate(bench: Bench, way: str, chunk: Chunk, mask: Tensor) -> Tensor:
    """One sample of a chunk, ``(N, 1, H, W)`` in [0, 1], B being ``mask``; the bundle's expert takes part where it has one."""
    settings = replace(bench.settings, mode="plain" if way == "plain" else "local", ood_crop=way.endswith("ood_crop"))
    return SliceSampler(bench.networks, settings, "resolution")(chunk, mask.float(), mask)[0]


def measure_size(job: Job) -> dict[str, Any]:
    """In a process of its own: CPU ``seconds`` a slice, memory ``loaded`` and at its ``peak`` (MB), ``psnr`` of each slice.

    The PSNR is inside the brain, after averaging back to 1 mm. At 1 mm ``up`` has seconds and PSNR of the result up-sampled by each
    other factor.
    """
    bench = mri.load(job.model, None, None)
    with np.load(job.slices) as kept:
        condition, target, brain, mask = (torch.from_numpy(kept[name]) for name in ("condition", "target", "brain", "mask"))
    inside = finer_mask(brain, job.factor)
    fine = Chunk(tuple(range(len(condition))), tuple(range(len(condition))), finer(condition, job.factor) * inside, inside)
    loaded, started = peak_memory(), time.process_time()
    image = translate(bench, job.way, fine, finer_mask(mask, job.factor))
    found: dict[str, Any] = {"seconds": (time.process_time() - started) / len(image), "loaded": loaded, "peak": peak_memory()}
    found |= {"psnr": _decibels(avg_pool2d(image, job.factor), target, brain), "threads": torch.get_num_threads(), "up": {}}
    for factor in FACTORS[1:] if job.factor == 1 else ():
        started = time.process_time()
        enlarged = finer(image, factor)
        seconds = found["seconds"] + (time.process_time() - started) / len(image)
        found["up"][str(factor)] = {"seconds": seconds, "psnr": _decibels(avg_pool2d(enlarged, factor), target, brain)}
    return found


def _decibels(images: Tensor, targets: Tensor, brains: Tensor) -> list[float]:
    return [psnr(i.numpy(), t.numpy(), b.numpy()) for i, t, b in zip(images, targets, brains, strict=True)]


def peak_memory() -> float:
    """Peak memory (MB) of this process since it began to run its program; what its parent held, the kernel counts in elsewhere."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    return int(found[1]) / 1e3 if found else peak_megabytes()


def in_fresh_process(job: Job) -> dict[str, Any]:
    """:func:`measure_size` where nothing else was ever in memory."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure_size, job).result()


def size_slices(cases: list[PatientSlices], bench: Bench) -> dict[str, NDArray]:
    """The slices of the size table, padded, ``(N, 1, 256, 256)``; B is the true lesion, dilated."""
    largest = [chunk_of(around_largest(patient, 1), 1) for patient in cases]
    condition, brain = (torch.cat([getattr(chunk, name) for chunk, _, _ in largest]) for name in ("condition", "brain"))
    target, lesion = (torch.from_numpy(np.concatenate([each[k] for each in largest]))[:, None] for k in (1, 2))
    mask = to_mask(lesion.float(), 0.5, brain, 0.0, DILATE_MM, (bench.bundle.grid.spacing,) * 2)
    stacks = {"condition": condition, "target": target, "brain": brain, "mask": mask}
    return {name: padded(stack, SIDE).numpy() for name, stack in stacks.items()}


def sizes(bench: Bench, model: str, cases: list[PatientSlices], work: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """What each way costs at each size, measured once and kept in ``work``."""
    arrays = size_slices(cases, bench)
    content = b"".join(array.tobytes() for array in arrays.values())
    key = hashlib.sha256(json.dumps([bench.hashes, asdict(bench.settings)]).encode() + content).hexdigest()[:16]
    slices, found = work / f"slices-{key}.npz", {}
    with whole_file(slices) as partial, partial.open("wb") as handle:
        np.savez(handle, **arrays)  # type: ignore[arg-type]
    for factor in FACTORS:
        for way in WAYS:
            path = work / f"size-{key}-{factor}-{WAYS.index(way)}.json"
            if not path.is_file():
                write_text(path, json.dumps(in_fresh_process(Job(model, way, factor, str(slices)))))
            found[way, factor] = json.loads(path.read_text(encoding="utf-8"))
            print(f"{way} at {factor * SIDE}²: {found[way, factor]['seconds']:.2f} s a slice", flush=True)
    return found


def size_lines(found: dict[tuple[str, int], dict[str, Any]]) -> list[dict[str, str]]:
    """One line for each way and size, and for the result at 1 mm up-sampled; ratios are to the same way at 256²."""
    lines = []
    for (way, factor), numbers in found.items():
        base = found[way, 1]
        lines.append(_size_line(way, factor, numbers, base))
        if factor > 1:
            lines.append(_size_line(f"{way}, at 1 mm, up-sampled", factor, base | base["up"][str(factor)], base))
    return lines


def _size_line(way: str, factor: int, numbers: dict[str, Any], base: dict[str, Any]) -> dict[str, str]:
    drop = [a - b for a, b in zip(numbers["psnr"], base["psnr"], strict=True)]
    return {
        "size": f"{factor * SIDE}²", "sampled": way, "CPU s a slice": f"{numbers['seconds']:.2f}",
        "times 256²": f"{numbers['seconds'] / base['seconds']:.1f}", "peak MB": f"{numbers['peak']:.0f}",
        "MB above the loaded networks": f"{numbers['peak'] - numbers['loaded']:.0f}",
        "PSNR in the brain": decimal(bootstrap_mean(numbers["psnr"], Bootstrap()), 2),
        "against 256²": decimal(bootstrap_mean(drop, Bootstrap()), 2) if any(drop) else "0.00",
    }  # fmt: skip


def noise_rows(bench: Bench) -> tuple[Row, ...]:
    """The rows of the through-plane table: plain and the bundle's default local sampling, each with both kinds of noise."""
    source, expert = bench.bundle.defaults.detector, bench.networks.expert is not None
    ways = (("plain", "none", False), ("local", source, expert))
    return (
        Row("true target contrast", "true"),
        Row("polynomial", "polynomial"),
        *(
            Row(f"{label}, {noise} noise", row_source, with_expert, changes=(("noise", noise),))
            for label, row_source, with_expert in ways
            for noise in ("shared", "independent")
        ),
        *(row for row in (Row("2D, 400 steps more", "none", variant="further"),) if bench.can(row)),
    )


def flicker(images: NDArray, brain: NDArray[np.bool_]) -> float | None:
    """Mean |I_k − I_{k+1}| over the pixels that are brain in both slices, ``(S, H, W)``; None where there are none."""
    both = brain[:-1] & brain[1:]
    return float(np.abs(np.diff(images, axis=0))[both].mean()) if both.any() else None


def calmness(image: NDArray, patient: PatientSlices) -> dict[str, float | None]:
    """Flicker of images of a patient's slices, of their error and of the true contrast; PSNR (dB) inside the brain."""
    _, target, _ = chunk_of(patient, 1)
    brain = patient.brain
    flickers = {"image": flicker(image, brain), "error": flicker(image - target, brain), "true": flicker(target, brain)}
    return flickers | {"psnr": psnr(image, target, brain) if (image != target).any() else None}


def through_plane(bench: Bench, row: Row, patient: PatientSlices) -> dict[str, float | None]:
    """What a row makes of neighbouring slices."""
    chunk, target, lesion = chunk_of(patient, 1)
    return calmness(bench.image(row, patient, chunk, target, torch.from_numpy(lesion)[:, None]), patient)


Drawn = Callable[[PatientSlices], dict[str, float | None]]


def noise_ways(bench: Bench, options: argparse.Namespace) -> dict[str, tuple[list[Any], Drawn]]:
    """Every way to draw neighbouring slices of a whole patient, by label, with what else decides the result."""

    def of_row(row: Row) -> tuple[list[Any], Drawn]:
        return [asdict(row), mri.weights_of_row(bench, row)], lambda patient: through_plane(bench, row, around_largest(patient, RUN))

    ways = {row.label: of_row(row) for row in noise_rows(bench)}
    if not isinstance(load_translator(bench.bundle, torch.device("cpu")), TranslatorNetwork):
        return ways
    network = functools.cache(lambda: neighbours.trained(bench, options, COMMAND))

    def seeing(patient: PatientSlices) -> dict[str, float | None]:
        rows = rows_around_largest(patient, RUN)
        return calmness(neighbours.translate(network(), bench, patient, rows), around_largest(patient, RUN))

    return ways | {"2.5D, 400 steps more": ([neighbours.SEEN], seeing)}


def noise_lines(bench: Bench, cases: list[PatientSlices], options: argparse.Namespace) -> list[dict[str, str]]:
    """One line a way: both flickers as ratios to the true contrast's, and PSNR, means over patients."""
    lines = []
    for label, (how, draw) in noise_ways(bench, options).items():
        measured: dict[str, list[float]] = {"image": [], "error": [], "psnr": []}
        for patient in cases:
            key = json.dumps([bench.hashes, how, RUN, asdict(bench.settings), patient.name, patient.condition.shape])
            path = options.work / "resolution" / f"noise-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
            if not path.is_file():
                write_text(path, json.dumps(draw(patient)))
            numbers = json.loads(path.read_text(encoding="utf-8"))
            if numbers["true"]:
                measured["image"].append(numbers["image"] / numbers["true"])
                measured["error"].append(numbers["error"] / numbers["true"])
            measured["psnr"] += [numbers["psnr"]] if numbers["psnr"] is not None else []
        image, error, decibels = (decimal(bootstrap_mean(values, Bootstrap()), 3 - (k == 2)) for k, values in enumerate(measured.values()))
        lines.append({
            "row": label, "patients": str(len(cases)), "flicker over true": image, "flicker of the error over true": error,
            "PSNR in the brain": decibels,
        })  # fmt: skip
        print(f"{label}: {len(cases)} patients", flush=True)
    return lines


def measure(options: argparse.Namespace) -> list[Table]:
    """Both tables; patients with lesions are taken by name, and ``every`` plays no part."""
    bench = mri.load(options.model, None, None)
    found = [p for p in patients(bench.bundle, options.data, options.split, options.work) if p.lesion.any()]
    if not found:
        raise UsageError(f"no {options.split} patient with both contrasts and a lesion in the data; expected some: give --data with masks")
    cases, work = sorted(found, key=lambda p: p.name), options.work / "resolution"
    measured = sizes(bench, options.model, cases[:SLICES], work)
    grown, calm = size_lines(measured), noise_lines(bench, cases[:RUNS], options)
    stem, threads = f"{bench.bundle.name}-{options.split}", next(iter(measured.values()))["threads"]
    account = {"bundle": bench.bundle.name, "hashes": bench.hashes, "sampling": asdict(bench.settings)}
    names = [p.name for p in cases]
    about = f"the slice with the largest lesion of {len(names[:SLICES])} {options.split} patients, B is the true lesion"
    return [
        Table(
            f"resolution-{stem}", grown, about,
            account | {"patients": names[:SLICES], "dilate_mm": DILATE_MM, "threads": threads, "slices": "up-sampled from 1 mm, cubic"},
            lambda canvas: _draw_sizes(canvas, grown),
        ),
        Table(
            f"resolution-through-plane-{stem}", calm, f"{RUN} neighbouring slices of {len(names[:RUNS])} {options.split} patients",
            account | {"patients": names[:RUNS]}, lambda canvas: _draw_noise(canvas, calm),
        ),
    ]  # fmt: skip


def _first(text: str) -> float:
    return np.nan if text.startswith("n/a") else float(text.split(" ")[0])


def _draw_sizes(canvas: Any, lines: list[dict[str, str]]) -> None:
    """Time, memory and fidelity against the side of the slice."""
    for axes, key in zip(canvas.subplots(1, 3), ("CPU s a slice", "peak MB", "PSNR in the brain"), strict=True):
        for way in dict.fromkeys(line["sampled"] for line in lines):
            own = [line for line in lines if line["sampled"] == way]
            style = "--" if "up-sampled" in way else "-"
            axes.plot([int(line["size"][:-1]) for line in own], [_first(line[key]) for line in own], style, marker="o", label=way)
        axes.set(xlabel="side, pixels", title=key, xticks=[SIDE * factor for factor in FACTORS])
        if key.startswith("CPU"):
            axes.set(xscale="log", yscale="log", xticks=[SIDE * factor for factor in FACTORS])
            axes.set_xticklabels([str(SIDE * factor) for factor in FACTORS])
            axes.minorticks_off()
            canvas.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7)


def _draw_noise(canvas: Any, lines: list[dict[str, str]]) -> None:
    """Both flickers, one bar a row."""
    axes, places = canvas.subplots(), np.arange(len(lines))
    for shift, key in ((-0.2, "flicker over true"), (0.2, "flicker of the error over true")):
        axes.barh(places + shift, [_first(line[key]) for line in lines], 0.4, label=key)
    axes.set_yticks(places, [line["row"] for line in lines])
    axes.invert_yaxis()
    axes.axvline(1, color="grey", linewidth=0.5)
    canvas.legend(loc="outside lower center", ncols=2)
