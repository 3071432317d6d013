"""What every OOD detector gives, and the detectors: PatchCore and a map brought by the user (examples/docs/concepts.md §1)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from localdiff_cli.errors import UsageError
from localdiff_cli.ood.backbone import Backbone
from localdiff_cli.ood.patchcore import MemoryBank, score_slice
from localdiff_cli.ood.threshold import Calibration, to_probability
from localdiff_cli.threads import apart


@dataclass(frozen=True, eq=False)
class Detection:
    """What a detector found: ``score`` A ``(N, 1, H, W)`` ≥ 0, ``ood_map`` M ``(N, 1, H, W)`` in [0, 1], ``slice_score``
    ``(N,)``."""

    score: Tensor
    ood_map: Tensor
    slice_score: Tensor


class Detector(Protocol):
    """Anything that says where slices are out of distribution."""

    def __call__(self, condition: Tensor, brain: Tensor) -> Detection:
        """Detect in ``condition`` ``(N, 1 or 3, H, W)`` float32 in [0, 1], background 0, inside ``brain`` bool
        ``(N, 1, H, W)``."""
        ...


@dataclass(frozen=True, eq=False)
class PatchCoreDetector:
    """PatchCore with its threshold: ``false_alarm`` is the share of held-out healthy brain pixels that it may flag.

    Raises :class:`UsageError` when ``false_alarm`` is outside (0, 1).
    """

    backbone: Backbone
    bank: MemoryBank
    calibration: Calibration
    false_alarm: float

    def __post_init__(self) -> None:
        self.calibration.tau_a(self.false_alarm)

    @cached_property
    def tau_a(self) -> float:
        """The threshold τ_A in units of A."""
        return self.calibration.tau_a(self.false_alarm)

    def __call__(self, condition: Tensor, brain: Tensor) -> Detection:
        """Detect slice by slice; shapes as in :class:`Detector`. Scores and map are 0 outside the brain.

        Raise ``ValueError`` when the shapes do not fit or the condition is not finite.
        """
        _check(condition, brain)
        pairs = list(zip(condition, brain, strict=True))
        if condition.device.type == "cpu":
            results = apart(lambda pair: score_slice(self.backbone, self.bank, *pair), pairs)
        else:
            results = [score_slice(self.backbone, self.bank, *pair) for pair in pairs]
        score = torch.stack([anomaly_map for anomaly_map, _ in results]) if results else torch.zeros_like(condition[:, :1])
        slice_scores = torch.stack([value for _, value in results]) if results else condition.new_zeros(0)
        # With τ_A < σ_A even A = 0 has a probability; not outside the brain.
        ood_map = to_probability(score, self.tau_a, self.calibration.sigma_a) * brain
        return Detection(score, ood_map, slice_scores)


def from_map(ood_map: Tensor) -> Detection:
    """Return a detection from a probability map or a mask, ``(N, 1, H, W)`` in [0, 1]: M and A are the map, a slice scores
    its maximum.

    Raise :class:`UsageError` when a value is not a number in [0, 1].
    """
    ood_map = ood_map.float()
    if not bool(((ood_map >= 0) & (ood_map <= 1)).all()):
        raise UsageError(
            f"OOD map: expected values in [0, 1], found {ood_map.min().item():g} to {ood_map.max().item():g}; "
            "scale it, or give a mask of 0 and 1",
            code="map-range",
        )
    return Detection(ood_map, ood_map, ood_map.flatten(1).amax(dim=1))


def _check(condition: Tensor, brain: Tensor) -> None:
    if condition.ndim != 4 or condition.shape[1] not in (1, 3) or condition[:, :1].shape != brain.shape or brain.dtype != torch.bool:
        raise ValueError(
            f"expected condition (N, 1 or 3, H, W) and a bool brain (N, 1, H, W), found {tuple(condition.shape)} and "
            f"{tuple(brain.shape)} {brain.dtype}"
        )
    if not bool(torch.isfinite(condition).all()):
        raise ValueError("condition holds values that are not finite; normalise the slice before detection")
