"""A segmenter bundle on expert masks, patient by patient: Dice, lesion-wise sensitivity, false-positive lesions, slices found.

Beside them how much the lesion stands out on the image at all, in robust SDs: what an image does not show no network finds on it.

``python -m examples.benchmarks.segmentation --model lesion-flair --data DATA --split test``
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from examples.benchmarks.record import record, show
from localdiff_cli.bundle import load_segmenter, open_bundle
from localdiff_cli.evaluation.metrics.harm import RING_GAP_MM, RING_WIDTH_MM, UNIT
from localdiff_cli.evaluation.metrics.lesion import lesion_contrast, ring_around
from localdiff_cli.evaluation.metrics.misdiagnosis import MisdiagnosisSettings
from localdiff_cli.evaluation.metrics.segmentation import components, dice, lesion_wise
from localdiff_cli.segmentation.network import LesionNetwork, lesion_probability
from localdiff_cli.training.pairs import read_pairs
from localdiff_cli.training.slices import PatientSlices, load_slices
from localdiff_cli.volumes.prepare import PrepareSettings

LARGE = 0.01
"""Share of a slice's brain above which its lesion is one to be found."""
FOUND_DICE = MisdiagnosisSettings().delta


def slices_found(found: NDArray[np.bool_], patient: PatientSlices) -> tuple[int, int]:
    """In how many of the slices with a large lesion it is found (Dice of at least ``FOUND_DICE``), and how many there are."""
    large = patient.lesion.sum(axis=(1, 2)) > LARGE * patient.brain.sum(axis=(1, 2))
    return sum(bool(dice(a, b) >= FOUND_DICE) for a, b in zip(found[large], patient.lesion[large], strict=True)), int(large.sum())


def contrast_z(patient: PatientSlices, window: tuple[float, float], spacing: float) -> float:
    """Mean of the lesion minus mean of the ring around it within each slice, in robust SDs of the brain; NaN without a lesion."""
    ring = ring_around(patient.lesion, patient.brain, (1e3, spacing, spacing), RING_GAP_MM, RING_WIDTH_MM)
    contrast = lesion_contrast(patient.condition / np.float32(65535), patient.lesion, ring, UNIT).value
    return float("nan") if contrast is None else contrast * (window[1] - window[0])


def measure(network: LesionNetwork, patient: PatientSlices, threshold: float, settings: PrepareSettings) -> dict[str, Any]:
    """One patient's row, over all slices on the network's grid."""
    image = torch.from_numpy(patient.condition.astype(np.float32) / 65535)[:, None]
    found = lesion_probability(network, image, torch.from_numpy(patient.brain)[:, None])[:, 0].numpy() >= threshold
    sensitivity, _ = lesion_wise(found, patient.lesion)
    labels, count = components(found)
    touched = np.unique(labels[patient.lesion & found]).size
    hit, large = slices_found(found, patient)
    contrast = contrast_z(patient, settings.window, settings.spacing)
    return {
        "patient": patient.name,
        "Dice": round(dice(found, patient.lesion), 3),
        "lesion sensitivity": "n/a" if sensitivity.value is None else round(sensitivity.value, 3),
        "false-positive lesions": count - touched,
        "slices": large,
        "slices found": hit,
        "contrast, z": round(contrast, 2) if np.isfinite(contrast) else "n/a",
    }


def main() -> None:
    """Print the table; ``--record`` puts it into the bundle's metadata and card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, nargs="+", type=Path)
    parser.add_argument("--split", default="val", choices=("val", "test"))
    parser.add_argument("--tau", type=float, help="cut of the probability; the bundle's own without it")
    parser.add_argument("--work", type=Path, default=Path("bench.work"))
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    bundle = open_bundle(options.model)
    network = load_segmenter(bundle, torch.device("cpu"))
    pairs = [pair for pair in read_pairs(options.data, bundle.condition.contrast, None) if pair.split == options.split and pair.mask]
    settings = PrepareSettings(bias=bundle.bias, spacing=bundle.grid.spacing, shape=bundle.grid.shape, window=bundle.condition.window)
    patients = load_slices(pairs, (bundle.condition.contrast, None), settings, options.work / "cache", print)
    tau = bundle.segmenter_defaults.threshold if options.tau is None else options.tau
    rows = [measure(network, patient, tau, settings) for patient in patients]
    mean = {"patient": f"mean of {len(rows)}"} | {
        key: round(float(np.mean([row[key] for row in rows if row[key] != "n/a"])), 3) for key in list(rows[0])[1:]
    }
    title = f"Dice on the {options.split} patients"
    print(show(title, [*rows, mean]))
    if options.record:
        record(
            bundle,
            title,
            [*rows, mean],
            "python -m examples.benchmarks.segmentation",
            "All slices, on the network's grid, 3D components.",
        )


if __name__ == "__main__":
    main()
