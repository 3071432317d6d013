"""Open a volume, refuse what cannot be used with the reason, and read canonical slices one at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.files import absent_content
from localdiff_cli.volumes.formats import format_of, suffix_of, suffixes
from localdiff_cli.volumes.volume import Volume, damaged


def open_volume(path: Path, affine_from: str | None = None) -> Volume:
    """Open ``path`` by its header alone.

    ``affine_from``: sform or qform, which of the two holds in a NIfTI that has both (None: the s-form, and where the two
    contradict each other about left and right or the voxel size the volume is refused). Raise :class:`VolumeError` for what
    cannot be translated.
    """
    found = format_of(path)
    if found is None:
        raise VolumeError(f"{path}: not a supported image; expected one of {', '.join(suffixes())}, or DICOM", code="not-an-image")
    if suffix_of(path) is not None:
        _check_file(path)
    return found.open(path, affine_from)


def _check_file(path: Path) -> None:
    """Refuse a name that would crash a library, and a file that is not here or cannot be read."""
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


class SliceReader:
    """Canonical slices of a volume, float32, one at a time.

    What the format unpacks once is held in its own data type; other files are read as slices are asked for, and reading in
    :meth:`order` then goes forward through the file.
    """

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        try:
            self._stored = volume.format.read(volume)
        except volume.format.errors as error:
            raise damaged(volume.path, error) from error

    def order(self) -> list[int]:
        """Return the canonical slice numbers in the order in which the file stores them."""
        return [self.volume.frame.stored_index(i) for i in range(self.volume.frame.shape[0])]

    def read(self, k: int) -> NDArray[np.float32]:
        """Return canonical slice ``k`` as ``(rows, columns)`` float32. Raise :class:`VolumeError` for damaged data."""
        frame = self.volume.frame
        # What overflows here is infinite, and refused as such when the volume is surveyed.
        with np.errstate(over="ignore", invalid="ignore"):
            try:
                stored = self._stored.plane(frame.slice_axis, frame.stored_index(k))
            except self.volume.format.errors as error:
                raise damaged(self.volume.path, error) from error
            return np.ascontiguousarray(frame.slice_to_canonical(stored), dtype=np.float32)

    def __iter__(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        for k in self.order():
            yield k, self.read(k)
