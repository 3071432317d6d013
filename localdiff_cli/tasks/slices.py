"""What all commands share: the way from a volume to network slices in file order, and back to its own grid."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from localdiff_cli.batch.discover import Item
from localdiff_cli.bundle import Bundle
from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.files import file_hash
from localdiff_cli.volumes.geometry import Grid
from localdiff_cli.volumes.intensity import DEFAULT_WINDOW, Scale
from localdiff_cli.volumes.kept import Kept
from localdiff_cli.volumes.likeness import Typical, unlike
from localdiff_cli.volumes.partners import Index, Source, find_companion
from localdiff_cli.volumes.prepare import Prepared, PrepareSettings, prepare
from localdiff_cli.volumes.reader import open_volume

CLIPPED_SHARE_TO_REVIEW = 0.05


@dataclass(frozen=True)
class Chunk:
    """Some slices of a volume in file order.

    ``numbers`` of all of them; ``active`` the positions of those with brain, for which ``condition`` ``(N, 1, H, W)`` in [0, 1]
    and ``brain`` bool of that shape are given.
    """

    numbers: tuple[int, ...]
    active: tuple[int, ...]
    condition: Tensor
    brain: Tensor

    @property
    def active_numbers(self) -> list[int]:
        """The canonical slice numbers of the active slices."""
        return [self.numbers[i] for i in self.active]


def prepare_item(item: Item, bundle: Bundle, settings: PrepareSettings, written: Scale | None = None) -> Prepared:
    """Open a volume and make it ready for a bundle's network; ``written``: a translation's own scale. Raise
    :class:`VolumeError`."""
    return prepare(open_volume(item.path, settings.affine_from), settings, item.relative, written=written)


def prepare_settings(
    bundle: Bundle, *, brain: str, bias: str | None, nan: str, multiple: int, affine_from: str | None = None, cache: Path | None = None
) -> PrepareSettings:
    """Return the bundle's grid and window with the user's choices."""
    return PrepareSettings(
        brain=brain, bias=bias or bundle.bias, nan=nan, spacing=bundle.grid.spacing, shape=bundle.grid.shape,
        multiple=multiple, window=bundle.condition.window if bundle.condition else DEFAULT_WINDOW, affine_from=affine_from,
        kept=Kept(cache),
    )  # fmt: skip


def prepare_account(settings: PrepareSettings) -> dict[str, object]:
    """Return the settings for the sidecar: a brain mask file by name and content, never by its place on this machine."""
    return settings.account() | {"brain": settings.brain if settings.brain in ("auto", "none") else file_account(Path(settings.brain))}


def file_account(path: Path) -> str:
    """Return the account of a file or folder that decides a result: its name and, for a file, the start of its SHA-256."""
    return f"{path.name} {file_hash(path)[:16]}" if path.is_file() else path.name


def companions(given: Iterable[Source | None], item: Item) -> list[Path]:
    """Return the files of ``item`` in those of the ``given`` places that are folders; none where it has no single one."""
    found = []
    for source in given:
        if source is not None and Path(source.given).is_dir():
            with suppress(VolumeError):
                found.append(find_companion(source, item.path, item.relative))
    return found


def lacking(given: Iterable[Source | None], items: Sequence[Item]) -> dict[Path, str]:
    """Return what the ``given`` places do not have, by the relative names of the items that would fail for it; each folder is
    listed once."""
    lacks: dict[Path, str] = {}
    for source in filter(None, given):
        index = Index(source) if Path(source.given).is_dir() else None
        for item in items:
            try:
                find_companion(source, item.path, item.relative, index)
            except VolumeError as error:
                lacks.setdefault(item.relative, str(error))
    return lacks


def chunks(prepared: Prepared, size: int) -> Iterator[Chunk]:
    """Yield all slices of a volume in the order in which its file stores them, ``size`` at a time; empty ones cost nothing."""
    order = prepared.reader.order()
    for first in range(0, len(order), size):
        numbers = tuple(order[first : first + size])
        active = tuple(i for i, k in enumerate(numbers) if prepared.native_brain(k).any())
        read = [prepared.network_slice(numbers[i]) for i in active]
        # A brain of a few native pixels may vanish on the network's grid.
        kept = [(i, pair) for i, pair in zip(active, read, strict=True) if pair[1].any()]
        shape = (0, 1, *prepared.grid.shape)
        yield Chunk(
            numbers,
            tuple(i for i, _ in kept),
            torch.from_numpy(np.stack([c for _, (c, _) in kept])[:, None]) if kept else torch.zeros(shape),
            torch.from_numpy(np.stack([b for _, (_, b) in kept])[:, None]) if kept else torch.zeros(shape, dtype=torch.bool),
        )


def image_to_native(image: NDArray[Any], inside: NDArray[np.bool_], grid: Grid, brain: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return a network slice in [0, 1] on the native grid, 0 outside ``brain``; ``inside`` is the brain on the network's
    grid, not empty.

    Pixels at the edge take their value from brain pixels only: the background would darken them, or let them ring.
    """
    nearest = distance_transform_edt(~inside, return_distances=False, return_indices=True)
    return np.where(brain, np.clip(grid.to_native(image[tuple(nearest)]), 0, 1), np.float32(0))


