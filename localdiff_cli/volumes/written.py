"""The intensity scale that a translation says it was written with, in its sidecar.

A network draws the mean of what it holds possible, so that a translation varies less than an acquired image. Whoever takes
its own median and spread for its scale, as is right for an acquired image, stretches it, and its lesions with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.contrast import load_sidecar
from localdiff_cli.volumes.intensity import Scale


def made_here(sidecar: Mapping[str, Any]) -> bool:
    """Return whether a sidecar is that of a translation which localdiff wrote."""
    return sidecar.get("Synthetic") is True and "LocaldiffVersion" in sidecar


def translation_sidecar(path: Path) -> Mapping[str, Any]:
    """Return a translation's sidecar, empty where there is none. Raise :class:`VolumeError` where it is there and cannot be
    read."""
    found = load_sidecar(path)
    if found.problem:
        what = f"{found.problem}, so its intensity scale is not known; mend it, or remove it where the image is another tool's"
        raise VolumeError(f"{path}: {what}", code="sidecar")
    return found.values


def matched_scale(sidecar: Mapping[str, Any], path: Path) -> Scale | None:
    """Return the scale of a translation that was matched to a reference, in whose units it is; None for all others. Raise
    :class:`VolumeError` where the sidecar does not hold it whole."""
    stored = sidecar.get("OutputScale")
    return scale_from(stored, path) if isinstance(stored, Mapping) else None


def written_scale(sidecar: Mapping[str, Any], path: Path) -> Scale | None:
    """Return the scale of a translation's voxels: that of the reference, or of [0, 1] as the window of its network. None
    where the image was not made here, or the sidecar names neither. Raise :class:`VolumeError` where it cannot be read."""
    if not made_here(sidecar):
        return None
    matched = matched_scale(sidecar, path)
    if matched is not None or not sidecar.get("OutputWindow"):
        return matched
    low, high = scale_from({"Median": 0, "SD": 1, "Window": sidecar["OutputWindow"]}, path).window
    return Scale(-low / (high - low), 1 / (high - low), (low, high))


def scale_from(stored: Mapping[str, Any], path: Path) -> Scale:
    """Return the scale that a sidecar holds. Raise :class:`VolumeError` where it does not hold it whole."""
    try:
        low, high = map(float, stored["Window"])
        if not high > low:
            raise ValueError(f"a window from {low:g} to {high:g}")
        return Scale(float(stored["Median"]), float(stored["SD"]), (low, high))
    except (KeyError, TypeError, ValueError) as error:
        raise VolumeError(
            f"{path}: found an OutputScale in its sidecar that cannot be read ({error!r}); expected Median, SD and Window of two numbers. "
            "Translate it again", code="sidecar",
        ) from error  # fmt: skip
