"""MetaImage and NRRD through SimpleITK: headers and arrays in, files of the same kind and geometry out."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.errors import VolumeError

MAX_DEFLATE_RATIO = 1040
"""DEFLATE cannot expand more than 1032 times: a header that promises more than that is wrong."""

HEADER_BYTES = 1 << 16
TEXT = ("utf-8", "surrogateescape")
NRRD_SPACE_KEYS = ("space", "space directions", "space origin")
_FIELD = re.compile(r"([\w ]+?)\s*(?:=|:(?!=))\s*(.*)")
_NRRD_END = re.compile(rb"\r?\n\r?\n")
_META_END = re.compile(rb"ElementDataFile\s*=[^\n]*\n?")


@dataclass(frozen=True)
class ItkHeader:
    """The geometry of an ITK image in ITK's own terms (LPS mm), and the lines of an NRRD file that state it exactly."""

    shape: tuple[int, ...]
    dtype: np.dtype
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    nrrd_space: tuple[tuple[str, str], ...] = ()

    def affine(self) -> NDArray[np.float64]:
        """Stored indices → RAS mm, 4 × 4; a missing third axis has spacing 1."""
        n = len(self.shape)
        direction = np.eye(max(n, 3))
        direction[:n, :n] = np.reshape(self.direction, (n, n))
        affine = np.eye(4)
        affine[:3, :3] = direction[:3, :3] * np.asarray((*self.spacing, 1.0)[:3])
        affine[:3, 3] = (*self.origin, 0.0)[:3]
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


@dataclass(frozen=True)
class _Storage:
    """Where the voxels of an ITK image lie: header fields (lower-case keys), data file, offset of the data, how encoded."""

    fields: dict[str, str]
    file: Path
    offset: int
    zlib: bool
    raw: bool


def _sitk() -> Any:
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk


def _storage(path: Path) -> _Storage:
    with path.open("rb") as handle:
        head = handle.read(HEADER_BYTES)
    end = (_NRRD_END if head.startswith(b"NRRD") else _META_END).search(head)
    offset = end.end() if end else len(head)
    lines = head[:offset].decode(*TEXT).splitlines()
    fields = {match[1].strip().lower(): match[2].strip() for line in lines if (match := _FIELD.match(line))}
    name = fields.get("elementdatafile") or fields.get("data file") or fields.get("datafile") or "LOCAL"
    local = name.upper() == "LOCAL"
    packed = fields.get("compresseddata", "").lower() == "true"
    raw = not packed and fields.get("encoding", "raw").lower() == "raw" and fields.get("binarydata", "true").lower() == "true"
    return _Storage(fields, path if local else path.parent / name, offset if local else 0, packed, raw)


def data_files(path: Path) -> tuple[Path, ...]:
    """The header file and, where it names another file for the voxels that exists, that one."""
    if not path.is_file():
        return (path,)
    file = _storage(path).file
    return (path, file) if file != path and file.is_file() else (path,)


def read_header(path: Path) -> ItkHeader:
    """Read the header alone. Raises :class:`VolumeError` for what is no image of single grey values or lacks its voxels."""
    storage = _checked_storage(path)
    sitk = _sitk()
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise VolumeError(
            f"{path}: found no header that SimpleITK can read; expected MetaImage or NRRD. It is damaged or another kind of file",
            code="not-an-image",
        ) from error
    pixel, count = sitk.GetPixelIDValueAsString(reader.GetPixelID()), reader.GetNumberOfComponents()
    if "complex" in pixel:
        raise VolumeError(f"{path}: found {pixel} voxels; expected real grey values. Save the magnitude first", code="complex")
    if count != 1 or "vector" in pixel:
        raise VolumeError(f"{path}: found {count} values per voxel; expected one grey value. Save one channel first", code="colour")
    dtype = sitk.GetArrayViewFromImage(sitk.Image([1, 1], reader.GetPixelID())).dtype
    shape = tuple(int(n) for n in reader.GetSize())
    _check_size(path, storage, float(np.prod(shape, dtype=float)) * dtype.itemsize)
    space = tuple((key, storage.fields[key]) for key in NRRD_SPACE_KEYS if key in storage.fields)
    exact = space if len(shape) <= 3 and "space directions" in storage.fields else ()
    return ItkHeader(shape, dtype, reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection(), exact)


