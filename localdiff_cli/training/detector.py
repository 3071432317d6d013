"""Fit the PatchCore detector: a memory bank from healthy training slices, calibrated on held-out ones."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from localdiff_cli.bundle import DETECTOR, Bundle
from localdiff_cli.errors import UsageError
from localdiff_cli.ood.backbone import load_backbone
from localdiff_cli.ood.fit import calibrate_detector, fit_bank
from localdiff_cli.ood.patchcore import MemoryBank
from localdiff_cli.training.job import FitJob, base_metadata, check_out, data_account, save
from localdiff_cli.training.slices import PatientSlices
from localdiff_cli.volumes.intensity import DEFAULT_WINDOW, WINDOWS
from localdiff_cli.volumes.likeness import quantiles_of, typical_of

FEWEST_TYPICAL = 3
UNLIKE_BEYOND = 8.0
"""Spreads over the training people beyond which an input's intensities are called unlike theirs. Of the people held out for
validation only those lie beyond whose T1w shines as after contrast agent."""


def _healthy_only(patients: list[PatientSlices], split: str, every: int) -> list[tuple[Tensor, Tensor]]:
    """Lesion-free slices of patients with a mask (or known to be healthy): (condition, brain), each ``(1, H, W)``."""
    return [
        (torch.from_numpy(p.condition[row].astype(np.float32) / 65535)[None], torch.from_numpy(p.brain[row])[None])
        for p in patients
        if p.split == split and p.masked
        for row in np.flatnonzero(p.lesion_free)[::every]
    ]


@dataclass(frozen=True)
class DetectorSettings:
    """PatchCore: ``backbone`` and where its weights are, ``input_scale``, entries kept, every n-th slice used, ``seed``."""

    backbone: str = "efficientnet-lite0"
    backbone_weights: Path | None = None
    input_scale: float = 1.0
    coreset_size: int = 5000
    every: int = 1
    seed: int = 0


def fit_detector(job: FitJob, settings: DetectorSettings) -> Bundle:
    """Build the memory bank from healthy training slices, calibrate it on held-out ones, and write it into the bundle."""
    if job.team.size > 1:
        raise UsageError("fit detector: one process finds the memory bank; run it without torchrun", code="conflict")
    check_out(job, "translate")
    backbone = load_backbone(settings.backbone, settings.backbone_weights, settings.input_scale).to(job.device)
    patients = job.patients()
    train_slices, held_out = (_healthy_only(patients, split, settings.every) for split in ("train", "val"))
    if not train_slices or not held_out:
        raise UsageError(
            f"{len(train_slices)} healthy training and {len(held_out)} held-out slices; expected some of each: patients with masks "
            "(or --healthy) in the train and val splits"
        )
    started = time.monotonic()
    job.say(f"memory bank from {len(train_slices)} slices, threshold from {len(held_out)}")
    bank = fit_bank(train_slices, backbone, settings.coreset_size, settings.seed)
    # The bundle stores half precision: calibrate what will be loaded.
    bank = MemoryBank(bank.embeddings.half().float())
    calibration = calibrate_detector(held_out, backbone, bank)
    described = {
        "backbone": settings.backbone, "backbone_sha256": backbone.weights_hash, "input_scale": settings.input_scale,
        "calibration": calibration.to_dict(),
    }  # fmt: skip
    account = {
        "command": job.command, "seconds": round(time.monotonic() - started), "patients": data_account([p for p in patients if p.masked]),
        "slices": len(train_slices), "held_out_slices": len(held_out), "coreset_size": settings.coreset_size, "seed": settings.seed,
    }  # fmt: skip
    metadata = base_metadata(job, "translate") | {"detector": described, "training": {"detector": account}}
    metadata |= _typical(patients, job.contrasts[0])
    return save(job, metadata, {DETECTOR: bank.to_tensors()})


def _typical(patients: list[PatientSlices], contrast: str) -> dict[str, object]:
    """What the training people's intensities look like, for the metadata; nothing for fewer than three people."""
    low, high = WINDOWS.get(contrast, DEFAULT_WINDOW)
    known = [p for p in patients if p.split == "train"]
    if len(known) < FEWEST_TYPICAL:
        return {}
    people = (quantiles_of(low + (high - low) * p.condition[p.brain].astype(np.float32) / 65535) for p in known)
    return {"typical": json.loads(json.dumps(asdict(typical_of(people, UNLIKE_BEYOND))))}
