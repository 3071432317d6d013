"""The one way in which every command walks through folders: which images lie there, what is left alone, and why."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from localdiff_cli.errors import NoInputError, UsageError
from localdiff_cli.volumes.contrast import content_of_series
from localdiff_cli.volumes.formats import format_of, suffix_of
from localdiff_cli.volumes.formats.dicom.header import SUFFIXES as DICOM_SUFFIXES
from localdiff_cli.volumes.formats.dicom.header import Series, is_dicom
from localdiff_cli.volumes.formats.dicom.series import series_below, series_of
from localdiff_cli.volumes.names import IMAGES
from localdiff_cli.volumes.whole import PARTIAL

LEFT_ALONE = ("derivatives", "sourcedata")
"""Folders of a BIDS data set that hold other versions of the same images; they are searched where they are named."""


@dataclass(frozen=True)
class Walk:
    """The images of a file, folder or glob as (path, relative); ``named``: it was one file; ``aside``: what was left alone,
    and why."""

    images: tuple[tuple[Path, Path], ...]
    named: bool = False
    aside: tuple[tuple[Path, str], ...] = ()


@dataclass
class _Search:
    """A walk under way below ``root``: folders seen by their real paths, links to folders not yet followed.

    ``asked``: folders that are entered although they are usually left alone.
    """

    root: Path
    option: str
    asked: frozenset[str] = frozenset()
    seen: set[str] = field(default_factory=set)
    links: list[Path] = field(default_factory=list)
    aside: list[tuple[Path, str]] = field(default_factory=list)
    dicom: int = 0
    unmarked: int = 0

    def dicom_aside(self, option: str) -> list[tuple[Path, str]]:
        """That DICOM files were left alone; by their number, since their names may be a patient's."""
        reason = f"{self.dicom} files left alone, since the folder holds other images too; name the folder of the series: {option} …"
        return [(Path("DICOM"), reason)] if self.dicom else []

    def unmarked_aside(self) -> list[tuple[Path, str]]:
        """That files are called DICOM and do not bear its mark."""
        reason = f"{self.unmarked} files without the mark DICM at byte 128, so not read; mend them, for instance with dcmconv"
        return [(Path("*.dcm"), reason)] if self.unmarked else []

    def images(self) -> Iterator[Path]:
        """Every image, real folders first, then those that links lead to and that were not seen."""
        yield from self._below(self.root)
        while self.links:
            link = self.links.pop(0)
            real = os.path.realpath(link)
            if real in self.seen or os.path.realpath(self.root).startswith(real + os.sep):
                self.aside.append((link.relative_to(self.root), "a link to a folder that is searched anyway"))
            else:
                yield from self._below(link)

    def _below(self, folder: Path) -> Iterator[Path]:
        for base, folders, names in os.walk(folder, onerror=self._unreadable):
            real = os.path.realpath(base)
            if real in self.seen:
                folders.clear()
                continue
            self.seen.add(real)
            folders[:] = [name for name in sorted(folders) if self._entered(Path(base) / name)]
            for name in sorted(names):
                path = Path(base) / name
                if is_image(path):
                    yield path
                elif path.is_symlink() and not path.exists() and "." not in name:
                    self.aside.append((path.relative_to(self.root), f"a link to {os.readlink(path)}, which is not there"))
                else:
                    self._count(path)

    def _count(self, path: Path) -> None:
        """Count what may be DICOM."""
        if is_dicom(path):
            self.dicom += 1
        elif path.suffix and path.suffix.lower() in DICOM_SUFFIXES and not path.name.startswith("."):
            self.unmarked += 1

    def _entered(self, folder: Path) -> bool:
        if folder.name.startswith(".") or folder.name.endswith(PARTIAL):
            return False
        if folder.name in LEFT_ALONE and folder.name not in self.asked:
            self.aside.append((folder.relative_to(self.root), f"left alone; name it to use what lies there: {self.option} {folder}"))
            return False
        if folder.is_symlink():
            self.links.append(folder)
            return False
        return True

    def _unreadable(self, error: OSError) -> None:
        text = f"{self.option} {error.filename}: cannot be listed ({error.strerror}); change its permissions"
        raise UsageError(text, code="unreadable") from error


