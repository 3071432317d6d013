"""Write volumes whole or not at all, with the geometry of the input to the bit and the same bytes every time."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip
from numpy.typing import NDArray

from localdiff_cli.volumes import itk
from localdiff_cli.volumes.reader import Volume, files_of, pair_of, suffix_of
from localdiff_cli.volumes.whole import unwritable, whole_file


def output_header(volume: Volume, dtype: np.dtype, description: str, scale: tuple[float, float]) -> Any:
    """The input's NIfTI header for new voxel values: geometry kept, everything that no longer holds set rightly.

    Free-text fields are emptied and extensions left out: they may carry patient text.
    """
    header = volume.header.copy()
    header.set_data_dtype(dtype)
    for field in ("cal_min", "cal_max", "intent_p1", "intent_p2", "intent_p3"):
        header[field] = 0
    header["intent_code"] = 0
    for field in ("aux_file", "intent_name", "data_type", "db_name", "unused_str"):
        if field in header.structarr.dtype.names:
            header[field] = b""
    for field in ("glmin", "glmax", "extents", "session_error"):
        if field in header.structarr.dtype.names:
            header[field] = 0
    header["descrip"] = description.encode("ascii", "replace")[:79]
    header["scl_slope"], header["scl_inter"] = scale
    return header


class SliceWriter:
    """Takes canonical slices in the input's stored order and writes a volume of the input's geometry and kind.

    A NIfTI whose slices are stored last is written as it comes; other layouts are gathered first. Used as a context: leaving
    it without an error puts the whole file in place, leaving it with one leaves nothing behind.
    """

    def __init__(self, path: Path, volume: Volume, *, dtype: str, description: str, scale: tuple[float, float] = (1.0, 0.0)) -> None:
        self.path = path
        self.volume = volume
        self.dtype = np.dtype(dtype)
        self.description = description
        self.scale = scale if volume.kind != "itk" else (1.0, 0.0)
        self._streams = volume.kind != "itk" and volume.frame.slice_axis == 2
        self._array = None if self._streams else np.zeros(volume.shape, dtype=self.dtype)
        self._stack = ExitStack()
        self._stream: Any = None
        self._written = 0

    def __enter__(self) -> SliceWriter:
        with ExitStack() as stack:
            self._partial = stack.enter_context(whole_file(self.path))
            if self.volume.kind != "itk":
                self._open_nifti(stack)
            stack.push(self._finish_unless_failed)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)

    def _open_nifti(self, stack: ExitStack) -> None:
        header = output_header(self.volume, self.dtype, self.description, self.scale)
        self._file_dtype = header.get_data_dtype()
        version = b"2" if isinstance(header, nib.Nifti2Header) else b"1"
        data = self._partial
        if suffix_of(self.path) in (".hdr", ".img"):
            head, data = pair_of(self._partial)
            header["magic"], header["vox_offset"] = b"ni" + version, 0
            head.write_bytes(header.binaryblock)
            prefix = b""
        else:
            header["magic"], header["vox_offset"] = b"n+" + version, header.single_vox_offset
            prefix = header.binaryblock.ljust(header.single_vox_offset, b"\0")
        self._stream = stack.enter_context(data.open("wb"))
        if data.name.lower().endswith(".gz"):
            self._stream = stack.enter_context(igzip.IGzipFile(filename="", fileobj=self._stream, mode="wb", compresslevel=1, mtime=0))
        self._stream.write(prefix)

    def write(self, k: int, image: NDArray) -> None:
        """Write canonical slice ``k`` (``(rows, columns)``, real units; the stored scale is applied here).

        Integers are rounded and held within their type's range. Raises ``ValueError`` for a slice out of order.
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

    def _encode(self, image: NDArray) -> NDArray:
        slope, inter = self.scale
        values = image if self.scale == (1.0, 0.0) else (image - inter) / slope
        if self.dtype.kind not in "iu":
            return values
        limits = np.iinfo(self.dtype)
        return np.clip(np.rint(values.astype(np.float64)), limits.min, limits.max).astype(self.dtype)

    def _emit(self, stored: NDArray) -> None:
        try:
            self._stream.write(np.asarray(stored, dtype=self._file_dtype).tobytes(order="F"))
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _finish_unless_failed(self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        if kind is not None:
            return
        if self._written != self.volume.frame.shape[0]:
            raise ValueError(f"{self.path}: {self._written} slices were written; expected {self.volume.frame.shape[0]}")
        array = self._array
        if array is None:
            return
        if self.volume.kind == "itk":
            itk.write(self._partial, array, self.volume.header, self.description)
        else:
            for index in range(array.shape[2]):
                self._emit(array[:, :, index])


def output_files(path: Path) -> tuple[Path, ...]:
    """The files of a written volume that exist."""
    return files_of(path)
