"""One person translated as ``localdiff translate`` does it, plainly and locally, to be judged on the network's grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from localdiff_cli.errors import UsageError
from localdiff_cli.evaluation.metrics.harm import Drawn, Scene
from localdiff_cli.ood.detector import Detection
from localdiff_cli.tasks.detection import DetectorBinding, detected, looked_at
from localdiff_cli.tasks.sampling import SliceSampler
from localdiff_cli.tasks.slices import Chunk
from localdiff_cli.tasks.translation import UNKNOWN, TranslateWork, source_labels
from localdiff_cli.tasks.unknown import regions_of
from localdiff_cli.training.people import Ready, Slices
from localdiff_cli.volumes.looks import LOOKS

CHUNK = 8
"""Slices in which a detector looks at once."""


def ready_for(work: TranslateWork) -> Ready:
    """Return how a work's condition and target are prepared."""
    return Ready(work.prepare, replace(work.prepare, window=work.bundle.target.window))


def check_look(work: TranslateWork) -> None:
    """Raise :class:`UsageError` for a target contrast of which it is not known how disease looks on it."""
    if work.bundle.target.contrast not in LOOKS:
        raise UsageError(
            f"--model {work.bundle.name}: makes {work.bundle.target.contrast}; expected a target among {', '.join(LOOKS)}", code="contrast"
        )


def scene_of(work: TranslateWork, slices: Slices, every: int, tau: float) -> Scene:
    """Return what decides the figures of every n-th slice: each pixel stands for as many slices."""
    target, spacing = work.bundle.target, work.bundle.grid.spacing
    return Scene(LOOKS[target.contrast], target.window, tau, spacing, spacing**2 * slices.thickness * every / 1000)


def chunk_of(slices: Slices, rows: Sequence[int]) -> Chunk:
    """Return some of a person's slices as the networks take them."""
    numbers = tuple(int(slices.numbers[row]) for row in rows)
    condition = torch.from_numpy(_unit(slices.condition[list(rows)]))[:, None]
    return Chunk(numbers, tuple(range(len(numbers))), condition, torch.from_numpy(slices.brain[list(rows)])[:, None])


def _unit(stack: NDArray[np.uint16]) -> NDArray[np.float32]:
    return np.asarray(stack / np.float32(65535), np.float32)


def detect(work: TranslateWork, chunk: Chunk) -> Detection:
    """Return M of a chunk by the work's own detector, of each slice alone."""
    assert isinstance(work.bind, DetectorBinding)
    return work.bind.detect(looked_at(chunk, work.mask))


def detect_among(work: TranslateWork, slices: Slices, rows: Sequence[int]) -> Detection:
    """Return what is detected in some slices, in the light of all the others where M is averaged through the slices."""
    if work.mask.through_plane_mm == 0:
        return detect(work, chunk_of(slices, rows))
    assert isinstance(work.bind, DetectorBinding)
    everything = range(len(slices.numbers))
    parts = (chunk_of(slices, everything[first : first + CHUNK]) for first in everything[::CHUNK])
    found = [each for _, each in detected(parts, work.bind.detect, work.mask, slices.thickness)]
    return taken(Detection(*(torch.cat([getattr(each, part.name) for each in found]) for part in fields(Detection))), rows)


def taken(detection: Detection, rows: Sequence[int]) -> Detection:
    """Return what was detected in some of the slices."""
    return Detection(*(getattr(detection, part.name)[list(rows)] for part in fields(Detection)))


def draw(
    work: TranslateWork,
    slices: Slices,
    rows: Sequence[int],
    taus: Sequence[float],
    emphases: Sequence[float] | None = None,
    known: Detection | None = None,
) -> Iterator[Drawn]:
    """Yield both translations of some slices, with the map and what is known about them, for each emphasis (None: the
    work's own) and each cut τ. ``known``: what is detected in these slices, where that was asked before."""
    chunk, detection = chunk_of(slices, rows), detect_among(work, slices, rows) if known is None else known
    nothing = torch.zeros_like(chunk.brain)
    plain = SliceSampler(work.networks, replace(work.sample, mode="plain"), slices.fingerprint)(chunk, detection.ood_map, nothing)[0]
    for emphasis, tau in product((work.sample.local.emphasis,) if emphases is None else emphases, taus):
        masks = replace(work.mask, threshold=tau)
        regions = regions_of(detection, chunk, masks, work.unknown, work.bundle.grid.spacing, work.suspect)
        local = _local(with_emphasis(work, emphasis), slices, chunk, plain, detection.ood_map, regions.mask)
        inside, unknown, weight, brain = (each[:, 0].numpy() for each in (regions.mask, regions.unknown, detection.ood_map, chunk.brain))
        labels = source_labels(inside, unknown, weight, brain, work.sample)
        yield _drawn(slices, list(rows), (plain[:, 0].numpy(), local[:, 0].numpy(), weight), labels, brain)


def with_emphasis(work: TranslateWork, emphasis: float) -> TranslateWork:
    """Return the same work with another emphasis of the OOD branch."""
    return replace(work, sample=replace(work.sample, local=replace(work.sample.local, emphasis=emphasis)))


def _local(work: TranslateWork, slices: Slices, chunk: Chunk, plain: Tensor, ood_map: Tensor, mask: Tensor) -> Tensor:
    """The local translation; where nothing is out of distribution it is the plain one."""
    local, rows = plain.clone(), torch.nonzero(mask.flatten(1).any(dim=1))[:, 0].tolist()
    if rows:
        numbers = tuple(chunk.numbers[row] for row in rows)
        part = Chunk(numbers, tuple(range(len(rows))), chunk.condition[rows], chunk.brain[rows])
        local[rows] = SliceSampler(work.networks, work.sample, slices.fingerprint)(part, ood_map[rows], mask[rows])[0]
    return local


def _drawn(
    slices: Slices,
    rows: list[int],
    images: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    labels: NDArray[np.uint8],
    brain: NDArray[np.bool_],
) -> Drawn:
    """``images``: plain, local, M."""
    true = None if slices.target is None else _unit(slices.target[rows])
    ventricles = None if slices.ventricles is None else slices.ventricles[rows]
    plain, local, ood_map = images
    return Drawn(true, plain, local, ood_map, labels == UNKNOWN, brain, slices.lesions[rows], ventricles, labels)
