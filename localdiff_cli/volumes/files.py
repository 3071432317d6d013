"""Files of volumes by name and bytes: suffix, stem, hash, and why a content is not here. Imports nothing heavy and opens no
image."""

from __future__ import annotations

import os
from pathlib import Path

from localdiff_cli.volumes.formats import format_of, suffix_of
from localdiff_cli.volumes.formats.seam import hash_of

MAX_POINTER_BYTES = 1024


def stem(path: Path) -> str:
    """Return the file's name without its image suffix.

    >>> stem(Path("sub-01_T1w.nii.gz")), stem(Path("notes.txt"))
    ('sub-01_T1w', 'notes.txt')
    """
    suffix = suffix_of(path)
    return path.name[: -len(suffix)] if suffix else path.name


def files_of(path: Path) -> tuple[Path, ...]:
    """Return all files that make up the volume: image and header of a pair, or the one file."""
    found = format_of(path)
    return (path,) if found is None else found.files(path)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of the bytes of all files of a volume, as hex; for any other file, its own."""
    found = format_of(path)
    return hash_of((path,)) if found is None else found.hash(path)


def absent_content(path: Path) -> str:
    """Return why a file's content is not here although its name is: a link that leads nowhere, a pointer of git-annex or
    git-lfs; else empty."""
    annex = "is a link of git-annex (DataLad) whose content is not here; fetch it first: datalad get"
    if path.is_symlink() and not path.exists():
        target = os.readlink(path)
        return f"{annex} {path.name}" if "annex/objects" in target else f"is a link to {target}, which is not there; mend it or remove it"
    try:
        with path.open("rb") as handle:
            start = handle.read(64) if path.stat().st_size <= MAX_POINTER_BYTES else b""
    except OSError:
        return ""
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of git-lfs whose content is not here; fetch it first: git lfs pull"
    return f"{annex} {path.name}" if start.startswith(b"/annex/objects/") else ""
