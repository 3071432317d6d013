"""Write volumes whole or not at all, with the geometry of the input to the bit and the same bytes every time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import nibabel as nib
import numpy as np
from isal import igzip
from numpy.typing import NDArray

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.reader import Volume, files_of, suffix_of

PARTIAL = ".partial"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a folder-mate of ``path`` to write to; it takes the final name only when the block ends without an error."""
    folder = path.parent / f".{_short(path.name)}{PARTIAL}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        yield folder / path.name
        _publish(folder, path)
    except OSError as error:
        raise VolumeError(f"{path}: cannot be written ({error.strerror or error})", code="unwritable") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _short(name: str) -> str:
    """A name that leaves room for the suffix of the temporary folder within 255 bytes."""
    raw = name.encode()
    return name if len(raw) <= 240 else raw[:200].decode(errors="ignore") + f"{hash_name(name)}"


def hash_name(name: str) -> str:
    """A short stable digest of a name."""
    import hashlib

    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _publish(folder: Path, path: Path) -> None:
    """Move everything that was written into place, the named file last, after it has reached the disk."""
    parts = sorted(folder.iterdir(), key=lambda p: p.name == path.name)
    for part in parts:
        with part.open("rb") as handle:
            os.fsync(handle.fileno())
    for part in parts:
        os.replace(part, path.parent / part.name)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a small text file whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def output_header(volume: Volume, dtype: np.dtype, description: str, scale: tuple[float, float]) -> Any:
    """The input's NIfTI header for new voxel values: geometry kept, everything that no longer holds set rightly.

    Free-text fields and extensions are emptied: they may carry patient text.
    """
    header = volume.header.copy()
    header.set_data_dtype(dtype)
    header.extensions.clear()
    for field in ("cal_min", "cal_max", "intent_p1", "intent_p2", "intent_p3"):
        header[field] = 0
    header["intent_code"] = 0
    for field in ("aux_file", "intent_name", "data_type", "db_name"):
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
        self.scale = scale
        self._streams = volume.kind == "nifti" and volume.frame.slice_axis == 2
        self._array = None if self._streams else np.zeros(volume.shape, dtype=self.dtype)
        self._context: Any = None
        self._stream: IO[bytes] | None = None
        self._raw: IO[bytes] | None = None
        self._written = 0

    def __enter__(self) -> SliceWriter:
        self._context = whole_file(self.path)
        self._partial: Path = self._context.__enter__()
        try:
            if self.volume.kind == "nifti":
                self._open_nifti()
        except BaseException as error:
            self._close_streams()
            self._context.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _open_nifti(self) -> None:
        header = output_header(self.volume, self.dtype, self.description, self.scale)
        data = self._partial
        if suffix_of(self.path) in (".hdr", ".img"):
            data, head = self._partial.with_suffix(".img"), self._partial.with_suffix(".hdr")
            header["magic"], header["vox_offset"] = (b"ni2" if _is_nifti2(header) else b"ni1"), 0
            head.write_bytes(header.binaryblock)
            prefix = b""
        else:
            header["magic"], header["vox_offset"] = (b"n+2" if _is_nifti2(header) else b"n+1"), header.single_vox_offset
            prefix = header.binaryblock + b"\0" * (header.single_vox_offset - len(header.binaryblock))
        self._file_dtype = header.get_data_dtype()
        self._raw = data.open("wb")
        compressed = data.name.lower().endswith(".gz")
        self._stream = igzip.IGzipFile(filename="", fileobj=self._raw, mode="wb", compresslevel=1, mtime=0) if compressed else self._raw
        self._stream.write(prefix)

    def write(self, k: int, image: NDArray) -> None:
        """Write canonical slice ``k`` (``(rows, columns)``, real units; the stored scale is applied here)."""
        slope, inter = self.scale
        values = image if self.scale == (1.0, 0.0) else (image - inter) / slope
        values = np.rint(values) if self.dtype.kind in "iu" else values
        frame = self.volume.frame
        stored = frame.slice_to_stored(values)
        if self._array is not None:
            key: list[Any] = [slice(None)] * 3
            key[frame.slice_axis] = frame.stored_index(k)
            self._array[tuple(key)] = stored
            return
        if frame.stored_index(k) != self._written:
            raise ValueError(f"slice {k} out of order: stored slice {self._written} is next")
        self._written += 1
        self._emit(stored)

    def _emit(self, stored: NDArray) -> None:
        assert self._stream is not None
        try:
            self._stream.write(np.asarray(stored, dtype=self._file_dtype).tobytes(order="F"))
        except OSError as error:
            raise VolumeError(f"{self.path}: cannot be written ({error.strerror or error})", code="unwritable") from error

    def _finish(self) -> None:
        if self.volume.kind == "itk":
            _write_itk(self._partial, self.volume, self._array)
            return
        if self._array is not None:
            for index in range(self.volume.shape[2]):
                self._emit(self._array[:, :, index])

    def _close_streams(self) -> None:
        for stream in dict.fromkeys((self._stream, self._raw)):
            if stream is not None and not stream.closed:
                stream.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._finish()
                self._close_streams()
        except BaseException as late:
            kind, error, trace = type(late), late, late.__traceback__
            raise
        finally:
            if kind is not None:
                try:
                    self._close_streams()
                except OSError:
                    self._stream = self._raw = None
            self._context.__exit__(kind, error, trace)


def _is_nifti2(header: Any) -> bool:
    return isinstance(header, nib.Nifti2Header)


def _write_itk(path: Path, volume: Volume, array: NDArray | None) -> None:
    import SimpleITK as sitk

    assert array is not None
    dimension = volume.header.GetDimension()
    image = sitk.GetImageFromArray(array.reshape(volume.stored_shape).T)
    image.SetSpacing(volume.header.GetSpacing()[:dimension])
    image.SetOrigin(volume.header.GetOrigin()[:dimension])
    image.SetDirection(volume.header.GetDirection())
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:
        raise VolumeError(f"{path.name}: cannot be written ({str(error).splitlines()[-1]})", code="unwritable") from error


def output_files(path: Path) -> tuple[Path, ...]:
    """The files of a written volume that exist."""
    return files_of(path)
