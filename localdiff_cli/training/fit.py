"""Fit each part of a bundle: prepare the data, train, calibrate, check on held-out patients, write the bundle and its card."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from localdiff_cli.bundle import (
    DETECTOR,
    EXPERT,
    METADATA,
    SEGMENTER,
    TRANSLATOR,
    Bundle,
    Defaults,
    GridSpec,
    SegmenterDefaults,
    copy_bundle,
    drop_expert,
    load_segmenter,
    load_translator,
    read_metadata,
    save_bundle,
    schedule_of,
)
from localdiff_cli.bundle.card import card
from localdiff_cli.diffusion.network import NetworkSettings, TranslatorNetwork, told_network
from localdiff_cli.diffusion.schedule import Schedule
from localdiff_cli.errors import UsageError
from localdiff_cli.ood.backbone import load_backbone
from localdiff_cli.ood.fit import calibrate_detector, fit_bank
from localdiff_cli.ood.patchcore import MemoryBank
from localdiff_cli.segmentation.network import LesionNetwork, LesionNetworkSettings, lesion_probability
from localdiff_cli.training.augment import AugmentSettings
from localdiff_cli.training.expert import RegionSettings, expert_loss, lesion_slices
from localdiff_cli.training.loop import LoopSettings, Progress, train, trained_seconds
from localdiff_cli.training.pairs import Pair
from localdiff_cli.training.segmenter import LesionDraw, flagged_share, masked_patients, patient_dice, segmenter_loss
from localdiff_cli.training.slices import PatientSlices, load_slices
from localdiff_cli.training.told import ToldSettings, told_loss
from localdiff_cli.training.translator import HealthySlices, healthy_slices, mean_prediction, translator_loss
from localdiff_cli.volumes.intensity import DEFAULT_WINDOW, WINDOWS
from localdiff_cli.volumes.likeness import quantiles_of, typical_of
from localdiff_cli.volumes.prepare import PrepareSettings
from localdiff_cli.volumes.whole import whole_file, write_text

Say = Callable[[str], None]
UNSTATED = "unstated"
FEWEST_TYPICAL = 3
UNLIKE_BEYOND = 6.0
"""SDs over the training people beyond which an input's intensities are called unlike theirs; nobody held out for validation lies beyond."""


@dataclass(frozen=True)
class FitJob:
    """What every fit needs: the patients, contrasts, where the bundle goes, where caches and checkpoints lie, how to report.

    ``command`` is recorded in the card; ``healthy`` names patients known to bear no lesion.
    """

    pairs: tuple[Pair, ...]
    contrasts: tuple[str, str | None]
    out: Path
    work: Path
    prepare: PrepareSettings
    command: str
    device: torch.device
    say: Say
    healthy: tuple[str, ...] = ()
    licence: str = UNSTATED

    def patients(self) -> list[PatientSlices]:
        """Every usable patient of the training and validation splits. Test patients are never read."""
        used = [pair for pair in self.pairs if pair.split != "test"]
        unknown = set(self.healthy) - {pair.name for pair in self.pairs}
        if unknown:
            raise UsageError(f"--healthy {', '.join(sorted(unknown))}: no such patient in the data")
        self.say(f"preparing {len(used)} patients ({len(self.pairs) - len(used)} test patients left alone)")
        patients = load_slices(used, self.contrasts, self.prepare, self.work / "cache", self.say)
        return [replace(p, masked=True) if p.name in self.healthy else p for p in patients]


def _describe(contrast: str | None) -> dict[str, Any]:
    return {"contrast": contrast, "window": list(WINDOWS.get(contrast or "", DEFAULT_WINDOW))}


def _base_metadata(job: FitJob, task: str) -> dict[str, Any]:
    grid = GridSpec(spacing=job.prepare.spacing, shape=job.prepare.shape)
    metadata = {
        "task": task,
        "condition": _describe(job.contrasts[0]),
        "grid": {"plane": grid.plane, "spacing": grid.spacing, "shape": list(grid.shape)},
        "brain": "required",
        "bias": job.prepare.bias,
        "licence": job.licence,
        "intended_use": "research; not for diagnosis",
    }
    translates = task == "translate" and job.contrasts[1]
    return metadata | ({"target": _describe(job.contrasts[1])} if translates else {})


