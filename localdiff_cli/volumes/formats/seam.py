"""What a file format must say and do. Formats are read and written through this, and nothing else asks which one a volume
has."""

from __future__ import annotations

import hashlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from localdiff_cli.volumes.volume import Volume

Put = Callable[["NDArray[Any]"], None]
"""Takes the next plane of the last stored axis."""
BLOCK_BYTES = 1 << 20


def hash_of(files: Iterable[Path]) -> str:
    """Return the SHA-256 of the bytes of files, one after another, as hex."""
    digest = hashlib.sha256()
    for part in files:
        with part.open("rb") as handle:
            while block := handle.read(BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


class Stored(Protocol):
    """The voxels of a volume as its file stores them, in real units."""

    def plane(self, axis: int, index: int) -> NDArray[Any]:
        """Return one plane across a stored axis; the other two keep their order."""
        ...


@dataclass(frozen=True)
class Content:
    """What is written: the data type, a line for the header, slope and intercept of stored values (for formats that have
    them)."""

    dtype: np.dtype
    description: str
    scale: tuple[float, float] = (1.0, 0.0)


class Format(ABC):
    """A file format. Asking what it is imports nothing heavy: numpy and libraries are imported where a file is opened.

    ``said`` stands in lists of what can be read, ``suffixes`` are lower case; ``scales``: slope and intercept are stored;
    ``streams``: :meth:`stream` takes planes as they come. ``errors`` are what reading raises for files that are not what
    they claim.
    """

    said: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    scales: ClassVar[bool] = False
    streams: ClassVar[bool] = False

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """What this format's libraries raise for damaged files."""
        return OSError, EOFError, ValueError, KeyError, TypeError, IndexError, OverflowError, RuntimeError, zlib.error

    def holds(self, path: Path) -> bool:
        """Return whether a file whose name says nothing is of this format."""
        return False

    def stands_for_volume(self, path: Path) -> bool:
        """Whether, of the several files of a volume, this one names it."""
        return True

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return all files that make up the volume, those that exist."""
        return (path,)

    def hash(self, path: Path) -> str:
        """Return the SHA-256 of the bytes of all files of a volume, as hex."""
        return hash_of(self.files(path))

    @abstractmethod
    def open(self, path: Path, affine_from: str | None) -> Volume:
        """Return the volume by its header alone. Raise :class:`VolumeError` with the reason."""

    @abstractmethod
    def read(self, volume: Volume) -> Stored:
        """Return its voxels. Raise one of ``errors``, or :class:`VolumeError`, where they are damaged."""

    @abstractmethod
    def write(self, path: Path, array: NDArray[Any], volume: Volume, content: Content) -> None:
        """Write a stored array with the geometry of ``volume`` to the bit, and nothing else of its header. Raise
        ``OSError``."""

    def stream(self, path: Path, volume: Volume, content: Content) -> AbstractContextManager[Put]:
        """Write as :meth:`write` does, plane by plane; for formats that stream."""
        raise TypeError(f"{self.said} does not stream")
