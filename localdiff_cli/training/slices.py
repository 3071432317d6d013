"""Training slices: every patient prepared once, exactly as ``translate`` prepares a volume, and kept on disk."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from localdiff_cli.errors import LocaldiffError, VolumeError
from localdiff_cli.training.pairs import Pair
from localdiff_cli.training.processes import Processes
from localdiff_cli.volumes.brain import Brain, brain_from_file, check_same_grid
from localdiff_cli.volumes.files import absent_content
from localdiff_cli.volumes.intensity import DEFAULT_WINDOW, WINDOWS
from localdiff_cli.volumes.masks import read_mask
from localdiff_cli.volumes.prepare import Prepared, PrepareSettings, prepare
from localdiff_cli.volumes.reader import open_volume
from localdiff_cli.volumes.whole import whole_file, write_text

MIN_BRAIN_MM2 = 500.0
"""Slices with less brain than this are left out."""
CACHE_VERSION = 3
PLANES = ("condition", "target", "brain", "lesion")


@dataclass(frozen=True)
class SliceIndex:
    """What is known of a patient's slices without reading them: ``(S,)`` lesion pixels of each, and the digest of all voxels.

    ``cut``: the share of the brain's pixels that lie beyond the grid and are lost.
    """

    lesion_pixels: NDArray[np.int64]
    digest: str
    cut: float = 0.0


@dataclass(frozen=True)
class PatientSlices:
    """One patient's usable slices on the network's grid.

    ``condition`` and ``target`` ``(S, H, W)`` uint16, 65535 = 1.0; ``brain`` and ``lesion`` ``(S, H, W)`` bool. ``masked``
    says whether an expert mask was given, or the patient is known to be healthy: else no slice is known to be healthy. From
    the cache they are views of a memory map, read where they are used; ``kept`` is its index, which a copy by
    ``dataclasses.replace`` does not take along.
    """

    name: str
    split: str
    condition: NDArray[np.uint16]
    target: NDArray[np.uint16] | None
    brain: NDArray[np.bool_]
    lesion: NDArray[np.bool_]
    masked: bool
    kept: SliceIndex | None = field(default=None, init=False, compare=False)

    @cached_property
    def lesion_pixels(self) -> NDArray[np.int64]:
        """``(S,)``: the lesion pixels of each slice, from the cache's index where there is one."""
        return self.lesion.sum(axis=(1, 2), dtype=np.int64) if self.kept is None else self.kept.lesion_pixels

    @cached_property
    def digest(self) -> str:
        """What tells these voxels from others, from the cache's index where there is one."""
        return digest_of((self.condition, self.target, self.brain, self.lesion)) if self.kept is None else self.kept.digest

    @property
    def lesion_free(self) -> NDArray[np.bool_]:
        """``(S,)``: slices without a lesion voxel."""
        return self.lesion_pixels == 0

    def known_healthy(self) -> PatientSlices:
        """Return the same slices, of a patient known to bear no lesion."""
        return _with_index(replace(self, masked=True), self.kept)


def _with_index(patient: PatientSlices, index: SliceIndex | None) -> PatientSlices:
    object.__setattr__(patient, "kept", index)
    return patient


def digest_of(planes: Iterable[NDArray[Any] | None]) -> str:
    """Return the SHA-256 of shapes and voxels."""
    digest = hashlib.sha256()
    for array in planes:
        digest.update(b"none" if array is None else json.dumps(array.shape).encode())
        digest.update(b"" if array is None else np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _any(stack: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """``(S,)``: which slices of ``(S, H, W)`` have a pixel."""
    return np.asarray(stack.any(axis=(1, 2)))


def as_contrast(contrast: str, base: PrepareSettings) -> PrepareSettings:
    """Return the settings for one contrast: its window, all else equal."""
    return replace(base, window=WINDOWS.get(contrast, DEFAULT_WINDOW))


def load_slices(
    pairs: list[Pair],
    contrasts: tuple[str, str | None],
    settings: PrepareSettings,
    cache: Path,
    report: Callable[[str], None],
    team: Processes | None = None,
) -> list[PatientSlices]:
    """Return every patient, prepared or as a memory map from ``cache``.

    A patient that cannot be used is reported and left out; so is the part of a brain that does not fit into the grid.

    The processes of a ``team`` share the preparing: each does its part, then all take it from the cache.
    """
    if team is not None and team.size > 1:
        for pair in pairs[team.rank :: team.size]:
            with suppress(LocaldiffError):
                _cached(pair, contrasts, settings, cache)
        team.wait()
    patients = []
    for pair in pairs:
        try:
            patients.append(_cached(pair, contrasts, settings, cache))
        except LocaldiffError as error:
            report(f"left out {pair.name}: {error}")
            continue
        if (kept := patients[-1].kept) is not None and kept.cut > 0:
            rows, columns = settings.shape
            report(f"{pair.name}: {100 * kept.cut:.2g} % of the brain lies beyond --shape {rows},{columns} and is left out")
    return patients


def cache_stem(pair: Pair, contrasts: tuple[str, str | None], settings: PrepareSettings) -> str:
    """Return the name of a patient's files in the cache; another one when an image or a setting changes."""
    files = [pair.condition, pair.target, pair.mask, pair.brain]
    stamps = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) if p else None for p in files]
    text = json.dumps([CACHE_VERSION, stamps, contrasts, settings.account()], default=str)
    return f"{pair.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _cached(pair: Pair, contrasts: tuple[str, str | None], settings: PrepareSettings, cache: Path) -> PatientSlices:
    for path in (pair.condition, pair.target, pair.mask, pair.brain):
        if path is not None and not path.is_file():
            raise VolumeError(f"{path}: {absent_content(path) or 'no such file'}", code="not-found")
    stem = cache / cache_stem(pair, contrasts, settings)
    if not beside(stem, ".json").is_file():
        earlier = _unpacked(beside(stem, ".npz"))
        arrays, cut = _extract(pair, contrasts, settings) if earlier is None else (earlier, 0.0)
        write_slices(stem, arrays, cut)
    arrays, index = mapped_slices(stem)
    patient = PatientSlices(
        pair.name, pair.split, arrays["condition"], arrays.get("target"), arrays["brain"], arrays["lesion"], pair.mask is not None
    )
    return _with_index(patient, index)


