"""FID and KID: how far the slices of an image set lie from the true ones, in the features of an ImageNet network.

Both say whether images look alike as a set, and nothing about whether a lesion survived. Sources: Heusel et al., NeurIPS
2017 (FID); Bińkowski et al., ICLR 2018 (KID: unbiased MMD² with a cubic kernel, mean over subsets).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.evaluation.metrics.case import CaseResult
from localdiff_cli.evaluation.metrics.measure import Measure, measured, missing

FEATURES = "EfficientNet-Lite0 trained on ImageNet, block 10, mean over the slice (112 numbers): not comparable with Inception figures"
SUBSETS, SUBSET_SIZE = 100, 1000

Features = NDArray[np.float64]


@dataclass(frozen=True)
class Realism:
    """FID and KID of an ``arm`` (prefix as in the tables) against the reference; ``slices`` and ``reference_slices`` counted."""

    arm: str
    slices: int
    reference_slices: int
    fid: Measure
    kid: Measure


def realism(volumes: Sequence[CaseResult], seed: int) -> tuple[Realism, ...]:
    """Return FID and KID of translation and baseline; empty where no volume has features."""
    found = []
    for arm in ("", "baseline_"):
        both = [case.features for case in volumes if arm in case.features and "reference_" in case.features]
        if both:
            own = np.concatenate([features[arm] for features in both]).astype(np.float64)
            true = np.concatenate([features["reference_"] for features in both]).astype(np.float64)
            found.append(Realism(arm, len(own), len(true), fid(own, true), kid(own, true, seed)))
    return tuple(found)


def fid(a: Features, b: Features) -> Measure:
    """Return the Fréchet distance of two sets of feature rows ``(n, d)``; missing with fewer rows than make a full
    covariance."""
    fewest, need = min(len(a), len(b)), a.shape[1] + 1
    if fewest < need:
        return missing(f"needs at least {need} slices, found {fewest}")
    shift = a.mean(axis=0) - b.mean(axis=0)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # The trace of the product's square root: its eigenvalues are real and not negative but for rounding.
    root = np.sqrt(np.clip(np.linalg.eigvals(cov_a @ cov_b).real, 0, None)).sum()
    return measured(max(0.0, shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * root))


def kid(a: Features, b: Features, seed: int, subsets: int = SUBSETS, size: int = SUBSET_SIZE) -> Measure:
    """Return the mean over random ``subsets`` of ``size`` rows (all rows at once where there are no more) of the unbiased
    MMD²; may be below 0."""
    fewest = min(len(a), len(b))
    if fewest < 2:
        return missing(f"needs at least 2 slices, found {fewest}")
    if fewest <= size:
        return measured(_mmd2(a, b))
    rng = np.random.default_rng(seed)
    return measured(np.mean([_mmd2(*(rng.choice(each, size, replace=False) for each in (a, b))) for _ in range(subsets)]))


def _mmd2(a: Features, b: Features) -> float:
    within = [(kernel.sum() - np.trace(kernel)) / (len(kernel) * (len(kernel) - 1)) for kernel in (_kernel(a, a), _kernel(b, b))]
    return float(sum(within) - 2 * _kernel(a, b).mean())


def _kernel(a: Features, b: Features) -> Features:
    return (a @ b.T / a.shape[1] + 1) ** 3
