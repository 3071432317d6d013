"""``--match``: a reference volume of the target contrast lends its intensity scale to the translation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from localdiff_cli.batch.discover import Item
from localdiff_cli.bundle import Bundle
from localdiff_cli.volumes.brain import find_companion
from localdiff_cli.volumes.intensity import Scale
from localdiff_cli.volumes.prepare import PrepareSettings, prepare
from localdiff_cli.volumes.reader import open_volume


def reference_scale(reference: Path, bundle: Bundle) -> Callable[[Item], Scale]:
    """The scale of the reference's own brain: one file for all, or a folder with one for each volume (same name or subject).

    Raises :class:`VolumeError` for a missing or unusable reference.
    """
    settings = PrepareSettings(bias=bundle.bias, window=bundle.target.window, spacing=bundle.grid.spacing, shape=bundle.grid.shape)
    known: dict[Path, Scale] = {}

    def scale_of(item: Item) -> Scale:
        path = find_companion(reference, open_volume(item.path), item.relative) if reference.is_dir() else reference
        if path not in known:
            known[path] = prepare(open_volume(path), settings).scale
        return known[path]

    return scale_of
