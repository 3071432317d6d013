"""Which volumes to work on: a file, a folder (recursive) or a glob."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from localdiff_cli.errors import NoInputError, UsageError, VolumeError
from localdiff_cli.volumes.contrast import IMAGES, Content, content_of, content_of_series
from localdiff_cli.volumes.dicom import series_below, series_of
from localdiff_cli.volumes.dicom_header import Series, is_dicom
from localdiff_cli.volumes.reader import ITK_SUFFIXES, pair_of, suffix_of
from localdiff_cli.volumes.whole import PARTIAL


@dataclass(frozen=True)
class Item:
    """One volume to work on: its path, its name below the input folder, and what it says it holds."""

    path: Path
    relative: Path
    content: Content


@dataclass(frozen=True)
class Found:
    """The volumes to work on, and those skipped with the reason."""

    items: tuple[Item, ...]
    skipped: tuple[tuple[Path, str], ...]


def _is_image(path: Path) -> bool:
    """Whether a file stands for a volume: not hidden, and of a ``.hdr``/``.img`` pair the header."""
    suffix = suffix_of(path)
    if suffix is None or path.name.startswith("."):
        return False
    return suffix != ".img" or not pair_of(path)[0].exists()


def _unreadable(error: OSError) -> None:
    raise UsageError(f"--in {error.filename}: cannot be listed ({error.strerror}); change its permissions", code="unreadable") from error


def _walk(folder: Path) -> Iterator[Path]:
    """Every image below a folder, in a stable order; links to folders are not followed, so loops cannot trap it.

    Raises :class:`UsageError` for a folder that cannot be listed: its volumes would be missed without a word.
    """
    for base, folders, names in os.walk(folder, onerror=_unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not name.endswith(PARTIAL))
        for name in sorted(names):
            if _is_image(path := Path(base) / name):
                yield path


def candidates(given: str) -> tuple[list[tuple[Path, Path]], bool]:
    """(path, relative) of all images in a file, folder or glob, and whether it named one volume.

    DICOM is looked for in folders without other images: what was converted from it often lies beside it. A series is named by its
    label and contrast, never by its folders, which may bear a patient's name; a folder of one series names that volume.

    Raises :class:`NoInputError` where there is nothing.
    """
    path = Path(given)
    if path.is_dir():
        if images := [(p, p.relative_to(path)) for p in _walk(path)]:
            return images, False
        series = series_below(path)
        return [_named(one) for one in series], len(series) == 1
    if path.is_file() and suffix_of(path) is None and is_dicom(path):
        return [_named(series_of(path))], True
    if path.exists() or path.is_symlink():
        return [(path, Path(path.name))], True
    matches = sorted(Path(p) for p in glob.glob(given, recursive=True))
    matches = [p for p in matches if p.is_file() and _is_image(p)]
    if not matches:
        raise NoInputError(f"--in {given}: no such file or folder, and no file matches it that is an image", code="no-input")
    root = Path(os.path.commonpath([p.parent for p in matches]))
    return [(p, p.relative_to(root)) for p in matches], False


def _named(series: Series) -> tuple[Path, Path]:
    contrast = content_of_series(series).contrast
    return series.path, Path(f"{series.label}{f'_{contrast}' if contrast in IMAGES else ''}.nii.gz")


def wrong_contrast(content: Content, expected: str) -> str | None:
    """Why a file is not the expected contrast; None where it is, or where nothing says."""
    if content.contrast in (None, expected):
        return None
    made = "synthetic " if content.synthetic else ""
    return f"its {content.said_by} says {made}{content.contrast}; expected {expected}"


def discover(given: str, contrast: str) -> Found:
    """Find the volumes of ``contrast``; others in a folder are skipped and counted, a file named alone is refused.

    Raises :class:`NoInputError` where nothing is left, :class:`VolumeError` for a named file of another contrast.
    """
    images, named = candidates(given)
    items, skipped = [], []
    for path, relative in images:
        content = content_of(path)
        reason = wrong_contrast(content, contrast)
        if reason and named:
            name = path if suffix_of(path) else relative
            raise VolumeError(f"{name}: {reason}. Choose another --model, or correct the sidecar", code="wrong-contrast")
        if reason:
            skipped.append((relative, reason))
        else:
            items.append(Item(path, relative, content))
    if not items:
        raise NoInputError(
            f"--in {given}: no {contrast} volume found ({len(skipped)} files of other kinds skipped); expected NIfTI or "
            f"{', '.join(ITK_SUFFIXES)} files, or DICOM series",
            code="no-input",
        )
    return Found(tuple(items), tuple(skipped))


def contrasts_in(given: str) -> set[str]:
    """The image contrasts that sidecars and names of the inputs say. Raises :class:`NoInputError` where there is no input."""
    said = {content_of(path).contrast for path, _ in candidates(given)[0]}
    return {contrast for contrast in said if contrast in IMAGES}


def check_folders(given: str, out: Path, option: str = "--out") -> None:
    """Refuse outputs on top of inputs. Raises :class:`UsageError`."""
    path = Path(given)
    if path.is_dir() and path.resolve() == out.resolve():
        raise UsageError(f"{option} {out}: is the input folder; expected another one, inputs are never overwritten", code="in-is-out")
    if path.is_file() and path.resolve().parent == out.resolve():
        raise UsageError(f"{option} {out}: is the input's own folder; expected another one, inputs are never overwritten", code="in-is-out")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{option} {out}: is a file; expected a folder", code="unwritable")
