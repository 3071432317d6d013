"""What every fit shares: its data, the bundle it adds to, its first weights, how it reports, and what it writes down."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from localdiff_cli.bundle import INTERVAL, METADATA, TRANSLATOR, Bundle, GridSpec, drop_parts, open_bundle, read_metadata, save_bundle
from localdiff_cli.bundle.card import card
from localdiff_cli.errors import UsageError
from localdiff_cli.training.board import Board, NoBoard
from localdiff_cli.training.loop import Progress
from localdiff_cli.training.pairs import Pair
from localdiff_cli.training.processes import Alone, Processes
from localdiff_cli.training.slices import PatientSlices, load_slices
from localdiff_cli.volumes.intensity import DEFAULT_WINDOW, WINDOWS
from localdiff_cli.volumes.prepare import PrepareSettings
from localdiff_cli.volumes.whole import write_text

Say = Callable[[str], None]
UNSTATED = "unstated"


@dataclass(frozen=True)
class FitJob:
    """What every fit needs: the patients, contrasts, where the bundle goes, where caches and checkpoints lie, how to
    report.

    ``command`` is recorded in the card; ``healthy`` names patients known to bear no lesion; ``notes`` says what of the data
    was left out; ``team`` are the processes that train together, of which the first alone writes; ``board`` takes the
    figures.
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
    notes: tuple[str, ...] = ()
    team: Processes = field(default_factory=Alone)
    board: Board = field(default_factory=NoBoard)

    def patients(self) -> list[PatientSlices]:
        """Return every usable patient of the training and validation splits. Test patients are never read."""
        used = [pair for pair in self.pairs if pair.split != "test"]
        unknown = set(self.healthy) - {pair.name for pair in self.pairs}
        if unknown:
            raise UsageError(f"--healthy {', '.join(sorted(unknown))}: no such patient in the data")
        self.say(f"preparing {len(used)} patients ({len(self.pairs) - len(used)} test patients left alone)")
        for note in self.notes:
            self.say(note)
        patients = load_slices(used, self.contrasts, self.prepare, self.work / "cache", self.say, self.team)
        return [p.known_healthy() if p.name in self.healthy else p for p in patients]


def _describe(contrast: str | None) -> dict[str, Any]:
    return {"contrast": contrast, "window": list(WINDOWS.get(contrast or "", DEFAULT_WINDOW))}


def base_metadata(job: FitJob, task: str) -> dict[str, Any]:
    """Return what the metadata of every part says: contrasts, grid, brain, bias, licence."""
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


def present(job: FitJob) -> dict[str, Any]:
    """Return the metadata of the bundle to be added to; empty for a new one."""
    return read_metadata(job.out) if (job.out / METADATA).is_file() else {}


def check_out(job: FitJob, task: str) -> None:
    """Refuse a bundle whose other parts see slices prepared in another way. Raise :class:`UsageError`."""
    if job.out.exists() and not job.out.is_dir():
        raise UsageError(f"--out {job.out}: is a file; expected a bundle folder, new or to add to")
    before, now = present(job), base_metadata(job, task)
    keys = [key for key in ("task", "condition", "target", "grid", "bias") if key in before and key in now and before[key] != now[key]]
    if keys:
        differing = "; ".join(f"{key} {json.dumps(before[key])} there, {json.dumps(now[key])} here" for key in keys)
        raise UsageError(f"--out {job.out}: holds a bundle made otherwise ({differing}). Fit with its settings, or choose another --out")


def identity(patients: list[PatientSlices], **settings: Any) -> dict[str, Any]:
    """Return what is trained on what, so that a checkpoint is never taken for another training's."""
    digest = hashlib.sha256()
    for p in sorted(patients, key=lambda p: p.name):
        digest.update(json.dumps([p.name, p.split, p.masked, p.digest]).encode())
    return json.loads(json.dumps({**{key: asdict(value) for key, value in settings.items()}, "data": digest.hexdigest()}))


def data_account(patients: list[PatientSlices]) -> dict[str, list[str]]:
    """Return the patients of each split, by name."""
    return {split: sorted(p.name for p in patients if p.split == split) for split in ("train", "val")}


def progress(job: FitJob) -> Callable[[Progress], None]:
    """Return a function that reports a training's progress, a line at a time, and puts loss and rate on the board."""

    def report(p: Progress) -> None:
        job.say(f"step {p.step}/{p.steps}  loss {p.loss:.5f}  rate {p.rate:.2e}  {p.seconds_left / 60:.1f} min left")
        job.board.numbers(p.step, {"loss": p.loss, "rate": p.rate})

    return report


@dataclass(frozen=True)
class Start:
    """Weights that a training starts from: the ``part`` of a ``bundle``, its translator or another network of that
    architecture."""

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
        seen = sorted(learnt_from(self.bundle, self.part))
        return {
            "bundle": self.bundle.name, "part": self.part, "weights": self.bundle.metadata["files"][self.weights], "patients": seen,
        }  # fmt: skip


def learnt_from(bundle: Bundle, part: str) -> set[str]:
    """Return the names of those from whom the ``part`` of a bundle learnt, also before its last training."""
    told = bundle.metadata.get("training", {}).get(part, {})
    return {*told.get("patients", {}).get("train", []), *told.get("start", {}).get("patients", [])}


def check_held_out(patients: list[PatientSlices], start: dict[str, Any]) -> None:
    """Refuse to hold out anyone from whom the first weights have learnt. Raise :class:`UsageError`."""
    known = sorted({p.name for p in patients if p.split == "val"} & set(start["patients"]))
    if known:
        names = ", ".join(known)
        raise UsageError(f"--start {start['bundle']}: has learnt from {names}, now in the val split; leave them out with --exclude")


def version(package: str) -> str:
    """Return the installed version of a package."""
    import importlib.metadata

    return importlib.metadata.version(package)


def save(job: FitJob, metadata: dict[str, Any], tensors: dict[str, dict[str, Tensor]]) -> Bundle:
    """Add the parts to the bundle, or write a new one; what was measured with other weights is forgotten (an interval
    network draws nothing)."""
    before = present(job)
    merged = before | metadata | {"training": before.get("training", {}) | metadata["training"]}
    if job.licence == UNSTATED and "licence" in before:
        merged["licence"] = before["licence"]
    if before.get("copyright") == before.get("licence"):
        merged["copyright"] = merged["licence"]
    merged["results"] = before.get("results", {}) if set(tensors) == {INTERVAL} else {}
    if job.team.rank == 0:
        save_bundle(job.out, merged, tensors, card(merged | {"name": job.out.name}))
    job.team.wait()
    return open_bundle(str(job.out))


def save_drawing(job: FitJob, metadata: dict[str, Any], name: str, weights: dict[str, Tensor]) -> Bundle:
    """As :func:`save`, of a network that draws. Where its weights ``name`` are others than before, the networks that were
    taught with those are taken out: an OOD expert by its translator, an interval network by what was drawn."""
    before = present(job).get("files", {}).get(name)
    bundle = save(job, metadata, {name: weights})
    taught = [part for part in (("expert", "interval") if name == TRANSLATOR else ("interval",)) if part in bundle.metadata]
    if job.team.rank == 0 and taught and bundle.metadata["files"][name] != before:
        job.say(f"taken out, since they were taught with earlier weights: {', '.join(taught)}; fit them again")
        bundle = drop_parts(bundle, *taught)
        write_text(bundle.path / "README.md", card(dict(bundle.metadata)))
    return bundle
