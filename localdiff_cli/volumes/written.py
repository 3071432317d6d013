"""The intensity scale that a translation says it was written with, in its sidecar.

A network draws the mean of what it holds possible, so that a translation varies less than an acquired image. Whoever takes
its own median and spread for its scale, as is right for an acquired image, stretches it, and its lesions with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.contrast import load_sidecar
from localdiff_cli.volumes.formats import suffix_of
from localdiff_cli.volumes.formats.dicom.header import is_dicom
from localdiff_cli.volumes.formats.dicom.series import series_of
from localdiff_cli.volumes.intensity import Scale


def made_here(sidecar: Mapping[str, Any]) -> bool:
    """Return whether a sidecar is that of a translation which localdiff wrote."""
    return sidecar.get("Synthetic") is True and "LocaldiffVersion" in sidecar


def translation_sidecar(path: Path) -> Mapping[str, Any]:
    """Return a translation's sidecar, empty where there is none; of a DICOM series what its mapping to z says. Raise
    :class:`VolumeError` where it is there and cannot be read."""
    if suffix_of(path) is None and is_dicom(path):
        scale = series_of(path).scale
        return {} if scale is None else {"Synthetic": True, "LocaldiffVersion": ""} | _as_stored(scale)
    found = load_sidecar(path)
    if found.problem:
        what = f"{found.problem}, so its intensity scale is not known; mend it, or remove it where the image is another tool's"
        raise VolumeError(f"{path}: {what}", code="sidecar")
    return found.values


def _as_stored(scale: Scale) -> dict[str, Any]:
    """A scale as a sidecar holds it: that of [0, 1] as its window, which is z at 0 and 1; any other as one that was matched."""
    low = -scale.median / scale.sd
    unit = (low, low + 1 / scale.sd)
    if np.allclose(unit, scale.window, atol=1e-3):
        return {"OutputWindow": [round(end, 3) for end in unit]}
    return {"OutputScale": {"Median": scale.median, "SD": scale.sd, "Window": list(scale.window)}}


def matched_scale(sidecar: Mapping[str, Any], path: Path) -> Scale | None:
    """Return the scale of a translation that was matched to a reference, in whose units it is; None for all others. Raise
    :class:`VolumeError` where the sidecar does not hold it whole."""
    stored = sidecar.get("OutputScale")
    return None if stored is None else scale_from(stored, path, "OutputScale")


def network_scale(sidecar: Mapping[str, Any], path: Path, window: tuple[float, float]) -> Scale:
    """Return z on the window of the translation's network, which the sidecar names; ``window`` where it does not. Raise
    :class:`VolumeError` where it cannot be read."""
    stored = {"Median": 0, "SD": 1, "Window": sidecar.get("OutputWindow") or list(window)}
    return scale_from(stored, path, "OutputWindow")


def written_scale(sidecar: Mapping[str, Any], path: Path, window: tuple[float, float]) -> Scale | None:
    """Return the scale of a translation's voxels: that of the reference it was matched to, or of [0, 1] as the window of its
    network (``window`` where the sidecar names none). None where the image was not made here. Raise :class:`VolumeError` where
    the sidecar does not hold it whole."""
    if not made_here(sidecar):
        return None
    matched = matched_scale(sidecar, path)
    if matched is not None:
        return matched
    low, high = network_scale(sidecar, path, window).window
    return Scale(-low / (high - low), 1 / (high - low), (low, high))


def scale_of(path: Path, window: tuple[float, float]) -> Scale | None:
    """Return :func:`written_scale` of a volume, by the sidecar beside it. Raise :class:`VolumeError` where that is there and
    cannot be read."""
    return written_scale(translation_sidecar(path), path, window)


def scale_from(stored: Any, path: Path, name: str) -> Scale:
    """Return the scale that a sidecar holds under ``name``. Raise :class:`VolumeError` where it is none."""
    try:
        low, high = (float(value) for value in _list(stored["Window"]))
        scale = Scale(float(stored["Median"]), float(stored["SD"]), (low, high))
        if not (np.isfinite([scale.median, scale.sd, low, high]).all() and scale.sd > 0 and high > low):
            raise ValueError(f"median {scale.median:g}, SD {scale.sd:g}, window {low:g} to {high:g}")
    except (KeyError, TypeError, ValueError) as error:
        expected = "finite numbers, a positive SD and a window of two that rise"
        raise VolumeError(
            f"{path}: found an {name} in its sidecar that cannot be read ({error!r}); expected {expected}. Translate it again",
            code="sidecar",
        ) from error
    return scale


def _list(window: Any) -> list[Any]:
    if not isinstance(window, list | tuple):
        raise TypeError(f"a window of {type(window).__name__}")
    return list(window)
