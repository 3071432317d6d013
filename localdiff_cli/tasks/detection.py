"""Where the condition is out of distribution: one volume's OOD map, by any detector or by a map the user brings."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from localdiff_cli.batch.discover import Item
from localdiff_cli.batch.work import OnSlice, Outcome
from localdiff_cli.errors import VolumeError
from localdiff_cli.ood.detector import Detection, Detector, from_map
from localdiff_cli.ood.threshold import to_mask
from localdiff_cli.tasks.network_work import NetworkWork
from localdiff_cli.tasks.outputs import Outputs
from localdiff_cli.tasks.slices import (
    Chunk,
    chunks,
    map_to_native,
    mask_to_native,
    prepare_account,
    prepare_item,
    versions,
    volume_doubts,
    volume_facts,
)
from localdiff_cli.volumes.brain import MAP_WORDS, check_same_grid, find_companion
from localdiff_cli.volumes.prepare import Prepared
from localdiff_cli.volumes.reader import SliceReader, Volume, open_volume

OOD_SHARE_TO_REVIEW = 0.25


@dataclass(frozen=True)
class MaskSettings:
    """From M to B: ``threshold`` τ on M, opening and dilation radii in mm."""

    threshold: float
    open_mm: float
    dilate_mm: float


class SliceDetector(Protocol):
    """A detector bound to one volume: it may use slice numbers, since a map from a file belongs to slices."""

    def __call__(self, chunk: Chunk) -> Detection: ...


@dataclass(frozen=True, eq=False)
class DetectorBinding:
    """Any :class:`Detector` for any volume."""

    detector: Detector
    device: torch.device

    def __call__(self, prepared: Prepared, relative: Path) -> SliceDetector:
        """The detector for one volume: the same for all."""
        return self.detect

    def detect(self, chunk: Chunk) -> Detection:
        """Detect in a chunk."""
        found = self.detector(chunk.condition.to(self.device), chunk.brain.to(self.device))
        return Detection(found.score.cpu(), found.ood_map.cpu(), found.slice_score.cpu())


def bind_map(source: Path) -> Callable[[Prepared, Path], SliceDetector]:
    """An OOD map or lesion mask from a file, or from a folder with one for each volume."""

    def bound(prepared: Prepared, relative: Path) -> SliceDetector:
        path = find_companion(source, prepared.volume, relative, MAP_WORDS) if source.is_dir() else source
        volume = open_volume(path)
        check_same_grid(volume, prepared.volume, "OOD map")
        reader = SliceReader(volume)
        labels = _holds_labels(volume)

        def detect(chunk: Chunk) -> Detection:
            maps = [_map_slice(reader.read(k), path, labels=labels) for k in chunk.active_numbers]
            grid = [prepared.grid.to_network(m, cubic=False) for m in maps]
            stacked = torch.from_numpy(np.stack(grid)[:, None]) if grid else torch.zeros_like(chunk.condition)
            return from_map(stacked.clamp(0, 1) * chunk.brain)

        return detect

    return bound


def _holds_labels(volume: Volume) -> bool:
    """Whether a volume's integers are labels, not a scaled map."""
    if volume.dtype.kind not in "biu" or volume.kind != "nifti":
        return volume.dtype.kind in "biu"
    slope, inter = float(volume.header["scl_slope"]), float(volume.header["scl_inter"])
    return not np.isfinite(slope) or (slope in (0.0, 1.0) and inter == 0)


def _map_slice(image: NDArray[np.float32], path: Path, *, labels: bool) -> NDArray[np.float32]:
    """A map in [0, 1]; integer files are label masks, where anything above 0 counts."""
    if labels:
        return (image > 0).astype(np.float32)
    if not np.isfinite(image).all() or image.min() < 0 or image.max() > 1:
        raise VolumeError(
            f"{path}: found values from {image.min():g} to {image.max():g}; expected an OOD map in [0, 1] or an integer mask",
            code="map-range",
        )
    return image


def mask_of(detection: Detection, brain: Tensor, settings: MaskSettings, spacing: float) -> Tensor:
    """B of a detection, ``(N, 1, H, W)`` bool."""
    if not len(brain):
        return torch.zeros_like(brain)
    return to_mask(detection.ood_map, settings.threshold, brain, settings.open_mm, settings.dilate_mm, (spacing, spacing))


@dataclass(frozen=True)
class UnknownSettings:
    """What is neither ordinary nor taken for a lesion: M at or above ``threshold`` and outside B (None: nothing is). ``fill`` says what
    stands there: plain, what the ordinary process draws, or blank, the background value 0."""

    threshold: float | None = None
    fill: str = "plain"


def unknown_of(detection: Detection, ood_mask: Tensor, brain: Tensor, settings: UnknownSettings, open_mm: float, spacing: float) -> Tensor:
    """The region called unknown, ``(N, 1, H, W)`` bool: M ≥ its own cut, opened as B is, and outside B."""
    if settings.threshold is None or not len(brain):
        return torch.zeros_like(brain)
    return to_mask(detection.ood_map, settings.threshold, brain, open_mm, 0.0, (spacing, spacing)) & ~ood_mask


