"""``localdiff view``: some volumes of one person in a page to scroll through."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localdiff_cli.batch.report import say
from localdiff_cli.commands.run import check_affine_from
from localdiff_cli.errors import EXIT_OK, UsageError
from localdiff_cli.options import ViewOptions
from localdiff_cli.viewer.grid import on_grid
from localdiff_cli.viewer.layers import HEAT, IMAGE, LABELS, Layer, ViewCase, layer
from localdiff_cli.viewer.page import page
from localdiff_cli.volumes.contrast import content_of
from localdiff_cli.volumes.files import stem
from localdiff_cli.volumes.placement import CaseGrid
from localdiff_cli.volumes.reader import open_volume
from localdiff_cli.volumes.walk import images_in
from localdiff_cli.volumes.whole import check_replaceable, write_text

KINDS = {"mask": LABELS, "map": HEAT}


@dataclass(frozen=True)
class _Shown:
    path: Path
    name: str
    kind: str


def _named(given: str, *, overlay: bool) -> _Shown:
    """The volume that a file or a DICOM folder is; what its name or sidecar calls a mask or a map lies over the others."""
    walk = images_in(given, "VOLUME")
    found = walk.images
    if not walk.named or len(found) != 1:
        raise UsageError(f"{given}: found {len(found)} volumes; expected one, a file or the folder of one DICOM series", code="not-one")
    (path, relative), *_ = found
    kind = KINDS.get(content_of(path).contrast or "", HEAT if overlay else IMAGE)
    return _Shown(path, stem(relative), kind)


def _layer(shown: _Shown, name: str, grid: CaseGrid) -> Layer:
    array, moved = on_grid(shown.path, grid, labels=shown.kind == LABELS)
    return layer(f"{name} (resampled)" if moved else name, shown.kind, array)


def _names(shown: Sequence[_Shown]) -> list[str]:
    """The volumes' names, numbered where two have the same."""
    names = [each.name for each in shown]
    return [f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def view_case(volumes: Sequence[str], overlays: Sequence[str], affine_from: str | None = None) -> ViewCase:
    """Return the case of some volumes on the grid of the first image. Raise :class:`UsageError` where none is an image."""
    shown = [_named(given, overlay=False) for given in volumes] + [_named(given, overlay=True) for given in overlays]
    images = [each for each in shown if each.kind == IMAGE]
    if not images:
        raise UsageError("none of the volumes is an image: by name or sidecar all are masks or maps; expected one image", code="no-image")
    grid, names = CaseGrid(open_volume(images[0].path, affine_from), resample=True), _names(shown)
    layers = [_layer(each, name, grid) for each, name in zip(shown, names, strict=True)]
    ordered = sorted(layers, key=lambda each: each.kind != IMAGE)
    return ViewCase(images[0].name, tuple(ordered), grid.volume.frame.spacing)


def has_screen() -> bool:
    """Return whether a browser that opens would be seen: a terminal on a machine with a display, not reached by SSH."""
    if not _is_terminal() or "SSH_CONNECTION" in os.environ:
        return False
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def view(options: ViewOptions) -> int:
    """Write the page, say where it is, and open it where there is a screen; return the exit code."""
    check_affine_from(options.affine_from)
    check_replaceable(options.out, "--out", b"<!doctypehtml", "page")
    case = view_case(options.volumes, options.overlays, options.affine_from)
    write_text(options.out, page([case], f"{case.name}: {len(case.layers)} volumes"))
    say(f"page: {options.out}")
    if options.open_page and has_screen():
        webbrowser.open(options.out.resolve().as_uri())
    return EXIT_OK
