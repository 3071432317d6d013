"""Open a volume, refuse what cannot be used with the reason, and read canonical slices one at a time."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import nibabel as nib
import numpy as np
from isal import igzip, igzip_lib
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes import dicom, itk
from localdiff_cli.volumes.dicom_header import is_dicom
from localdiff_cli.volumes.dicom_stack import Stack
from localdiff_cli.volumes.geometry import Frame, frame_of
from localdiff_cli.volumes.header_forms import affine_and_doubts
from localdiff_cli.volumes.limits import MAX_DEFLATE_RATIO, check_promise, check_unpacked

NIFTI_SUFFIXES = (".nii.gz", ".nii", ".hdr", ".img")
ITK_SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr")
SUFFIXES = NIFTI_SUFFIXES + ITK_SUFFIXES

MAX_VOXELS = 2**31
MAX_EXTENSION_BYTES = 16 << 20
GZIP_MAGIC = b"\x1f\x8b"
OTHER_KINDS = {
    b"PK\x03\x04": "a zip archive", b"BZh": "a bzip2 file", b"\xfd7zXZ": "an xz file", b"\x28\xb5\x2f\xfd": "a zstd file",
    b"\x89HDF": "HDF5 (MINC 2)", b"CDF": "NetCDF (MINC 1)", b"NRRD": "an NRRD file", b"ObjectTyp": "a MetaImage",
}  # fmt: skip
"""How files of other kinds begin that are found under a NIfTI's name."""
MAX_POINTER_BYTES = 1024
MM_PER_UNIT = {"meter": 1e3, "micron": 1e-3}
"""Spatial units of a NIfTI other than mm; an unknown unit is taken as mm."""

_IGZIP_ERROR: Any = igzip_lib.error
READ_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    OverflowError,
    RuntimeError,
    zlib.error,
    _IGZIP_ERROR,
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    nib.wrapstruct.WrapStructError,
)
"""What nibabel, SimpleITK and the decompressors raise for files that are not what they claim."""


@dataclass(frozen=True)
class Volume:
    """An image volume on disk.

    ``stored_shape`` is what the file says, ``shape`` its three spatial axes (a 2D image has one slice). ``affine`` maps
    stored indices to RAS mm. ``frame`` leads to canonical slices. ``header`` is nibabel's, bit for bit as in the file, or an
    :class:`~localdiff_cli.volumes.itk.ItkHeader`. Of a DICOM series ``path`` is its label, ``header`` that of the NIfTI files derived
    from it, and ``stack`` holds its planes. ``affine_from`` is which form of the header the user trusts, ``doubts`` what contradicts
    itself in it.
    """

    path: Path
    kind: str
    stored_shape: tuple[int, ...]
    shape: tuple[int, int, int]
    dtype: np.dtype
    affine: NDArray
    frame: Frame
    header: Any = field(repr=False)
    stack: Stack | None = field(default=None, repr=False)
    affine_from: str | None = None
    doubts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's name without its image suffix."""
        return stem(self.path)

    @property
    def orientation_known(self) -> bool:
        """False where a NIfTI carries neither an s-form nor a q-form."""
        return self.kind == "itk" or int(self.header["sform_code"]) > 0 or int(self.header["qform_code"]) > 0


def suffix_of(path: Path) -> str | None:
    """The image suffix of a path (lower case, ``.nii.gz`` whole), or None for another kind of file."""
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix) and len(name) > len(suffix)), None)


def stem(path: Path) -> str:
    """The file's name without its image suffix."""
    suffix = suffix_of(path)
    return path.name[: -len(suffix)] if suffix else path.name


def pair_of(path: Path) -> tuple[Path, Path]:
    """The ``.hdr`` and the ``.img`` of a pair named by either; an upper-case suffix stays so."""
    header, image = (".HDR", ".IMG") if path.suffix.isupper() else (".hdr", ".img")
    return path.with_suffix(header), path.with_suffix(image)


