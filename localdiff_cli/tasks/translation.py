"""Translate one volume: read → normalise → detect → branch → fuse → denormalise → write, a few slices at a time.

Where M is averaged through the slices, the detector sees all of them first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from localdiff_cli.batch.discover import Item
from localdiff_cli.batch.work import OnSlice, Outcome
from localdiff_cli.errors import VolumeError
from localdiff_cli.ood.detector import Detection
from localdiff_cli.tasks.detection import (
    DetectorBinding,
    MaskSettings,
    SliceDetector,
    SliceShare,
    Unseen,
    detected,
    map_facts,
    map_source,
    slice_shares,
    volume_share,
)
from localdiff_cli.tasks.network_work import NetworkWork
from localdiff_cli.tasks.outputs import Outputs
from localdiff_cli.tasks.sampling import Networks, SampleSettings, SliceSampler
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
from localdiff_cli.tasks.unknown import Finder, UnknownSettings, regions_of
from localdiff_cli.volumes.formats import format_of
from localdiff_cli.volumes.intensity import Scale
from localdiff_cli.volumes.partners import Source
from localdiff_cli.volumes.prepare import Prepared

if TYPE_CHECKING:
    from localdiff_cli.guarantees.certified import Certified
    from localdiff_cli.guarantees.strangeness import Painter

T = TypeVar("T")
IND, OOD, FUSED, UNKNOWN = 1, 2, 3, 4
INT16_STEPS = 32000
BEGUN = ("below", "above")
"""How far the limits of an interval network lie from what was drawn, among what was found of a chunk."""


@dataclass
class Clock:
    """Seconds spent by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage, without the stages within it."""
        started, before = time.perf_counter(), sum(self.seconds.values())
        yield
        within = sum(self.seconds.values()) - before
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started - within

    def each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Yield the items while the making of each is timed as a stage."""
        steps = iter(items)
        while True:
            with self.stage(name):
                item = next(steps, None)
            if item is None:
                return
            yield item

    def rounded(self) -> dict[str, float]:
        """Return the seconds of each stage, rounded, for the sidecar."""
        return {name: round(value, 3) for name, value in self.seconds.items()}


def source_labels(
    mask: NDArray[np.bool_], unknown: NDArray[np.bool_], weight: NDArray[np.float32], brain: NDArray[np.bool_], settings: SampleSettings
) -> NDArray[np.uint8]:
    """Return what made each pixel: 1 IND (the ordinary process), 2 OOD branch alone, 3 fused (both branches, or refined
    after it), 4 unknown."""
    fused = settings.local.fusion_step > 0 or settings.guided
    labels = np.where(mask, FUSED if fused else OOD, IND).astype(np.uint8)
    if settings.local.soft:
        labels[mask & (weight < 1)] = FUSED
    labels[unknown & ~mask] = UNKNOWN
    return labels * brain


def volumes_of(millilitres: NDArray[np.float64]) -> dict[str, float]:
    """Return, for the sidecar, the millilitres drawn by the OOD branch and those called unknown."""
    return {"OODMillilitres": round(float(millilitres[0]), 3), "UnknownMillilitres": round(float(millilitres[1]), 3)}


def watched(detect: SliceDetector, painter: Painter) -> SliceDetector:
    """Return the same detector, while ``painter`` sees every chunk."""

    def seen(chunk: Chunk) -> Detection:
        found = detect(chunk)
        painter.see(chunk.active_numbers, chunk.condition, chunk.brain, found.ood_map)
        return found

    return seen


