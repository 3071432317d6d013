"""The cases that a report's viewer shows: worst and best, their images, lesions and maps on the translation's grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from localdiff_cli.errors import VolumeError
from localdiff_cli.evaluation.cohort.summary import Summary
from localdiff_cli.evaluation.report.page import ends
from localdiff_cli.tasks.evaluation import CaseFiles
from localdiff_cli.viewer.grid import on_grid
from localdiff_cli.viewer.layers import HEAT, IMAGE, LABELS, Layer, ViewCase, layer
from localdiff_cli.viewer.page import part
from localdiff_cli.volumes.contrast import beside
from localdiff_cli.volumes.placement import CaseGrid
from localdiff_cli.volumes.reader import open_volume

SHOWN_EACH = 2
"""How many of the worst and of the best cases: four of five images each, at full resolution, come near the budget of a page."""
PERCENTILES = (0.5, 99.5)
IMAGES = (("condition", "condition"), ("baseline", "plain"), ("translation", "local"), ("reference", "truth"))
OVERLAYS = (("truth", "lesions", LABELS), ("segmentation", "lesions found", LABELS), ("ood", "OOD map", HEAT))
COMPANIONS = (("ood", "OOD map", HEAT), ("source", "source: 1 IND, 2 OOD, 3 fused, 4 unknown", LABELS), ("std", "spread of samples", HEAT))
LIMITS = ("lo", "hi")
"""What ``translate`` writes beside a translation on request; of the limits the viewer shows how far they lie apart."""


def shown_cases(worst: Sequence[str], best: Sequence[str]) -> list[tuple[str, str]]:
    """Return the names of the cases to show with what they are: the first two of the worst and of the best, none twice."""
    chosen = [(name, "worst") for name in worst[:SHOWN_EACH]] + [(name, "best") for name in best[:SHOWN_EACH]]
    return list({name: (name, rank) for name, rank in reversed(chosen)}.values())[::-1]


def report_viewer(cases: Sequence[CaseFiles], summary: Summary, say: Callable[[str], None], affine_from: str | None = None) -> Markup:
    """Return the viewer of a report; empty where no case could be ranked. A case that cannot be read again is left out and
    reported."""
    worst, best = ends(summary)
    files, settings = {each.name: each for each in cases}, summary.settings
    labels = {"translation": settings.translation_label, "baseline": settings.baseline_label}
    made = []
    for name, rank in shown_cases([case.name for case in worst], [case.name for case in best]):
        try:
            made.append(view_of(files[name], f"{name} ({rank})", labels, affine_from))
        except VolumeError as error:
            say(f"not in the viewer: {error}")
    return part(made) if made else Markup("")


def view_of(files: CaseFiles, title: str, labels: Mapping[str, str], affine_from: str | None = None) -> ViewCase:
    """Return all volumes of a case as layers; ``labels`` name the images of the roles ``baseline`` and ``translation``.

    Each image has its own grey window, from the 0.5th to the 99.5th percentile of its voxels inside the brain: that is how
    images of different units are comparable. Raise :class:`VolumeError` for a file that has become unreadable.
    """
    grid = CaseGrid(open_volume(files.translation, affine_from), resample=True)
    translation, _ = on_grid(files.translation, grid)
    brain = translation != 0
    layers = [_image(getattr(files, role), labels.get(role, name), grid, brain) for role, name in IMAGES if getattr(files, role)]
    layers += [_overlay(getattr(files, role), name, kind, grid) for role, name, kind in OVERLAYS if getattr(files, role)]
    known = {each.name for each in layers}
    for ending, name, kind in COMPANIONS:
        path = beside(files.translation, ending)
        if name not in known and path.is_file():
            layers.append(_overlay(path, name, kind, grid))
    layers += _interval(files.translation, grid)
    return ViewCase(title, tuple(layers), grid.volume.frame.spacing)


def _image(path: Path, name: str, grid: CaseGrid, brain: NDArray[np.bool_]) -> Layer:
    array, _ = on_grid(path, grid)
    inside = array[brain & np.isfinite(array)]
    low, high = map(float, np.percentile(inside, PERCENTILES)) if inside.size else (0.0, 1.0)
    return layer(name, IMAGE, np.where(brain, array, low), (low, high if high > low else low + 1))


def _overlay(path: Path, name: str, kind: str, grid: CaseGrid) -> Layer:
    array, _ = on_grid(path, grid, labels=kind == LABELS)
    return layer(name, kind, array)


def _interval(translation: Path, grid: CaseGrid) -> list[Layer]:
    """The width of the interval that was written with a translation, upper minus lower limit; nothing where there is none."""
    paths = [beside(translation, ending) for ending in LIMITS]
    if not all(path.is_file() for path in paths):
        return []
    low, high = (on_grid(path, grid)[0] for path in paths)
    return [layer("width of the interval", HEAT, high - low)]
