"""A bundle's detectors on real lesions: pixel and slice AUROC inside the brain, share flagged at the calibrated threshold.

``python -m examples.benchmarks.detection --model t1-to-t2 --data DATA --split val``
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from examples.benchmarks.record import record, show
from localdiff_cli.bundle import Bundle, bundle_paths, load_detector, load_segmenter, open_bundle
from localdiff_cli.evaluation.metrics.ood_maps import auroc
from localdiff_cli.ood.detector import Detector
from localdiff_cli.ood.threshold import to_mask
from localdiff_cli.segmentation.detector import SegmenterDetector
from localdiff_cli.training.pairs import read_pairs
from localdiff_cli.training.slices import PatientSlices, load_slices
from localdiff_cli.volumes.prepare import PrepareSettings


@dataclass(frozen=True)
class Scored:
    """Pixels and slices of one patient: scores inside the brain, lesion labels, slice scores and labels, flagged shares."""

    pixels: NDArray
    labels: NDArray[np.bool_]
    slices: NDArray
    slice_labels: NDArray[np.bool_]
    mask: NDArray[np.bool_]


MAP_OF = "map of "
"""Begins the name of the row of a segmenter bundle."""
HIGHEST = 60
"""Pixels of a slice whose mean is the yardstick's slice score."""


def smoothed_brightness(image: NDArray, brain: NDArray[np.bool_], sign: float) -> NDArray:
    """Brightness (sign 1) or darkness (−1) of a slice ``(H, W)`` in [0, 1] about 0.5, smoothed with σ = 2 pixels."""
    return ndimage.gaussian_filter(sign * (image - 0.5) * brain, 2)


def brightness(patient: PatientSlices, sign: float) -> tuple[NDArray, NDArray]:
    """The yardstick without a network: smoothed brightness (sign 1) or darkness (−1), slice score the mean of the 60 highest pixels."""
    image = patient.condition.astype(np.float32) / 65535
    smooth = np.stack([smoothed_brightness(s, b, sign) for s, b in zip(image, patient.brain, strict=True)])
    slices = np.array([np.sort(s[b])[-HIGHEST:].mean() for s, b in zip(smooth, patient.brain, strict=True)])
    return smooth, slices


def _pool(patient: PatientSlices, score: NDArray, slices: NDArray, mask: NDArray[np.bool_]) -> Scored:
    return Scored(score[patient.brain], patient.lesion[patient.brain], slices, ~patient.lesion_free, mask[patient.brain])


def _auroc(scores: NDArray, labels: NDArray[np.bool_]) -> str:
    return f"{auroc(scores[labels], np.sort(scores[~labels])):.3f}" if 0 < labels.mean() < 1 else "n/a"


def _row(name: str, parts: list[Scored]) -> dict[str, Any]:
    pixels, labels, slices, slice_labels, mask = (np.concatenate([getattr(p, f) for p in parts]) for f in Scored.__dataclass_fields__)
    return {
        "score": name,
        "patients": len(parts),
        "pixel AUROC": _auroc(pixels, labels),
        "slice AUROC": _auroc(slices, slice_labels),
        "lesion flagged": f"{mask[labels].mean():.3f}" if mask.any() else "n/a",
        "healthy flagged": f"{mask[~labels].mean():.3f}" if mask.any() else "n/a",
    }


def _detect(bundle: Bundle, detector: Detector, name: str, patients: list[PatientSlices]) -> dict[str, Any]:
    d, parts = bundle.defaults, []
    peak = d.peak if d.detector == ("segmenter" if name.startswith(MAP_OF) else "patchcore") else 0.0
    for patient in patients:
        condition = torch.from_numpy(patient.condition.astype(np.float32) / 65535)[:, None]
        brain = torch.from_numpy(patient.brain)[:, None]
        found = detector(condition, brain)
        mask = to_mask(found.ood_map, d.threshold, brain, d.open_mm, d.dilate_mm, (bundle.grid.spacing,) * 2, peak)
        parts.append(_pool(patient, found.score[:, 0].numpy(), found.slice_score.numpy(), mask[:, 0].numpy()))
    return _row(name, parts)


def _detectors(bundle: Bundle, false_alarms: list[float]) -> dict[str, Detector]:
    """PatchCore at each false-alarm share, and the segmenter that makes the bundle's map where there is one."""
    device = torch.device("cpu")
    found: dict[str, Detector] = {f"patchcore, false alarm {q:g}": load_detector(bundle, q, device) for q in false_alarms}
    segmenter = bundle.finder
    if bundle.defaults.detector_model or segmenter in bundle_paths():
        found[MAP_OF + segmenter] = SegmenterDetector(load_segmenter(open_bundle(segmenter), device))
    return found


def main() -> None:
    """Print the table; ``--record`` puts it into the bundle's metadata and card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, nargs="+", type=Path)
    parser.add_argument("--split", default="val", choices=("val", "test"))
    parser.add_argument("--false-alarm", type=float, nargs="+", default=[0.01, 0.02, 0.05, 0.1])
    parser.add_argument("--work", type=Path, default=Path("bench.work"))
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    bundle = open_bundle(options.model)
    contrast = bundle.condition.contrast
    pairs = [pair for pair in read_pairs(options.data, contrast, None) if pair.split == options.split and pair.mask]
    settings = PrepareSettings(bias=bundle.bias, spacing=bundle.grid.spacing, shape=bundle.grid.shape)
    patients = load_slices(pairs, (contrast, None), settings, options.work / "cache", print)
    nothing = [np.zeros(p.brain.shape, bool) for p in patients]
    yardstick = [_pool(p, *brightness(p, 1 if contrast != "T1w" else -1), n) for p, n in zip(patients, nothing, strict=True)]
    rows = [_detect(bundle, detector, name, patients) for name, detector in _detectors(bundle, options.false_alarm).items()]
    rows.append(_row("brightness" if contrast != "T1w" else "darkness", yardstick))
    title = f"Detection of {contrast} lesions, {options.split} patients of {', '.join(p.name for p in options.data)}"
    print(show(title, rows))
    if options.record:
        record(bundle, title, rows, "python -m examples.benchmarks.detection", "Inside the brain, on the network's grid, all slices.")


if __name__ == "__main__":
    main()
