"""The one reader of masks and maps: binary, labels or probability is decided from the values, and stated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.reader import SliceReader
from localdiff_cli.volumes.volume import Volume

BINARY, LABELS, PROBABILITY, EMPTY = "binary", "labels", "probability", "empty"
NEAR = 0.01
"""Share of a mask's value by which rounding and interpolation may move it."""
LEAST_VALUE = 1e-3
"""What a binary mask's value must at least be; below it is rounding noise around an empty mask (1/255 is still a mask)."""
OVERSHOOT = 0.2
"""How far beyond [0, 1] interpolation may carry a probability."""
SCALES = (100.0, 255.0)
"""Values other than 1 that stand for certainty: per cent, and bytes."""
SIGNED_BYTES = (-1, -128)
"""What 255 and 128 become where a mask of bytes is saved as signed ones; another negative value marks a background, not a
mask."""
AT_THE_TOP, FEWEST_BETWEEN = 0.3, 4
"""Share of the marked voxels that a scaled soft mask has at its top at least, and how many values between."""
WHOLE = 0.01
SAME_NEIGHBOURS, SAME_OF_MANY = 0.5, 0.7
"""Share of neighbouring marked pixels with the same value, of few labels and of many: label maps have nearly all, images few."""
FEWEST_NEIGHBOURS, FEW_LABELS = 32, 16
MOST_VALUES = 4096