def files_of(path: Path) -> tuple[Path, ...]:
    """All files that make up the volume: image and header of a pair, or the one file."""
    suffix = suffix_of(path)
    if suffix in (".hdr", ".img"):
        return tuple(p for p in pair_of(path) if p.exists())
    return itk.data_files(path) if suffix in ITK_SUFFIXES else (path,)


def file_hash(path: Path) -> str:
    """SHA-256 of the bytes of all files of a volume, as hex."""
    if suffix_of(path) is None and is_dicom(path):
        return dicom.series_hash(path)
    digest = hashlib.sha256()
    for part in files_of(path):
        with part.open("rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def absent_content(path: Path) -> str:
    """Why a file's content is not here although its name is: a link that leads nowhere, a pointer of git-annex or git-lfs; else empty."""
    annex = "is a link of git-annex (DataLad) whose content is not here; fetch it first: datalad get"
    if path.is_symlink() and not path.exists():
        target = os.readlink(path)
        return f"{annex} {path.name}" if "annex/objects" in target else f"is a link to {target}, which is not there; mend it or remove it"
    try:
        with path.open("rb") as handle:
            start = handle.read(64) if path.stat().st_size <= MAX_POINTER_BYTES else b""
    except OSError:
        return ""
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of git-lfs whose content is not here; fetch it first: git lfs pull"
    return f"{annex} {path.name}" if start.startswith(b"/annex/objects/") else ""


def open_volume(path: Path, affine_from: str | None = None) -> Volume:
    """Open ``path`` by its header alone.

    ``affine_from``: sform or qform, which of the two holds in a NIfTI that has both (None: the s-form, and where the two contradict each
    other about left and right or the voxel size the volume is refused). Raises :class:`VolumeError` for what cannot be translated.
    """
    suffix = suffix_of(path)
    if suffix is None and is_dicom(path):
        return _open_dicom(path)
    if suffix is None:
        raise VolumeError(f"{path}: not a supported image; expected one of {', '.join(SUFFIXES)}, or DICOM", code="not-an-image")
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        # nibabel and SimpleITK take the process down with such a name.
        raise VolumeError(f"{str(path)!a}: the name is not valid UTF-8; expected one that is. Rename the file", code="bad-name") from error
    if absent := absent_content(path):
        raise VolumeError(f"{path}: {absent}", code="not-fetched")
    if not path.is_file():
        raise VolumeError(f"{path}: no such file", code="not-found")
    if not os.access(path, os.R_OK):
        raise VolumeError(f"{path}: found no permission to read it. Change its permissions", code="unreadable")
    return _open_nifti(path, affine_from) if suffix in NIFTI_SUFFIXES else _open_itk(path)


def _spatial_shape(path: Path, stored: tuple[int, ...]) -> tuple[int, int, int]:
    """The three spatial axes; refuses more than one frame and absurd sizes."""
    if len(stored) < 2 or min(stored, default=0) < 1:
        raise VolumeError(
            f"{path}: found an image of shape {stored}; expected two or three axes of at least one voxel. Its header is damaged",
            code="not-an-image",
        )
    if len(stored) > 3 and np.prod(stored[3:], dtype=float) != 1:
        raise VolumeError(
            f"{path}: found shape {stored}, more than one frame; expected a 3D volume (or 4D with one frame). Split the frames first",
            code="more-than-one-frame",
        )
    shape = (*stored[:3], 1)[:3]
    if np.prod(shape, dtype=float) > MAX_VOXELS:
        raise VolumeError(
            f"{path}: the header promises {' × '.join(map(str, stored))} voxels; expected at most {MAX_VOXELS:,}. Its header is damaged",
            code="absurd-size",
        )
    return int(shape[0]), int(shape[1]), int(shape[2])


def _frame(path: Path, affine: NDArray, shape: tuple[int, int, int]) -> Frame:
    try:
        with np.errstate(all="ignore"):
            return frame_of(affine, shape)
    except (ValueError, IndexError) as error:
        raise VolumeError(
            f"{path}: found an affine that is singular or not finite ({np.asarray(affine)[:3].tolist()}); expected an invertible one. "
            "Repair the header",
            code="singular-affine",
        ) from error


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
    check_promise(path, promised, file.stat().st_size, MAX_DEFLATE_RATIO if _is_gzip(file) else 1)


def _is_gzip(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _check_gzip(path: Path, promised: int = 0) -> None:
    """Decompress the whole stream once. Raises ``EOFError`` or ``OSError`` where it is cut, damaged or shorter than ``promised``."""
    size, packed = 0, path.stat().st_size
    with igzip.open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            size += len(block)
            check_unpacked(path, size, packed)
    if size < promised:
        raise EOFError(f"found {size:,} bytes, the header promises {promised:,}")


def _nifti_kind(path: Path) -> Any:
    """The nibabel class for the file by its suffix and its header, the header's extensions checked.

    Raises ``ValueError`` for another kind of file, and for extensions that are absurd: nibabel reads them whole, whatever they claim.
    """
    pair = suffix_of(path) in (".hdr", ".img")
    kinds = (nib.Nifti1Pair, nib.Nifti2Pair) if pair else (nib.Nifti1Image, nib.Nifti2Image)
    with igzip.open(path, "rb") if _is_gzip(path) else (pair_of(path)[0] if pair else path).open("rb") as stream:
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


def _open_nifti(path: Path, affine_from: str | None) -> Volume:
    _check_pair(path)
    try:
        image = _load_nifti(path)
        stored = tuple(int(n) for n in image.shape)
        shape = _spatial_shape(path, stored)
        dtype = image.get_data_dtype()
        _check_nifti_dtype(path, dtype)
        _check_nifti_bytes(path, image, shape)
        with _quiet():
            scale, header = MM_PER_UNIT.get(image.header.get_xyzt_units()[0], 1.0), _raw_header(image)
            affine, doubts = affine_and_doubts(path, image, shape, scale, affine_from)
    except READ_ERRORS as error:
        raise _not_nifti(path, error) from error
    return Volume(path, "nifti", stored, shape, dtype, affine, _frame(path, affine, shape), header, affine_from=affine_from, doubts=doubts)


def _check_pair(path: Path) -> None:
    if suffix_of(path) not in (".hdr", ".img"):
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
        if start.startswith(GZIP_MAGIC) and _is_gzip(path):
            _check_gzip(path)
    except READ_ERRORS as damage:
        return _damaged(path, damage)
    found, todo = _what_it_is(path, start)
    found = found or (f"no NIfTI header ({_reason(path, error)})" if start else "an empty file")
    return VolumeError(f"{path}: found {found}; expected NIfTI-1 or NIfTI-2. {todo}", code="not-an-image")


def _what_it_is(path: Path, start: bytes) -> tuple[str, str]:
    """What a file that cannot be opened as its name says seems to be (empty where nothing tells), and what to do."""
    compressed, magic = start.startswith(GZIP_MAGIC), (start[344:347], start[4:7])
    if compressed and not _is_gzip(path):
        return "a file that is compressed, under a name that says it is not", "Rename it to .nii.gz"
    if _is_gzip(path) and any(word in (b"n+1", b"ni1", b"n+2", b"ni2") for word in magic):
        return "a NIfTI that is not compressed, under a name that says it is", "Rename it to .nii"
    if start[128:132] == b"DICM":
        return "a DICOM file", "Convert the series to NIfTI first, with dcm2niix for instance"
    if (kind := next((kind for mark, kind in OTHER_KINDS.items() if start.startswith(mark)), "")):
        return kind, "Unpack or convert it to NIfTI first"
    if suffix_of(path) in (".hdr", ".img") and (b"\x5c\x01\x00\x00" in start[:4] or b"\x00\x00\x01\x5c" in start[:4]):
        return "an Analyze header, without a NIfTI's mark", "An Analyze file has no reliable orientation: convert it to NIfTI first"
    return "", "It is damaged or another kind of file"


def _damaged(path: Path, error: BaseException) -> VolumeError:
    if isinstance(error, FileNotFoundError):
        return VolumeError(f"{path}: the file vanished while it was being read. Put it back and run again", code="not-found")
    return VolumeError(
        f"{path}: found voxels that cannot be read ({_reason(path, error)}); expected as many as the header promises. "
        "The file is truncated or damaged: copy it again",
        code="truncated",
    )


def _reason(path: Path, error: BaseException) -> str:
    """The first line of a library's error, without the path that the message already names."""
    if isinstance(error, RuntimeError):
        return "SimpleITK gave up"
    line = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return line.replace(str(path), path.name)


def _open_itk(path: Path) -> Volume:
    header = itk.read_header(path)
    shape = _spatial_shape(path, header.shape)
    affine = header.affine()
    return Volume(path, "itk", header.shape, shape, header.dtype, affine, _frame(path, affine, shape), header)


def _open_dicom(path: Path) -> Volume:
    stack = dicom.open_stack(path)
    label = Path(stack.series.label)
    frame = _frame(label, stack.affine, _spatial_shape(label, stack.shape))
    return Volume(label, "dicom", stack.shape, stack.shape, np.dtype(np.float32), stack.affine, frame, dicom.nifti_header(stack), stack)


class SliceReader:
    """Canonical slices of a volume, float32, one at a time.

    Reading in :meth:`order` streams forward through a NIfTI whose slices are stored last; other layouts hold the stored
    array once, in its own data type.
    """

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        try:
            self._source = self._open()
        except READ_ERRORS as error:
            raise _damaged(volume.path, error) from error

    def _open(self) -> Any:
        volume = self.volume
        if volume.stack is not None:
            return dicom.read_array(volume.stack)
        if volume.kind == "itk":
            return itk.read_array(volume.path, volume.header).reshape(volume.shape)
        data = _load_nifti(volume.path).dataobj
        if _is_gzip(volume.path):
            _check_gzip(volume.path, data.offset + int(np.prod(volume.shape)) * volume.dtype.itemsize)
        if volume.frame.slice_axis == 2:
            return data
        return _Scaled(data.get_unscaled().reshape(volume.shape), data.slope, data.inter)

    def order(self) -> list[int]:
        """Canonical slice numbers in the order in which the file stores them."""
        return [self.volume.frame.stored_index(i) for i in range(self.volume.frame.shape[0])]

    def read(self, k: int) -> NDArray[np.float32]:
        """Canonical slice ``k`` as ``(rows, columns)`` float32. Raises :class:`VolumeError` for damaged data."""
        frame = self.volume.frame
        # What overflows here is infinite, and refused as such by whoever surveys the volume.
        with np.errstate(over="ignore", invalid="ignore"):
            try:
                stored = self._stored_slice(frame.stored_index(k))
            except READ_ERRORS as error:
                raise _damaged(self.volume.path, error) from error
            return np.ascontiguousarray(frame.slice_to_canonical(stored), dtype=np.float32)

    def _stored_slice(self, index: int) -> NDArray:
        frame = self.volume.frame
        if self.volume.kind == "nifti" and frame.slice_axis == 2:
            trailing = len(self.volume.stored_shape) - 3
            key = (slice(None), slice(None), index, *([0] * trailing)) if trailing >= 0 else (slice(None), slice(None))
            return np.asarray(self._source[key])
        key3: list[Any] = [slice(None)] * 3
        key3[frame.slice_axis] = index
        return np.asarray(self._source[tuple(key3)])

    def __iter__(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        for k in self.order():
            yield k, self.read(k)


@dataclass(frozen=True)
class _Scaled:
    """A stored array whose slope and intercept are applied to what is read, not to the whole."""

    array: NDArray
    slope: float
    inter: float

    def __getitem__(self, key: Any) -> NDArray:
        return apply_read_scaling(self.array[key], self.slope, self.inter)
