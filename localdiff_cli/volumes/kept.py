"""What is slow to find in a volume is kept on disk from one command to the next: the brain of a head, and the bias field.

A file is named by the SHA-256 of everything that decides what it holds: voxels, geometry, method, versions. So it is never
out of date, and does not say whose it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.errors import UsageError
from localdiff_cli.volumes.whole import whole_file

VERSION = 1
"""Increased when the way of finding what is kept changes."""
DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Kept:
    """A folder of arrays that were found before; ``folder`` None keeps nothing."""

    folder: Path | None = None

    def check(self) -> None:
        """Raise :class:`UsageError` where the folder cannot be written or made; it is not made yet."""
        if self.folder is None:
            return
        there = next(path for path in (self.folder, *self.folder.absolute().parents) if path.exists() or path.is_symlink())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise UsageError(
                f"--cache {self.folder}: cannot be written; expected a folder, new or not, with the right to write", code="unwritable"
            )

    def array(self, what: str, decided_by: Sequence[Any], find: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return the array that ``find`` gives, from the folder if it is there.

        ``decided_by``: all that the array depends on (JSON values). What is in a file that cannot be read is found anew,
        and the file replaced. Raises what ``find`` raises, and :class:`VolumeError` where the folder cannot be written.
        """
        if self.folder is None:
            return find()
        name = hashlib.sha256(json.dumps([VERSION, what, *decided_by]).encode()).hexdigest()
        path = self.folder / name[:2] / f"{name}.npz"
        with suppress(*DAMAGED), path.open("rb") as stored, np.load(stored) as arrays:
            return np.asarray(arrays["found"])
        found = find()
        with whole_file(path, durable=False) as partial, partial.open("wb") as handle:
            np.savez_compressed(handle, found=found)
        return found


NOTHING = Kept()
"""Keeps nothing."""