def is_image(path: Path) -> bool:
    """Return whether a file stands for a volume: not hidden, and of several files that make one up the one that names it."""
    found = None if suffix_of(path) is None else format_of(path)
    return found is not None and not path.name.startswith(".") and found.stands_for_volume(path)


def images_in(given: str | Path, option: str = "--in") -> Walk:
    """Return all images in a file, a folder (hidden folders, derivatives/ and sourcedata/ are left alone, links are
    followed once) or a glob.

    DICOM is looked for in folders without other images: what was converted from it often lies beside it. A series is named by its
    label and contrast, never by its folders, which may bear a patient's name; a folder of one series names that volume.

    Raise :class:`NoInputError` where there is nothing, :class:`UsageError` for a folder that cannot be listed: its volumes
    would be missed without a word. ``option`` names it in messages.
    """
    path = Path(given)
    if path.is_dir():
        search = _Search(path, option)
        found = tuple((image, image.relative_to(path)) for image in search.images())
        if found:
            return Walk(found, False, (*search.aside, *search.dicom_aside(option)))
        series = tuple(_named(one) for one in series_below(path))
        return Walk(series, len(series) == 1, (*search.aside, *search.unmarked_aside()))
    if path.is_file() and suffix_of(path) is None and is_dicom(path):
        return Walk((_named(series_of(path)),), True)
    if path.exists() or path.is_symlink():
        return Walk(((path, Path(path.name)),), True)
    return _globbed(str(given), option)


def _named(series: Series) -> tuple[Path, Path]:
    contrast = content_of_series(series).contrast
    return series.path, Path(f"{series.label}{f'_{contrast}' if contrast in IMAGES else ''}.nii.gz")


def _globbed(given: str, option: str) -> Walk:
    parts = Path(given).parts
    found, aside = _below_any(parts, option) if "**" in parts else _in_folders(given, parts)
    if not found:
        raise NoInputError(f"{option} {given}: no such file or folder, and no file matches it that is an image", code="no-input")
    root = Path(os.path.commonpath([path.parent for path in found]))
    left = tuple((Path(os.path.relpath(path, root)), reason) for path, reason in aside)
    return Walk(tuple((path, path.relative_to(root)) for path in found), False, left)


def _asked(parts: tuple[str, ...]) -> frozenset[str]:
    """The folders that a pattern names."""
    return frozenset(part for part in parts if not glob.has_magic(part))


def _below_any(parts: tuple[str, ...], option: str) -> tuple[list[Path], list[tuple[Path, str]]]:
    """The images that a pattern with ``**`` matches: a walk below what stands before it, so that links are followed once."""
    first = parts.index("**")
    found: list[Path] = []
    aside: list[tuple[Path, str]] = []
    for base in sorted(glob.glob(str(Path(*parts[:first])))):
        search = _Search(Path(base), option, asked=_asked(parts))
        found += [path for path in search.images() if _matches(path.relative_to(base).parts, parts[first:])]
        aside += [(Path(base) / relative, reason) for relative, reason in search.aside]
    return sorted(found), aside


def _matches(names: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether the parts of a path match those of a pattern; ``**`` stands for any number of them.

    >>> _matches(("sub-01", "anat", "a.nii"), ("**", "*.nii")), _matches(("a.nii",), ("x", "**"))
    (True, False)
    """
    if not pattern:
        return not names
    if pattern[0] == "**":
        return len(pattern) == 1 or any(_matches(names[i:], pattern[1:]) for i in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def _in_folders(given: str, parts: tuple[str, ...]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """The images that a pattern without ``**`` matches: each once, by its folder's own name rather than a link to it."""
    matches = [path for path in map(Path, glob.glob(given)) if is_image(path) and (path.is_file() or path.is_symlink())]
    left = [path for path in matches if set(LEFT_ALONE).intersection(path.parts) - _asked(parts)]
    kept: dict[Path, Path] = {}
    again = []
    for path in sorted(set(matches) - set(left), key=lambda path: (sum(each.is_symlink() for each in path.parents), path)):
        if kept.setdefault(_real(path), path) != path:
            again.append(path)
    aside = [(path, "in a folder left alone; name that folder to use it") for path in sorted(left)]
    return sorted(kept.values()), [*aside, *((path, "in a folder that another link leads to") for path in again)]


def _real(path: Path) -> Path:
    """The path with its folder's own name; a link in the place of the file stays one."""
    return Path(os.path.realpath(path.parent)) / path.name
