"""Where the condition is out of distribution: one volume's OOD map, by any detector or by a map the user brings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from localdiff_cli.batch.discover import Item
from localdiff_cli.batch.work import OnSlice, Outcome
from localdiff_cli.ood.detector import Detection, Detector, from_map
from localdiff_cli.ood.residue import without_residue
from localdiff_cli.ood.threshold import to_mask
from localdiff_cli.ood.through_plane import seen_from_the_side
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
from localdiff_cli.volumes.brain import check_same_grid
from localdiff_cli.volumes.masks import content_of_mask, named
from localdiff_cli.volumes.partners import MAP, Source, find_companion
from localdiff_cli.volumes.prepare import Prepared
from localdiff_cli.volumes.reader import SliceReader, open_volume

OOD_SHARE_TO_REVIEW = 0.25
UNSEEN_SHARE_TO_REVIEW = 0.005


@dataclass(frozen=True)
class MaskSettings:
    """From M to B: ``threshold`` τ on M, opening and dilation radii in mm, and the ``peak`` that M must reach in a region
    (0: none).

    Before, M is averaged through the slices with a Gaussian of standard deviation ``through_plane_mm`` (0: each slice
    alone); regions then go on from slice to slice, and it is the average that must reach the peak. What is connected to the
    brain's rim and reaches ``bright``, on the window's scale of [0, 1], is not looked at (None: everything is).
    """

    threshold: float
    open_mm: float
    dilate_mm: float
    peak: float = 0.0
    through_plane_mm: float = 0.0
    bright: float | None = None


Found = tuple[Chunk, Detection]
"""Some slices, and what was detected in them."""


class SliceDetector(Protocol):
    """A detector bound to one volume: it may use slice numbers, since a map from a file belongs to slices."""

    def __call__(self, chunk: Chunk) -> Detection: ...


@dataclass(frozen=True, eq=False)
class DetectorBinding:
    """Any :class:`Detector` for any volume."""

    detector: Detector
    device: torch.device

    def __call__(self, prepared: Prepared, relative: Path) -> SliceDetector:
        """Return the detector for one volume: the same for all."""
        return self.detect

    def detect(self, chunk: Chunk) -> Detection:
        """Detect in a chunk."""
        found = self.detector(chunk.condition.to(self.device), chunk.brain.to(self.device))
        return Detection(found.score.cpu(), found.ood_map.cpu(), found.slice_score.cpu())


def detected(parts: Iterable[Chunk], detect: SliceDetector, masks: MaskSettings, step_mm: float) -> Iterator[Found]:
    """Yield the chunks of a volume, whose slices are ``step_mm`` apart, with what was detected in each.

    Where M is averaged through the slices, all of them are looked at before the first is given.
    """
    if masks.through_plane_mm == 0:
        yield from ((chunk, detect(looked_at(chunk, masks))) for chunk in parts)
        return
    whole = list(parts)
    seen = (looked_at(chunk, masks) for chunk in whole)
    found = in_context([(chunk, detect(chunk)) for chunk in seen], masks, step_mm)
    yield from ((chunk, detection) for chunk, (_, detection) in zip(whole, found, strict=True))


def looked_at(chunk: Chunk, masks: MaskSettings) -> Chunk:
    """Return a chunk as a detector sees it: what is not looked at is no brain."""
    if masks.bright is None:
        return chunk
    brain = without_residue(chunk.condition, chunk.brain, masks.bright)
    return replace(chunk, condition=chunk.condition * brain, brain=brain)


def in_context(found: list[Found], masks: MaskSettings, step_mm: float) -> list[Found]:
    """Return what was found in all the slices of a volume, M of each in the light of its neighbours; as it is where M is not
    averaged through the slices."""
    numbers = [k for chunk, _ in found for k in chunk.active_numbers]
    if masks.through_plane_mm == 0 or not numbers:
        return found
    like, first = found[0][1].ood_map, min(numbers)
    ood_map = like.new_zeros(max(numbers) - first + 1, *like.shape[1:])
    brain = torch.zeros(ood_map.shape, dtype=torch.bool)
    places = [torch.tensor(chunk.active_numbers, dtype=torch.long) - first for chunk, _ in found]
    for place, (chunk, detection) in zip(places, found, strict=True):
        ood_map[place], brain[place] = detection.ood_map, chunk.brain
    seen = seen_from_the_side(ood_map, brain, masks.through_plane_mm / step_mm, masks.peak)
    return [(chunk, replace(detection, ood_map=seen[place])) for place, (chunk, detection) in zip(places, found, strict=True)]


@dataclass(frozen=True, eq=False)
class FileMap:
    """An OOD map read from a file: ``read`` gives a canonical slice in [0, 1]; ``said`` names the file and what its values
    mean."""

    read: Callable[[int], NDArray[np.float32]]
    said: str
    prepared: Prepared

    def __call__(self, chunk: Chunk) -> Detection:
        """Return the map of a chunk's active slices."""
        grid = [self.prepared.grid.to_network(self.read(k), cubic=False) for k in chunk.active_numbers]
        stacked = torch.from_numpy(np.stack(grid)[:, None]) if grid else torch.zeros_like(chunk.condition)
        return from_map(stacked.clamp(0, 1) * chunk.brain)