def _checked_storage(path: Path) -> _Storage:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise VolumeError(
            f"{str(path)!a}: found a name that is not valid UTF-8, which SimpleITK cannot open. Rename the file", code="bad-name"
        ) from error
    storage = _storage(path)
    if not storage.file.is_file():
        raise VolumeError(
            f"{path}: found no file {storage.file}, where its header places the voxels; expected one file of voxels. Copy it there",
            code="not-found",
        )
    return storage


def _check_size(path: Path, storage: _Storage, promised: float) -> None:
    """Refuse a header that promises more than its data file can hold, before anything is allocated."""
    room = (storage.file.stat().st_size - storage.offset) * (1 if storage.raw else MAX_DEFLATE_RATIO)
    if promised > room:
        raise size_error(path, promised, room)


def size_error(path: Path, promised: float, room: float) -> VolumeError:
    """The error for a header that promises ``promised`` bytes of voxels where at most ``room`` are."""
    return VolumeError(
        f"{path}: the header promises {promised:,.0f} bytes of voxels, the file holds at most {max(room, 0):,.0f}; it is truncated or its "
        "header is wrong. Copy the file again",
        code="absurd-size" if promised > 64 * max(room, 1) else "truncated",
    )


def read_array(path: Path, header: ItkHeader) -> NDArray:
    """All voxels in their own data type, in stored axis order.

    Raises ``EOFError`` or ``zlib.error`` for a damaged stream (which MetaIO would pass over), ``RuntimeError`` by SimpleITK.
    """
    storage = _checked_storage(path)
    if storage.zlib:
        _check_zlib(storage, int(np.prod(header.shape)) * header.dtype.itemsize)
    sitk = _sitk()
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T


def _check_zlib(storage: _Storage, promised: int) -> None:
    stream, size = zlib.decompressobj(wbits=47), 0
    with storage.file.open("rb") as handle:
        handle.seek(storage.offset)
        while (block := handle.read(HEADER_BYTES)) and not stream.eof:
            size += len(stream.decompress(block))
    if size < promised or not stream.eof:
        raise EOFError("the compressed voxels end early")


def write(path: Path, array: NDArray, header: ItkHeader, description: str) -> None:
    """Write ``array`` (stored axis order) with the geometry of ``header`` and nothing else of it. Raises ``OSError``."""
    sitk = _sitk()
    image = sitk.GetImageFromArray(array.reshape(header.shape).T, isVector=False)
    image.SetSpacing(header.spacing)
    image.SetOrigin(header.origin)
    image.SetDirection(header.direction)
    image.SetMetaData("descrip", description)
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:
        raise OSError("SimpleITK could not write the image; is the disk full?") from error
    if header.nrrd_space and path.suffix.lower() in (".nrrd", ".nhdr"):
        _restore_space(path, dict(header.nrrd_space))


def _restore_space(path: Path, space: dict[str, str]) -> None:
    """State the geometry in the words of the file that was read: ITK multiplies spacing and direction, and rounds."""
    whole = path.read_bytes()
    end = _NRRD_END.search(whole)
    cut = end.start() if end else len(whole)
    lines = whole[:cut].decode(*TEXT).splitlines(keepends=True)
    for number, line in enumerate(lines):
        key, _, rest = line.partition(":")
        if key in space and not rest.startswith("="):
            lines[number] = line.replace(rest.strip(), space[key])
    path.write_bytes("".join(lines).encode(*TEXT) + whole[cut:])
