"""What each step of the reverse process knows: the lesion in x̂_0 as the steps go, and where the denoising loss sees it.

Two tables of lesion slices: how the x_0 estimate of plain and branched processes develops (contrast, the segmenter's Dice, likeness to
the estimate of the step before), and the squared error of the network's x_0 prediction inside and outside B (the weighted term of the
ELBO) for the conditions c, c · B and c · max(1 − B, λ).
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from examples.benchmarks import mri
from examples.benchmarks.mri import UNIT, Bench
from examples.benchmarks.table import Table, decimal
from examples.benchmarks.translation import chunk_of, patients
from localdiff_cli.diffusion.branching import branch_denoiser, ind_condition, ood_condition, split
from localdiff_cli.diffusion.fusion import fuse
from localdiff_cli.diffusion.noise import INITIAL, NoiseKey
from localdiff_cli.diffusion.samplers import Model, State, advance, denoiser, step_of
from localdiff_cli.diffusion.schedule import step_pairs
from localdiff_cli.evaluation.cohort.statistics import Bootstrap, bootstrap_mean
from localdiff_cli.evaluation.metrics.image import ssim_maps, ssim_of_slices
from localdiff_cli.evaluation.metrics.lesion import lesion_contrast, ring_around
from localdiff_cli.segmentation.network import lesion_probability
from localdiff_cli.tasks.slices import Chunk
from localdiff_cli.training.slices import PatientSlices
from localdiff_cli.volumes.whole import write_text

TIMES = (50, 150, 300, 500, 700, 900)
"""Timesteps at which the denoising loss is taken."""
STEPS = 10
Numbers = dict[str, float | None]


def lesion_slices(patient: PatientSlices, every: int) -> PatientSlices | None:
    """Every n-th of the patient's slices with more than 40 lesion pixels; None without one."""
    rows = np.flatnonzero(patient.lesion.sum(axis=(1, 2)) > 40)[::every]
    if not rows.size:
        return None
    assert patient.target is not None
    return replace(
        patient, condition=patient.condition[rows], target=patient.target[rows], brain=patient.brain[rows], lesion=patient.lesion[rows]
    )


def estimates(bench: Bench, chunk: Chunk, mask: Tensor, fingerprint: str, way: str) -> Iterator[Tensor]:
    """The x_0 estimate, ``(N, 1, H, W)`` in [0, 1], after each step of a process: ``plain``, ``local``, or ``expert``."""
    schedule, settings = bench.networks.schedule, bench.settings
    key = NoiseKey(settings.seed, 0, fingerprint, settings.noise == "shared")
    shape = (chunk.condition.shape[2], chunk.condition.shape[3])
    state = State(key.batch(INITIAL, list(chunk.active_numbers), shape))
    denoise = denoiser(bench.networks.model, schedule, chunk.condition)
    if way != "plain":
        expert = bench.networks.expert if way == "expert" else None
        told = mask.float() if expert is not None and bench.networks.told else None
        denoise = branch_denoiser(bench.networks.model, schedule, chunk.condition, mask, settings.local.context, expert=expert, told=told)
        state = split(state)
    step = step_of(settings.sampler, settings.eta)
    for number, pair in enumerate(step_pairs(schedule.num_train_timesteps, settings.steps)):
        state = advance(step, denoise, schedule, state, number, pair, lambda n: torch.zeros(shape))
        x0 = state.x0 if way == "plain" else fuse(state, mask.float()).x0
        assert x0 is not None
        yield ((x0 + 1) / 2).clamp(0, 1) * chunk.brain


def _judge(bench: Bench, image: Tensor, before: Tensor | None, target: NDArray, chunk: Chunk, lesion: NDArray[np.bool_]) -> Numbers:
    """Contrast, Dice and the share of slices found (Dice 0.1) of an estimate, its PSNR, and SSIM to the estimate before."""
    found = lesion_probability(bench.segmenter, image, chunk.brain)[:, 0].numpy() >= bench.cut
    picture, brain = image[:, 0].numpy(), chunk.brain[:, 0].numpy()
    ring = ring_around(lesion, brain, (1e3, bench.bundle.grid.spacing, bench.bundle.grid.spacing), 1.0, 5.0)
    overlap = 2 * (found & lesion).sum(axis=(1, 2)) / np.maximum(1, found.sum(axis=(1, 2)) + lesion.sum(axis=(1, 2)))
    like = None
    if before is not None:
        like = float(np.nanmean(ssim_of_slices(ssim_maps(picture, before[:, 0].numpy(), UNIT), brain, picture.shape)))
    return {
        "contrast": lesion_contrast(picture, lesion, ring, UNIT).value,
        "dice": float(overlap.mean()), "found": float((overlap >= 0.1).mean()),
        "psnr": float(-10 * np.log10(((picture - target)[brain] ** 2).mean())), "ssim to the step before": like,
    }  # fmt: skip


def trajectory(bench: Bench, patient: PatientSlices, way: str) -> list[Numbers]:
    """What the estimate shows after each step, for one patient's lesion slices; the true lesion is B."""
    chunk, target, lesion = chunk_of(patient, 1)
    inside = lesion & chunk.brain[:, 0].numpy()
    before, lines = None, []
    with torch.inference_mode():
        for image in estimates(bench, chunk, torch.from_numpy(inside)[:, None], patient.name, way):
            lines.append(_judge(bench, image, before, target, chunk, inside))
            before = image
    return lines