def _present(job: FitJob) -> dict[str, Any]:
    """The metadata of the bundle to be added to; empty for a new one."""
    return read_metadata(job.out) if (job.out / METADATA).is_file() else {}


def _check_out(job: FitJob, task: str) -> None:
    """Refuse a bundle whose other parts see slices made ready in another way. Raises :class:`UsageError`."""
    if job.out.exists() and not job.out.is_dir():
        raise UsageError(f"--out {job.out}: is a file; expected a bundle folder, new or to add to")
    before, now = _present(job), _base_metadata(job, task)
    keys = [key for key in ("task", "condition", "target", "grid", "bias") if key in before and key in now and before[key] != now[key]]
    if keys:
        differing = "; ".join(f"{key} {json.dumps(before[key])} there, {json.dumps(now[key])} here" for key in keys)
        raise UsageError(f"--out {job.out}: holds a bundle made otherwise ({differing}). Fit with its settings, or choose another --out")


def identity(patients: list[PatientSlices], **settings: Any) -> dict[str, Any]:
    """What is trained on what, so that a checkpoint is never taken for another training's."""
    digest = hashlib.sha256()
    for p in sorted(patients, key=lambda p: p.name):
        digest.update(json.dumps([p.name, p.split, p.masked, p.condition.shape]).encode())
        for array in (p.condition, p.target, p.brain, p.lesion):
            digest.update(b"" if array is None else np.ascontiguousarray(array).data)
    return json.loads(json.dumps({**{key: asdict(value) for key, value in settings.items()}, "data": digest.hexdigest()}))


def _data_account(patients: list[PatientSlices]) -> dict[str, list[str]]:
    return {split: sorted(p.name for p in patients if p.split == split) for split in ("train", "val")}


def progress(say: Say) -> Callable[[Progress], None]:
    def report(p: Progress) -> None:
        say(f"step {p.step}/{p.steps}  loss {p.loss:.5f}  rate {p.rate:.2e}  {p.seconds_left / 60:.1f} min left")

    return report


def psnr(a: NDArray, b: NDArray, mask: NDArray[np.bool_]) -> float:
    """PSNR (dB) over ``mask``, data range 1."""
    return float(10 * np.log10(1 / np.mean((a[mask] - b[mask]) ** 2, dtype=np.float64)))


