"""MetaImage and NRRD, through SimpleITK."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from localdiff_cli.volumes.formats.seam import Content, Format, Stored

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from localdiff_cli.volumes.volume import Volume


class Itk(Format):
    """Whole arrays, read and written at once."""

    suffixes = (".mha", ".mhd", ".nrrd", ".nhdr")
    said = ", ".join(suffixes) + " files"

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return the header file and, where it names another file for the voxels that exists, that one."""
        from localdiff_cli.volumes.formats.itk.header import data_files

        return data_files(path)

    def open(self, path: Path, affine_from: str | None) -> Volume:
        """Read the header."""
        from localdiff_cli.volumes.formats.itk.files import read_header
        from localdiff_cli.volumes.volume import Volume, frame_in, spatial_shape

        header = read_header(path)
        shape, affine = spatial_shape(path, header.shape), header.affine()
        return Volume(path, self, header.shape, shape, header.dtype, affine, frame_in(path, affine, shape), header)

    def read(self, volume: Volume) -> Stored:
        """Return all voxels."""
        from localdiff_cli.volumes.formats.itk.files import read_array
        from localdiff_cli.volumes.volume import Held

        return Held(read_array(volume.path, volume.header).reshape(volume.shape))

    def write(self, path: Path, array: NDArray[Any], volume: Volume, content: Content) -> None:
        """Write a stored array."""
        from localdiff_cli.volumes.formats.itk.files import write

        write(path, array, volume.header, content.description)


FORMAT = Itk()
