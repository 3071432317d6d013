"""A translator against its yardstick, the best polynomial intensity map: PSNR inside the brain, patient by patient.

``python -m localdiff_cli.benchmarks.translation --model t1-to-t2 --data DATA --split test --samples 10``
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from localdiff_cli.benchmarks.record import record, show
from localdiff_cli.bundle import Bundle, load_detector, load_translator, open_bundle, schedule_of
from localdiff_cli.commands.translate import TranslateOptions, sample_settings
from localdiff_cli.diffusion.device import choose_device, on_device
from localdiff_cli.ood.threshold import to_mask
from localdiff_cli.tasks.slices import Chunk
from localdiff_cli.tasks.translation import Networks, SampleSettings, SliceSampler
from localdiff_cli.training.fit import psnr
from localdiff_cli.training.pairs import read_pairs
from localdiff_cli.training.slices import PatientSlices, load_slices
from localdiff_cli.volumes.prepare import PrepareSettings


def patients(bundle: Bundle, data: list[Path], split: str, work: Path) -> list[PatientSlices]:
    """The patients of a split that have both contrasts, prepared for the bundle."""
    contrasts = (bundle.condition.contrast, bundle.target.contrast)
    pairs = [pair for pair in read_pairs(data, *contrasts) if pair.split == split]
    settings = PrepareSettings(bias=bundle.bias, spacing=bundle.grid.spacing, shape=bundle.grid.shape)
    return load_slices(pairs, contrasts, settings, work / "cache", print)


def chunk_of(patient: PatientSlices, every: int) -> tuple[Chunk, NDArray, NDArray[np.bool_]]:
    """Every n-th slice as a chunk, with its true target and lesion."""
    rows = np.arange(0, len(patient.condition), every)
    assert patient.target is not None
    condition = torch.from_numpy(patient.condition[rows].astype(np.float32) / 65535)[:, None]
    brain = torch.from_numpy(patient.brain[rows])[:, None]
    return (
        Chunk(tuple(rows.tolist()), tuple(range(len(rows))), condition, brain),
        patient.target[rows].astype(np.float32) / 65535,
        patient.lesion[rows],
    )


def _score(image: NDArray, target: NDArray, brain: NDArray[np.bool_], lesion: NDArray[np.bool_]) -> str:
    inside = f" / {psnr(image, target, lesion):.2f}" if lesion.any() else ""
    return f"{psnr(image, target, brain):.2f}{inside}"


def measure(
    bundle: Bundle, patient: PatientSlices, settings: SampleSettings, samples: int, every: int, device: torch.device
) -> dict[str, Any]:
    """One patient's row: polynomial, one plain sample, the mean of several, one local sample (automatic detector)."""
    network = load_translator(bundle, device)
    networks = Networks(on_device(network, device, "fp32"), schedule_of(bundle), device, network.settings.multiple)
    chunk, target, lesion = chunk_of(patient, every)
    brain, condition = chunk.brain[:, 0].numpy(), chunk.condition[:, 0].numpy()
    nothing = torch.zeros_like(chunk.brain)
    polynomial = np.clip(np.polyval(bundle.metadata["training"]["translator"]["polynomial"], condition), 0, 1)
    row: dict[str, Any] = {"patient": patient.name, "slices": len(target), "polynomial": _score(polynomial, target, brain, lesion)}
    started = time.monotonic()
    plain = SliceSampler(networks, replace(settings, mode="plain", samples=1), patient.name)(chunk, chunk.condition, nothing)[0]
    row["plain, 1 sample"] = _score(plain[:, 0].numpy(), target, brain, lesion)
    row["s a slice"] = f"{(time.monotonic() - started) / len(target):.2f}"
    mean = SliceSampler(networks, replace(settings, mode="plain", samples=samples), patient.name)(chunk, chunk.condition, nothing)[0]
    row[f"plain, mean of {samples}"] = _score(mean[:, 0].numpy(), target, brain, lesion)
    if bundle.has_detector:
        d = bundle.defaults
        found = load_detector(bundle, d.false_alarm, device)(chunk.condition.to(device), chunk.brain.to(device))
        mask = to_mask(found.ood_map.cpu(), d.threshold, chunk.brain, d.open_mm, d.dilate_mm, (bundle.grid.spacing,) * 2)
        local = SliceSampler(networks, replace(settings, mode="local", samples=1), patient.name)(chunk, found.ood_map.cpu(), mask)[0]
        row["local, 1 sample"] = _score(local[:, 0].numpy(), target, brain, lesion)
        row["OOD share"] = f"{float(mask.sum()) / float(chunk.brain.sum()):.3f}"
    return row


def main() -> None:
    """Print the table; ``--record`` puts it into the bundle's metadata and card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="translator bundle")
    parser.add_argument("--data", required=True, nargs="+", type=Path, help="folders or TSVs of pairs, as for fit")
    parser.add_argument("--split", default="val", choices=("train", "val", "test"))
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--every", type=int, default=2, help="every n-th slice")
    parser.add_argument("--work", type=Path, default=Path("bench.work"), help="cache folder")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--record", action="store_true", help="write the table into the bundle")
    options = parser.parse_args()
    bundle, device = open_bundle(options.model), choose_device(options.device)
    settings = sample_settings(TranslateOptions(model=options.model), bundle)
    rows = [
        measure(bundle, p, settings, options.samples, options.every, device)
        for p in patients(bundle, options.data, options.split, options.work)
    ]
    title = f"PSNR (dB) inside the brain / inside the lesion, {options.split} patients"
    print(show(title, rows))
    if options.record:
        note = (
            f"Every {options.every}th axial slice on the network's grid, data range 1; the polynomial was fitted on the training patients."
        )
        record(bundle, title, rows, "python -m localdiff_cli.benchmarks.translation", note)


if __name__ == "__main__":
    main()
