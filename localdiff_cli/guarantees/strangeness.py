"""Is this patient like those? A portrait of the whole volume in numbers, and its conformal p-value among a cohort's
portraits.

Four blocks: intensity and sharpness of the condition, what the detector says, the packaged ImageNet network's features, and
the sides of a voxel. A portrait's strangeness is its distance from all the others; since everybody's is taken among the
same n + 1 people, the new one included, equal people have equal chances to be the strangest (full conformal prediction,
theorems.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from localdiff_cli.guarantees.theorems import conformal_p_value
from localdiff_cli.ood.backbone import Backbone, load_backbone
from localdiff_cli.threads import apart

QUANTILES = (0.05, 0.25, 0.75, 0.95)
LEVELS = (0.05, 0.2, 0.5)
"""Cuts of M whose shares of the brain belong to a portrait, whatever τ is."""
EVERY = 4
"""A painter looks at every fourth slice: neighbours look alike."""
PIXELS_EVERY = 8
FLOOR = 1e-3
DIGITS = 5

Portrait = dict[str, list[float]]
"""Block → numbers."""


@dataclass(eq=False)
class Painter:
    """Collects the portrait of one volume while its slices pass by; the order in which they pass does not matter."""

    backbone: Backbone
    values: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    edges: dict[int, float] = field(default_factory=dict)
    maps: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    features: dict[int, NDArray[np.float32]] = field(default_factory=dict)

    def see(self, numbers: Sequence[int], condition: Tensor, brain: Tensor, ood_map: Tensor) -> None:
        """Take in slices by their canonical numbers, every fourth of them: condition, brain and M, ``(N, 1, H, W)``."""
        rows = [i for i, number in enumerate(numbers) if number % EVERY == 0]
        for i in rows:
            number, image, inside = numbers[i], condition[i, 0].numpy(), brain[i, 0].numpy()
            self.values[number] = image[inside][::PIXELS_EVERY]
            self.edges[number] = float(np.hypot(*np.gradient(image))[inside].mean(dtype=np.float64))
            self.maps[number] = ood_map[i, 0].numpy()[inside][::PIXELS_EVERY]
        seen = apart(lambda i: self.backbone(condition[i : i + 1])[1].mean(dim=(2, 3))[0].numpy(), rows)
        self.features |= dict(zip([numbers[i] for i in rows], seen, strict=True))

    def portrait(self) -> Portrait:
        """Return the volume in numbers; a block without slices is empty."""
        values, maps = (np.concatenate([each[k] for k in sorted(each)]) if each else np.zeros(0) for each in (self.values, self.maps))
        if not values.size:
            return {"intensity": [], "detector": [], "features": []}
        edges = float(np.mean([self.edges[k] for k in sorted(self.edges)]))
        shares = [float(np.log(FLOOR + np.mean(maps >= level))) for level in LEVELS]
        features = np.mean([self.features[k] for k in sorted(self.features)], axis=0) if self.features else np.zeros(0)
        blocks = {"intensity": [*np.quantile(values, QUANTILES), edges], "detector": [*shares, maps.mean()], "features": features}
        return {name: [round(float(v), DIGITS) for v in block] for name, block in blocks.items()}


def painter() -> Painter:
    """Return a painter with the packaged network."""
    return Painter(load_backbone().to(torch.device("cpu")))


def on_grid(portrait: Portrait, spacing: Sequence[float]) -> Portrait:
    """Return the portrait with one block more: the sides of a voxel (mm, slices first) in octaves, to the nearest quarter:
    another protocol shows.

    Intensities are normalised and slices resampled before the networks see them, which hides it from the other blocks.
    """
    return portrait | {"grid": [round(4 * math.log2(side)) / 4 for side in spacing]}


def p_value(portrait: Portrait, cohort: Sequence[Portrait]) -> float:
    """Return the conformal p-value of ``portrait`` among those of ``cohort``; that of the strangest where it lacks a block
    they have."""
    everybody = [*cohort, portrait]
    if any(len(portrait[name]) != len(cohort[0][name]) for name in cohort[0]):
        return 1 / len(everybody)
    scores = sum(block_scores(np.array([each[name] for each in everybody])) for name in cohort[0] if cohort[0][name])
    scores = np.asarray(scores, np.float64)
    return conformal_p_value(scores[:-1], float(scores[-1]))


def block_scores(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return, for each row ``(n, d)``, its mean squared distance from the mean of the others, in their standard deviations;
    ``(n,)``."""
    n = len(rows)
    if n < 3:
        return np.zeros(n)
    total, squares = rows.sum(axis=0), (rows**2).sum(axis=0)
    mean = (total - rows) / (n - 1)
    variance = np.maximum((squares - rows**2) / (n - 1) - mean**2, 0) + FLOOR**2
    return ((rows - mean) ** 2 / variance).mean(axis=1)


def is_strange(p: float, n: int, level: float) -> bool:
    """Return whether the certificate is void: p at or below ``level``, or, where n people cannot reach that, the strangest
    of all n + 1."""
    return p <= max(level, 1 / (n + 1)) * (1 + 1e-9)
