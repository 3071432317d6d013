"""Fit the OOD expert: the translator's network again, taught regions only (examples/docs/concepts.md, OOD expert).

Condition and target are restricted to a region, as the OOD branch sees them: around a lesion, or healthy tissue, without
which the expert would paint a lesion into whatever region it is given.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from localdiff_cli.bundle import (
    EXPERT,
    TRANSLATOR,
    Bundle,
    Defaults,
    copy_bundle,
    load_expert,
    load_translator,
    schedule_of,
)
from localdiff_cli.diffusion.network import TranslatorNetwork, told_network
from localdiff_cli.diffusion.schedule import Schedule
from localdiff_cli.errors import UsageError
from localdiff_cli.training.augment import AugmentSettings, grown, place, random_blob, recontrast
from localdiff_cli.training.harm import EQUAL, HarmSettings, harm_penalty, harm_settings
from localdiff_cli.training.job import FitJob, Start, check_held_out, identity, present, progress, save_drawing, version
from localdiff_cli.training.loop import LoopSettings, LossOf, train, trained_seconds
from localdiff_cli.training.slices import PatientSlices
from localdiff_cli.training.told import ToldSettings, told_loss
from localdiff_cli.training.told_maps import MappedSlices, Told, found_maps
from localdiff_cli.training.translator import ChosenSlices, denoising_loss, draw, healthy_slices

MIN_LESION_PIXELS = 40
"""Slices with less lesion than this are no example of one."""


@dataclass(frozen=True)
class RegionSettings:
    """Regions the expert is taught: ``healthy_share`` of them hold no lesion; a lesion is grown by up to ``grow`` pixels.

    ``stray`` is the share of lesion regions that also cover a random piece of healthy tissue, as a detector's mask would.
    """

    healthy_share: float = 0.5
    grow: int = 8
    stray: float = 0.5


def lesion_slices(patients: list[PatientSlices], most: int | None) -> ChosenSlices:
    """Return the training slices that show a lesion, of ``most`` patients spread evenly over the names' order (None: all).

    Raise :class:`UsageError` where there are none.
    """
    masked = sorted((p for p in patients if p.split == "train" and p.masked and p.target is not None), key=lambda p: p.name)
    chosen = [(p, np.flatnonzero(p.lesion_pixels >= MIN_LESION_PIXELS)) for p in masked]
    chosen = [(p, rows) for p, rows in chosen if rows.size]
    chosen = [chosen[i] for i in np.unique(np.linspace(0, len(chosen) - 1, min(most or len(chosen), len(chosen))).astype(int))]
    if not chosen:
        raise UsageError("no lesions in the train split; expected pairs with a target and a lesion mask")
    return ChosenSlices(tuple(p for p, _ in chosen), tuple(rows for _, rows in chosen))


def expert_loss(
    lesions: ChosenSlices, healthy: ChosenSlices, schedule: Schedule, augment: AugmentSettings, regions: RegionSettings, batch_size: int,
    harm: HarmSettings = EQUAL,
) -> LossOf:  # fmt: skip
    """Return the loss of one step: squared error of the prediction where condition and target are restricted to a region.
    ``harm``: what an invented and an erased lesion cost beyond it."""

    def loss_of(network: nn.Module, generator: torch.Generator) -> Tensor:
        is_healthy = (torch.rand(batch_size, generator=generator) < regions.healthy_share).view(-1, 1, 1, 1)
        with_lesion, without = (torch.cat(draw(slices, batch_size, generator), dim=1) for slices in (lesions, healthy))
        images = place(torch.where(is_healthy, without, with_lesion), augment, generator)
        condition, target, brain, lesion = images.split(1, dim=1)
        inside = (brain > 0.5).float()
        condition = recontrast(condition, inside, augment, generator)
        region = inside * draw_regions((lesion > 0.5).float(), is_healthy, regions, generator)
        penalty = harm_penalty(harm, (lesion > 0.5).float() * region)
        return denoising_loss(network, schedule, condition * region, target.clamp(0, 1) * region, region, generator, penalty=penalty)

    return loss_of


def draw_regions(lesion: Tensor, is_healthy: Tensor, settings: RegionSettings, generator: torch.Generator) -> Tensor:
    """Return a region for each slice, ``(N, 1, H, W)`` of 0 and 1: the lesion grown at random, or a blob that leaves the
    lesion out."""
    n = lesion.shape[0]
    blob = random_blob(n, (lesion.shape[-2], lesion.shape[-1]), generator)
    radius = torch.randint(settings.grow + 1, (n,), generator=generator).tolist()
    wider = torch.stack([grown(one[None], r)[0] for one, r in zip(lesion, radius, strict=True)])
    strays = (torch.rand(n, generator=generator) < settings.stray).view(-1, 1, 1, 1)
    around = torch.maximum(wider, blob * strays)
    return torch.where(is_healthy, blob * (1 - lesion), around)


def fit_expert(
    job: FitJob, base: Bundle, regions: RegionSettings, most: int | None, augment: AugmentSettings, loop: LoopSettings, defaults: Defaults,
    told: Told | None = None, start: Start | None = None, *, invented: float = 0.0, erased: float = 0.0,
) -> Bundle:  # fmt: skip
    """Teach a copy of the base's network the regions around lesions of ``most`` patients, and healthy ones; write the bundle.

    With ``told`` it sees the whole condition and the map instead (training/told.py). It begins as the expert of ``start``
    where that is given, else as the base's translator. ``invented``, ``erased``: what harm costs (training/harm.py). Raise
    :class:`UsageError` for another translator than the base's in the bundle to add to, an expert of another kind in
    ``start``, and as :func:`harm_settings` does.
    """
    own, its = base.metadata["files"].get(TRANSLATOR), present(job).get("files", {}).get(TRANSLATOR)
    if job.out.exists() and its != own:
        raise UsageError(f"--out {job.out}: is not {base.name}; give the base's own folder, or a new one for a copy with the expert")
    harm = harm_settings(base.target.contrast, schedule_of(base).prediction, invented, erased)
    patients = job.patients()
    if start is not None:
        check_held_out(patients, start.account)
    lesions, healthy = lesion_slices(patients, most), healthy_slices(patients, "train")
    job.say(f"{lesions.count} slices with lesions of {len(lesions.patients)} patients; {healthy.count} without")
    model = _first_expert(base, told is not None, start, job.device).requires_grad_(True)
    taught: RegionSettings | ToldSettings = regions if told is None else told.settings
    loss = _loss(job, base, regions, told, harm, (lesions, healthy), augment, loop.batch_size)
    shown = {} if told is None else {"maps": told.account(base)}
    checkpoint = job.work / f"{job.out.name}-expert.pt"
    average, curve = train(
        model,
        loss,
        loop,
        checkpoint,
        progress(job),
        None,
        identity([*lesions.patients, *healthy.patients], regions=taught, augment=augment)
        | {"base": base.metadata["files"][TRANSLATOR]}
        | ({} if start is None else {"start": start.account["weights"]})
        | harm.account()
        | shown,
        job.team,
    )
    account = {
        "command": job.command, "seconds": round(trained_seconds(checkpoint)), "loop": asdict(loop), "augment": asdict(augment),
        "regions": asdict(taught), "slices": lesions.count, "healthy_slices": healthy.count,
        "patients": {"train": [p.name for p in lesions.patients]}, "curve": curve, "monai": version("monai"), "torch": torch.__version__,
    } | ({} if start is None else {"start": start.account}) | harm.account() | shown  # fmt: skip
    if job.out.resolve() != base.path.resolve() and job.team.rank == 0:
        copy_bundle(base, job.out)
    described = {"patients": len(lesions.patients), "healthy_share": taught.healthy_share, "told": told is not None}
    metadata = {"expert": described, "defaults": asdict(defaults), "training": {"expert": account}}
    return save_drawing(job, metadata, EXPERT, average.state_dict())


def _loss(
    job: FitJob, base: Bundle, regions: RegionSettings, told: Told | None, harm: HarmSettings, slices: tuple[ChosenSlices, ChosenSlices],
    augment: AugmentSettings, batch_size: int,
) -> LossOf:  # fmt: skip
    """The loss of an expert that sees its region, or that is told; ``slices`` with lesions and without."""
    if told is None:
        return expert_loss(*slices, schedule_of(base), augment, regions, batch_size, harm)
    maps = found_maps(job, told, base, [person for chosen in slices for person in chosen.patients])
    lesions, healthy = (MappedSlices(chosen, maps) for chosen in slices)
    return told_loss(lesions, healthy, schedule_of(base), augment, told.settings, None, batch_size, harm)


def _first_expert(base: Bundle, told: bool, start: Start | None, device: torch.device) -> nn.Module:
    """The expert before its first step. Raises :class:`UsageError` where that of ``start`` is of another kind or network."""
    if start is None:
        model = load_translator(base, device)
        return _as_told(model) if told else model
    its = start.bundle
    alike = its.has_expert and its.metadata["network"] == base.metadata["network"] and schedule_of(its) == schedule_of(base)
    if not alike or its.expert_is_told != told:
        raise UsageError(
            f"--start {its.name}: has no expert of this network and schedule {'with' if told else 'without'} --told; expected one",
            code="choice",
        )
    return load_expert(its, device)


def _as_told(model: nn.Module) -> TranslatorNetwork:
    """The base's network with an input for M. Raises :class:`UsageError` for a network of another library."""
    if not isinstance(model, TranslatorNetwork):
        raise UsageError("--told needs a translator that was fitted here; an adapted network has no input for the map", code="choice")
    return told_network(model)