def polynomial_map(slices: HealthySlices, degree: int = 5) -> NDArray:
    """The best polynomial intensity map from condition to target over the brain pixels of ``slices``; ``np.polyval`` order."""
    xs, ys = [], []
    for patient, rows in zip(slices.patients, slices.rows, strict=True):
        assert patient.target is not None
        brain = patient.brain[rows]
        step = max(1, int(brain.sum()) // 200_000)
        xs.append(patient.condition[rows][brain][::step] / 65535.0)
        ys.append(patient.target[rows][brain][::step] / 65535.0)
    return np.polyfit(np.concatenate(xs), np.concatenate(ys), degree)


def _check_batch(slices: HealthySlices, n: int = 12) -> tuple[Tensor, NDArray, NDArray[np.bool_]]:
    """Some evenly spread slices to watch: condition tensor, target and brain arrays."""
    flat = [(p, row) for p, rows in zip(slices.patients, slices.rows, strict=True) for row in rows]
    chosen = [flat[i] for i in np.linspace(0, len(flat) - 1, min(n, len(flat))).astype(int)]
    condition = np.stack([p.condition[row] for p, row in chosen]).astype(np.float32) / 65535
    target = np.stack([p.target[row] for p, row in chosen if p.target is not None]).astype(np.float32) / 65535
    return torch.from_numpy(condition)[:, None], target, np.stack([p.brain[row] for p, row in chosen])


def _watch(job: FitJob, watched: HealthySlices, schedule: Schedule) -> Callable[[nn.Module, int], None]:
    condition, target, brain = _check_batch(watched)

    def on_checkpoint(average: nn.Module, step: int) -> None:
        average.eval()
        mean = mean_prediction(average, schedule, condition.to(job.device)).cpu().numpy()[:, 0]
        average.train()
        job.say(f"  step {step}: PSNR of the first-step mean on held-out slices {psnr(mean, target, brain):.2f} dB")
        _picture(job.work / f"{job.out.name}-samples-{step:06d}.png", [condition.numpy()[:6, 0], mean[:6], target[:6]])

    return on_checkpoint


def _picture(path: Path, rows: list[NDArray]) -> None:
    from matplotlib.image import imsave

    mosaic = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
    with whole_file(path) as partial:
        imsave(str(partial), mosaic, cmap="gray", vmin=0, vmax=1)


def fit_translator(
    job: FitJob, network: NetworkSettings, schedule: Schedule, augment: AugmentSettings, loop: LoopSettings, defaults: Defaults,
    start: Start | None = None,
) -> Bundle:  # fmt: skip
    """Train the conditional diffusion network on lesion-free slices and write it into the bundle; random weights without ``start``.

    Raises :class:`UsageError` where the network or schedule of ``start`` is another.
    """
    _check_out(job, "translate")
    model = _first_network(network, schedule, loop.seed, start, job.device)
    begun = {} if start is None else {"start": start.account}
    patients = job.patients()
    if start is not None:
        _check_held_out(patients, start.account)
    used = healthy_slices(patients, "train")
    held_out = healthy_slices(patients, "val") if any(p.split == "val" for p in patients) else used
    job.say(f"{used.count} lesion-free slices of {len(used.patients)} patients")
    checkpoint = job.work / f"{job.out.name}-translator.pt"
    average, curve = train(
        model,
        translator_loss(used, schedule, augment, loop.batch_size),
        loop,
        checkpoint,
        progress(job.say),
        _watch(job, held_out, schedule),
        identity(patients, network=network, schedule=schedule, augment=augment) | begun,
    )
    yardstick = polynomial_map(used)
    metadata = _base_metadata(job, "translate") | {
        "network": asdict(network),
        "schedule": asdict(schedule),
        "defaults": asdict(defaults),
        "training": {
            "translator": {
                "command": job.command, "seconds": round(trained_seconds(checkpoint)), "loop": asdict(loop), "augment": asdict(augment),
                "slices": used.count, "patients": _data_account(patients), "curve": curve, "polynomial": yardstick.tolist(),
                "monai": version("monai"), "torch": torch.__version__, **begun,
            }
        },
    }  # fmt: skip
    before = _present(job).get("files", {}).get(TRANSLATOR)
    bundle = _save(job, metadata, {TRANSLATOR: average.state_dict()})
    if bundle.has_expert and bundle.metadata["files"][TRANSLATOR] != before:
        job.say("the OOD expert of the earlier translator is taken out; fit it again")
        bundle = drop_expert(bundle)
        write_text(bundle.path / "README.md", card(dict(bundle.metadata)))
    return bundle


@dataclass(frozen=True)
class Start:
    """Weights that a training starts from: the ``part`` of a ``bundle``, its translator or another network of that architecture."""

    bundle: Bundle
    part: str = "translator"

    @property
    def weights(self) -> str:
        """The weight file inside the bundle. Raises :class:`UsageError` where there is none."""
        name, files = f"models/{self.part}.safetensors", self.bundle.metadata["files"]
        if name not in files:
            raise UsageError(f"--start {self.bundle.name}:{self.part}: no such weights; the bundle has {', '.join(files)}", code="choice")
        return name

    @property
    def account(self) -> dict[str, Any]:
        """What the metadata of the trained bundle says of it, with the patients that these weights have learnt from."""
        told = self.bundle.metadata.get("training", {}).get(self.part, {})
        seen = {*told.get("patients", {}).get("train", []), *told.get("start", {}).get("patients", [])}
        return {
            "bundle": self.bundle.name, "part": self.part, "weights": self.bundle.metadata["files"][self.weights], "patients": sorted(seen),
        }  # fmt: skip


def _check_held_out(patients: list[PatientSlices], start: dict[str, Any]) -> None:
    """Refuse to hold out who the first weights have learnt from. Raises :class:`UsageError`."""
    known = sorted({p.name for p in patients if p.split == "val"} & set(start["patients"]))
    if known:
        names = ", ".join(known)
        raise UsageError(f"--start {start['bundle']}: has learnt from {names}, now in the val split; leave them out with --exclude")


def _first_network(
    network: NetworkSettings, schedule: Schedule, seed: int, start: Start | None, device: torch.device
) -> nn.Module:
    """The network before its first step."""
    if start is None:
        torch.manual_seed(seed)
        return TranslatorNetwork(network).to(device)
    model = load_translator(start.bundle, device, start.weights)
    found = (model.settings, schedule_of(start.bundle))
    if found != (network, schedule):
        raise UsageError(f"--start {start.bundle.name}: has {found[0]}, {found[1]}; expected {network}, {schedule}. Give its --channels, "
                         "--space-to-depth, --schedule and --prediction, or another bundle")
    return model.requires_grad_(True)


def version(package: str) -> str:
    import importlib.metadata

    return importlib.metadata.version(package)


def _save(job: FitJob, metadata: dict[str, Any], tensors: dict[str, dict[str, Tensor]]) -> Bundle:
    before = _present(job)
    merged = before | metadata | {"training": before.get("training", {}) | metadata["training"]}
    if job.licence == UNSTATED and "licence" in before:
        merged["licence"] = before["licence"]
    merged["results"] = {}  # what was measured before was measured with other weights
    return save_bundle(job.out, merged, tensors, card(merged | {"name": job.out.name}))


@dataclass(frozen=True)
class Told:
    """A told expert's settings, and the lesion network whose maps it is told."""

    settings: ToldSettings
    finder: Bundle


def fit_expert(
    job: FitJob, base: Bundle, regions: RegionSettings, most: int | None, augment: AugmentSettings, loop: LoopSettings, defaults: Defaults,
    told: Told | None = None,
) -> Bundle:  # fmt: skip
    """Teach a copy of the base's network the regions around lesions of ``most`` patients, and healthy ones; write it into the bundle.

    With ``told`` it sees the whole condition and the map instead (training/told.py). Raises :class:`UsageError` where the bundle to add
    to has another translator than the base.
    """
    own, its = base.metadata["files"].get(TRANSLATOR), _present(job).get("files", {}).get(TRANSLATOR)
    if job.out.exists() and its != own:
        raise UsageError(f"--out {job.out}: is not {base.name}; give the base's own folder, or a new one for a copy with the expert")
    patients = job.patients()
    lesions, healthy = lesion_slices(patients, most), healthy_slices(patients, "train")
    job.say(f"{lesions.count} slices with lesions of {len(lesions.patients)} patients; {healthy.count} without")
    model, schedule = load_translator(base, job.device).requires_grad_(True), schedule_of(base)
    taught: RegionSettings | ToldSettings = regions if told is None else told.settings
    if told is None:
        loss = expert_loss(lesions, healthy, schedule, augment, regions, loop.batch_size)
    else:
        finder = load_segmenter(told.finder, job.device)
        model = _as_told(model)
        find = partial(lesion_probability, finder, mirror=False)
        loss = told_loss(lesions, healthy, schedule, augment, told.settings, find, loop.batch_size)
    checkpoint = job.work / f"{job.out.name}-expert.pt"
    average, curve = train(
        model,
        loss,
        loop,
        checkpoint,
        progress(job.say),
        None,
        identity([*lesions.patients, *healthy.patients], regions=taught, augment=augment) | {"base": base.metadata["files"][TRANSLATOR]},
    )
    account = {
        "command": job.command, "seconds": round(trained_seconds(checkpoint)), "loop": asdict(loop), "augment": asdict(augment),
        "regions": asdict(taught), "maps": None if told is None else f"{told.finder.name} {told.finder.hash}", "slices": lesions.count,
        "healthy_slices": healthy.count,
        "patients": {"train": [p.name for p in lesions.patients]}, "curve": curve, "monai": version("monai"), "torch": torch.__version__,
    }  # fmt: skip
    if job.out.resolve() != base.path.resolve():
        copy_bundle(base, job.out)
    described = {"patients": len(lesions.patients), "healthy_share": taught.healthy_share, "told": told is not None}
    metadata = {"expert": described, "defaults": asdict(defaults), "training": {"expert": account}}
    return _save(job, metadata, {EXPERT: average.state_dict()})


def _as_told(model: nn.Module) -> TranslatorNetwork:
    """The base's network with an input for M. Raises :class:`UsageError` for a network of another library."""
    if not isinstance(model, TranslatorNetwork):
        raise UsageError("--told needs a translator that was fitted here; an adapted network has no input for the map", code="choice")
    return told_network(model)


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
    _check_out(job, "translate")
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
        "command": job.command, "seconds": round(time.monotonic() - started), "patients": _data_account([p for p in patients if p.masked]),
        "slices": len(train_slices), "held_out_slices": len(held_out), "coreset_size": settings.coreset_size, "seed": settings.seed,
    }  # fmt: skip
    metadata = _base_metadata(job, "translate") | {"detector": described, "training": {"detector": account}}
    metadata |= _typical(patients, job.contrasts[0])
    return _save(job, metadata, {DETECTOR: bank.to_tensors()})


