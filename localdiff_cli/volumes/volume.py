"""A volume on disk, opened by its header: what the rest of the project knows of it, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.files import stem
from localdiff_cli.volumes.formats.seam import Format
from localdiff_cli.volumes.geometry import Frame, frame_of

if TYPE_CHECKING:
    from localdiff_cli.volumes.formats.dicom.stack import Stack

MAX_VOXELS = 2**31


@dataclass(frozen=True)
class Volume:
    """An image volume on disk.

    ``stored_shape`` is what the file says, ``shape`` its three spatial axes (a 2D image has one slice). ``affine`` maps
    stored indices to RAS mm. ``frame`` leads to canonical slices. ``header`` is the format's own, as in the file. Of a
    DICOM series ``path`` is its label, ``header`` that of the NIfTI files derived from it, and ``stack`` holds its planes.
    ``affine_from`` is which form of the header the user trusts, ``doubts`` what contradicts itself in it;
    ``orientation_known`` is False where the header leaves it open.
    """

    path: Path
    format: Format
    stored_shape: tuple[int, ...]
    shape: tuple[int, int, int]
    dtype: np.dtype
    affine: NDArray[Any]
    frame: Frame
    header: Any = field(repr=False)
    stack: Stack | None = field(default=None, repr=False)
    affine_from: str | None = None
    doubts: tuple[str, ...] = ()
    orientation_known: bool = True

    @property
    def name(self) -> str:
        """The file's name without its image suffix."""
        return stem(self.path)


@dataclass(frozen=True, eq=False)
class Held:
    """Voxels held in memory, in stored axis order."""

    array: NDArray[Any]

    def plane(self, axis: int, index: int) -> NDArray[Any]:
        """Return one plane across a stored axis."""
        return np.asarray(self.array[(slice(None),) * axis + (index,)])


def spatial_shape(path: Path, stored: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the three spatial axes; refuse more than one frame and absurd sizes."""
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


def frame_in(path: Path, affine: NDArray[Any], shape: tuple[int, int, int]) -> Frame:
    """Return the way to canonical slices. Raise :class:`VolumeError` for an affine that cannot be inverted."""
    try:
        with np.errstate(all="ignore"):
            return frame_of(affine, shape)
    except (ValueError, IndexError) as error:
        raise VolumeError(
            f"{path}: found an affine that is singular or not finite ({np.asarray(affine)[:3].tolist()}); expected an invertible one. "
            "Repair the header",
            code="singular-affine",
        ) from error


def damaged(path: Path, error: BaseException) -> VolumeError:
    """Return the error for voxels that a library cannot read."""
    if isinstance(error, FileNotFoundError):
        return VolumeError(f"{path}: the file vanished while it was being read. Put it back and run again", code="not-found")
    return VolumeError(
        f"{path}: found voxels that cannot be read ({reason_of(path, error)}); expected as many as the header promises. "
        "The file is truncated or damaged: copy it again",
        code="truncated",
    )


def reason_of(path: Path, error: BaseException) -> str:
    """Return the first line of a library's error, without the path that the message already names."""
    if isinstance(error, RuntimeError):
        return "SimpleITK gave up"
    line = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return line.replace(str(path), path.name)
