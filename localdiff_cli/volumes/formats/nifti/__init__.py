"""NIfTI-1 and NIfTI-2, one file or a ``.hdr``/``.img`` pair, compressed or not."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localdiff_cli.volumes.formats.seam import Content, Format, Put, Stored

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from localdiff_cli.volumes.volume import Volume


def is_pair(path: Path) -> bool:
    """Return whether the name is that of a ``.hdr`` or an ``.img``."""
    return path.suffix.lower() in (".hdr", ".img")


def is_gzip(path: Path) -> bool:
    """Return whether the name says that the file is compressed."""
    return path.name.lower().endswith(".gz")


def pair_of(path: Path) -> tuple[Path, Path]:
    """Return the ``.hdr`` and the ``.img`` of a pair named by either; an upper-case suffix stays so."""
    header, image = (".HDR", ".IMG") if path.suffix.isupper() else (".hdr", ".img")
    return path.with_suffix(header), path.with_suffix(image)


class Nifti(Format):
    """Read by nibabel; written by ourselves, to the bit the same every time."""

    said = "NIfTI"
    suffixes = (".nii.gz", ".nii", ".hdr", ".img")
    scales = True
    streams = True

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """What nibabel and the decompressors raise for files that are not what they claim."""
        from localdiff_cli.volumes.formats.nifti.read import ERRORS

        return (*super().errors, *ERRORS)

    def stands_for_volume(self, path: Path) -> bool:
        """Return whether this file names the volume: of a pair, the header does, where there is one."""
        return path.suffix.lower() != ".img" or not pair_of(path)[0].exists()

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return image and header of a pair, or the one file."""
        return tuple(part for part in pair_of(path) if part.exists()) if is_pair(path) else (path,)

    def open(self, path: Path, affine_from: str | None) -> Volume:
        """See :func:`localdiff_cli.volumes.formats.nifti.read.open_nifti`."""
        from localdiff_cli.volumes.formats.nifti.read import open_nifti

        return open_nifti(path, affine_from)

    def read(self, volume: Volume) -> Stored:
        """See :func:`localdiff_cli.volumes.formats.nifti.read.stored`."""
        from localdiff_cli.volumes.formats.nifti.read import stored

        return stored(volume)

    def write(self, path: Path, array: NDArray[Any], volume: Volume, content: Content) -> None:
        """Write a stored array."""
        with self.stream(path, volume, content) as put:
            for index in range(array.shape[2]):
                put(array[:, :, index])

    def stream(self, path: Path, volume: Volume, content: Content) -> AbstractContextManager[Put]:
        """Write planes as they come."""
        from localdiff_cli.volumes.formats.nifti.write import stream

        return stream(path, volume, content)


FORMAT = Nifti()
