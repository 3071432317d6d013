"""A DICOM series as a volume: found in a folder, opened by its headers, its voxels decoded, its content hashed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from localdiff_cli.errors import NoInputError, UsageError, VolumeError
from localdiff_cli.volumes.formats.dicom.header import Plane, Series, all_series, discreet, is_dicom, need_pydicom
from localdiff_cli.volumes.formats.dicom.stack import Stack, stack


def series_below(folder: Path) -> list[Series]:
    """Return every MR series below a folder, by label; links to folders are not followed.

    Raise :class:`NoInputError` for DICOM files without an MR image, :class:`UsageError` for a series whose files lie in
    several folders (each part would pass for a smaller volume) or where pydicom is missing.
    """
    found, others = list[Series](), False
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if any(is_dicom(Path(base) / name) for name in names):
            series = all_series(Path(base))
            others |= not series
            found += series
    seen: dict[str, int] = {}
    for one in found:
        seen[one.label] = seen.get(one.label, 0) + 1
    for label, count in seen.items():
        if count > 1:
            raise UsageError(f"{label}: its files lie in {count} folders; expected one. Copy them together", code="dicom-spread")
    if others and not found:
        raise NoInputError("--in: found DICOM files, but no MR image among them; expected classic or enhanced MR", code="no-input")
    return sorted(found, key=lambda one: one.label)


def series_of(path: Path) -> Series:
    """Return the series that a DICOM file belongs to, with the other files of its folder. Raise :class:`VolumeError` for no
    MR image."""
    found = [series for series in all_series(path.parent) if path in {plane.file for plane in series.planes}]
    if not found:
        raise VolumeError("a DICOM file of the input: found no MR image; expected classic or enhanced MR", code="dicom-kind")
    return found[0]


def open_stack(path: Path) -> Stack:
    """Return the volume that a DICOM file is part of. Raise :class:`VolumeError` where the series is none."""
    return stack(series_of(path))


def nifti_header(volume: Stack) -> Any:
    """Return the NIfTI-1 header of what is derived from a series: its geometry as s-form and q-form, scanner coordinates,
    mm."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape(volume.shape)
    header.set_xyzt_units("mm")
    header.set_sform(volume.affine, code=1)
    header.set_qform(volume.affine, code=1)
    return header


def read_array(volume: Stack) -> NDArray[np.float32]:
    """Return the real values of all voxels, ``(columns, rows, slices)`` float32. Raise :class:`VolumeError` for damaged
    pixels."""
    array = np.empty(volume.shape, dtype=np.float32)
    with discreet(volume.series.label, "its pixels cannot be decoded"):
        for k, image in _images(volume):
            array[:, :, k] = image.T
    return array


def _images(volume: Stack) -> Iterator[tuple[int, NDArray[Any]]]:
    """Slice number and real values ``(rows, columns)`` of every plane, each file decoded once."""
    by_file: dict[Path, list[tuple[int, Plane]]] = {}
    for k, plane in enumerate(volume.planes):
        by_file.setdefault(plane.file, []).append((k, plane))
    for file, planes in by_file.items():
        frames = _packed(volume, file, [plane for _, plane in planes]) if planes[0][1].packed else _plain(file, planes[0][1].size)
        for k, plane in planes:
            image = frames[plane.frame or 0]
            yield k, image if plane.packed else image * plane.slope + plane.intercept


def _plain(file: Path, size: tuple[int, int]) -> NDArray[Any]:
    """The stored values ``(frames, rows, columns)`` of a file whose pixels are not compressed."""
    pydicom = need_pydicom("Reading DICOM")
    return np.asarray(pydicom.dcmread(file).pixel_array, dtype=np.float64).reshape(-1, *size)


def _packed(volume: Stack, file: Path, planes: list[Plane]) -> NDArray[Any]:
    """The real values ``(frames, rows, columns)`` of compressed pixels, decoded and scaled by GDCM; it knows one scale a file."""
    if len({(plane.slope, plane.intercept) for plane in planes}) > 1:
        raise VolumeError(
            f"{volume.series.label}: found compressed frames of several scales in one file; expected one. Decompress it first, for "
            "instance with gdcmconv --raw", code="dicom-kind",
        )  # fmt: skip
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file), sitk.sitkFloat64, imageIO="GDCMImageIO")).reshape(-1, *planes[0].size)


def series_hash(path: Path) -> str:
    """Return the SHA-256 of the bytes of all files of a series, in the order of their instances, whatever they are called."""
    series = series_of(path)
    files = [file for _, file in sorted({(plane.instance, plane.file) for plane in series.planes})]
    digest = hashlib.sha256()
    with discreet(series.label):
        for file in files:
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()
