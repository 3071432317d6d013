"""Training slices: every patient prepared once, exactly as ``translate`` prepares a volume, and kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.errors import LocaldiffError, VolumeError
from localdiff_cli.training.pairs import Pair
from localdiff_cli.volumes.brain import Brain, brain_from_file, check_same_grid
from localdiff_cli.volumes.intensity import DEFAULT_WINDOW, WINDOWS
from localdiff_cli.volumes.masks import read_mask
from localdiff_cli.volumes.prepare import Prepared, PrepareSettings, prepare
from localdiff_cli.volumes.reader import absent_content, open_volume
from localdiff_cli.volumes.whole import whole_file

MIN_BRAIN_MM2 = 500.0
"""Slices with less brain than this are left out."""
CACHE_VERSION = 3


@dataclass(frozen=True)
class PatientSlices:
    """One patient's usable slices on the network's grid.

    ``condition`` and ``target`` ``(S, H, W)`` uint16, 65535 = 1.0; ``brain`` and ``lesion`` ``(S, H, W)`` bool. ``masked`` says
    whether an expert mask was given, or the patient is known to be healthy: else no slice is known to be healthy.
    """

    name: str
    split: str
    condition: NDArray[np.uint16]
    target: NDArray[np.uint16] | None
    brain: NDArray[np.bool_]
    lesion: NDArray[np.bool_]
    masked: bool

    @property
    def lesion_free(self) -> NDArray[np.bool_]:
        """``(S,)``: slices without a lesion voxel."""
        return ~_any(self.lesion)


def _any(stack: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """``(S,)``: which slices of ``(S, H, W)`` have a pixel."""
    return np.asarray(stack.any(axis=(1, 2)))


def prepare_settings(contrast: str, base: PrepareSettings) -> PrepareSettings:
    """The settings for one contrast: its window, all else equal."""
    return replace(base, window=WINDOWS.get(contrast, DEFAULT_WINDOW))


def load_slices(
    pairs: list[Pair],
    contrasts: tuple[str, str | None],
    settings: PrepareSettings,
    cache: Path,
    report: Callable[[str], None],
) -> list[PatientSlices]:
    """Prepare (or read from ``cache``) every patient. A patient that cannot be used is reported and left out."""
    patients = []
    for pair in pairs:
        try:
            patients.append(_cached(pair, contrasts, settings, cache))
        except LocaldiffError as error:
            report(f"left out {pair.name}: {error}")
    return patients


def _key(pair: Pair, contrasts: tuple[str, str | None], settings: PrepareSettings) -> str:
    files = [pair.condition, pair.target, pair.mask, pair.brain]
    stamps = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) if p else None for p in files]
    text = json.dumps([CACHE_VERSION, stamps, contrasts, settings.account()], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _cached(pair: Pair, contrasts: tuple[str, str | None], settings: PrepareSettings, cache: Path) -> PatientSlices:
    for path in (pair.condition, pair.target, pair.mask, pair.brain):
        if path is not None and not path.is_file():
            raise VolumeError(f"{path}: {absent_content(path) or 'no such file'}", code="not-found")
    path = cache / f"{pair.name}-{_key(pair, contrasts, settings)}.npz"
    if not path.is_file():
        with whole_file(path) as partial, partial.open("wb") as handle:
            np.savez_compressed(handle, **_extract(pair, contrasts, settings))
    with np.load(path) as arrays:
        target = arrays.get("target")
        return PatientSlices(pair.name, pair.split, arrays["condition"], target, arrays["brain"], arrays["lesion"], pair.mask is not None)


def _extract(pair: Pair, contrasts: tuple[str, str | None], settings: PrepareSettings) -> dict[str, Any]:
    volume = open_volume(pair.condition, settings.affine_from)
    brain = brain_from_file(pair.brain, volume) if pair.brain else None
    condition = prepare(volume, prepare_settings(contrasts[0], settings), brain=brain)
    with_brain = _any(condition.brain.mask)
    arrays = {"condition": _stack(condition, with_brain)}
    inside = _masks(condition, condition.brain.mask)
    used = inside.sum(axis=(1, 2)) >= MIN_BRAIN_MM2 / settings.spacing**2
    lesion = _masks(condition, mask_from_file_or_empty(pair.mask, condition))
    if pair.target is not None and contrasts[1] is not None:
        other = open_volume(pair.target, settings.affine_from)
        check_same_grid(other, volume, "target")
        target = prepare(other, prepare_settings(contrasts[1], settings), brain=Brain(condition.brain.mask, condition.brain.source))
        arrays["target"] = _stack(target, with_brain)
    kept = used[with_brain]
    arrays = {name: fit_shape(array[kept], settings.shape) for name, array in arrays.items()}
    return arrays | {"brain": fit_shape(inside[used], settings.shape), "lesion": fit_shape(lesion[used], settings.shape)}


def mask_from_file_or_empty(path: Path | None, prepared: Prepared) -> NDArray[np.bool_]:
    """A lesion mask on the patient's grid, canonical; all False without a file. Raises :class:`VolumeError` for what is no mask."""
    volume = prepared.volume
    if path is None:
        return np.zeros(volume.frame.shape, dtype=bool)
    other = open_volume(path, volume.affine_from)
    check_same_grid(other, volume, "lesion mask")
    return read_mask(other, "a lesion mask")[0]


def _stack(prepared: Prepared, used: NDArray[np.bool_]) -> NDArray[np.uint16]:
    return np.stack([np.rint(prepared.network_slice(int(k))[0] * 65535).astype(np.uint16) for k in np.flatnonzero(used)])


def _masks(prepared: Prepared, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.stack([prepared.grid.to_network(image, cubic=False) > 0.5 for image in mask])


def fit_shape(stack: NDArray, shape: tuple[int, int]) -> NDArray:
    """Centre-crop a ``(S, H, W)`` stack of a larger brain to the training ``shape``."""
    top, left = (stack.shape[1] - shape[0]) // 2, (stack.shape[2] - shape[1]) // 2
    return stack[:, top : top + shape[0], left : left + shape[1]]
