"""MetaImage and NRRD through SimpleITK: headers and arrays in, files of the same kind and geometry out."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.formats.itk.header import NRRD_END, TEXT, Storage, checked_storage, is_nrrd
from localdiff_cli.volumes.limits import check_promise, check_unpacked

BLOCK_BYTES = 1 << 16
NRRD_SPACE_KEYS = ("space", "space directions", "space origin")


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
        """Return the map from stored indices to RAS mm, 4 × 4; a missing third axis has spacing 1."""
        n = len(self.shape)
        direction = np.eye(max(n, 3))
        direction[:n, :n] = np.reshape(self.direction, (n, n))
        affine = np.eye(4)
        affine[:3, :3] = direction[:3, :3] * np.asarray((*self.spacing, 1.0)[:3])
        affine[:3, 3] = (*self.origin, 0.0)[:3]
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _sitk() -> Any:
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk


def _image_io(path: Path) -> str:
    """The one reader of SimpleITK that may see the file: by its content alone, others would take it for their own."""
    return "NrrdImageIO" if is_nrrd(path) else "MetaImageIO"


def read_header(path: Path) -> ItkHeader:
    """Read the header alone. Raise :class:`VolumeError` for what is no image of single grey values or lacks its voxels."""
    storage = checked_storage(path)
    sitk = _sitk()
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_image_io(path))
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
    check_promise(path, float(np.prod(shape, dtype=float)) * dtype.itemsize, storage.size, storage.ratio)
    space = tuple((key, storage.fields[key]) for key in NRRD_SPACE_KEYS if key in storage.fields)
    exact = space if len(shape) <= 3 and "space directions" in storage.fields else ()
    return ItkHeader(shape, dtype, reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection(), exact)


def read_array(path: Path, header: ItkHeader) -> NDArray[Any]:
    """Return all voxels in their own data type, in stored axis order.

    Raise ``EOFError`` or ``zlib.error`` for a damaged stream (which MetaIO would pass over), ``RuntimeError`` by SimpleITK.
    """
    storage = checked_storage(path)
    if storage.zlib:
        _check_zlib(path, storage, int(np.prod(header.shape)) * header.dtype.itemsize)
    sitk = _sitk()
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO=_image_io(path))).T


def _check_zlib(path: Path, storage: Storage, promised: int) -> None:
    stream, size = zlib.decompressobj(wbits=47), 0
    with storage.file.open("rb") as handle:
        handle.seek(storage.offset)
        while not stream.eof and (block := stream.unconsumed_tail or handle.read(BLOCK_BYTES)):
            size += len(stream.decompress(block, 16 * BLOCK_BYTES))
            check_unpacked(path, size, storage.size)
    if size < promised or not stream.eof:
        raise EOFError("the compressed voxels end early")


def write(path: Path, array: NDArray[Any], header: ItkHeader, description: str) -> None:
    """Write ``array`` (stored axis order) with the geometry of ``header`` and nothing else of it. Raise ``OSError``."""
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
    if header.nrrd_space and is_nrrd(path):
        _restore_space(path, dict(header.nrrd_space))


def _restore_space(path: Path, space: dict[str, str]) -> None:
    """State the geometry in the words of the file that was read: ITK multiplies spacing and direction, and rounds."""
    whole = path.read_bytes()
    end = NRRD_END.search(whole)
    cut = end.start() if end else len(whole)
    lines = whole[:cut].decode(*TEXT).splitlines(keepends=True)
    for number, line in enumerate(lines):
        key, _, rest = line.partition(":")
        if key in space and not rest.startswith("="):
            lines[number] = line.replace(rest.strip(), space[key])
    path.write_bytes("".join(lines).encode(*TEXT) + whole[cut:])