def map_to_native(image: NDArray[Any], grid: Grid, brain: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return a score or probability on the native grid, linear, never outside the brain."""
    return np.where(brain, np.clip(grid.to_native(image, cubic=False), 0, None), np.float32(0))


def mask_to_native(mask: NDArray[Any], grid: Grid, brain: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a mask on the native grid."""
    return (grid.to_native(mask, cubic=False) >= 0.5) & brain


def volume_facts(prepared: Prepared) -> dict[str, object]:
    """Return what the sidecar says about the input and how it was prepared. No header text."""
    grid = prepared.grid
    return {
        "VoxelFingerprint": prepared.survey.fingerprint,
        "Brain": prepared.brain.source,
        "SkullStripped": not prepared.brain.source.startswith("none"),
        "BrainVolumeLitres": round(float(prepared.brain.mask.sum()) * float(np.prod(prepared.volume.frame.spacing)) * 1e-6, 4),
        "Bias": "none" if prepared.bias is None else "n4",
        "Normalisation": {
            "Formula": "u = ((x / bias - median) / sd - z_low) / (z_high - z_low), clipped to [0, 1]; 0 outside the brain",
            "Median": prepared.scale.median,
            "SD": prepared.scale.sd,
            "Window": list(prepared.scale.window),
            "ClippedShare": round(prepared.clipped_share, 5),
        },
        "Grid": {"SpacingMm": grid.spacing, "Shape": list(grid.shape), "Origin": list(grid.origin)},
    }


def likeness_doubts(prepared: Prepared, typical: Typical | None) -> list[str]:
    """Return the doubt that the input as a whole is unlike those of training; it is stated before anything else."""
    found = None if typical is None else unlike(prepared.quantiles, typical)
    if found is None:
        return []
    level, deviation = found
    bright = deviation > 0 and level > 0.5
    cause = "skull and dura that the brain mask left in, or another sequence" if bright else "another sequence or a damaged image"
    return [
        f"likeness: the brain's intensities are unlike those of training ({level:.0%} quantile {deviation:+.1f} robust SDs), as with "
        f"contrast agent, {cause}; what the networks make of it is less certain"
    ]


def volume_doubts(prepared: Prepared, item: Item, typical: Typical | None = None) -> list[str]:
    """Return reasons for a person to look at this volume, known before any network runs; ``typical`` says what training
    looked like."""
    doubts = [*likeness_doubts(prepared, typical), *prepared.volume.doubts, *prepared.brain.doubts]
    if not prepared.volume.orientation_known:
        doubts.append("orientation: the header says neither s-form nor q-form, so left and right are a guess")
    if prepared.clipped_share > CLIPPED_SHARE_TO_REVIEW:
        doubts.append(f"intensity: {prepared.clipped_share:.0%} of the brain lies outside the model's window and was clipped")
    if item.content.contrast is None:
        doubts.append("contrast: neither the name nor a sidecar says what this image shows; it was taken as what the model expects")
    if item.content.problem:
        unknown = "whether a contrast agent was given, or the image is synthetic, is not known"
        doubts.append(f"sidecar: {item.content.problem}; {unknown}, and it is read as acquired")
    if item.content.enhanced:
        doubts.append("contrast: name or sidecar says contrast-enhanced, unlike the training images")
    if item.content.synthetic:
        doubts.append("input: is itself synthetic")
    return doubts


def versions() -> dict[str, str]:
    """Return the versions of what computes a result."""
    names = ("torch", "monai", "numpy", "SimpleITK", "nibabel", "faiss-cpu", "deepbet")
    return {name: importlib.metadata.version(name) for name in names}
