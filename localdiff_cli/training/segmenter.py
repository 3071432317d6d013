"""Fit the lesion network on expert masks: all slices of masked patients, two thirds of those drawn bearing a lesion.

Patients known to bear no lesion at all have a share of their own: a network that has seen only sick brains takes too much
for a lesion.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from localdiff_cli.bundle import SEGMENTER, Bundle, SegmenterDefaults, load_segmenter
from localdiff_cli.errors import UsageError
from localdiff_cli.segmentation.network import LesionNetwork, LesionNetworkSettings, lesion_probability
from localdiff_cli.startup import load_monai
from localdiff_cli.training.augment import AugmentSettings, place, recontrast
from localdiff_cli.training.hard_negatives import HardNegatives, deep_fluid, spoil, widen_fluid
from localdiff_cli.training.job import (
    FitJob,
    Start,
    base_metadata,
    check_held_out,
    check_out,
    data_account,
    identity,
    progress,
    save,
    version,
)
from localdiff_cli.training.loop import LoopSettings, LossOf, train, trained_seconds
from localdiff_cli.training.slices import PLANES, PatientSlices
from localdiff_cli.training.widen import fits_into, widened
from localdiff_cli.volumes.intensity import DEFAULT_WINDOW, WINDOWS

WATCHED = 8
"""How many slices of a held-out patient are used to watch a training."""


@dataclass(frozen=True)
class LesionDraw:
    """What the lesion network is shown.

    ``healthy_share``: share of the slices drawn from people without any lesion, where there are some. ``doubt``: robust z
    of the target contrast from which a pixel outside the mask counts neither as lesion nor as healthy (None: every pixel
    outside the mask is healthy); automatic masks miss things. ``hard_negatives``: how slices are changed so that what is
    dark, flat or blurred is not enough to be a lesion; None leaves them.
    """

    healthy_share: float = 0.2
    doubt: float | None = None
    hard_negatives: HardNegatives | None = None


@dataclass(frozen=True)
class LesionLoss:
    """What the overlap part of the loss aims at.

    ``missed``: weight of missed against invented pixels, 0 to 1 (Tversky's index; 0.5 is Dice). ``by_slice``: share of the
    overlap that is taken slice by slice, of those with a lesion, and averaged, so that a small lesion counts as much as a
    large one; the rest is taken over the batch as a whole.
    """

    missed: float = 0.5
    by_slice: float = 0.0


def masked_patients(patients: list[PatientSlices], split: str) -> list[PatientSlices]:
    """Return the patients of a split with an expert mask. Raise :class:`UsageError` where there are none."""
    chosen = [p for p in patients if p.split == split and p.masked and len(p.condition)]
    if not chosen:
        raise UsageError(f"no patients with a lesion mask in the {split} split; expected a mask column or *_mask files")
    return chosen


def draw_lesions(patients: list[PatientSlices], n: int, settings: LesionDraw, doubt_at: float | None, generator: torch.Generator) -> Tensor:
    """Return a random batch ``(n, 4, H, W)`` float32: image, brain, lesion, and 1 where in doubt; of the sick people's
    slices two thirds bear a lesion.

    ``doubt_at`` is ``settings.doubt`` on the scale of the target's window, [0, 1].
    """
    healthy = [p for p in patients if p.lesion_free.all()]
    sick = [p for p in patients if not p.lesion_free.all()]
    slices = []
    for _ in range(n):
        group = sick or healthy
        if healthy and sick and float(torch.rand(1, generator=generator)) < settings.healthy_share:
            group = healthy
        patient = group[int(torch.randint(len(group), (1,), generator=generator))]
        bearing = ~patient.lesion_free
        wanted = bearing if float(torch.rand(1, generator=generator)) < 2 / 3 else ~bearing
        rows = np.flatnonzero(wanted) if wanted.any() else np.arange(len(bearing))
        slices.append(_slice(patient, int(rows[int(torch.randint(len(rows), (1,), generator=generator))]), doubt_at))
    return torch.from_numpy(np.stack(slices))


def _slice(patient: PatientSlices, row: int, doubt_at: float | None) -> NDArray[np.float32]:
    """Image, brain, lesion and doubt of one slice, ``(4, H, W)``."""
    image, lesion = patient.condition[row].astype(np.float32) / 65535, patient.lesion[row]
    doubt = np.zeros_like(lesion)
    if doubt_at is not None and patient.target is not None:
        doubt = ndimage.binary_dilation(patient.target[row] >= doubt_at * 65535, iterations=2) & ~lesion
    return np.stack([image, patient.brain[row], lesion, doubt]).astype(np.float32)


def segmenter_loss(
    patients: list[PatientSlices], augment: AugmentSettings, batch_size: int, settings: LesionDraw, doubt_at: float | None, aim: LesionLoss
) -> LossOf:
    """Return the loss of one step: overlap plus cross-entropy, of the pixels that are not in doubt."""

    def loss_of(network: nn.Module, generator: torch.Generator) -> Tensor:
        drawn = draw_lesions(patients, batch_size, settings, doubt_at, generator)
        return loss_of_drawn(network, drawn, augment, settings.hard_negatives, aim, generator)

    return loss_of


def loss_of_drawn(
    network: nn.Module, drawn: Tensor, augment: AugmentSettings, hard: HardNegatives | None, aim: LesionLoss, generator: torch.Generator
) -> Tensor:
    """Return the loss of a batch ``(n, 4, H, W)`` as :func:`draw_lesions` makes it, after augmentation."""
    drawn = place(drawn, augment, generator)
    if hard is not None:
        fluid = deep_fluid(drawn[:, :1], (drawn[:, 1:2] > 0.5).float(), (drawn[:, 2:3] > 0.5).float())
        chosen = (torch.rand(len(drawn), generator=generator) < hard.widen).float()
        drawn = widen_fluid(drawn, fluid, chosen, hard.widest, generator)
    image, brain, lesion, doubt = drawn.split(1, dim=1)
    inside = (brain > 0.5).float()
    lesion, kept = (lesion > 0.5).float() * inside, (doubt < 0.5).float()
    image = recontrast(image, inside, augment, generator)
    if hard is not None:
        image = spoil(image, inside, lesion, hard, generator)
    device = next(network.parameters()).device
    return lesion_loss(network(image.to(device)), lesion.to(device), kept.to(device), aim)


def lesion_loss(logits: Tensor, lesion: Tensor, kept: Tensor, aim: LesionLoss) -> Tensor:
    """Return 1 − overlap (MONAI's Tversky loss) plus the mean cross-entropy, both over the pixels where ``kept`` is 1; all
    ``(N, 1, H, W)``."""
    load_monai()
    from monai.losses import TverskyLoss

    found, lesion = logits.sigmoid() * kept, lesion * kept
    whole, each = (
        TverskyLoss(alpha=1 - aim.missed, beta=aim.missed, smooth_nr=5e-6, smooth_dr=5e-6, batch=batch) for batch in (True, False)
    )
    apart, bearing = whole(found, lesion), lesion.sum(dim=(1, 2, 3)) > 0
    if aim.by_slice and bearing.any():
        apart = torch.lerp(apart, each(found[bearing], lesion[bearing]), aim.by_slice)
    entropy = (binary_cross_entropy_with_logits(logits, lesion, reduction="none") * kept).sum() / kept.sum().clamp(min=1)
    return apart + entropy


def flagged_share(network: LesionNetwork, patient: PatientSlices, threshold: float) -> float:
    """Return the share of one person's brain that the network flags, all slices."""
    return float(_found(network, patient, threshold).sum() / max(patient.brain.sum(), 1))


def _found(network: LesionNetwork, patient: PatientSlices, threshold: float) -> NDArray[np.bool_]:
    device = next(network.parameters()).device
    image, brain = torch.from_numpy(patient.condition.astype(np.float32) / 65535)[:, None], torch.from_numpy(patient.brain)[:, None]
    return lesion_probability(network, image.to(device), brain.to(device)).cpu().numpy()[:, 0] >= threshold


def watched(patient: PatientSlices, most: int = WATCHED) -> PatientSlices:
    """Return at most so many of a patient's slices, evenly spread: enough to watch a training."""
    rows = np.unique(np.linspace(0, len(patient.condition) - 1, min(most, len(patient.condition))).astype(int))
    planes = {name: plane[rows] for name in PLANES if (plane := getattr(patient, name)) is not None}
    return replace(patient, **planes)


def patient_dice(network: LesionNetwork, patient: PatientSlices, threshold: float = 0.5) -> float:
    """Return the Dice over all slices of one patient on the network's grid; 1 where both are empty."""
    found = _found(network, patient, threshold)
    total = found.sum() + patient.lesion.sum()
    return 1.0 if total == 0 else float(2 * (found & patient.lesion).sum() / total)


def fit_segmenter(
    job: FitJob, network: LesionNetworkSettings, augment: AugmentSettings, loop: LoopSettings, defaults: SegmenterDefaults,
    draw: LesionDraw, aim: LesionLoss, start: Start | None = None,
) -> Bundle:  # fmt: skip
    """Train the lesion network on expert masks, from the weights of ``start`` where it is given, and write it into the bundle."""
    check_out(job, "segment")
    model = _first_segmenter(network, loop.seed, start, job.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    begun = {} if start is None else {"start": start.account}
    patients = job.patients()
    if start is not None:
        check_held_out(patients, start.account)
    used = masked_patients(patients, "train")
    held_out = [p for p in patients if p.split == "val" and p.masked]
    sick, healthy = ([watched(p) for p in held_out if p.lesion_free.all() == free] for free in (False, True))
    job.say(f"{sum(len(p.condition) for p in used)} slices of {len(used)} patients with masks")

    def on_checkpoint(average: nn.Module, step: int) -> None:
        assert isinstance(average, LesionNetwork)
        scores = [patient_dice(average.eval(), p) for p in sick]
        shares = [100 * flagged_share(average, p, 0.5) for p in healthy]
        average.train()
        if scores:
            job.say(f"  step {step}: Dice of slices of held-out patients, mean {np.mean(scores):.3f}, worst {min(scores):.3f}")
            job.board.numbers(step, {"validation/Dice, mean": float(np.mean(scores)), "validation/Dice, worst": min(scores)})
        if shares:
            job.say(f"  step {step}: % of the brain flagged in people without lesions, mean {np.mean(shares):.2f}, worst {max(shares):.2f}")
            job.board.numbers(step, {"validation/healthy brain flagged, %, mean": float(np.mean(shares))})

    checkpoint = job.work / f"{job.out.name}-segmenter.pt"
    aimed = {} if aim == LesionLoss() else {"aim": aim}
    average, curve = train(
        model, segmenter_loss(used, augment, loop.batch_size, draw, _doubt_at(draw, job), aim), loop, checkpoint, progress(job),
        on_checkpoint, identity(patients, network=network, augment=augment, draw=draw, **aimed) | begun, job.team,
    )  # fmt: skip
    account = {
        "command": job.command, "seconds": round(trained_seconds(checkpoint)), "loop": asdict(loop), "augment": asdict(augment),
        "draw": asdict(draw), "aim": asdict(aim), **begun,
        "slices": sum(len(p.condition) for p in used), "patients": data_account(used + held_out),
        "curve": curve, "monai": version("monai"), "torch": torch.__version__,
    }  # fmt: skip
    metadata = base_metadata(job, "segment") | {
        "network": asdict(network),
        "defaults": asdict(defaults),
        "training": {"segmenter": account},
    }
    return save(job, metadata, {SEGMENTER: average.state_dict()})


def _doubt_at(draw: LesionDraw, job: FitJob) -> float | None:
    """The robust z of ``draw.doubt`` on the scale of the target's window. Raises :class:`UsageError` without a target."""
    if draw.doubt is None:
        return None
    target = job.contrasts[1]
    if target is None:
        raise UsageError("--doubt needs --target: doubtful pixels are those bright on the target contrast", code="choice")
    low, high = WINDOWS.get(target, DEFAULT_WINDOW)
    return (draw.doubt - low) / (high - low)


def _first_segmenter(network: LesionNetworkSettings, seed: int, start: Start | None, device: torch.device) -> LesionNetwork:
    """The lesion network before its first step, that of ``start`` with more channels where more are asked for.

    Raises :class:`UsageError` where that of ``start`` does not fit into it.
    """
    if start is None:
        torch.manual_seed(seed)
        return LesionNetwork(network).to(device)
    model = load_segmenter(start.bundle, device)
    if not fits_into(model.settings, network):
        raise UsageError(
            f"--start {start.bundle.name}: has {model.settings}; expected {network}, or fewer channels. Give its --channels or more, or "
            "another bundle"
        )
    if model.settings == network:
        return model.requires_grad_(True)
    torch.manual_seed(seed)
    return widened(model, LesionNetwork(network).to(device))
