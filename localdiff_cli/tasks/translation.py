"""Translate one volume: read → normalise → detect → branch → fuse → denormalise → write, a few slices at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from localdiff_cli.batch.discover import Item
from localdiff_cli.batch.work import OnSlice, Outcome
from localdiff_cli.diffusion.branching import crop_around
from localdiff_cli.diffusion.fusion import LocalSettings, Process, Region, ShowsAnomaly, local, plain
from localdiff_cli.diffusion.noise import INITIAL, NoiseKey
from localdiff_cli.diffusion.samplers import Model, step_of
from localdiff_cli.diffusion.schedule import Schedule, step_pairs
from localdiff_cli.errors import VolumeError
from localdiff_cli.tasks.detection import (
    DetectorBinding,
    MaskSettings,
    SliceDetector,
    SliceShare,
    UnknownSettings,
    mask_of,
    ood_doubts,
    ood_facts,
    slice_shares,
    unknown_of,
)
from localdiff_cli.tasks.network_work import NetworkWork
from localdiff_cli.tasks.outputs import Outputs
from localdiff_cli.tasks.slices import (
    Chunk,
    chunks,
    image_to_native,
    map_to_native,
    mask_to_native,
    prepare_account,
    prepare_item,
    versions,
    volume_doubts,
    volume_facts,
)
from localdiff_cli.volumes.brain import MAP_WORDS
from localdiff_cli.volumes.intensity import Scale
from localdiff_cli.volumes.prepare import Prepared
from localdiff_cli.volumes.reader import ITK_SUFFIXES, suffix_of

OOD_CROP_MARGIN = 16
IND, OOD, FUSED, UNKNOWN = 1, 2, 3, 4
INT16_STEPS = 32000


Shows = Callable[[Tensor, Tensor, Tensor], ShowsAnomaly]
"""From condition, B and brain of a slice to the classifier of its x_0 estimates."""


@dataclass(frozen=True)
class SampleSettings:
    """How the reverse process runs: see the options of ``localdiff translate`` of the same names."""

    mode: str
    sampler: str
    eta: float
    steps: int
    samples: int
    seed: int
    noise: str
    local: LocalSettings
    guided: bool
    ood_crop: bool


@dataclass(frozen=True, eq=False)
class Networks:
    """The loaded networks: ``model`` and its ``schedule`` on ``device``, for guided timing the classifier of one slice, the OOD expert.

    ``told``: the expert sees the whole condition and M. ``classifier`` and ``expert_account`` name their bundles and hashes.
    """

    model: Model
    schedule: Schedule
    device: torch.device
    multiple: int
    shows: Shows | None = None
    classifier: str | None = None
    expert: Model | None = None
    expert_account: str | None = None
    told: bool = False


@dataclass
class Clock:
    """Seconds spent by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        started = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def rounded(self) -> dict[str, float]:
        """For the sidecar."""
        return {name: round(value, 3) for name, value in self.seconds.items()}


