"""Segment one volume: lesion probability slice by slice, then a mask of 3D components."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from localdiff_cli.batch.discover import Item
from localdiff_cli.batch.work import OnSlice, Outcome
from localdiff_cli.bundle import SegmenterDefaults
from localdiff_cli.segmentation.components import drop_small
from localdiff_cli.segmentation.network import LesionNetwork, lesion_probability
from localdiff_cli.tasks.network_work import NetworkWork
from localdiff_cli.tasks.outputs import Outputs
from localdiff_cli.tasks.slices import (
    Chunk,
    chunks,
    map_to_native,
    prepare_account,
    prepare_item,
    versions,
    volume_doubts,
    volume_facts,
)
from localdiff_cli.volumes.prepare import Prepared
from localdiff_cli.volumes.written import scale_of

OWN_SCALE = "robust z of its brain"
WRITTEN_SCALE = "as its translation was written"
WITHOUT_SCALE = (
    "intensity: synthetic, but neither a localdiff sidecar nor the headers of its series say which scale it was written on; it was read "
    "by its own spread, which shows more lesions, real or not"
)


@dataclass(frozen=True, eq=False, kw_only=True)
class SegmentWork(NetworkWork):
    """``localdiff segment`` on one volume."""

    network: LesionNetwork
    cut: SegmenterDefaults

    @property
    def settings(self) -> dict[str, object]:
        """What decides the result."""
        return {
            "Command": "segment",
            "Bundle": self.bundle.name,
            "BundleHash": self.bundle.hash,
            "Prepare": prepare_account(self.prepare),
            "Cut": asdict(self.cut),
            "TranslationsScale": WRITTEN_SCALE,
            "Device": self.device,
            "Saved": self.plan.saved,
        }

    def probe(self, chunk: Chunk) -> None:
        """Segment a chunk."""
        lesion_probability(self.network, chunk.condition.to(self.torch_device), chunk.brain.to(self.torch_device))

    def __call__(self, item: Item, on_slice: OnSlice) -> Outcome:
        """Segment one volume. The components need the whole mask, one byte per voxel. Raise :class:`VolumeError` for a volume that
        cannot be used, and for a translation whose sidecar names no scale that can be read."""
        started = time.monotonic()
        written = scale_of(item.path, self.prepare.window) if item.content.synthetic else None
        prepared = prepare_item(item, self.bundle, self.prepare, written)
        ready = time.monotonic()
        voxel = float(np.prod(prepared.volume.frame.spacing))
        mask = np.zeros(prepared.volume.frame.shape, dtype=bool)
        with Outputs(prepared, self.plan.wanted(item)) as outputs:
            self._probabilities(prepared, outputs, mask, on_slice)
            mask = drop_small(mask, voxel, self.cut.min_volume)
            for k in prepared.reader.order():
                outputs.write_one("mask", k, mask[k])
        seconds = {"Prepare": round(ready - started, 3), "Segment": round(time.monotonic() - ready, 3)}
        facts = {
            "Contrast": "mask",
            "Content": "lesion mask, 1 = lesion",
            "SegmentedContrast": self.bundle.condition.contrast,
            "SegmentedSynthetic": item.content.synthetic,
            "IntensityScale": OWN_SCALE if written is None else WRITTEN_SCALE,
            **volume_facts(prepared),
            "LesionVolumeMm3": round(float(mask.sum()) * voxel, 1),
            "Seconds": seconds,
            "Versions": versions(),
        }
        # That a translation is synthetic is why it is segmented here: no reason to review it.
        doubts = [doubt for doubt in volume_doubts(prepared, item, self.bundle.typical) if not doubt.startswith("input:")]
        doubts += [WITHOUT_SCALE] if item.content.synthetic and written is None else []
        return Outcome(facts, tuple(doubts))

    def _probabilities(self, prepared: Prepared, outputs: Outputs, mask: NDArray[np.bool_], on_slice: OnSlice) -> None:
        done, total = 0, int(prepared.brain.mask.any(axis=(1, 2)).sum())
        for chunk in chunks(prepared, self.batch_size):
            found = probabilities(self.network, self.torch_device, prepared, chunk)
            for k in chunk.numbers:
                brain = prepared.native_brain(k)
                if k in found:
                    mask[k] = (found[k] >= self.cut.threshold) & brain
                outputs.write(k, ({"prob": found[k]} if k in found else {}) | {"brain": brain}, later="mask")
            done += len(chunk.active)
            on_slice(done, total)


def probabilities(network: LesionNetwork, device: torch.device, prepared: Prepared, chunk: Chunk) -> dict[int, NDArray[np.float32]]:
    """Return P(lesion) on the native grid of a chunk's active slices, by canonical slice number."""
    found = lesion_probability(network, chunk.condition.to(device), chunk.brain.to(device)).cpu().numpy()
    return {
        k: np.minimum(map_to_native(found[i, 0], prepared.grid, prepared.native_brain(k)), 1) for i, k in enumerate(chunk.active_numbers)
    }


def segment_prepared(network: LesionNetwork, device: torch.device, prepared: Prepared, cut: SegmenterDefaults) -> NDArray[np.bool_]:
    """Return the lesion mask of a prepared volume, canonical ``(slices, rows, columns)``, as ``localdiff segment`` writes
    it."""
    mask = np.zeros(prepared.volume.frame.shape, dtype=bool)
    for chunk in chunks(prepared, 8):
        for k, probability in probabilities(network, device, prepared, chunk).items():
            mask[k] = (probability >= cut.threshold) & prepared.native_brain(k)
    return drop_small(mask, float(np.prod(prepared.volume.frame.spacing)), cut.min_volume)