def beside(stem: Path, suffix: str) -> Path:
    """Return ``stem`` with a suffix, whatever dots its name has."""
    return stem.with_name(stem.name + suffix)


def _unpacked(path: Path) -> dict[str, NDArray[Any]] | None:
    """The arrays of a cache file as earlier versions wrote it; None without one."""
    if not path.is_file():
        return None
    with np.load(path) as arrays:
        return dict(arrays)


def record_type(arrays: Mapping[str, NDArray[Any]]) -> np.dtype:
    """Return one slice on disk, its planes side by side: a slice is one read."""
    return np.dtype([(name, arrays[name].dtype, arrays[name].shape[1:]) for name in PLANES if name in arrays])


def write_slices(stem: Path, arrays: Mapping[str, NDArray[Any]], cut: float = 0.0) -> None:
    """Write ``<stem>.npy`` with the slices, then ``<stem>.json`` with their index: where that exists, both are whole."""
    records = np.empty(len(arrays["condition"]), record_type(arrays))
    for name in records.dtype.names or ():
        records[name] = arrays[name]
    with whole_file(beside(stem, ".npy")) as partial, partial.open("wb") as handle:
        np.save(handle, records)
    lesion_pixels = arrays["lesion"].sum(axis=(1, 2), dtype=np.int64).tolist()
    index = {"digest": digest_of(map(arrays.get, PLANES)), "lesion_pixels": lesion_pixels, "cut": cut}
    write_text(beside(stem, ".json"), json.dumps(index))


@lru_cache(maxsize=1024)
def _header(text: bytes) -> tuple[int, np.dtype]:
    """Slices and their type from the header of an .npy file; most patients' are alike, and numpy's reader is slow."""
    told = ast.literal_eval(text.decode())
    return told["shape"][0], np.lib.format.descr_to_dtype(told["descr"])


def mapped_slices(stem: Path) -> tuple[dict[str, NDArray[Any]], SliceIndex]:
    """Return the planes ``(S, H, W)`` of a cache file and their index; views of a memory map that holds no open file and is
    never written back."""
    path, told = beside(stem, ".npy"), json.loads(beside(stem, ".json").read_text())
    with path.open("rb") as handle:
        start = 10 + int.from_bytes(handle.read(10)[8:], "little")
        count, kind = _header(handle.read(start - 10))
    records = torch.from_file(str(path), shared=False, size=start + count * kind.itemsize, dtype=torch.uint8).numpy()[start:].view(kind)
    index = SliceIndex(np.asarray(told["lesion_pixels"], np.int64), told["digest"], told.get("cut", 0.0))
    return {name: records[name] for name in kind.names or ()}, index


def _extract(pair: Pair, contrasts: tuple[str, str | None], settings: PrepareSettings) -> tuple[dict[str, NDArray[Any]], float]:
    """The planes of a patient's usable slices, and the share of the brain that the grid has no room for."""
    volume = open_volume(pair.condition, settings.affine_from)
    brain = brain_from_file(pair.brain, volume) if pair.brain else None
    condition = prepare(volume, as_contrast(contrasts[0], settings), brain=brain)
    with_brain = _any(condition.brain.mask)
    arrays = {"condition": _stack(condition, with_brain)}
    inside = _masks(condition, condition.brain.mask)
    used = inside.sum(axis=(1, 2)) >= MIN_BRAIN_MM2 / settings.spacing**2
    lesion = _masks(condition, mask_from_file_or_empty(pair.mask, condition))
    if pair.target is not None and contrasts[1] is not None:
        other = open_volume(pair.target, settings.affine_from)
        check_same_grid(other, volume, "target")
        target = prepare(other, as_contrast(contrasts[1], settings), brain=Brain(condition.brain.mask, condition.brain.source))
        arrays["target"] = _stack(target, with_brain)
    kept = used[with_brain]
    planes = {name: array[kept] for name, array in arrays.items()} | {"brain": inside[used], "lesion": lesion[used]}
    fitted = {name: fit_shape(plane, settings.shape) for name, plane in planes.items()}
    return fitted, float(1 - fitted["brain"].sum() / max(planes["brain"].sum(), 1))


def mask_from_file_or_empty(path: Path | None, prepared: Prepared) -> NDArray[np.bool_]:
    """Return a lesion mask on the patient's grid, canonical; all False without a file. Raise :class:`VolumeError` for what
    is no mask."""
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


def fit_shape(stack: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Centre-crop a ``(S, H, W)`` stack of a larger brain to the training ``shape``."""
    top, left = (stack.shape[1] - shape[0]) // 2, (stack.shape[2] - shape[1]) // 2
    return stack[:, top : top + shape[0], left : left + shape[1]]