@dataclass(frozen=True)
class MaskContent:
    """What the values of a mask mean: its ``kind``, the value ``one`` that stands for certainty, and ``said``, a phrase for
    people."""

    kind: str
    one: float
    said: str

    @property
    def plain(self) -> bool:
        """Whether it is a mask of 0 and 1, or empty, of which nothing need be said."""
        return self.kind == EMPTY or (self.kind == BINARY and self.one == 1)

    @property
    def definite(self) -> bool:
        """Whether the values can be nothing but a mask: an image scaled to [0, 1] looks like a probability."""
        return self.kind != PROBABILITY

    def as_map(self) -> MaskContent:
        """Return the same values as a map in [0, 1]: one value between the two ends, everywhere the same, is a degree and
        not a mask's mark."""
        if self.kind == BINARY and self.one < 1 - NEAR and self.one > 0.05:
            return MaskContent(PROBABILITY, 1.0, f"map: 0 and {self.one:g}")
        return self

    def soft(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Return values in [0, 1]: 0 and 1 for a binary mask or labels, the probability itself for a probability. NaN
        counts as 0."""
        image = np.nan_to_num(np.asarray(image, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        if self.kind == PROBABILITY:
            return np.clip(image / np.float32(self.one), 0, 1)
        return self.hard(image).astype(np.float32)

    def hard(self, image: NDArray[Any]) -> NDArray[np.bool_]:
        """Return the mask: values of at least half of ``one``; for labels, every label."""
        image = np.nan_to_num(np.asarray(image, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        if self.kind == EMPTY:
            return np.zeros(image.shape, dtype=bool)
        return image / np.float32(self.one) >= 0.5


@dataclass
class _Values:
    """What one pass over a mask's slices gathers."""

    low: float = np.inf
    high: float = -np.inf
    whole: bool = True
    finite: bool = False
    counts: Counter[float] = field(default_factory=Counter)
    pairs: int = 0
    same: int = 0

    def add(self, image: NDArray[Any]) -> None:
        known = np.isfinite(image)
        self.finite = self.finite or bool(known.any())
        image = np.where(known, image, 0).astype(np.float32)
        self.low, self.high = min(self.low, float(image.min())), max(self.high, float(image.max()))
        self.whole = self.whole and bool(np.abs(image - np.rint(image)).max() <= WHOLE)
        values, counts = np.unique(image, return_counts=True)
        if len(self.counts) <= MOST_VALUES:
            self.counts.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        rounded, common = np.rint(image), np.rint(values[counts.argmax()])
        for one, other in ((rounded[1:], rounded[:-1]), (rounded[:, 1:], rounded[:, :-1])):
            marked = (one != 0) & (other != 0) & ((one != common) | (other != common))  # an image's background may be other than 0
            self.pairs += int(marked.sum())
            self.same += int((marked & (one == other)).sum())

    @property
    def many(self) -> bool:
        return len(self.counts) > MOST_VALUES


def mask_content(slices: Iterable[NDArray[Any]], what: str) -> MaskContent:
    """Return what the values of a mask mean, from one pass over its 2D ``slices``; ``what`` names it in the error.

    Raise :class:`VolumeError` (``not-a-mask``) for values that no mask has: an image, for instance.
    """
    values = _Values()
    for image in slices:
        values.add(image)
    return _binary(values) or _probability(values) or _labels(values) or _refused(values, what)


def _binary(values: _Values) -> MaskContent | None:
    one = values.high if abs(values.high) >= abs(values.low) else values.low
    if one == 0:
        return MaskContent(EMPTY, 1.0, "empty") if values.finite else None
    if values.low == values.high and one not in (1, *SCALES):
        return None  # the same value everywhere, without a background, marks nothing
    if abs(one) < LEAST_VALUE or values.many or (one < 0 and not any(abs(one - byte) <= NEAR * -byte for byte in SIGNED_BYTES)):
        return None
    near = NEAR * abs(one)
    if all(abs(value) <= near or abs(value - one) <= near for value in values.counts):
        exact = all(value in (0, one) for value in values.counts)
        noise = "" if exact else ", give or take rounding"
        return MaskContent(BINARY, one, f"binary: 0 and {one:g}{noise}, cut at {one / 2:g}")
    return None


def _probability(values: _Values) -> MaskContent | None:
    if values.finite and values.low >= -OVERSHOOT and values.high <= 1 + OVERSHOOT:
        return MaskContent(PROBABILITY, 1.0, f"probability: {values.low:g} to {values.high:g}, cut at 0.5")
    scale = next((scale for scale in SCALES if abs(values.high - scale) <= NEAR * scale), None)
    if scale is None or values.low < -OVERSHOOT * scale or (values.many and values.whole):
        return None
    marked = sum(count for value, count in values.counts.items() if abs(value) > NEAR * scale)
    top = sum(count for value, count in values.counts.items() if value >= (1 - NEAR) * scale)
    between = sum(NEAR * scale < value < (1 - NEAR) * scale for value in values.counts)
    if between < FEWEST_BETWEEN or top < AT_THE_TOP * marked:
        return None
    return MaskContent(PROBABILITY, scale, f"probability: 0 to {scale:g}, cut at {scale / 2:g}")


def _labels(values: _Values) -> MaskContent | None:
    if not values.finite or not values.whole or values.many or values.low < -WHOLE or values.low > WHOLE:
        return None  # without a background of 0 nothing is left unmarked
    found = sorted({round(value) for value in values.counts} - {0})
    alike = values.same >= (SAME_NEIGHBOURS if len(found) <= FEW_LABELS else SAME_OF_MANY) * values.pairs
    if values.pairs < FEWEST_NEIGHBOURS:
        alike = len(found) <= FEW_LABELS
    if not alike:
        return None
    listed = ", ".join(map(str, found[:12])) + (f", … ({len(found)} in all)" if len(found) > 12 else "")
    return MaskContent(LABELS, 1.0, f"labels: {listed}; every label counts")


def _refused(values: _Values, what: str) -> MaskContent:
    count = f"more than {MOST_VALUES}" if values.many else str(len(values.counts))
    found = f"values from {values.low:g} to {values.high:g} ({count} different)" if values.finite else "values that are all NaN or infinite"
    raise VolumeError(
        f"{what}: found {found}, which no mask has; expected two values, "
        "labels in whole numbers, or a probability in [0, 1]. Name the mask itself, or save it as one",
        code="not-a-mask",
    )


def content_of_mask(volume: Volume, what: str = "mask") -> MaskContent:
    """Return what the values of a mask's volume mean. Raise :class:`VolumeError` for what is no mask, or cannot be read."""
    reader = SliceReader(volume)
    return mask_content((image for _, image in reader), f"{volume.path}: taken as {what}")


def read_mask(volume: Volume, what: str) -> tuple[NDArray[np.bool_], MaskContent]:
    """Return a mask, canonical ``(slices, rows, columns)``, on its own grid, and what its values mean.

    Raise :class:`VolumeError` for what is no mask.
    """
    content = content_of_mask(volume, what)
    mask = np.zeros(volume.frame.shape, dtype=bool)
    for k, image in SliceReader(volume):
        mask[k] = content.hard(image)
    return mask, content


def named(path: Path, content: MaskContent) -> str:
    """Return a mask file and what its values mean, for sidecars: never its place on this machine."""
    return f"{path.name} ({content.said})"
