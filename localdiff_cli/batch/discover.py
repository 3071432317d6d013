"""Which volumes to work on: a file, a folder (recursive) or a glob."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from localdiff_cli.errors import NoInputError, UsageError, VolumeError
from localdiff_cli.volumes.contrast import Content, content_of
from localdiff_cli.volumes.formats import readable, suffix_of
from localdiff_cli.volumes.names import IMAGES
from localdiff_cli.volumes.walk import images_in


@dataclass(frozen=True)
class Item:
    """One volume to work on: its path, its name below the input folder, what it says it holds, and which form of its header
    is trusted."""

    path: Path
    relative: Path
    content: Content
    affine_from: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Found:
    """The volumes to work on, those skipped with the reason, and folders left ``aside`` with the reason."""

    items: tuple[Item, ...]
    skipped: tuple[tuple[Path, str], ...]
    aside: tuple[tuple[Path, str], ...] = ()


def wrong_contrast(content: Content, expected: str) -> str | None:
    """Return why a file is not the expected contrast; None where it is, or where nothing says."""
    if content.contrast in (None, expected):
        return None
    made = "synthetic " if content.synthetic else ""
    return f"its {content.said_by} says {made}{content.contrast}; expected {expected}"


def discover(given: str, contrast: str, affine_from: str | None = None) -> Found:
    """Find the volumes of ``contrast``. Skip and count others in a folder; refuse another one that was named alone.

    Raise :class:`NoInputError` where nothing is left, :class:`VolumeError` for a named file of another contrast.
    """
    walk = images_in(given)
    items, skipped = [], []
    for path, relative in walk.images:
        content = content_of(path, relative)
        reason = wrong_contrast(content, contrast)
        if reason and walk.named:
            name = path if suffix_of(path) else relative
            way_out = f'Choose another --model, or say what it holds in its sidecar: {{"Contrast": "{contrast}"}}'
            raise VolumeError(f"{name}: {reason}. {way_out}", code="wrong-contrast")
        if reason:
            skipped.append((relative, reason))
        else:
            items.append(Item(path, relative, content, affine_from=affine_from))
    if not items:
        aside = "".join(f"; {relative}: {reason}" for relative, reason in walk.aside[:4])
        raise NoInputError(
            f"--in {given}: no {contrast} volume found ({len(skipped)} files of other kinds skipped{aside}); expected {readable()}",
            code="no-input",
        )
    return Found(tuple(items), tuple(skipped), walk.aside)


def contrasts_in(given: str) -> set[str]:
    """Return the image contrasts that sidecars and names of the inputs say. Raise :class:`NoInputError` where there is no
    input."""
    said = {content_of(path, relative).contrast for path, relative in images_in(given).images}
    return {contrast for contrast in said if contrast in IMAGES}


def check_apart(given: str, out: Path, found: Found, option: str = "--out") -> None:
    """Refuse outputs below a folder of DICOM series: the next run would find them instead of the series. Raise
    :class:`UsageError`."""
    inside = Path(given).is_dir() and Path(given).resolve() in out.resolve().parents
    if inside and any(suffix_of(item.path) is None for item in found.items):
        raise UsageError(f"{option} {out}: lies in the folder of DICOM series; expected one outside of {given}", code="in-is-out")


def check_folders(given: str, out: Path, option: str = "--out") -> None:
    """Refuse outputs on top of inputs. Raise :class:`UsageError`."""
    path = Path(given)
    if path.is_dir() and path.resolve() == out.resolve():
        raise UsageError(f"{option} {out}: is the input folder; expected another one, inputs are never overwritten", code="in-is-out")
    if path.is_file() and path.resolve().parent == out.resolve():
        raise UsageError(f"{option} {out}: is the input's own folder; expected another one, inputs are never overwritten", code="in-is-out")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{option} {out}: is a file; expected a folder", code="unwritable")
