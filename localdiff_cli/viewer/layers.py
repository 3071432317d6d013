"""Volumes as a viewer needs them: 8 bits per voxel on one grid, cut to what they show, shrunk where they would not fit the
budget."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from isal import igzip
from numpy.typing import NDArray

IMAGE, HEAT, LABELS = "image", "heat", "labels"
"""A grey picture with a panel of its own; a map in [0, 1] or a spread, laid over all panels; whole numbers, each with a
colour."""
BUDGET_BYTES = 25_000_000
"""How large the volumes of one page may be together, as text: a page should open from a mail."""
MARGIN = 2
IMAGE_PERCENTILES = (1.0, 99.9)


@dataclass(frozen=True)
class Layer:
    """One volume: ``data`` uint8 ``(slices, rows, columns)``, canonical; 0 and 255 stand for the real values ``low`` and
    ``high``."""

    name: str
    kind: str
    low: float
    high: float
    data: NDArray[np.uint8] = field(repr=False)


@dataclass(frozen=True)
class ViewCase:
    """Layers of one person on one grid, the images first. ``spacing`` mm; ``start``: the voxel of the whole volume at index
    0.

    ``shrunk``: how many voxels per side of each slice were averaged (for maps and labels: the greatest taken) to fit the
    budget.
    """

    name: str
    layers: tuple[Layer, ...]
    spacing: tuple[float, float, float]
    start: tuple[int, int, int] = (0, 0, 0)
    shrunk: int = 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns as shown."""
        slices, rows, columns = self.layers[0].data.shape
        return slices, rows, columns


def window_of(array: NDArray[Any], kind: str) -> tuple[float, float]:
    """Return what 0 and 255 stand for: the 1st and 99.9th percentile of an image, 0 and 1 (or the maximum) of a map, of
    labels themselves."""
    if kind == LABELS:
        return 0.0, 255.0
    finite = array[np.isfinite(array)]
    if kind == HEAT:
        top = float(finite.max(initial=0.0))
        return 0.0, max(1.0, top) if top > 0.5 else max(top, 1e-6)
    low, high = map(float, np.percentile(finite, IMAGE_PERCENTILES)) if finite.size else (0.0, 1.0)
    return low, high if high > low else low + 1.0


def layer(name: str, kind: str, array: NDArray[Any], window: tuple[float, float] | None = None) -> Layer:
    """Return a canonical array of real values as a layer; values outside ``window`` are held at its ends, NaN counts as its
    low end."""
    low, high = window or window_of(array, kind)
    scaled = (np.nan_to_num(array.astype(np.float32), nan=low, posinf=high, neginf=low) - low) * (255 / (high - low))
    return Layer(name, kind, low, high, np.clip(np.rint(scaled), 0, 255).astype(np.uint8))


def cut(case: ViewCase) -> ViewCase:
    """Return the case without the empty margin around all that its layers show."""
    shown = np.any([each.data > 0 for each in case.layers], axis=0)
    if not shown.any():
        return case
    box = []
    for axis in range(3):
        used = np.flatnonzero(shown.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append(slice(max(0, int(used[0]) - MARGIN), int(used[-1]) + 1 + MARGIN))
    layers = tuple(replace(each, data=np.ascontiguousarray(each.data[tuple(box)])) for each in case.layers)
    first = (box[0].start, box[1].start, box[2].start)
    start = tuple(a + b for a, b in zip(case.start, first, strict=True))
    return replace(case, layers=layers, start=(start[0], start[1], start[2]))


def shrink(case: ViewCase, factor: int) -> ViewCase:
    """Return the case with ``factor`` × ``factor`` voxels of a slice made one: the mean of an image, the greatest of a map
    or of labels."""
    slices, rows, columns = (n - n % factor if axis else n for axis, n in enumerate(case.shape))
    layers = []
    for each in case.layers:
        blocks = each.data[:, :rows, :columns].reshape(slices, rows // factor, factor, columns // factor, factor)
        small = blocks.mean(axis=(2, 4)).round() if each.kind == IMAGE else blocks.max(axis=(2, 4))
        layers.append(replace(each, data=small.astype(np.uint8)))
    spacing = (case.spacing[0], case.spacing[1] * factor, case.spacing[2] * factor)
    return replace(case, layers=tuple(layers), spacing=spacing, shrunk=case.shrunk * factor)


def packed(data: NDArray[np.uint8]) -> str:
    """Return voxels as text: gzip, then base64."""
    return base64.b64encode(igzip.compress(data.tobytes(), compresslevel=3, mtime=0)).decode("ascii")


def fit(cases: Sequence[ViewCase], budget: int = BUDGET_BYTES) -> list[tuple[ViewCase, list[str]]]:
    """Return every case with its packed layers; one that would take more than its share of ``budget`` bytes is shrunk until
    it does not."""
    fitted = []
    for case in cases:
        shown = cut(case)
        texts = [packed(each.data) for each in shown.layers]
        while sum(map(len, texts)) > budget / len(cases) and min(shown.shape[1:]) > 4:
            shown = replace(shrink(cut(case), shown.shrunk + 1), shrunk=shown.shrunk + 1)
            texts = [packed(each.data) for each in shown.layers]
        fitted.append((shown, texts))
    return fitted


def manifest(case: ViewCase) -> dict[str, object]:
    """Return what the script must know of a case, without its voxels."""
    layers = [{"name": each.name, "kind": each.kind, "low": each.low, "high": each.high} for each in case.layers]
    return {
        "name": case.name, "shape": case.shape, "spacing": case.spacing, "start": case.start, "shrunk": case.shrunk, "layers": layers,
    }  # fmt: skip
