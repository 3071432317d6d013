"""Write files whole or not at all: what is there is complete, whatever stopped the writer."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from localdiff_cli.errors import UsageError, VolumeError

PREFIX = ".localdiff-"
PARTIAL = ".partial"


def _prefix(path: Path) -> str:
    """The start of the temporary folders' names of one file: of fixed length, whatever the file is called."""
    return f"{PREFIX}{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]}-"


@contextmanager
def whole_file(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a path to write to, beside ``path``; it takes the final name only when the block ends without an error.

    Each call has a folder of its own: two writers of the same file do not meet, the last one wins. ``durable``: what is
    written has reached the disk before it takes the name, so that even a power cut leaves the old file or the new one.
    """
    folder: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=_prefix(path), suffix=PARTIAL, dir=path.parent))
        yield folder / path.name
        _publish(folder, path, durable=durable)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a folder to fill, beside ``path``; it takes the final name, and the place of what is there, only when the block
    ends without an error."""
    partial: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=_prefix(path), suffix=PARTIAL, dir=path.parent))
        made = partial / path.name
        made.mkdir()
        yield made
        if path.exists():
            os.replace(path, partial / "before")
        os.replace(made, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def unwritable(path: Path, error: OSError) -> VolumeError:
    """Return the error of a file that the system does not let us write."""
    reason = error.strerror or str(error) or type(error).__name__
    return VolumeError(f"{path}: cannot be written ({reason}). Check the folder, its permissions and the space left", code="unwritable")


def sweep(path: Path) -> None:
    """Remove what writers of ``path`` that were killed left beside it. Call it only with the sole right to write that file."""
    for folder in path.parent.glob(f"{_prefix(path)}*{PARTIAL}"):
        shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, path: Path, *, durable: bool) -> None:
    """Move everything that was written into place, the named file last."""
    parts = sorted(folder.iterdir(), key=lambda p: p.name == path.name)
    for part in parts if durable else ():
        with part.open("rb") as handle:
            os.fsync(handle.fileno())
    for part in parts:
        os.replace(part, path.parent / part.name)
    if not durable:
        return
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_replaceable(path: Path, option: str, begins: bytes, kind: str) -> None:
    """Refuse to write over a file that is not of our making: one that does not begin as ours do, whatever its capitals and
    spaces.

    ``kind`` says what ``option`` writes. Raise :class:`UsageError`.
    """
    try:
        with path.open("rb") as handle:
            found = handle.read(64)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be written ({error.strerror}); name a file", code="unwritable") from error
    if found and not b"".join(found.lower().split()).startswith(begins):
        raise UsageError(f"{option} {path}: exists and is no {kind}, so it is not overwritten; choose another name", code="exists")


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a small text file whole or not at all."""
    with whole_file(path, durable=durable) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