def map_source(given: Path) -> Source:
    """Return where ``--map`` looks for a volume's own map."""
    return Source(str(given), MAP, option="--map")


def bind_map(given: Path) -> Callable[[Prepared, Path], SliceDetector]:
    """Return an OOD map or lesion mask from a file, or from a folder with one for each volume."""

    def bound(prepared: Prepared, relative: Path) -> SliceDetector:
        path = find_companion(map_source(given), prepared.volume.path, relative)
        volume = open_volume(path, prepared.volume.affine_from)
        check_same_grid(volume, prepared.volume, "OOD map")
        content, reader = content_of_mask(volume, "an OOD map").as_map(), SliceReader(volume)
        return FileMap(lambda k: content.soft(reader.read(k)), named(path, content), prepared)

    return bound


def mask_of(detection: Detection, brain: Tensor, settings: MaskSettings, spacing: float) -> Tensor:
    """Return B of a detection, ``(N, 1, H, W)`` bool."""
    if not len(brain):
        return torch.zeros_like(brain)
    peak = 0.0 if settings.through_plane_mm else settings.peak  # of the volume's regions, then, and M says so already
    return to_mask(detection.ood_map, settings.threshold, brain, settings.open_mm, settings.dilate_mm, (spacing, spacing), peak)


@dataclass(frozen=True)
class SliceShare:
    """One slice's row of ``slices.tsv``: canonical number, slice score, OOD share of its brain, and the decision."""

    slice: int
    score: float
    share: float
    decision: str


def slice_shares(chunk: Chunk, detection: Detection, mask: Tensor) -> list[SliceShare]:
    """Return one row for each active slice of a chunk."""
    rows = []
    for i, k in enumerate(chunk.active_numbers):
        share = float(mask[i].sum()) / float(chunk.brain[i].sum())
        rows.append(SliceShare(k, round(float(detection.slice_score[i]), 6), round(share, 6), "OOD" if share > 0 else "IND"))
    return rows


