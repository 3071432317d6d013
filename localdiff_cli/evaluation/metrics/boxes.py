"""Bounding boxes: the part of a volume a metric needs, so that the rest is never copied."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, ...]


def bounding_box(mask: NDArray[np.bool_], margin: Sequence[int]) -> Box | None:
    """Return the smallest box of ``mask`` (any dimension) grown by ``margin`` voxels an axis and cut at the array's edge;
    None if empty."""
    spans = []
    for axis, extra in enumerate(margin):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        used = np.flatnonzero(mask.any(axis=others))
        if used.size == 0:
            return None
        spans.append(slice(max(0, int(used[0]) - extra), min(mask.shape[axis], int(used[-1]) + 1 + extra)))
    return tuple(spans)
