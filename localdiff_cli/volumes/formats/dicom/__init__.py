"""DICOM series of MR images: read as volumes; what is made of one is written as NIfTI, and once more as DICOM by
``--dicom-out``."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localdiff_cli.volumes.formats.nifti import FORMAT as NIFTI
from localdiff_cli.volumes.formats.seam import Content, Format, Put, Stored

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from localdiff_cli.volumes.volume import Volume


class Dicom(Format):
    """A series, named by one of its files; known by content, never by name."""

    said = "DICOM series"
    scales = True
    streams = True

    def holds(self, path: Path) -> bool:
        """Return whether the file begins as DICOM does."""
        from localdiff_cli.volumes.formats.dicom.header import is_dicom

        return is_dicom(path)

    def hash(self, path: Path) -> str:
        """Return the SHA-256 of all files of the series, in the order of their instances."""
        from localdiff_cli.volumes.formats.dicom.series import series_hash

        return series_hash(path)

    def open(self, path: Path, affine_from: str | None) -> Volume:
        """Return the volume that a file is part of. Its path is the series' label: file names may bear the patient's."""
        import numpy as np

        from localdiff_cli.volumes.formats.dicom.series import nifti_header, open_stack
        from localdiff_cli.volumes.volume import Volume, frame_in, spatial_shape

        stack = open_stack(path)
        label = Path(stack.series.label)
        frame = frame_in(label, stack.affine, spatial_shape(label, stack.shape))
        header, dtype = nifti_header(stack), np.dtype(np.float32)
        return Volume(label, self, stack.shape, stack.shape, dtype, stack.affine, frame, header, stack=stack)

    def read(self, volume: Volume) -> Stored:
        """Decode all planes."""
        from localdiff_cli.volumes.formats.dicom.series import read_array
        from localdiff_cli.volumes.volume import Held

        assert volume.stack is not None
        return Held(read_array(volume.stack))

    def write(self, path: Path, array: NDArray[Any], volume: Volume, content: Content) -> None:
        """Write a stored array as NIfTI."""
        NIFTI.write(path, array, volume, content)

    def stream(self, path: Path, volume: Volume, content: Content) -> AbstractContextManager[Put]:
        """Write planes as they come, as NIfTI."""
        return NIFTI.stream(path, volume, content)


FORMAT = Dicom()
