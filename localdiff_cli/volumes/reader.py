"""Open a volume, refuse what cannot be used with the reason, and read canonical slices one at a time."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.geometry import Frame, frame_of

NIFTI_SUFFIXES = (".nii.gz", ".nii", ".hdr", ".img")
ITK_SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr")
SUFFIXES = NIFTI_SUFFIXES + ITK_SUFFIXES

MAX_VOXELS = 2**31
MAX_DEFLATE_RATIO = 1040
"""DEFLATE cannot expand more than 1032 times: a header that promises more than that is wrong."""

READ_ERRORS = (OSError, EOFError, ValueError, KeyError, TypeError, IndexError, OverflowError, zlib.error, nib.filebasedimages.ImageFileError)


@dataclass(frozen=True)
class Volume:
    """An image volume on disk.

    ``stored_shape`` is what the file says, ``shape`` its three spatial axes (a 2D image has one slice). ``affine`` maps
    stored indices to RAS mm. ``frame`` leads to canonical slices. ``header`` is the library's own header object.
    """

    path: Path
    kind: str
    stored_shape: tuple[int, ...]
    shape: tuple[int, int, int]
    dtype: np.dtype
    affine: NDArray
    frame: Frame
    header: Any = field(repr=False)

    @property
    def name(self) -> str:
        """The file's name without its image suffix."""
        return stem(self.path)

    @property
    def orientation_known(self) -> bool:
        """False where a NIfTI carries neither an s-form nor a q-form."""
        return self.kind != "nifti" or int(self.header["sform_code"]) > 0 or int(self.header["qform_code"]) > 0


def suffix_of(path: Path) -> str | None:
    """The image suffix of a path (lower case, ``.nii.gz`` whole), or None for another kind of file."""
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix) and len(name) > len(suffix)), None)


def stem(path: Path) -> str:
    """The file's name without its image suffix."""
    suffix = suffix_of(path)
    return path.name[: -len(suffix)] if suffix else path.name


def files_of(path: Path) -> tuple[Path, ...]:
    """All files that make up the volume: image and header of a pair, or the one file."""
    suffix = suffix_of(path)
    if suffix in (".hdr", ".img"):
        return tuple(sorted(p for p in (path.with_suffix(".hdr"), path.with_suffix(".img")) if p.exists()))
    if suffix in (".mhd", ".nhdr"):
        return (path, *sorted(p for s in (".raw", ".zraw", ".raw.gz") if (p := path.with_name(stem(path) + s)).exists()))
    return (path,)


