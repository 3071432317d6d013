"""Fit PatchCore: a memory bank from healthy slices, calibrated on held-out healthy slices (examples/docs/concepts.md §1.2
and §1.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from localdiff_cli.errors import NoInputError, UsageError
from localdiff_cli.ood.backbone import Backbone
from localdiff_cli.ood.patchcore import MemoryBank, brain_patches, greedy_k_centre, score_slice
from localdiff_cli.ood.threshold import Calibration, calibrate

DEFAULT_CORESET_SIZE = 5000
DEFAULT_MAX_PATCHES = 300_000

Slices = Iterable[tuple[Tensor, Tensor]]
"""Healthy slices as (condition ``(1, H, W)`` float32 in [0, 1], brain ``(1, H, W)`` bool)."""
Progress = Callable[[str, int], None]
"""Told the stage (``"embed"``, ``"coreset"`` or ``"calibrate"``) and how many slices or entries are done."""


def fit_bank(
    slices: Slices,
    backbone: Backbone,
    coreset_size: int = DEFAULT_CORESET_SIZE,
    seed: int = 0,
    max_patches: int = DEFAULT_MAX_PATCHES,
    progress: Progress | None = None,
) -> MemoryBank:
    """Build a memory bank of ``coreset_size`` entries from healthy slices, on the backbone's device.

    Only patches that touch the brain count. Of more than ``max_patches`` a uniform random sample is kept (the paper's
    coreset then runs on that); the memory needed is that of ``max_patches`` embeddings, however many slices come. The same
    slices, order and ``seed`` give the same bank. Raise :class:`UsageError` when a size is below 2 and
    :class:`NoInputError` when the slices hold fewer than two patches of brain.
    """
    if coreset_size < 2 or max_patches < 2:
        raise UsageError(f"coreset size {coreset_size} and patch limit {max_patches} must be at least 2", code="coreset-size")
    patches = sample_rows(_embedded(slices, backbone, progress), max_patches, np.random.default_rng(seed)).to(backbone.device)
    if patches.shape[0] < 2:
        raise NoInputError("memory bank: the slices given show no brain; give healthy slices with their brain masks", code="no-patches")
    step = None if progress is None else lambda done: progress("coreset", done)
    return MemoryBank(patches[greedy_k_centre(patches, coreset_size, seed, progress=step)].clone())


def calibrate_detector(slices: Slices, backbone: Backbone, bank: MemoryBank, progress: Progress | None = None) -> Calibration:
    """Calibrate on A of the brain pixels of healthy slices of patients that are *not* in the bank.

    Raise :class:`NoInputError` when no slice shows brain.
    """
    return calibrate(_healthy_scores(slices, backbone, bank, progress))


def sample_rows(chunks: Iterable[Tensor], limit: int, generator: np.random.Generator) -> Tensor:
    """Return a uniform random sample of at most ``limit`` rows of ``(P_i, D)`` float32 chunks; all of them, in order, if
    they are fewer.

    Reservoir sampling (Vitter 1985, algorithm R), so that the chunks never lie in memory together. Return ``(0, 0)`` when
    there is no row.
    """
    kept = np.empty((0, 0), np.float32)
    seen = 0
    for chunk in chunks:
        rows = chunk.cpu().numpy()
        if seen == 0 and rows.shape[0] > 0:
            # Pages that are never written cost no memory.
            kept = np.empty((limit, rows.shape[1]), np.float32)
        free = max(0, min(limit - seen, rows.shape[0]))
        kept[seen : seen + free] = rows[:free]
        late = rows[free:]
        slots = generator.integers(0, seen + free + 1 + np.arange(late.shape[0]))
        hits = slots < limit
        # Where one chunk hits a slot twice, NumPy keeps the last, as the algorithm does.
        kept[slots[hits]] = late[hits]
        seen += rows.shape[0]
    return torch.from_numpy(kept[: min(seen, limit)])


def _embedded(slices: Slices, backbone: Backbone, progress: Progress | None) -> Iterator[Tensor]:
    for done, (condition, brain) in enumerate(slices, start=1):
        if brain.any():
            yield brain_patches(backbone, condition, brain)[1]
        if progress is not None:
            progress("embed", done)


def _healthy_scores(slices: Slices, backbone: Backbone, bank: MemoryBank, progress: Progress | None) -> Iterator[Tensor]:
    for done, (condition, brain) in enumerate(slices, start=1):
        yield score_slice(backbone, bank, condition, brain)[0][brain]
        if progress is not None:
            progress("calibrate", done)
