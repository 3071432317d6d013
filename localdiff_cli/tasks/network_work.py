"""What the works of all commands with a network share."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from localdiff_cli.batch.discover import Item
from localdiff_cli.batch.volume import peak_megabytes
from localdiff_cli.batch.work import Estimate, OnSlice, Outcome
from localdiff_cli.bundle import Bundle
from localdiff_cli.tasks.outputs import OutputPlan
from localdiff_cli.tasks.slices import Chunk, companions, lacking
from localdiff_cli.volumes.partners import Source
from localdiff_cli.volumes.prepare import PrepareSettings

PREPARE_SECONDS_A_VOXEL = 1.5e-6
"""Reading, brain extraction and N4 on two cores, measured; a rough figure, as any estimate before the work is."""
ACTIVE_SHARE = 0.8
COPIES = 2.5
"""Float32 copies of a volume that are held at the peak, measured."""
BYTES_SIDE_VIEW = 40
"""Of a pixel of the network's grid, where all slices are looked at before the first is drawn; measured."""


@dataclass(frozen=True, eq=False, kw_only=True)
class NetworkWork(ABC):
    """A bundle's network on one volume: ``plan`` of the outputs, ``prepare`` settings, ``batch_size`` slices at a time."""

    bundle: Bundle
    plan: OutputPlan
    prepare: PrepareSettings
    torch_device: torch.device
    batch_size: int = 8

    @property
    def device(self) -> str:
        """Where the network runs: cpu, cuda or mps."""
        return self.torch_device.type

    def places(self) -> list[Source | None]:
        """Return the files or folders that the user gave for masks, maps and references."""
        return [self.prepare.brain_source]

    def companions(self, item: Item) -> list[Path]:
        """Return this volume's own files among the folders given."""
        return companions(self.places(), item)

    def lacking(self, items: Sequence[Item]) -> dict[Path, str]:
        """Return what was given and is not there, by the relative names of the items that would fail for it."""
        return lacking(self.places(), items)

    def smaller(self) -> NetworkWork | None:
        """Return the same work with half the batch; None where the batch is one slice."""
        return replace(self, batch_size=self.batch_size // 2) if self.batch_size > 1 else None

    @property
    @abstractmethod
    def settings(self) -> dict[str, object]:
        """Everything that decides the result. The batch size is not among it."""

    @abstractmethod
    def __call__(self, item: Item, on_slice: OnSlice) -> Outcome:
        """Do it."""

    @abstractmethod
    def probe(self, chunk: Chunk) -> None:
        """Do the network's part for a chunk and forget it."""

    @cached_property
    def seconds_a_slice(self) -> float:
        """The network's part for one slice, measured here and now on an empty one."""
        multiple = self.prepare.multiple
        height, width = (-(-size // multiple) * multiple for size in self.prepare.shape)
        chunk = Chunk((0,), (0,), torch.full((1, 1, height, width), 0.5), torch.ones(1, 1, height, width, dtype=torch.bool))
        self.probe(chunk)
        started = time.perf_counter()
        self.probe(chunk)
        return time.perf_counter() - started

    @property
    def sees_all_first(self) -> bool:
        """Whether all slices of a volume are looked at, and held, before the first is written."""
        return False

    def estimate(self, shape: tuple[int, int, int]) -> Estimate:
        """Return what a volume of this shape, ``(slices, rows, columns)``, will cost."""
        slices, rows, columns = shape
        voxels = slices * rows * columns
        seconds = voxels * PREPARE_SECONDS_A_VOXEL + slices * ACTIVE_SHARE * self.seconds_a_slice
        seen = BYTES_SIDE_VIEW * slices * math.prod(self.bundle.grid.shape) if self.sees_all_first else 0
        return Estimate(seconds, peak_megabytes() + (COPIES * 4 * voxels + seen) / 1e6)