def file_hash(path: Path) -> str:
    """SHA-256 of the bytes of all files of a volume, as hex."""
    digest = hashlib.sha256()
    for part in files_of(path):
        with part.open("rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def open_volume(path: Path) -> Volume:
    """Open ``path`` by its header alone. Raises :class:`VolumeError` for what cannot be translated."""
    suffix = suffix_of(path)
    if suffix is None:
        raise VolumeError(f"{path}: not a supported image; expected one of {', '.join(SUFFIXES)}", code="not-an-image")
    if not path.is_file():
        raise VolumeError(f"{path}: no such file", code="not-found")
    return _open_nifti(path) if suffix in NIFTI_SUFFIXES else _open_itk(path)


def _spatial_shape(path: Path, stored: tuple[int, ...]) -> tuple[int, int, int]:
    """The three spatial axes; refuses more than one frame and absurd sizes."""
    if len(stored) < 2 or min(stored, default=0) < 1:
        raise VolumeError(f"{path}: found an image of shape {stored}; expected two or three axes of at least one voxel", code="not-an-image")
    if len(stored) > 3 and np.prod(stored[3:], dtype=float) != 1:
        raise VolumeError(
            f"{path}: found shape {stored}, more than one frame; expected a 3D volume (or 4D with one frame). Split the frames first",
            code="more-than-one-frame",
        )
    shape = (*stored[:3], 1)[:3]
    if np.prod(shape, dtype=float) > MAX_VOXELS:
        raise VolumeError(f"{path}: the header promises {stored} voxels; the limit is {MAX_VOXELS:,}", code="absurd-size")
    return int(shape[0]), int(shape[1]), int(shape[2])


def _frame(path: Path, affine: NDArray, shape: tuple[int, int, int]) -> Frame:
    try:
        return frame_of(affine, shape)
    except (ValueError, IndexError) as error:
        raise VolumeError(
            f"{path}: the affine is singular or not finite ({np.asarray(affine)[:3].tolist()}); expected an invertible one. Repair the header",
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
    promised = float(np.prod(shape, dtype=float)) * image.get_data_dtype().itemsize
    data_file = Path(image.file_map["image"].filename)
    size = data_file.stat().st_size
    compressed = data_file.name.lower().endswith(".gz")
    if promised > size * (MAX_DEFLATE_RATIO if compressed else 1):
        code = "absurd-size" if promised > 64 * max(size, 1) * (MAX_DEFLATE_RATIO if compressed else 1) else "truncated"
        raise VolumeError(
            f"{path}: the header promises {promised:,.0f} bytes of data, the file has {size:,}; it is truncated or its header is wrong. "
            "Copy the file again",
            code=code,
        )


def _open_nifti(path: Path) -> Volume:
    try:
        image = nib.load(path, keep_file_open=True)
        if not isinstance(image, nib.Nifti1Pair):
            raise VolumeError(
                f"{path}: found {type(image).__name__}, which has no reliable orientation; expected NIfTI-1 or NIfTI-2", code="not-an-image"
            )
        stored = tuple(int(n) for n in image.shape)
        shape = _spatial_shape(path, stored)
        _check_nifti_dtype(path, image.get_data_dtype())
        _check_nifti_bytes(path, image, shape)
        affine = np.asarray(image.affine, dtype=np.float64)
    except VolumeError:
        raise
    except (*READ_ERRORS, nib.spatialimages.HeaderDataError) as error:
        raise VolumeError(f"{path}: cannot be read as NIfTI ({_reason(error)}); it is damaged or another kind of file", code=_read_code(error)) from error
    return Volume(path, "nifti", stored, shape, image.get_data_dtype(), affine, _frame(path, affine, shape), image.header)


def _reason(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _read_code(error: BaseException) -> str:
    return "truncated" if isinstance(error, EOFError | zlib.error) or "end of" in str(error).lower() else "not-an-image"


def _itk_affine(reader: Any) -> NDArray:
    """The RAS affine of an ITK image, whose own world is LPS."""
    n = reader.GetDimension()
    direction = np.eye(3)
    direction[:n, :n] = np.reshape(reader.GetDirection(), (n, n))[:3, :3]
    affine = np.eye(4)
    spacing = (*reader.GetSpacing(), 1.0)[:3]
    affine[:3, :3] = direction * np.asarray(spacing)
    affine[:3, 3] = (*reader.GetOrigin(), 0.0)[:3]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _open_itk(path: Path) -> Volume:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise VolumeError(f"{path}: cannot be read as an ITK image; it is damaged or another kind of file", code="not-an-image") from error
    if reader.GetNumberOfComponents() != 1:
        raise VolumeError(f"{path}: found {reader.GetNumberOfComponents()} values per voxel; expected one grey value", code="colour")
    pixel = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    if "complex" in pixel or "vector" in pixel:
        raise VolumeError(f"{path}: found {pixel}; expected real grey values", code="complex")
    if reader.GetDimension() > 3:
        raise VolumeError(f"{path}: found {reader.GetDimension()} axes; expected a 3D volume. Split the frames first", code="more-than-one-frame")
    stored = tuple(int(n) for n in reader.GetSize())
    shape = _spatial_shape(path, stored)
    affine = _itk_affine(reader)
    return Volume(path, "itk", stored, shape, np.dtype(np.float32), affine, _frame(path, affine, shape), reader)


class SliceReader:
    """Canonical slices of a volume, float32, one at a time.

    Reading in :meth:`order` streams forward through a NIfTI whose slices are stored last; other layouts hold the stored
    array once, in its own data type.
    """

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        try:
            self._source = self._open()
        except (*READ_ERRORS, RuntimeError) as error:
            raise self._damaged(error) from error

    def _open(self) -> Any:
        volume = self.volume
        if volume.kind == "itk":
            import SimpleITK as sitk

            array = sitk.GetArrayFromImage(sitk.ReadImage(str(volume.path)))
            return array.T.reshape(volume.shape)
        image = nib.load(volume.path, keep_file_open=True)
        if volume.frame.slice_axis == 2:
            return image.dataobj
        slope, inter = image.header.get_slope_inter()
        unscaled = image.dataobj.get_unscaled().reshape(volume.shape)
        return _Scaled(unscaled, 1.0 if slope is None else slope, 0.0 if inter is None else inter)

    def _damaged(self, error: BaseException) -> VolumeError:
        return VolumeError(
            f"{self.volume.path}: the image data cannot be read ({_reason(error)}); the file is truncated or damaged. Copy it again",
            code="truncated",
        )

    def order(self) -> list[int]:
        """Canonical slice numbers in the order in which the file stores them."""
        return [self.volume.frame.stored_index(i) for i in range(self.volume.frame.shape[0])]

    def read(self, k: int) -> NDArray[np.float32]:
        """Canonical slice ``k`` as ``(rows, columns)`` float32. Raises :class:`VolumeError` for damaged data."""
        frame = self.volume.frame
        try:
            stored = self._stored_slice(frame.stored_index(k))
        except (*READ_ERRORS, RuntimeError) as error:
            raise self._damaged(error) from error
        with np.errstate(over="ignore", invalid="ignore"):
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
        part = self.array[key]
        return part if (self.slope, self.inter) == (1.0, 0.0) else part.astype(np.float64) * self.slope + self.inter