@dataclass(frozen=True, eq=False, kw_only=True)
class TranslateWork(NetworkWork):
    """``localdiff translate`` on one volume."""

    networks: Networks
    bind: Callable[[Prepared, Path], SliceDetector] | None
    mask: MaskSettings
    sample: SampleSettings
    unknown: UnknownSettings
    detector: dict[str, object]
    suspect: Finder | None = None
    suspect_account: dict[str, object] | None = None
    reference: Callable[[Item], tuple[Scale, Path]] | None = None
    reference_source: Source | None = None
    map: Path | None = None
    match: str | None = None
    dtype: str = "float32"
    precision: str = "fp32"
    certified: Certified | None = None

    @property
    def settings(self) -> dict[str, object]:
        """What decides the result. The batch size is not among it."""
        calibration = {} if self.certified is None else {"Calibration": self.certified.certificate.hash}
        return calibration | {
            "Command": "translate",
            "Bundle": self.bundle.name,
            "BundleHash": self.bundle.hash,
            "Prepare": prepare_account(self.prepare),
            "Detector": self.detector if self.sample.mode == "local" else None,
            "Mask": asdict(self.mask) if self.sample.mode == "local" else None,
            "Unknown": asdict(self.unknown) | {"finder": self.suspect_account} if self.sample.mode == "local" else None,
            "Sample": asdict(self.sample),
            "Classifier": self.networks.classifier,
            "Expert": self.networks.expert_account,
            "Match": self.match,
            "DataType": self.dtype,
            "Precision": self.precision,
            "Device": self.device,
            "Saved": self.plan.saved,
        }

    @property
    def sees_all_first(self) -> bool:
        """Whether M is averaged through the slices."""
        return self.sample.mode == "local" and self.mask.through_plane_mm > 0

    def places(self) -> list[Source | None]:
        """Return the places of brain masks, OOD maps and references."""
        return [*super().places(), map_source(self.map) if self.map else None, self.reference_source]

    def probe(self, chunk: Chunk) -> None:
        """Detect and draw a chunk, without branching."""
        if isinstance(self.bind, DetectorBinding):
            self.bind.detect(chunk)
        if self.suspect is not None:
            self.suspect(chunk.condition, chunk.brain)
        mean, _ = SliceSampler(self.networks, self.sample, "")(chunk, chunk.condition, torch.zeros_like(chunk.brain))
        if self.certified is not None:
            self.certified.distances(chunk.condition, chunk.condition, mean)

    def _units(self, item: Item) -> tuple[Scale | None, Path | None, tuple[float, float]]:
        """The reference's scale and file; slope and intercept of the stored values.

        Raises :class:`VolumeError` where a kind of file stores none.
        """
        kind = format_of(item.path)
        if self.dtype == "int16" and not (kind is not None and kind.scales):
            raise VolumeError(f"{item.path}: --dtype int16 needs a slope and intercept, which only NIfTI stores; use float32", code="dtype")
        scale, path = self.reference(item) if self.reference else (None, None)
        if self.dtype != "int16":
            return scale, path, (1.0, 0.0)
        low, high = (0.0, 1.0) if scale is None else (float(v) for v in scale.denormalise(np.array([0.0, 1.0], dtype=np.float32)))
        return scale, path, (max(abs(low), abs(high)) / INT16_STEPS, 0.0)  # without an intercept 0 stays 0

    def __call__(self, item: Item, on_slice: OnSlice) -> Outcome:
        """Translate one volume."""
        clock = Clock()
        with clock.stage("Prepare"):
            scale, matched, stored = self._units(item)
            prepared = prepare_item(item, self.bundle, self.prepare)
        detect = self.bind(prepared, item.relative) if self.bind and self.sample.mode == "local" else None
        painter = self.certified.painter() if self.certified else None
        detect = watched(detect, painter) if painter and detect else detect
        draw = SliceSampler(self.networks, self.sample, prepared.survey.fingerprint)
        rows: list[SliceShare] = []
        millilitres, unseen = np.zeros(2), Unseen(self.mask)
        done, total = 0, int(prepared.brain.mask.any(axis=(1, 2)).sum())
        with Outputs(prepared, self.plan.wanted(item, stored)) as outputs:
            for chunk, detection in self._detected(prepared, detect, clock):
                with clock.stage("Detect"):
                    ood_map, ood_mask, unknown = self._region(chunk, detection, prepared, rows)
                    if detection is not None:
                        unseen.count(chunk)
                with clock.stage("Network"):
                    mean, spread = draw(chunk, ood_map, ood_mask)
                    away = self.certified.distances(chunk.condition, ood_map, mean) if self.certified else {}
                with clock.stage("Write"):
                    found = {"mean": mean, "std": spread, "map": ood_map, "mask": ood_mask, "unknown": unknown} | away
                    millilitres += self._write(outputs, prepared, chunk, scale, found)
                done += len(chunk.active)
                on_slice(done, total)
            with clock.stage("Write"):
                share = volume_share(rows, prepared, unseen.share) if detect else None
        facts = {} if share is None else share.facts | volumes_of(millilitres)
        found_doubts = share.doubts + self._unknown_doubts(float(millilitres[1])) + self._expert_doubts(rows) if share else []
        doubts = volume_doubts(prepared, item, self.bundle.typical) + found_doubts
        if self.certified and painter:
            verdict = self.certified.verdict(painter, prepared.volume.frame.spacing)
            facts, doubts = facts | verdict.facts, verdict.doubts + doubts
        facts = map_facts(detect) | ({"MatchedTo": matched.name} if matched else {}) | facts
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
        return [f"unknown: {unknown:.1f} ml look like neither healthy tissue nor a lesion that the network can draw; {stands}"]

    def _detected(self, prepared: Prepared, detect: SliceDetector | None, clock: Clock) -> Iterator[tuple[Chunk, Detection | None]]:
        """A volume's chunks with what was detected in each; None in plain sampling."""
        parts = clock.each("Read", chunks(prepared, self.batch_size))
        if detect is None:
            yield from ((chunk, None) for chunk in parts)
            return
        yield from clock.each("Detect", detected(parts, detect, self.mask, prepared.volume.frame.spacing[0]))

    def _region(
        self, chunk: Chunk, detection: Detection | None, prepared: Prepared, rows: list[SliceShare]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """M, B and what is unknown of a chunk."""
        if detection is None or not len(chunk.condition):
            return torch.zeros_like(chunk.condition), torch.zeros_like(chunk.brain), torch.zeros_like(chunk.brain)
        regions = regions_of(detection, chunk, self.mask, self.unknown, prepared.grid.spacing, self.suspect)
        rows += slice_shares(chunk, detection, regions.mask)
        return detection.ood_map, regions.mask, regions.unknown

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
        self, found: dict[str, NDArray[Any]], inside: NDArray[np.bool_], prepared: Prepared, brain: NDArray[np.bool_], scale: Scale | None
    ) -> dict[str, NDArray[Any]]:
        grid = prepared.grid
        image = image_to_native(found["mean"], inside, grid, brain)
        ood_map = np.minimum(map_to_native(found["map"], grid, brain), 1)
        mask, unknown = (mask_to_native(found[name], grid, brain) for name in ("mask", "unknown"))
        spread = map_to_native(found["std"], grid, brain)
        source = source_labels(mask, unknown, ood_map, brain, self.sample)
        away: dict[str, NDArray[np.float32]] = {name: map_to_native(found[name], grid, brain) for name in BEGUN if name in found}
        band = self.certified.band(image, source, away) if self.certified else {}
        if scale is not None:
            band = {name: np.where(brain, scale.denormalise(limit), np.float32(0)) for name, limit in band.items()}
            image = np.where(brain, scale.denormalise(image), np.float32(0))
            spread = spread * np.float32(scale.sd * (scale.window[1] - scale.window[0]))
        if self.unknown.fill == "blank":
            image = np.where(unknown & ~mask, np.float32(0), image)
        return {"image": image, "std": spread, "map": ood_map, "source": source} | band

    def _facts(self, prepared: Prepared, scale: Scale | None, facts: dict[str, object], clock: Clock) -> dict[str, object]:
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
            "OutputWindow": list(target.window),
            "OutputScale": None if scale is None else {"Median": scale.median, "SD": scale.sd, "Window": list(scale.window)},
            **volume_facts(prepared),
            **facts,
            "Seconds": clock.rounded(),
            "Versions": versions(),
            "Notice": "Made by a network for research use; not for diagnosis.",
        }