@dataclass(frozen=True)
class VolumeShare:
    """How much of a volume is OOD: the ``share`` of its brain, and that of each canonical slice (from the feet up) that has
    any. ``unseen``: the share of its brain that was not looked at; None where everything was."""

    share: float
    slices: dict[int, float]
    unseen: float | None = None

    @property
    def facts(self) -> dict[str, object]:
        """The sidecar's account of it."""
        return {
            "OODShare": self.share,
            "OODSlices": len(self.slices),
            "OODSharePerSlice": {str(number): share for number, share in self.slices.items()},
        } | ({} if self.unseen is None else {"NotLookedAtShare": self.unseen})

    @property
    def doubts(self) -> list[str]:
        """Reasons to review that it gives."""
        doubts = []
        if self.unseen is not None and self.unseen > UNSEEN_SHARE_TO_REVIEW:
            doubts.append(
                f"residue: {self.unseen:.1%} of the brain, at its rim, shines as sinuses, dura or muscle do and was not looked at; "
                "a tighter --brain leaves them out, --residue 0 looks there"
            )
        if self.share > OOD_SHARE_TO_REVIEW:
            said = f"OOD: {self.share:.0%} of the brain is unlike anything seen in training"
            doubts.append(f"{said}; the whole input may be (scanner, contrast, quality)")
        return doubts


class Unseen:
    """Counts, chunk by chunk, how much of a volume's brain is not looked at."""

    def __init__(self, masks: MaskSettings) -> None:
        self.masks, self.pixels, self.of = masks, 0, 0

    def count(self, chunk: Chunk) -> None:
        """Add a chunk."""
        if self.masks.bright is not None:
            self.of += int(chunk.brain.sum())
            self.pixels += int(chunk.brain.sum()) - int(looked_at(chunk, self.masks).brain.sum())

    @property
    def share(self) -> float | None:
        """The share so far; None where everything is looked at."""
        return None if self.masks.bright is None else round(self.pixels / max(self.of, 1), 6)


def volume_share(rows: list[SliceShare], prepared: Prepared, unseen: float | None = None) -> VolumeShare:
    """Return the share of a volume, in which each slice weighs as much as its brain; ``unseen`` as in :class:`VolumeShare`."""
    area = {row.slice: float(prepared.brain.mask[row.slice].sum()) for row in rows}
    share = sum(row.share * area[row.slice] for row in rows) / (sum(area.values()) or 1.0)
    return VolumeShare(round(share, 6), {row.slice: row.share for row in sorted(rows, key=lambda r: r.slice) if row.share > 0}, unseen)


def map_facts(detect: SliceDetector | None) -> dict[str, str]:
    """Return which file a map was read from and what its values mean, for the sidecar; nothing for a detector."""
    return {"Map": detect.said} if isinstance(detect, FileMap) else {}


@dataclass(frozen=True, eq=False, kw_only=True)
class DetectWork(NetworkWork):
    """``localdiff detect`` on one volume."""

    bind: Callable[[Prepared, Path], SliceDetector]
    mask: MaskSettings
    detector: dict[str, object]
    map: Path | None = None

    @property
    def settings(self) -> dict[str, object]:
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

    @property
    def sees_all_first(self) -> bool:
        """Whether M is averaged through the slices."""
        return self.mask.through_plane_mm > 0

    def places(self) -> list[Source | None]:
        """Return the places of brain masks and OOD maps."""
        return [*super().places(), map_source(self.map) if self.map else None]

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
        unseen = Unseen(self.mask)
        with Outputs(prepared, self.plan.wanted(item)) as outputs:
            for chunk, detection in detected(chunks(prepared, self.batch_size), detect, self.mask, prepared.volume.frame.spacing[0]):
                mask = mask_of(detection, chunk.brain, self.mask, prepared.grid.spacing)
                rows += slice_shares(chunk, detection, mask)
                unseen.count(chunk)
                self._write(outputs, prepared, chunk, detection, mask)
                on_slice(len(rows), int(prepared.brain.mask.any(axis=(1, 2)).sum()))
        found = volume_share(rows, prepared, unseen.share)
        seconds = {"Prepare": round(ready - started, 3), "Detect": round(time.monotonic() - ready, 3)}
        sidecar = {
            "Contrast": "map",
            "Content": "OOD probability",
            **volume_facts(prepared),
            **map_facts(detect),
            **found.facts,
            "Seconds": seconds,
            "Versions": versions(),
        }
        doubts = tuple(volume_doubts(prepared, item, self.bundle.typical) + found.doubts)
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
