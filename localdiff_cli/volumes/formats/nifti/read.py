"""Open NIfTI files, refuse what cannot be used with the reason, and read their voxels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import nibabel as nib
import numpy as np
from isal import igzip, igzip_lib
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.files import absent_content
from localdiff_cli.volumes.formats.nifti import FORMAT, is_gzip, is_pair, pair_of
from localdiff_cli.volumes.formats.nifti.forms import affine_and_doubts
from localdiff_cli.volumes.formats.seam import Stored
from localdiff_cli.volumes.limits import MAX_DEFLATE_RATIO, check_promise, check_unpacked
from localdiff_cli.volumes.volume import Held, Volume, damaged, frame_in, reason_of, spatial_shape

MAX_EXTENSION_BYTES = 16 << 20
HELD_BYTES = 256 << 20
"""A compressed file of at most so many bytes of voxels is unpacked once and held, in its own data type."""
GZIP_MAGIC = b"\x1f\x8b"
OTHER_KINDS = {
    b"PK\x03\x04": "a zip archive", b"BZh": "a bzip2 file", b"\xfd7zXZ": "an xz file", b"\x28\xb5\x2f\xfd": "a zstd file",
    b"\x89HDF": "HDF5 (MINC 2)", b"CDF": "NetCDF (MINC 1)", b"NRRD": "an NRRD file", b"ObjectTyp": "a MetaImage",
}  # fmt: skip
"""How files of other kinds begin that are found under a NIfTI's name."""
MM_PER_UNIT = {"meter": 1e3, "micron": 1e-3}
"""Spatial units of a NIfTI other than mm; an unknown unit is taken as mm."""


_IGZIP_ERROR: Any = igzip_lib.error
ERRORS = (
    _IGZIP_ERROR,
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    nib.wrapstruct.WrapStructError,
)
FORMAT_ERRORS = FORMAT.errors


def _check_nifti_dtype(path: Path, dtype: np.dtype) -> None:
    if dtype.fields is not None:
        raise VolumeError(f"{path}: found a colour image ({dtype}); expected one grey value per voxel", code="colour")
    if dtype.kind == "c":
        raise VolumeError(f"{path}: found complex values ({dtype}); expected real ones. Save the magnitude first", code="complex")
    if dtype.kind not in "biuf":
        raise VolumeError(f"{path}: found data type {dtype}; expected integers or floats", code="not-an-image")


def _check_nifti_bytes(path: Path, image: Any, shape: tuple[int, int, int]) -> None:
    """Refuse a header that promises more than the file can hold, before anything is allocated."""
    promised = float(np.prod(shape, dtype=float)) * image.get_data_dtype().itemsize + image.dataobj.offset
    file = Path(image.file_map["image"].filename)
    check_promise(path, promised, file.stat().st_size, MAX_DEFLATE_RATIO if is_gzip(file) else 1)


def _check_gzip(path: Path, promised: int = 0) -> None:
    """Decompress the whole stream once. Raises ``EOFError`` or ``OSError`` where it is cut, damaged or shorter than
    ``promised``."""
    size, packed = 0, path.stat().st_size
    with igzip.open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            size += len(block)
            check_unpacked(path, size, packed)
    if size < promised:
        raise EOFError(f"found {size:,} bytes, the header promises {promised:,}")


def _nifti_kind(path: Path) -> Any:
    """The nibabel class for the file by its suffix and its header, the header's extensions checked.

    Raises ``ValueError`` for another kind of file, and for extensions that are absurd: nibabel reads them whole, whatever
    they claim.
    """
    pair = is_pair(path)
    kinds = (nib.Nifti1Pair, nib.Nifti2Pair) if pair else (nib.Nifti1Image, nib.Nifti2Image)
    with igzip.open(path, "rb") if is_gzip(path) else (pair_of(path)[0] if pair else path).open("rb") as stream:
        block = stream.read(max(kind.header_class.sizeof_hdr for kind in kinds))
        kind = next((kind for kind in kinds if kind.header_class.may_contain_header(block)), None)
        if kind is None:
            raise ValueError("no mark of NIfTI-1 or NIfTI-2")
        stream.seek(kind.header_class.sizeof_hdr)
        if stream.read(4)[:1] not in (b"", b"\0"):
            _check_extensions(stream, kind.header_class(block[: kind.header_class.sizeof_hdr], check=False))
    return kind


