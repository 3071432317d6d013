"""``--match``: a reference volume of the target contrast lends its intensity scale to the translation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from localdiff_cli.batch.discover import Item
from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.brain import check_same_grid
from localdiff_cli.volumes.intensity import Scale
from localdiff_cli.volumes.partners import Source, find_companion
from localdiff_cli.volumes.prepare import PrepareSettings, prepare
from localdiff_cli.volumes.reader import open_volume
from localdiff_cli.volumes.volume import Volume


def reference_scale(reference: Source, settings: PrepareSettings) -> Callable[[Item], tuple[Scale, Path]]:
    """The scale of the reference's own brain, and its file: one for all, or from a folder one for each volume.

    ``settings``: the input's, with the target's window. A brain mask file serves for a reference on its grid; for another grid the
    reference's brain is found for itself.

    Raises :class:`VolumeError` for a missing or unusable reference.
    """
    known: dict[Path, Scale] = {}

    def scale_of(item: Item) -> tuple[Scale, Path]:
        path = find_companion(reference, item.path, item.relative)
        if path not in known:
            volume = open_volume(path, settings.affine_from)
            known[path] = prepare(volume, replace(settings, brain=_brain_for(volume, settings.brain)), item.relative).scale
        return known[path], path

    return scale_of


def _brain_for(volume: Volume, brain: str) -> str:
    """The user's ``--brain``, or auto where it is a file on another grid."""
    if brain not in ("auto", "none") and Path(brain).is_file():
        try:
            check_same_grid(open_volume(Path(brain), volume.affine_from), volume, "brain mask")
        except VolumeError:
            return "auto"
    return brain
