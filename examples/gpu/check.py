"""``make gpu``: does a card give the CPU's results, how fast, and what does it wait for? Complete without a look, within ``--minutes``.

``python -m examples.gpu.check`` works on the volume of ``examples/data`` and the shipped bundles. ``--rehearse`` does the same on the
CPU with tiny settings: the way is tried, the figures mean nothing. The table is on the disk as its rows come: ``<out>/gpu.tsv``.

Bounds on a translation, a mean over the brain of |card − CPU| on the scale [0, 1]: fp32 0.002 (a card's tensor cores round fp32 products
to TF32), fp16 0.01, bf16 0.02; maps and masks: 0.5 % of the brain's voxels decided otherwise; a training's loss: 1 %.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from examples.benchmarks.other_samplers import Published, published
from examples.gpu.box import Box
from localdiff_cli import detect_volume, segment_volume, translate_volume
from localdiff_cli.bundle import load_expert, load_translator, open_bundle, schedule_of
from localdiff_cli.choices import SAMPLERS
from localdiff_cli.diffusion.device import PRECISIONS, autocast, choose_device, on_device
from localdiff_cli.diffusion.network import NetworkSettings, TranslatorNetwork
from localdiff_cli.diffusion.schedule import Schedule
from localdiff_cli.errors import DeviceError
from localdiff_cli.options import DetectOptions, SegmentOptions, TranslateOptions
from localdiff_cli.recipes.translate import sample_settings
from localdiff_cli.tasks.sampling import Networks, SliceSampler
from localdiff_cli.tasks.slices import Chunk
from localdiff_cli.training.translator import denoising_loss

MODEL, SEGMENTER = "t1-to-flair", "lesion-flair"
BOUNDS = {"fp32": 0.002, "fp16": 0.01, "bf16": 0.02}
DECIDED_OTHERWISE = 0.005
LOSS = 0.01
PATIENT = Path(__file__).resolve().parents[1] / "data" / "sub-openms19"
OPTIONS: dict[str, Any] = {"bias": "none"}


def volume(contrast: str, slices: int) -> tuple[NDArray, NDArray, NDArray[np.bool_]]:
    """The middle slices of the packaged patient: voxels, affine, brain; skull-stripped, so that no brain has to be found."""
    image = nib.load(PATIENT / f"{PATIENT.name}_{contrast}.nii.gz")
    brain = nib.load(PATIENT / f"{PATIENT.name}_brain.nii.gz")
    assert isinstance(image, nib.Nifti1Image)
    assert isinstance(brain, nib.Nifti1Image)
    first = max(0, (image.shape[2] - slices) // 2)
    part, inside = image.slicer[:, :, first : first + slices], brain.slicer[:, :, first : first + slices]
    mask = np.asanyarray(inside.dataobj) > 0
    return np.asanyarray(part.dataobj) * mask, np.asarray(part.affine), mask


def equal(box: Box, device: str, slices: int, steps: int | None) -> None:
    """Every command, sampler and precision: the card's result against the CPU's."""
    image, affine, brain = volume("T1w", slices)
    flair, _, _ = volume("FLAIR", slices)

    def translated(where: str, **how: Any) -> NDArray:
        options = TranslateOptions(model=MODEL, device=where, steps=steps, **OPTIONS, **how)
        return translate_volume(image, affine, options=options).image

    def decided(what: str, run: Callable[[str], NDArray[np.bool_]]) -> None:
        ours, theirs = run(device), run("cpu")
        box.within("equal", what, float((ours != theirs)[brain].mean()), DECIDED_OTHERWISE)

    decided("detect: mask B", lambda where: detect_volume(image, affine, options=DetectOptions(MODEL, device=where, **OPTIONS)).ood_mask)

    def lesions(where: str) -> NDArray[np.bool_]:
        return segment_volume(flair, affine, options=SegmentOptions(SEGMENTER, device=where, **OPTIONS)).mask

    decided("segment: lesions", lesions)
    for mode, sampler in itertools.product(("plain", "local"), SAMPLERS):
        expected = translated("cpu", mode=mode, sampler=sampler)
        for precision in PRECISIONS:
            what = f"translate: {mode}, {sampler}, {precision}"
            try:
                found = translated(device, mode=mode, sampler=sampler, precision=precision)
            except DeviceError as error:
                box.row("equal", what, "refused", str(error), "refused")
                continue
            box.within("equal", what, float(np.abs(found - expected)[brain].mean()), BOUNDS[precision])
    ours, theirs = (losses(torch.device(where)) for where in (device, "cpu"))
    box.within("equal", "fit: loss of 5 steps", max(abs(a - b) / b for a, b in zip(ours, theirs, strict=True)), LOSS)


def losses(device: torch.device, steps: int = 5) -> list[float]:
    """The losses of a small network's first steps on made-up slices; the CPU draws all that is random."""
    torch.manual_seed(0)
    settings = NetworkSettings(space_to_depth=8, channels=(32, 64), num_res_blocks=1, attention_levels=(False, True))
    network, schedule = TranslatorNetwork(settings).to(device), Schedule(prediction="sample")
    optimiser, generator, seen = torch.optim.AdamW(network.parameters(), lr=1e-3), torch.Generator().manual_seed(0), []
    for _ in range(steps):
        condition = torch.rand(4, 1, 64, 64, generator=generator)
        loss = denoising_loss(network, schedule, condition, condition.sqrt(), torch.ones_like(condition), generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen.append(float(loss.detach()))
    return seen


def conditions(count: int, shape: tuple[int, int], device: torch.device) -> Tensor:
    """Smooth made-up slices ``(N, 1, H, W)`` in [0, 1]: speed does not depend on what they show."""
    coarse = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, shape, mode="bilinear").clamp(0, 1).to(device)


