"""What is drawn by the OOD branch and what is called unknown: from M, from the texture of a region, from a second finder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from localdiff_cli.ood.detector import Detection
from localdiff_cli.ood.texture import too_smooth
from localdiff_cli.ood.threshold import to_mask
from localdiff_cli.tasks.detection import MaskSettings, mask_of
from localdiff_cli.tasks.slices import Chunk

Finder = Callable[[Tensor, Tensor], Tensor]
"""Condition and brain, each ``(N, 1, H, W)`` → the probability of what it knows, of that shape."""


@dataclass(frozen=True)
class UnknownSettings:
    """What is neither ordinary nor drawn as a lesion.

    Outside B it is where M reaches ``threshold`` (None: nowhere) and where a second finder, of lesions that the OOD branch
    cannot draw, reaches ``suspect``. A region of B whose condition has less than ``texture`` times the texture of the brain
    is taken out of B. ``fill`` says what stands there: plain, what the ordinary process draws, or blank, the background
    value 0.
    """

    threshold: float | None = None
    fill: str = "plain"
    texture: float = 0.0
    suspect: float | None = None


@dataclass(frozen=True, eq=False)
class Regions:
    """B, what the OOD branch draws, and what is ``unknown``, ``(N, 1, H, W)`` bool; nothing is both."""

    mask: Tensor
    unknown: Tensor


def regions_of(
    detection: Detection, chunk: Chunk, masks: MaskSettings, settings: UnknownSettings, spacing: float, find: Finder | None = None
) -> Regions:
    """Return the regions of a chunk. ``find``: the second finder."""
    brain = chunk.brain
    if not len(brain):
        return Regions(torch.zeros_like(brain), torch.zeros_like(brain))
    mask = mask_of(detection, brain, masks, spacing)
    smooth = too_smooth(chunk.condition, mask, brain, settings.texture, spacing)
    doubted = [(detection.ood_map, settings.threshold)]
    doubted += [] if find is None else [(find(chunk.condition, brain), settings.suspect)]
    unknown = smooth
    for found, cut in doubted:
        if cut is not None:
            unknown = unknown | to_mask(found, cut, brain, masks.open_mm, 0.0, (spacing, spacing))
    drawn = mask & ~smooth
    return Regions(drawn, unknown & ~drawn)
