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
    """Return the scale of the reference's own brain, and its file: one for all, or from a folder one for each volume.

    ``settings``: the input's, with the target's window. A brain mask file serves for a reference on its grid; from a folder
    of masks, the one that belongs to the reference is used, or, where every volume has a reference of its own, the one that
    belongs to the volume. Without such a mask the reference's own brain is found. The scale depends on the reference alone,
    never on which volume asked first.

    Raise :class:`VolumeError` for a missing or unusable reference.
    """
    known: dict[tuple[Path, str], Scale] = {}
    shared = Path(reference.given).is_file()

    def scale_of(item: Item) -> tuple[Scale, Path]:
        path = find_companion(reference, item.path, item.relative)
        volume = open_volume(path, settings.affine_from)
        brain = _brain_for(volume, settings, Path(path.name) if shared else item.relative)
        if (path, brain) not in known:
            known[path, brain] = prepare(volume, replace(settings, brain=brain)).scale
        return known[path, brain], path

    return scale_of


def _brain_for(volume: Volume, settings: PrepareSettings, relative: Path) -> str:
    """The user's ``--brain``: of a folder the mask at ``relative``; auto where that is none, or one on another grid."""
    if settings.brain_source is None:
        return settings.brain
    try:
        path = find_companion(settings.brain_source, volume.path, relative)
        check_same_grid(open_volume(path, volume.affine_from), volume, "brain mask")
    except VolumeError:
        return "auto"
    return str(path)