@dataclass(frozen=True, eq=False)
class SliceSampler:
    """Draws the slices of one volume: plain where B is empty, Local Diffusion where it is not."""

    networks: Networks
    settings: SampleSettings
    fingerprint: str

    def __call__(self, chunk: Chunk, ood_map: Tensor, ood_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over samples, ``(N, 1, H, W)`` in [0, 1], for a chunk and its M and B."""
        samples = torch.stack([self._one(chunk, ood_map, ood_mask, s) for s in range(self.settings.samples)])
        mean = samples.mean(dim=0)
        return mean, samples.std(dim=0, correction=0) if len(samples) > 1 and len(mean) else torch.zeros_like(mean)

    def _one(self, chunk: Chunk, ood_map: Tensor, ood_mask: Tensor, number: int) -> Tensor:
        is_local = ood_mask.flatten(1).any(dim=1) if self.settings.mode == "local" else torch.zeros(len(chunk.condition), dtype=torch.bool)
        x0 = torch.zeros_like(chunk.condition)
        for rows in self._groups(is_local):
            key = NoiseKey(self.settings.seed, number, self.fingerprint, self.settings.noise == "shared")
            slices = [chunk.active_numbers[i] for i in rows]
            x0[rows] = self._group(
                chunk.condition[rows], ood_map[rows], ood_mask[rows], chunk.brain[rows], key, slices, bool(is_local[rows[0]])
            )
        return ((x0 + 1) / 2).clamp(0, 1) * chunk.brain

    def _groups(self, is_local: Tensor) -> list[list[int]]:
        """Slices that may share a batch: all plain ones; local ones too, unless each needs its own crop or its own fusion step."""
        apart = [i for i, flag in enumerate(is_local.tolist()) if not flag]
        branched = [i for i, flag in enumerate(is_local.tolist()) if flag]
        alone = self.settings.ood_crop or self.settings.guided
        return [group for group in (apart, *([[i] for i in branched] if alone else [branched])) if group]

    def _group(
        self, condition: Tensor, ood_map: Tensor, ood_mask: Tensor, brain: Tensor, key: NoiseKey, slices: list[int], is_local: bool
    ) -> Tensor:
        device, shape = self.networks.device, (condition.shape[2], condition.shape[3])
        process = Process(
            self.networks.model,
            self.networks.schedule,
            step_of(self.settings.sampler, self.settings.eta),
            step_pairs(self.networks.schedule.num_train_timesteps, self.settings.steps),
            lambda number: key.batch(number, slices, shape).to(device),
            self.networks.expert,
            told=self.networks.told,
        )
        c, x_T = condition.to(device), key.batch(INITIAL, slices, shape).to(device)
        if not is_local:
            return plain(process, c, x_T).cpu()
        crop = crop_around(ood_mask, OOD_CROP_MARGIN, self.networks.multiple) if self.settings.ood_crop else None
        region = Region(ood_mask.to(device), ood_map.to(device), crop)
        shows = self.networks.shows(c, region.mask, brain.to(device)) if self.settings.guided and self.networks.shows else None
        return local(process, c, x_T, region, self.settings.local, shows).cpu()


def source_labels(
    mask: NDArray[np.bool_], unknown: NDArray[np.bool_], weight: NDArray[np.float32], brain: NDArray[np.bool_], settings: SampleSettings
) -> NDArray[np.uint8]:
    """Who made each pixel: 1 IND (the ordinary process), 2 OOD branch alone, 3 fused (both branches, or refined after it), 4 unknown."""
    fused = settings.local.fusion_step > 0 or settings.guided
    labels = np.where(mask, FUSED if fused else OOD, IND).astype(np.uint8)
    if settings.local.soft:
        labels[mask & (weight < 1)] = FUSED
    labels[unknown & ~mask] = UNKNOWN
    return labels * brain


def volumes_of(millilitres: NDArray[np.float64]) -> dict[str, float]:
    """For the sidecar: millilitres drawn by the OOD branch, and called unknown."""
    return {"OODMillilitres": round(float(millilitres[0]), 3), "UnknownMillilitres": round(float(millilitres[1]), 3)}


@dataclass(frozen=True, eq=False, kw_only=True)
class TranslateWork(NetworkWork):
    """``localdiff translate`` on one volume."""

    networks: Networks
    bind: Callable[[Prepared, Path], SliceDetector] | None
    mask: MaskSettings
    sample: SampleSettings
    unknown: UnknownSettings
    detector: dict[str, Any]
    reference: Callable[[Item], Scale] | None = None
    reference_path: Path | None = None
    map: Path | None = None
    match: str | None = None
    dtype: str = "float32"
    precision: str = "fp32"

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the result. The batch size is not among it."""
        return {
            "Command": "translate",
            "Bundle": self.bundle.name,
            "BundleHash": self.bundle.hash,
            "Prepare": prepare_account(self.prepare),
            "Detector": self.detector if self.sample.mode == "local" else None,
            "Mask": asdict(self.mask) if self.sample.mode == "local" else None,
            "Unknown": asdict(self.unknown) if self.sample.mode == "local" else None,
            "Sample": asdict(self.sample),
            "Classifier": self.networks.classifier,
            "Expert": self.networks.expert_account,
            "Match": self.match,
            "DataType": self.dtype,
            "Precision": self.precision,
            "Device": self.device,
            "Saved": self.plan.saved,
        }

    def places(self) -> list[tuple[str | Path | None, tuple[str, ...]]]:
        """Brain masks, OOD maps and references."""
        return [*super().places(), (self.map, MAP_WORDS), (self.reference_path, ())]

    def probe(self, chunk: Chunk) -> None:
        """Detect and draw a chunk, without branching."""
        if isinstance(self.bind, DetectorBinding):
            self.bind.detect(chunk)
        SliceSampler(self.networks, self.sample, "")(chunk, chunk.condition, torch.zeros_like(chunk.brain))

    def _units(self, item: Item) -> tuple[Scale | None, tuple[float, float]]:
        """The reference's scale, and slope and intercept of the stored values. Raises :class:`VolumeError` where a kind stores none."""
        if self.dtype == "int16" and suffix_of(item.path) in ITK_SUFFIXES:
            raise VolumeError(f"{item.path}: --dtype int16 needs a slope and intercept, which only NIfTI stores; use float32", code="dtype")
        scale = self.reference(item) if self.reference else None
        if self.dtype != "int16":
            return scale, (1.0, 0.0)
        low, high = (0.0, 1.0) if scale is None else (float(v) for v in scale.denormalise(np.array([0.0, 1.0], dtype=np.float32)))
        return scale, ((high - low) / INT16_STEPS, low)

    def __call__(self, item: Item, on_slice: OnSlice) -> Outcome:
        """Translate one volume."""
        clock = Clock()
        with clock.stage("Prepare"):
            scale, stored = self._units(item)
            prepared = prepare_item(item, self.bundle, self.prepare)
        detect = self.bind(prepared, item.relative) if self.bind and self.sample.mode == "local" else None
        draw = SliceSampler(self.networks, self.sample, prepared.survey.fingerprint)
        rows: list[SliceShare] = []
        millilitres = np.zeros(2)
        done, total = 0, int(prepared.brain.mask.any(axis=(1, 2)).sum())
        with Outputs(prepared, self.plan.wanted(item, stored)) as outputs:
            parts = chunks(prepared, self.batch_size)
            while True:
                with clock.stage("Read"):
                    chunk = next(parts, None)
                if chunk is None:
                    break
                with clock.stage("Detect"):
                    ood_map, ood_mask, unknown = self._region(chunk, detect, prepared, rows)
                with clock.stage("Network"):
                    mean, spread = draw(chunk, ood_map, ood_mask)
                with clock.stage("Write"):
                    found = {"mean": mean, "std": spread, "map": ood_map, "mask": ood_mask, "unknown": unknown}
                    millilitres += self._write(outputs, prepared, chunk, scale, found)
                done += len(chunk.active)
                on_slice(done, total)
            with clock.stage("Write"):
                facts = ood_facts(rows, prepared) | volumes_of(millilitres) if detect else {}
        found_doubts = ood_doubts(facts) + self._unknown_doubts(float(millilitres[1])) + self._expert_doubts(rows) if facts else []
        doubts = volume_doubts(prepared, item, self.bundle.typical) + found_doubts
        return Outcome(
            self._facts(prepared, scale, facts, clock), tuple(doubts), tuple(asdict(row) for row in sorted(rows, key=lambda r: r.slice))
        )

    def _expert_doubts(self, rows: list[SliceShare]) -> list[str]:
        """A reason to review: what the expert drew was learnt from other patients' lesions."""
        drawn = sum(row.share > 0 for row in rows)
        if self.networks.expert is None or not drawn:
            return []
        return [f"expert used: the OOD region of {drawn} slices was drawn by a network that knows lesions; compare it with the input"]

    def _unknown_doubts(self, unknown: float) -> list[str]:
        """A reason to review: millilitres that look like neither healthy tissue nor a lesion."""
        if round(unknown, 1) == 0:
            return []
        stands = "plain sampling stands there" if self.unknown.fill == "plain" else "it was left blank"
        return [f"unknown: {unknown:.1f} ml look like neither healthy tissue nor a lesion that the network was taught; {stands}"]

    def _region(
        self, chunk: Chunk, detect: SliceDetector | None, prepared: Prepared, rows: list[SliceShare]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """M, B and what is unknown of a chunk."""
        if detect is None or not len(chunk.condition):
            return torch.zeros_like(chunk.condition), torch.zeros_like(chunk.brain), torch.zeros_like(chunk.brain)
        detection = detect(chunk)
        mask = mask_of(detection, chunk.brain, self.mask, prepared.grid.spacing)
        rows += slice_shares(chunk, detection, mask)
        return detection.ood_map, mask, unknown_of(detection, mask, chunk.brain, self.unknown, self.mask.open_mm, prepared.grid.spacing)

    def _write(
        self, outputs: Outputs, prepared: Prepared, chunk: Chunk, scale: Scale | None, found: dict[str, Tensor]
    ) -> NDArray[np.float64]:
        """Write a chunk; the millilitres drawn by the OOD branch, and those unknown."""
        voxel_ml = float(np.prod(prepared.volume.frame.spacing)) * 1e-3
        millilitres = np.zeros(2)
        place = {position: i for i, position in enumerate(chunk.active)}
        for position, k in enumerate(chunk.numbers):
            brain, images = prepared.native_brain(k), {}
            if position in place:
                slices = {name: values[place[position], 0].numpy() for name, values in found.items()}
                images = self._native(slices, chunk.brain[place[position], 0].numpy(), prepared, brain, scale)
                source = images["source"]
                millilitres += voxel_ml * np.array([np.isin(source, (OOD, FUSED)).sum(), (source == UNKNOWN).sum()])
            outputs.write(k, images | {"brain": brain})
        return millilitres

    def _native(
        self, found: dict[str, NDArray], inside: NDArray[np.bool_], prepared: Prepared, brain: NDArray[np.bool_], scale: Scale | None
    ) -> dict[str, NDArray]:
        grid = prepared.grid
        image = image_to_native(found["mean"], inside, grid, brain)
        ood_map = np.minimum(map_to_native(found["map"], grid, brain), 1)
        mask, unknown = (mask_to_native(found[name], grid, brain) for name in ("mask", "unknown"))
        spread = map_to_native(found["std"], grid, brain)
        if scale is not None:
            image = np.where(brain, scale.denormalise(image), np.float32(0))
            spread = spread * np.float32(scale.sd * (scale.window[1] - scale.window[0]))
        if self.unknown.fill == "blank":
            image = np.where(unknown & ~mask, np.float32(0), image)
        return {"image": image, "std": spread, "map": ood_map, "source": source_labels(mask, unknown, ood_map, brain, self.sample)}

    def _facts(self, prepared: Prepared, scale: Scale | None, facts: dict[str, Any], clock: Clock) -> dict[str, Any]:
        target = self.bundle.target
        units = (
            f"matched to the reference: median {scale.median:g}, sd {scale.sd:g}, window {list(target.window)}"
            if scale is not None
            else f"normalised {target.contrast}: [0, 1] is z from {target.window[0]:g} to {target.window[1]:g}, "
            "in robust SDs about the brain's median"
        )
        return {
            "Synthetic": True,
            "Contrast": target.contrast,
            "SourceContrast": self.bundle.condition.contrast,
            "Units": units,
            "OutputScale": None if scale is None else {"Median": scale.median, "SD": scale.sd, "Window": list(scale.window)},
            **volume_facts(prepared),
            **facts,
            "Seconds": clock.rounded(),
            "Versions": versions(),
            "Notice": "Made by a network for research use; not for diagnosis.",
        }