def _check_extensions(stream: Any, header: Any) -> None:
    start, total = stream.tell(), 0
    left = float(header["vox_offset"]) - start if header.is_single else -1.0  # below 0: to the end of the file
    while (left < 0 or left >= 16) and len(words := stream.read(8)) == 8:
        size = int(np.frombuffer(words, np.dtype(np.int32).newbyteorder(header.endianness))[0])
        total += size
        if size < 8 or total > MAX_EXTENSION_BYTES:
            raise ValueError(f"a header extension of {size:,} bytes; at most {MAX_EXTENSION_BYTES:,} in all")
        left -= size
        stream.seek(start + total)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep nibabel's remarks about odd headers off the terminal: what matters becomes a :class:`VolumeError`."""
    logger = nib.imageglobals.logger
    before, logger.disabled = logger.disabled, True
    try:
        with catch_warnings(), np.errstate(all="ignore"):
            simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def _load_nifti(path: Path) -> Any:
    """nibabel's image, its data still on disk. Not memory-mapped: a file cut under a map would kill the process."""
    kind = _nifti_kind(path)
    with _quiet():
        return kind.from_filename(path, keep_file_open=True, mmap=False)


def _raw_header(image: Any) -> Any:
    """The header as it stands in the file: nibabel mends odd fields on loading, which the output must not."""
    holder = image.file_map.get("header", image.file_map["image"])
    with holder.get_prepare_fileobj("rb") as handle:
        block = handle.read(image.header_class.sizeof_hdr)
    return image.header_class(block, check=False)


def open_nifti(path: Path, affine_from: str | None) -> Volume:
    """Open by the header alone. Raise :class:`VolumeError` with the reason."""
    _check_pair(path)
    try:
        image = _load_nifti(path)
        stored = tuple(int(n) for n in image.shape)
        shape = spatial_shape(path, stored)
        dtype = image.get_data_dtype()
        _check_nifti_dtype(path, dtype)
        _check_nifti_bytes(path, image, shape)
        with _quiet():
            scale, header = MM_PER_UNIT.get(image.header.get_xyzt_units()[0], 1.0), _raw_header(image)
            affine, doubts = affine_and_doubts(path, image, shape, scale, affine_from)
    except FORMAT_ERRORS as error:
        raise _not_nifti(path, error) from error
    known = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    frame = frame_in(path, affine, shape)
    return Volume(
        path, FORMAT, stored, shape, dtype, affine, frame, header, affine_from=affine_from, doubts=doubts, orientation_known=known
    )  # fmt: skip


def _check_pair(path: Path) -> None:
    if not is_pair(path):
        return
    for part in pair_of(path):
        if absent := absent_content(part):
            raise VolumeError(f"{part}: {absent}", code="not-fetched")
        if not part.is_file():
            raise VolumeError(f"{path}: found no {part.name} beside it; a .hdr and its .img belong together. Copy both", code="not-found")


def _not_nifti(path: Path, error: BaseException) -> VolumeError:
    """The error for a file that nibabel cannot open: vanished, a damaged gzip stream, a wrong name, or no NIfTI at all."""
    try:
        with path.open("rb") as handle:
            start = handle.read(352)
        if start.startswith(GZIP_MAGIC) and is_gzip(path):
            _check_gzip(path)
    except FORMAT_ERRORS as damage:
        return damaged(path, damage)
    found, todo = _what_it_is(path, start)
    found = found or (f"no NIfTI header ({reason_of(path, error)})" if start else "an empty file")
    return VolumeError(f"{path}: found {found}; expected NIfTI-1 or NIfTI-2. {todo}", code="not-an-image")


def _what_it_is(path: Path, start: bytes) -> tuple[str, str]:
    """What a file that cannot be opened as its name says seems to be (empty where nothing tells), and what to do."""
    compressed, magic = start.startswith(GZIP_MAGIC), (start[344:347], start[4:7])
    if compressed and not is_gzip(path):
        return "a file that is compressed, under a name that says it is not", "Rename it to .nii.gz"
    if is_gzip(path) and any(word in (b"n+1", b"ni1", b"n+2", b"ni2") for word in magic):
        return "a NIfTI that is not compressed, under a name that says it is", "Rename it to .nii"
    if start[128:132] == b"DICM":
        return "a DICOM file", "Convert the series to NIfTI first, with dcm2niix for instance"
    if kind := next((kind for mark, kind in OTHER_KINDS.items() if start.startswith(mark)), ""):
        return kind, "Unpack or convert it to NIfTI first"
    if is_pair(path) and (b"\x5c\x01\x00\x00" in start[:4] or b"\x00\x00\x01\x5c" in start[:4]):
        return "an Analyze header, without a NIfTI's mark", "An Analyze file has no reliable orientation: convert it to NIfTI first"
    return "", "It is damaged or another kind of file"


