"""A translator against its yardstick, the best polynomial intensity map: PSNR inside the brain, patient by patient.

``python -m examples.benchmarks.translation --model t1-to-t2 --data DATA --split test --samples 10``
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
from torch import Tensor

from examples.benchmarks import variants
from examples.benchmarks.record import record, show
from localdiff_cli.bundle import Bundle, load_detector, load_expert, load_segmenter, load_translator, open_bundle, schedule_of
from localdiff_cli.diffusion.device import choose_device, on_device
from localdiff_cli.ood.detector import Detector
from localdiff_cli.ood.texture import too_smooth
from localdiff_cli.ood.threshold import to_mask
from localdiff_cli.options import TranslateOptions
from localdiff_cli.recipes.translate import sample_settings
from localdiff_cli.segmentation.detector import SegmenterDetector
from localdiff_cli.tasks.sampling import Networks, SampleSettings, SliceSampler
from localdiff_cli.tasks.slices import Chunk
from localdiff_cli.training.pairs import read_pairs
from localdiff_cli.training.slices import PatientSlices, load_slices
from localdiff_cli.training.translator import psnr
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


def default_detector(bundle: Bundle, device: torch.device) -> Detector | None:
    """The detector that the bundle uses by default; None where it has none."""
    if bundle.defaults.detector == "segmenter":
        return SegmenterDetector(load_segmenter(open_bundle(bundle.finder), device))
    return load_detector(bundle, bundle.defaults.false_alarm, device) if bundle.has_detector else None


def measure(
    bundle: Bundle, patient: PatientSlices, settings: SampleSettings, samples: int, every: int, device: torch.device, *, expert: bool = True
) -> dict[str, Any]:
    """One patient's row: polynomial, regression (if trained), one plain sample, the mean of several, one local sample as by default.

    ``expert``: whether the bundle's expert takes part where there is one.
    """
    network = load_translator(bundle, device)
    own = on_device(load_expert(bundle, device), device, "fp32") if bundle.has_expert and expert else None
    networks = Networks(
        on_device(network, device, "fp32"), schedule_of(bundle), device, network.settings.multiple, expert=own, told=bundle.expert_is_told
    )
    chunk, target, lesion = chunk_of(patient, every)
    brain, condition = chunk.brain[:, 0].numpy(), chunk.condition[:, 0].numpy()
    nothing = torch.zeros_like(chunk.brain)

    def score(images: Tensor) -> str:
        return _score(images[:, 0].numpy(), target, brain, lesion)

    def sampled(mode: str, number: int, ood_map: Tensor, mask: Tensor) -> str:
        return score(SliceSampler(networks, replace(settings, mode=mode, samples=number), patient.name)(chunk, ood_map, mask)[0])

    polynomial = np.clip(np.polyval(bundle.metadata["training"]["translator"]["polynomial"], condition), 0, 1)
    row: dict[str, Any] = {"patient": patient.name, "slices": len(target), "polynomial": _score(polynomial, target, brain, lesion)}
    regression = variants.load(bundle, "regression")
    if regression is not None:
        with torch.inference_mode():
            row["regression"] = score(variants.regress(on_device(regression, device, "fp32"), chunk.condition).clamp(0, 1) * chunk.brain)
    started = time.monotonic()
    row["plain, 1 sample"] = sampled("plain", 1, chunk.condition, nothing)
    row["s a slice"] = f"{(time.monotonic() - started) / len(target):.2f}"
    row[f"plain, mean of {samples}"] = sampled("plain", samples, chunk.condition, nothing)
    detector = default_detector(bundle, device)
    if detector is not None:
        d = bundle.defaults
        ood_map = detector(chunk.condition.to(device), chunk.brain.to(device)).ood_map.cpu()
        mask = to_mask(ood_map, d.threshold, chunk.brain, d.open_mm, d.dilate_mm, (bundle.grid.spacing,) * 2, d.peak)
        mask &= ~too_smooth(chunk.condition, mask, chunk.brain, d.texture, bundle.grid.spacing)
        row["local, 1 sample"] = sampled("local", 1, ood_map, mask)
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
    parser.add_argument("--expert", default="auto", choices=("auto", "none"), help="none: the local sample is training-free")
    parser.add_argument("--record", action="store_true", help="write the table into the bundle")
    options = parser.parse_args()
    bundle, device = open_bundle(options.model), choose_device(options.device)
    settings = sample_settings(TranslateOptions(model=options.model), bundle)
    rows = [
        measure(bundle, p, settings, options.samples, options.every, device, expert=options.expert == "auto")
        for p in patients(bundle, options.data, options.split, options.work)
    ]
    title = f"PSNR (dB) inside the brain / inside the lesion, {options.split} patients"
    print(show(title, rows))
    if options.record:
        note = (
            f"Every {options.every}th axial slice on the network's grid, data range 1; the polynomial was fitted on the training patients."
        )
        record(bundle, title, rows, "python -m examples.benchmarks.translation", note)


if __name__ == "__main__":
    main()