def conditions(bench: Bench, chunk: Chunk, mask: Tensor) -> dict[str, tuple[Tensor, Model]]:
    """The conditions compared and the network that sees each."""
    translate, expert = bench.networks.model, bench.networks.expert
    seen = {
        "c": (chunk.condition, translate),
        "c · B": (ood_condition(chunk.condition, mask), translate),
        "c · max(1 − B, λ)": (ind_condition(chunk.condition, mask, bench.settings.local.context), translate),
    }
    return seen if expert is None else seen | {"c · B, expert": (seen["c · B"][0], expert)}


def losses(bench: Bench, patient: PatientSlices, _: str) -> list[Numbers]:
    """Squared error of the x_0 prediction inside and outside B, by condition, at each of ``TIMES`` (rows)."""
    chunk, target, lesion = chunk_of(patient, 1)
    mask = torch.from_numpy(lesion)[:, None] & chunk.brain
    x0, schedule = 2 * torch.from_numpy(target)[:, None] - 1, bench.networks.schedule
    regions = {"inside": mask, "outside": chunk.brain & ~mask}
    lines = []
    with torch.inference_mode():
        for t in TIMES:
            noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(t))
            x_t = schedule.add_noise(x0, noise, torch.full((len(x0),), t))
            line: Numbers = {}
            for name, (condition, model) in conditions(bench, chunk, mask).items():
                error = (denoiser(model, schedule, condition)(x_t, t) - x0).square()
                line |= {f"{name}, {where}": float(error[region].mean()) for where, region in regions.items()}
            lines.append(line)
    return lines


def _cached(bench: Bench, cases: list[PatientSlices], what: Callable[..., list[Numbers]], way: str, cache: Path) -> list[list[Numbers]]:
    found = []
    for patient in cases:
        key = json.dumps([bench.hashes, asdict(bench.settings), what.__name__, way, patient.name, patient.condition.shape[0], TIMES])
        path = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
        if not path.is_file():
            write_text(path, json.dumps(what(bench, patient, way)))
        found.append(json.loads(path.read_text(encoding="utf-8")))
    return found


def _lines(first: dict[str, str], found: list[list[Numbers]], numbers: tuple[str, ...], name: str) -> list[dict[str, str]]:
    """One line a step: means over patients with intervals."""
    lines = []
    for place, number in enumerate(numbers):
        line = first | {name: number}
        for key in found[0][place]:
            values = [value for patient in found if (value := patient[place][key]) is not None]
            line[key] = decimal(bootstrap_mean(values, Bootstrap()), 3) if values else "n/a"
        lines.append(line)
    return lines


def measure(options: argparse.Namespace) -> list[Table]:
    """Both tables, on every n-th lesion slice of the patients with masks."""
    loaded = mri.load(options.model, None, None)
    bench = replace(loaded, settings=replace(loaded.settings, steps=STEPS))
    masked = [p for p in patients(bench.bundle, options.data, options.split, options.work) if p.masked]
    cases = [slices for p in masked if (slices := lesion_slices(p, options.every)) is not None]
    cache = options.work / "steps"
    ways = ("plain", "local", "expert") if bench.networks.expert else ("plain", "local")
    numbers = tuple(str(n + 1) for n in range(bench.settings.steps))
    grown = [line for way in ways for line in _lines({"process": way}, _cached(bench, cases, trajectory, way, cache), numbers, "step")]
    lost = _lines({}, _cached(bench, cases, losses, "", cache), tuple(map(str, TIMES)), "t")
    stem = f"{bench.bundle.name}-{options.split}"
    about = f"{len(cases)} {options.split} patients, every {options.every}. lesion slice, B is the true mask"
    account = {"bundle": bench.bundle.name, "hashes": bench.hashes, "patients": [p.name for p in cases], "sampling": asdict(bench.settings)}
    return [
        Table(f"steps-{stem}", grown, about, account, lambda canvas: _draw_steps(canvas, grown, ways)),
        Table(f"steps-loss-{stem}", lost, about, account, lambda canvas: _draw_losses(canvas, lost)),
    ]


def _value(text: str) -> float:
    return np.nan if text.startswith("n/a") else float(text.split(" ")[0])


def _draw_steps(canvas: Any, lines: list[dict[str, str]], ways: tuple[str, ...]) -> None:
    for axes, key in zip(canvas.subplots(1, 3), ("contrast", "dice", "ssim to the step before"), strict=True):
        for way in ways:
            own = [line for line in lines if line["process"] == way]
            axes.plot([int(line["step"]) for line in own], [_value(line[key]) for line in own], marker="o", markersize=3, label=way)
        axes.set(xlabel="step", title=key)
    axes.legend()


def _draw_losses(canvas: Any, lines: list[dict[str, str]]) -> None:
    both = canvas.subplots(1, 2, sharey=True)
    for axes, where in zip(both, ("inside", "outside"), strict=True):
        for key in (key for key in lines[0] if key.endswith(where)):
            times, errors = [int(line["t"]) for line in lines], [_value(line[key]) for line in lines]
            axes.plot(times, errors, marker="o", markersize=3, label=key.removesuffix(f", {where}"))
        axes.set(xlabel="t", title=f"{where} B", yscale="log")
    both[0].set_ylabel("squared error of x̂_0")
    both[0].legend(fontsize=7)
