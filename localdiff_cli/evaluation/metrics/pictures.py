"""Small pictures of a volume's most telling slice, kept as bytes so that hundreds of cases fit in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import find_contours
from skimage.transform import resize

from localdiff_cli.evaluation.metrics.boxes import Box, bounding_box

WINDOW_PERCENTILES = (0.5, 99.5)
ERROR_SHARE = 0.5
MARGIN_PX = 4


@dataclass(frozen=True)
class Panel:
    """One picture: uint8 ``pixels`` ``(rows, columns)``; ``role`` is condition, ood, plain, local, reference, frc
    (what the reference does not support) or error."""

    role: str
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class Pictures:
    """The panels of slice ``slice_index`` (canonical, from 0) and the lesion's ``outline``: closed lines of (row, column) pixels.

    Plain, local and reference share ``window`` (units of the images); the error runs from 0 to ``error_top``.
    """

    slice_index: int
    why: str
    window: tuple[float, float]
    error_top: float
    panels: tuple[Panel, ...]
    outline: tuple[NDArray[np.float32], ...]


def telling_slice(error: NDArray[Any], brain: NDArray[np.bool_], lesion: NDArray[np.bool_] | None) -> tuple[int, str]:
    """Return the slice with the largest lesion, else that with the largest summed error inside the brain; and why it was
    taken."""
    if lesion is not None and lesion.any():
        return int(np.argmax(np.count_nonzero(lesion, axis=(1, 2)))), "largest lesion area"
    return int(np.argmax((error * brain).sum(axis=(1, 2)))), "largest error"


def take_pictures(
    images: Mapping[str, NDArray[Any] | None],
    error: NDArray[Any],
    brain: NDArray[np.bool_],
    lesion: NDArray[np.bool_] | None,
    error_top: float,
    longest_px: int,
) -> Pictures | None:
    """Return pictures of the telling slice, cut to the brain; None for an empty brain.

    ``images``: condition, ood, plain, local, reference, frc (ood and frc in [0, 1]) → volume ``(slices, rows, columns)`` or
    None. The window is the reference's 0.5th to 99.5th percentile inside the brain. The condition is another contrast and
    gets its own.
    """
    box = bounding_box(brain, (0, MARGIN_PX, MARGIN_PX))
    if box is None:
        return None
    k, why = telling_slice(error, brain, lesion)
    window = _window(images["reference"], brain)
    spans = {"condition": _window(images["condition"], brain), "ood": (0.0, 1.0), "frc": (0.0, 1.0)}
    volumes = {**images, "error": error}
    spans["error"] = (0.0, error_top)
    panels = tuple(
        Panel(role, _to_bytes(_shrink(volume[k][box[1:]], longest_px), spans.get(role, window)))
        for role, volume in volumes.items()
        if volume is not None
    )
    outline = () if lesion is None else _outline(lesion[k], box, panels[0].pixels.shape)
    return Pictures(k, why, window, error_top, panels, outline)


def _window(volume: NDArray[Any] | None, brain: NDArray[np.bool_]) -> tuple[float, float]:
    if volume is None:
        return 0.0, 1.0
    low, high = np.percentile(volume[brain], WINDOW_PERCENTILES)
    return float(low), float(high)


def _to_bytes(image: NDArray[Any], window: tuple[float, float]) -> NDArray[np.uint8]:
    low, high = window
    scaled = (image.astype(np.float32) - low) / (high - low if high > low else 1)
    return np.round(255 * np.clip(scaled, 0, 1)).astype(np.uint8)


def _shrink(image: NDArray[Any], longest_px: int) -> NDArray[Any]:
    """Smaller where the longest side exceeds ``longest_px``; never larger."""
    factor = longest_px / max(image.shape)
    if factor >= 1:
        return image
    shape = tuple(max(1, round(side * factor)) for side in image.shape)
    return resize(image.astype(np.float32), shape, order=1, anti_aliasing=True, preserve_range=True)


def _outline(lesion: NDArray[np.bool_], box: Box, shape: tuple[int, ...]) -> tuple[NDArray[np.float32], ...]:
    """Lines around the lesion, in pixels of the shrunken picture, pixel centres at whole numbers + ½."""
    padded = np.pad(lesion[box[1:]], 1).astype(np.float32)
    scale = np.divide(shape, np.subtract(padded.shape, 2))
    return tuple(((line - 0.5) * scale).astype(np.float32) for line in find_contours(padded, 0.5))
