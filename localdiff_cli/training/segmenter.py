"""Fit the lesion network on expert masks: all slices of masked patients, two thirds of those drawn bearing a lesion.

Patients known to bear no lesion at all are a share of their own: a network that has seen sick brains only takes much for a lesion.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from localdiff_cli.errors import UsageError
from localdiff_cli.segmentation.network import LesionNetwork, lesion_probability
from localdiff_cli.training.augment import AugmentSettings, place, recontrast
from localdiff_cli.training.loop import LossOf
from localdiff_cli.training.slices import PatientSlices

HEALTHY_SHARE = 0.2
"""Share of the slices drawn from patients without any lesion, where there are some."""


def masked_patients(patients: list[PatientSlices], split: str) -> list[PatientSlices]:
    """The patients of a split with an expert mask. Raises :class:`UsageError` where there are none."""
    chosen = [p for p in patients if p.split == split and p.masked and len(p.condition)]
    if not chosen:
        raise UsageError(f"no patients with a lesion mask in the {split} split; expected a mask column or *_mask files")
    return chosen


def draw_lesions(patients: list[PatientSlices], n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A random batch: image, brain, lesion, each ``(n, 1, H, W)`` float32; of the sick patients' slices two thirds bear a lesion."""
    healthy = [p for p in patients if p.lesion_free.all()]
    sick = [p for p in patients if not p.lesion_free.all()]
    images, brains, lesions = [], [], []
    for _ in range(n):
        group = sick or healthy
        if healthy and sick and float(torch.rand(1, generator=generator)) < HEALTHY_SHARE:
            group = healthy
        patient = group[int(torch.randint(len(group), (1,), generator=generator))]
        bearing = ~patient.lesion_free
        wanted = bearing if float(torch.rand(1, generator=generator)) < 2 / 3 else ~bearing
        rows = np.flatnonzero(wanted) if wanted.any() else np.arange(len(bearing))
        row = rows[int(torch.randint(len(rows), (1,), generator=generator))]
        images.append(patient.condition[row].astype(np.float32) / 65535)
        brains.append(patient.brain[row])
        lesions.append(patient.lesion[row])
    image, brain, lesion = (torch.from_numpy(np.stack(s).astype(np.float32))[:, None] for s in (images, brains, lesions))
    return image, brain, lesion


def segmenter_loss(patients: list[PatientSlices], augment: AugmentSettings, batch_size: int) -> LossOf:
    """The loss of one step: MONAI's Dice (over the batch) plus cross-entropy."""
    from monai.losses import DiceCELoss

    criterion = DiceCELoss(sigmoid=True, batch=True)

    def loss_of(network: nn.Module, generator: torch.Generator) -> Tensor:
        image, brain, lesion = draw_lesions(patients, batch_size, generator)
        image, brain, lesion = place(torch.cat([image, brain, lesion], dim=1), augment, generator).split(1, dim=1)
        inside = (brain > 0.5).float()
        image = recontrast(image, inside, augment, generator)
        device = next(network.parameters()).device
        return criterion(network(image.to(device)), ((lesion > 0.5).float() * inside).to(device))

    return loss_of


def patient_dice(network: LesionNetwork, patient: PatientSlices, threshold: float = 0.5) -> float:
    """Dice over all slices of one patient on the network's grid; 1 where both are empty."""
    device = next(network.parameters()).device
    image, brain = torch.from_numpy(patient.condition.astype(np.float32) / 65535)[:, None], torch.from_numpy(patient.brain)[:, None]
    found = lesion_probability(network, image.to(device), brain.to(device)).cpu().numpy()[:, 0] >= threshold
    total = found.sum() + patient.lesion.sum()
    return 1.0 if total == 0 else float(2 * (found & patient.lesion).sum() / total)