@dataclass(frozen=True)
class SliceShare:
    """One slice's row of ``slices.tsv``: canonical number, slice score, OOD share of its brain, and the decision."""

    slice: int
    score: float
    share: float
    decision: str


def slice_shares(chunk: Chunk, detection: Detection, mask: Tensor) -> list[SliceShare]:
    """One row for each active slice of a chunk."""
    rows = []
    for i, k in enumerate(chunk.active_numbers):
        share = float(mask[i].sum()) / float(chunk.brain[i].sum())
        rows.append(SliceShare(k, round(float(detection.slice_score[i]), 6), round(share, 6), "OOD" if share > 0 else "IND"))
    return rows


def ood_facts(rows: list[SliceShare], prepared: Prepared) -> dict[str, Any]:
    """The sidecar's account of OOD: shares per canonical slice (from the feet up) and over the brain."""
    area = {row.slice: float(prepared.brain.mask[row.slice].sum()) for row in rows}
    total = sum(area.values()) or 1.0
    share = sum(row.share * area[row.slice] for row in rows) / total
    return {
        "OODShare": round(share, 6),
        "OODSlices": sum(row.share > 0 for row in rows),
        "OODSharePerSlice": {str(row.slice): row.share for row in sorted(rows, key=lambda r: r.slice) if row.share > 0},
    }


def ood_doubts(facts: dict[str, Any]) -> list[str]:
    """Reasons to review that the detection gives."""
    share = facts["OODShare"]
    if share > OOD_SHARE_TO_REVIEW:
        return [f"OOD: {share:.0%} of the brain is unlike anything seen in training; the whole input may be (scanner, contrast, quality)"]
    return []


@dataclass(frozen=True, eq=False, kw_only=True)
class DetectWork(NetworkWork):
    """``localdiff detect`` on one volume."""

    bind: Callable[[Prepared, Path], SliceDetector]
    mask: MaskSettings
    detector: dict[str, Any]
    map: Path | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the result."""
        return {
            "Command": "detect",
            "Bundle": self.bundle.name,
            "BundleHash": self.bundle.hash,
            "Prepare": prepare_account(self.prepare),
            "Mask": asdict(self.mask),
            "Detector": self.detector,
            "Device": self.device,
            "Saved": self.plan.saved,
        }

    def places(self) -> list[tuple[str | Path | None, tuple[str, ...]]]:
        """Brain masks and OOD maps."""
        return [*super().places(), (self.map, MAP_WORDS)]

    def probe(self, chunk: Chunk) -> None:
        """Detect in a chunk; a map that is only read costs nothing."""
        if isinstance(self.bind, DetectorBinding):
            self.bind.detect(chunk)

    def __call__(self, item: Item, on_slice: OnSlice) -> Outcome:
        """Detect in one volume."""
        started = time.monotonic()
        prepared = prepare_item(item, self.bundle, self.prepare)
        ready = time.monotonic()
        detect = self.bind(prepared, item.relative)
        rows: list[SliceShare] = []
        with Outputs(prepared, self.plan.wanted(item)) as outputs:
            for chunk in chunks(prepared, self.batch_size):
                detection = detect(chunk)
                mask = mask_of(detection, chunk.brain, self.mask, prepared.grid.spacing)
                rows += slice_shares(chunk, detection, mask)
                self._write(outputs, prepared, chunk, detection, mask)
                on_slice(len(rows), int(prepared.brain.mask.any(axis=(1, 2)).sum()))
        facts = ood_facts(rows, prepared)
        seconds = {"Prepare": round(ready - started, 3), "Detect": round(time.monotonic() - ready, 3)}
        sidecar = {
            "Contrast": "map",
            "Content": "OOD probability",
            **volume_facts(prepared),
            **facts,
            "Seconds": seconds,
            "Versions": versions(),
        }
        doubts = tuple(volume_doubts(prepared, item, self.bundle.typical) + ood_doubts(facts))
        return Outcome(sidecar, doubts, tuple(asdict(row) for row in sorted(rows, key=lambda r: r.slice)))

    def _write(self, outputs: Outputs, prepared: Prepared, chunk: Chunk, detection: Detection, mask: Tensor) -> None:
        place = {position: i for i, position in enumerate(chunk.active)}
        for position, k in enumerate(chunk.numbers):
            brain, images = prepared.native_brain(k), {}
            if position in place:
                i = place[position]
                images = {
                    "map": np.minimum(map_to_native(detection.ood_map[i, 0].numpy(), prepared.grid, brain), 1),
                    "mask": mask_to_native(mask[i, 0].numpy(), prepared.grid, brain),
                    "score": map_to_native(detection.score[i, 0].numpy(), prepared.grid, brain),
                }
            outputs.write(k, images | {"brain": brain})