def seconds_of(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """The least wall time of ``repeats`` runs after one to warm up; the card is waited for."""

    def once() -> float:
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    once()
    return min(once() for _ in range(repeats))


def peak_mib(device: torch.device) -> float:
    """The most memory the card has held since the last question, MiB; 0 on a CPU."""
    if device.type != "cuda":
        return 0.0
    peak = torch.cuda.max_memory_allocated(device) / 2**20
    torch.cuda.reset_peak_memory_stats(device)
    return peak


@torch.inference_mode()
def speed(box: Box, device: torch.device, batches: tuple[int, ...]) -> None:
    """Slices a second and memory against the batch, for every precision: forward passes of the network, as plain sampling makes them."""
    bundle = open_bundle(MODEL)
    network = load_translator(bundle, device)
    for precision, batch in itertools.product(PRECISIONS, batches):
        if box.left < 60 or (device.type == "cpu" and precision != "fp32"):
            continue
        condition = conditions(batch, bundle.grid.shape, device)
        t = torch.full((batch,), 500, device=device)

        def forward(precision: str = precision, condition: Tensor = condition, t: Tensor = t) -> Tensor:
            with autocast(device, precision):
                return network(condition, condition, t)

        peak_mib(device)
        seconds = seconds_of(forward, device, 3)
        what = f"{precision}, {batch} slices at a time: forward passes of a slice a second"
        box.row("speed", what, batch / seconds)
        box.row("speed", f"{precision}, {batch} slices at a time: peak memory, MiB", peak_mib(device))


@torch.inference_mode()
def against_published(box: Box, device: torch.device, count: int, batch: int) -> None:
    """Local Diffusion as the bundle says, plain, and the published scheme, of the same network on the same slices."""
    bundle = open_bundle(MODEL)
    network, schedule = load_translator(bundle, device), schedule_of(bundle)
    model = on_device(network, device, "fp32")
    expert = on_device(load_expert(bundle, device), device, "fp32")
    networks = Networks(model, schedule, device, network.settings.multiple, expert=expert, told=bundle.expert_is_told)
    settings = sample_settings(TranslateOptions(model=MODEL), bundle)
    condition, brain = conditions(count, bundle.grid.shape, torch.device("cpu")), torch.ones(count, 1, *bundle.grid.shape, dtype=torch.bool)
    mask = torch.zeros_like(brain)
    mask[: count // 2, :, 80:120, 60:100] = True
    chunk = Chunk(tuple(range(count)), tuple(range(count)), condition, brain)

    def ours(mode: str) -> Tensor:
        return SliceSampler(networks, replace(settings, mode=mode), "speed")(chunk, mask.float(), mask)[0]

    def theirs() -> list[Tensor]:
        x_T = torch.randn(condition.shape, generator=torch.Generator().manual_seed(0))
        parts = zip(condition.split(batch), x_T.split(batch), mask.split(batch), strict=True)
        return [published(model, schedule, c.to(device), x.to(device), m.to(device), Published()) for c, x, m in parts]

    runs: dict[str, Callable[[], object]] = {"local": partial(ours, "local"), "plain": partial(ours, "plain"), "published scheme": theirs}
    spent = {name: seconds_of(run, device, 1) for name, run in runs.items()}
    for name, seconds in spent.items():
        box.row("published", f"{name}: slices a second", count / seconds)
    box.row("published", "published scheme, times local", spent["published scheme"] / spent["local"])


def profiled(box: Box, device: torch.device, slices: int, steps: int | None) -> None:
    """What ``translate`` waits for: its stages, the share of the time in which the card computes, and the dearest operations."""
    from torch.profiler import ProfilerActivity, profile

    image, affine, _ = volume("T1w", slices)
    options = TranslateOptions(model=MODEL, device=str(device), steps=steps, **OPTIONS)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    started = time.perf_counter()
    with profile(activities=activities) as seen:
        made = translate_volume(image, affine, options=options)
    wall = time.perf_counter() - started
    for stage, seconds in made.facts["Seconds"].items():
        box.row("profile", f"stage {stage}: seconds", float(seconds))
    cost = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    dearest = sorted(seen.key_averages(), key=lambda event: -getattr(event, cost))
    box.row("profile", "share of the wall time in which the device computes", sum(getattr(e, cost) for e in dearest) / 1e6 / wall)
    for event in dearest[:12]:
        box.row("profile", f"{event.key[:80]} × {event.count}: ms", getattr(event, cost) / 1e3)


def machine(box: Box, device: torch.device) -> None:
    """What the figures depend on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    box.row("machine", "device", name)
    box.row("machine", "threads", torch.get_num_threads())
    for package in ("torch", "monai", "numpy"):
        box.row("machine", package, importlib.metadata.version(package))


def main() -> int:
    """All parts within the time; 1 where a bound is broken or a part stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu.work"), help="folder of the table")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--minutes", type=float, default=8, help="parts that would not end in this time are left out and said")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, tiny")
    options = parser.parse_args()
    small = options.rehearse
    device = choose_device("cpu" if small else options.device)
    box = Box(options.out, "gpu", 60 * options.minutes)
    steps = 2 if small else None
    box.run("machine", 0, lambda: machine(box, device))
    box.run("equal", 30, lambda: equal(box, str(device), 2 if small else 24, steps))
    box.run("speed", 60, lambda: speed(box, device, (1, 2) if small else (1, 4, 16, 64, 256, 1024)))
    box.run("published", 30, lambda: against_published(box, device, 2 if small else 64, 16))
    box.run("profile", 20, lambda: profiled(box, device, 2 if small else 24, steps))
    print(f"{box.path}: {box.failures} failures")
    return 1 if box.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