def _typical(patients: list[PatientSlices], contrast: str) -> dict[str, Any]:
    """What the training people's intensities look like, for the metadata; nothing for fewer than three people."""
    low, high = WINDOWS.get(contrast, DEFAULT_WINDOW)
    known = [p for p in patients if p.split == "train"]
    if len(known) < FEWEST_TYPICAL:
        return {}
    people = (quantiles_of(low + (high - low) * p.condition[p.brain].astype(np.float32) / 65535) for p in known)
    return {"typical": json.loads(json.dumps(asdict(typical_of(people, UNLIKE_BEYOND))))}


def fit_segmenter(
    job: FitJob, network: LesionNetworkSettings, augment: AugmentSettings, loop: LoopSettings, defaults: SegmenterDefaults,
    draw: LesionDraw, start: Start | None = None,
) -> Bundle:  # fmt: skip
    """Train the lesion network on expert masks, from the weights of ``start`` where it is given, and write it into the bundle."""
    _check_out(job, "segment")
    model = _first_segmenter(network, loop.seed, start, job.device)
    begun = {} if start is None else {"start": start.account}
    patients = job.patients()
    if start is not None:
        _check_held_out(patients, start.account)
    used = masked_patients(patients, "train")
    held_out = [p for p in patients if p.split == "val" and p.masked]
    sick, healthy = [p for p in held_out if not p.lesion_free.all()], [p for p in held_out if p.lesion_free.all()]
    job.say(f"{sum(len(p.condition) for p in used)} slices of {len(used)} patients with masks")

    def on_checkpoint(average: nn.Module, step: int) -> None:
        assert isinstance(average, LesionNetwork)
        scores = [patient_dice(average.eval(), p) for p in sick]
        shares = [100 * flagged_share(average, p, 0.5) for p in healthy]
        average.train()
        if scores:
            job.say(f"  step {step}: held-out patients' Dice, mean {np.mean(scores):.3f}, worst {min(scores):.3f}")
        if shares:
            job.say(f"  step {step}: % of the brain flagged in people without lesions, mean {np.mean(shares):.2f}, worst {max(shares):.2f}")

    checkpoint = job.work / f"{job.out.name}-segmenter.pt"
    average, curve = train(
        model, segmenter_loss(used, augment, loop.batch_size, draw, _doubt_at(draw, job)), loop, checkpoint, progress(job.say),
        on_checkpoint, identity(patients, network=network, augment=augment, draw=draw) | begun,
    )  # fmt: skip
    account = {
        "command": job.command, "seconds": round(trained_seconds(checkpoint)), "loop": asdict(loop), "augment": asdict(augment),
        "draw": asdict(draw), **begun, "slices": sum(len(p.condition) for p in used), "patients": _data_account(used + held_out),
        "curve": curve, "monai": version("monai"), "torch": torch.__version__,
    }  # fmt: skip
    metadata = _base_metadata(job, "segment") | {
        "network": asdict(network),
        "defaults": asdict(defaults),
        "training": {"segmenter": account},
    }
    return _save(job, metadata, {SEGMENTER: average.state_dict()})


def _doubt_at(draw: LesionDraw, job: FitJob) -> float | None:
    """The robust z of ``draw.doubt`` on the scale of the target's window. Raises :class:`UsageError` without a target."""
    if draw.doubt is None:
        return None
    target = job.contrasts[1]
    if target is None:
        raise UsageError("--doubt needs --target: what is in doubt is told by its brightness on the target contrast", code="choice")
    low, high = WINDOWS.get(target, DEFAULT_WINDOW)
    return (draw.doubt - low) / (high - low)


def _first_segmenter(network: LesionNetworkSettings, seed: int, start: Start | None, device: torch.device) -> LesionNetwork:
    """The lesion network before its first step. Raises :class:`UsageError` where that of ``start`` is another."""
    if start is None:
        torch.manual_seed(seed)
        return LesionNetwork(network).to(device)
    model = load_segmenter(start.bundle, device)
    if model.settings != network:
        raise UsageError(f"--start {start.bundle.name}: has {model.settings}; expected {network}. Give its --channels, or another bundle")
    return model.requires_grad_(True)
