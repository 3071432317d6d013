"""Write volumes whole or not at all, with the geometry of the input to the bit and the same bytes every time."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.volumes.files import files_of
from localdiff_cli.volumes.formats.seam import Content, Put
from localdiff_cli.volumes.volume import Volume
from localdiff_cli.volumes.whole import unwritable, whole_file


class SliceWriter:
    """Takes canonical slices in the input's stored order and writes a volume of the input's geometry and kind.

    A format that streams is written as it comes where slices are stored last; others are gathered first. Used as a context:
    leaving it without an error puts the whole file in place, leaving it with one leaves nothing behind.
    """

    def __init__(self, path: Path, volume: Volume, *, dtype: str, description: str, scale: tuple[float, float] = (1.0, 0.0)) -> None:
        self.path = path
        self.volume = volume
        self.content = Content(np.dtype(dtype), description, scale if volume.format.scales else (1.0, 0.0))
        streams = volume.format.streams and volume.frame.slice_axis == 2
        self._array = None if streams else np.zeros(volume.shape, dtype=self.content.dtype)
        self._stack = ExitStack()
        self._put: Put | None = None
        self._written = 0

    def __enter__(self) -> SliceWriter:
        with ExitStack() as stack:
            self._partial = stack.enter_context(whole_file(self.path))
            if self._array is None:
                self._put = stack.enter_context(self.volume.format.stream(self._partial, self.volume, self.content))
            stack.push(self._finish_unless_failed)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, k: int, image: NDArray[Any]) -> None:
        """Write canonical slice ``k`` (``(rows, columns)``, real units; the stored scale is applied here).

        Integers are rounded and held within their type's range. Raise ``ValueError`` for a slice out of order.
        """
        frame = self.volume.frame
        stored = frame.slice_to_stored(self._encode(image))
        index = frame.stored_index(k)
        if self._array is not None:
            np.moveaxis(self._array, frame.slice_axis, 0)[index] = stored
        elif index == self._written:
            self._emit(stored)
        else:
            raise ValueError(f"slice {k} out of order: stored slice {self._written} is next")
        self._written += 1

    def _encode(self, image: NDArray[Any]) -> NDArray[Any]:
        (slope, inter), dtype = self.content.scale, self.content.dtype
        values = image if self.content.scale == (1.0, 0.0) else (image - inter) / slope
        if dtype.kind not in "iu":
            return values
        limits = np.iinfo(dtype)
        return np.clip(np.rint(values.astype(np.float64)), limits.min, limits.max).astype(dtype)

    def _emit(self, stored: NDArray[Any]) -> None:
        assert self._put is not None
        try:
            self._put(stored)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _finish_unless_failed(self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        if kind is not None:
            return
        if self._written != self.volume.frame.shape[0]:
            raise ValueError(f"{self.path}: {self._written} slices were written; expected {self.volume.frame.shape[0]}")
        if self._array is not None:
            self.volume.format.write(self._partial, self._array, self.volume, self.content)


def output_files(path: Path) -> tuple[Path, ...]:
    """Return the files of a written volume that exist."""
    return files_of(path)