def stored(volume: Volume) -> Stored:
    """Return the voxels: of a compressed file unpacked once and held where they are few enough, else unpacked by every
    pass."""
    path, data = volume.path, _load_nifti(volume.path).dataobj
    promised = int(np.prod(volume.shape)) * volume.dtype.itemsize
    if is_gzip(path) and promised <= HELD_BYTES:
        return _Scaled(_unpacked(path, data.offset, promised, volume), data.slope, data.inter)
    if volume.frame.slice_axis == 2:
        later = _Streamed(data, len(volume.stored_shape) - 3)
        return _Unpacking(volume, later) if is_gzip(path) else later
    if is_gzip(path):
        _check_gzip(path, data.offset + promised)
    return _Scaled(data.get_unscaled().reshape(volume.shape), data.slope, data.inter)


def _unpacked(path: Path, offset: int, promised: int, volume: Volume) -> NDArray[Any]:
    """The stored array of a compressed file, which is read to its end: a cut or damaged stream is told by its last bytes.

    Raises ``EOFError`` or ``OSError`` for a stream that is cut, damaged or shorter than promised.
    """
    voxels, size, packed = bytearray(), 0, path.stat().st_size
    with igzip.open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            voxels += block[max(0, offset - size) : max(0, offset + promised - size)]
            size += len(block)
            check_unpacked(path, size, packed)
    if size < offset + promised:
        raise EOFError(f"found {size:,} bytes, the header promises {offset + promised:,}")
    return np.frombuffer(voxels, dtype=volume.dtype).reshape(volume.shape, order="F")


@dataclass(frozen=True)
class _Streamed:
    """nibabel's proxy of a file whose slices are stored last; ``trailing`` axes of one follow the third, below 0 it has none."""

    data: Any
    trailing: int

    def plane(self, axis: int, index: int) -> NDArray[Any]:
        """One slice, read now."""
        key = (slice(None), slice(None), index, *([0] * self.trailing)) if self.trailing >= 0 else (slice(None), slice(None))
        return np.asarray(self.data[key])


class _Unpacking:
    """A compressed file that is too large to hold: the first pass forward checks the stream to its end, later ones are
    nibabel's."""

    def __init__(self, volume: Volume, later: _Streamed) -> None:
        self._volume, self._later = volume, later
        self._stream: Any = None
        self._next, self._checked = 0, False

    def plane(self, axis: int, index: int) -> NDArray[Any]:
        """One slice: the next of the first pass, or any other."""
        if not self._checked and index == self._next:
            return self._forward()
        if not self._checked:
            self._checked = True
            _check_gzip(self._volume.path, self._later.data.offset + int(np.prod(self._volume.shape)) * self._volume.dtype.itemsize)
        return self._later.plane(axis, index)

    def _forward(self) -> NDArray[Any]:
        data, (rows, columns, slices), dtype = self._later.data, self._volume.shape, self._volume.dtype
        if self._stream is None:
            self._stream = igzip.open(self._volume.path, "rb")
            self._stream.seek(data.offset)
        block = self._stream.read(rows * columns * dtype.itemsize)
        if len(block) < rows * columns * dtype.itemsize:
            raise EOFError("the compressed voxels end early")
        self._next += 1
        if self._next == slices:
            self._to_the_end()
        return apply_read_scaling(np.frombuffer(block, dtype=dtype).reshape((rows, columns), order="F"), data.slope, data.inter)

    def _to_the_end(self) -> None:
        size, packed = self._stream.tell(), self._volume.path.stat().st_size
        with self._stream:
            while block := self._stream.read(1 << 20):
                size += len(block)
                check_unpacked(self._volume.path, size, packed)
        self._checked = True


@dataclass(frozen=True)
class _Scaled:
    """A stored array whose slope and intercept are applied to what is read, not to the whole."""

    array: NDArray[Any]
    slope: float
    inter: float

    def plane(self, axis: int, index: int) -> NDArray[Any]:
        """One plane across a stored axis."""
        return apply_read_scaling(Held(self.array).plane(axis, index), self.slope, self.inter)
