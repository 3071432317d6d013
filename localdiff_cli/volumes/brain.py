"""The brain: the support of a skull-stripped volume, deepbet's extraction of a head, or a mask that the user brings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.errors import VolumeError
from localdiff_cli.threads import apart
from localdiff_cli.volumes.advice import VOLUMES, Advice
from localdiff_cli.volumes.masks import named, read_mask
from localdiff_cli.volumes.reader import SliceReader, open_volume
from localdiff_cli.volumes.volume import Volume

STRIPPED_MAX_LITRES = 2.2
"""A support larger than this is a head: 84 LGG patients' heads start at 2.46 l, stripped adult brains end below 2.1 l."""
BRAIN_LITRES = (0.4, 2.6)
SLAB_EXTENT_MM = 60.0
SLAB_MIN_SLICES = 8
SLAB_MAX_AREA_MM2 = 21500.0
SLAB_MIN_AREA_MM2 = 2000.0
"""The largest slice of a slab shows at least this much brain, but at the vertex and the foramen magnum."""
BACKGROUND_SHARE = 0.15
Find = Callable[[], NDArray[Any]]


@dataclass(frozen=True)
class Brain:
    """A brain mask ``(slices, rows, columns)`` bool, canonical, where it came from, and reasons to doubt it."""

    mask: NDArray[np.bool_]
    source: str
    doubts: tuple[str, ...] = ()


def support(reader: SliceReader, background: float, tolerance: float) -> NDArray[np.bool_]:
    """Return all finite voxels that differ from the background value by more than ``tolerance``, holes in each slice
    filled."""
    import fill_voids

    shape = reader.volume.frame.shape
    mask = np.zeros(shape, dtype=bool)
    for k, image in reader:
        mask[k] = np.isfinite(image) & (np.abs(image - np.float32(background)) > tolerance)
        if mask[k].any():
            mask[k] = fill_voids.fill(np.asfortranarray(mask[k]))
    return mask


def _litres(mask: NDArray[Any], volume: Volume) -> float:
    return float(mask.sum()) * float(np.prod(volume.frame.spacing)) * 1e-6


def _extent_mm(volume: Volume) -> float:
    return volume.frame.shape[0] * volume.frame.spacing[0]


def is_slab(volume: Volume) -> bool:
    """Return whether there are too few centimetres from foot to head for a brain to be found in it."""
    return _extent_mm(volume) < SLAB_EXTENT_MM or volume.frame.shape[0] < SLAB_MIN_SLICES


def looks_stripped(mask: NDArray[Any], volume: Volume) -> bool:
    """Return whether a support is that of a brain without its skull, by its size alone."""
    if 1 - mask.mean() < BACKGROUND_SHARE:
        return False
    if is_slab(volume):
        return _largest_area(mask, volume) <= SLAB_MAX_AREA_MM2
    return _litres(mask, volume) <= STRIPPED_MAX_LITRES


def auto_brain(
    reader: SliceReader, background: float, tolerance: float, advice: Advice = VOLUMES, kept: Callable[[Find], NDArray[Any]] | None = None
) -> Brain:
    """Return the support of a stripped volume, else deepbet's brain. Raise :class:`VolumeError` where neither can be
    trusted.

    ``kept`` gives what it is told to find, or what was found so before.
    """
    volume = reader.volume
    mask = support(reader, background, tolerance)
    if looks_stripped(mask, volume):
        doubts = ("brain: a thin slab was taken as skull-stripped by its area alone",) if is_slab(volume) else ()
        return Brain(mask, "support of a skull-stripped volume", doubts + _size_doubts(mask, volume))
    if is_slab(volume):
        raise VolumeError(
            f"{volume.path}: found a slab of {volume.frame.shape[0]} slices, {_extent_mm(volume):.0f} mm, with its skull; "
            f"brain extraction expects at least {SLAB_MIN_SLICES} slices and {SLAB_EXTENT_MM:.0f} mm. "
            f"{advice.brain}",
            code="brain",
        )
    extract = partial(_extract, reader, advice)
    extracted = extract() if kept is None else kept(extract)
    litres = _litres(extracted, volume)
    if not BRAIN_LITRES[0] <= litres <= BRAIN_LITRES[1] * 1.5:
        raise VolumeError(
            f"{volume.path}: the extracted brain measures {litres:.2f} l; expected {BRAIN_LITRES[0]}–{BRAIN_LITRES[1]} l. {advice.brain}",
            code="brain",
        )
    return Brain(extracted, "deepbet", _size_doubts(extracted, volume))


def _largest_area(mask: NDArray[Any], volume: Volume) -> float:
    """The mask's area in the slice where it is largest, mm²."""
    return float(mask.sum(axis=(1, 2)).max() * volume.frame.spacing[1] * volume.frame.spacing[2])


def _size_doubts(mask: NDArray[Any], volume: Volume) -> tuple[str, ...]:
    litres, area = _litres(mask, volume), _largest_area(mask, volume)
    if is_slab(volume) and SLAB_MIN_AREA_MM2 <= area <= SLAB_MAX_AREA_MM2:
        return ()
    if is_slab(volume):
        return (f"brain: the mask measures {area / 100:.0f} cm² where it is largest in this slab, unlike an adult brain",)
    if BRAIN_LITRES[0] <= litres <= BRAIN_LITRES[1]:
        return ()
    return (f"brain: the mask measures {litres:.2f} l, unlike an adult brain",)


def whole_image(reader: SliceReader, background: float, tolerance: float) -> Brain:
    """Return the brain of ``--brain none``: everything that is not background."""
    return Brain(support(reader, background, tolerance), "none: everything that is not background")


def brain_from_file(path: Path, volume: Volume) -> Brain:
    """Return a mask on the volume's own grid. Raise :class:`VolumeError` for another grid, for what is no mask, and for an
    empty one."""
    mask_volume = open_volume(path, volume.affine_from)
    check_same_grid(mask_volume, volume, "brain mask")
    mask, content = read_mask(mask_volume, "a brain mask")
    if not mask.any():
        raise VolumeError(f"{path}: the brain mask is empty ({content.said}); expected voxels that mark the brain", code="brain")
    return Brain(mask, f"given: {named(path, content)}", _size_doubts(mask, volume))


def check_same_grid(other: Volume, volume: Volume, what: str) -> None:
    """Raise :class:`VolumeError` unless both volumes have the same shape and place in space."""
    if other.shape != volume.shape or not np.allclose(other.affine, volume.affine, atol=1e-3):
        raise VolumeError(
            f"{other.path}: the {what} has shape {other.shape} and another place in space than {volume.path} with shape {volume.shape}; "
            "expected the same grid. Resample it to the volume first",
            code="other-grid",
        )


@lru_cache(maxsize=1)
def _deepbet() -> tuple[object, object]:
    """deepbet's two frozen networks (Fisch et al. 2024), from its wheel, on the CPU: the mask is the same on every device."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from deepbet.bet import BrainExtraction

        networks = BrainExtraction(no_gpu=True)
    return networks.bbox_model, networks.model


def _extract(reader: SliceReader, advice: Advice) -> NDArray[np.bool_]:
    head = np.zeros(reader.volume.frame.shape, dtype=np.float32)
    for k, image in reader:
        head[k] = np.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0)
    try:
        return apart(extract_brain, [head])[0]
    except ValueError as error:
        raise VolumeError(
            f"{reader.volume.path}: found no brain in this head ({error}). {advice.brain}",
            code="brain",
        ) from error


def extract_brain(head: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the brain mask of a canonical head ``(slices, rows, columns)`` by deepbet, interpolated linearly at every
    step.

    deepbet's own nearest-neighbour steps suffer on thick slices. Largest component, holes filled. Raise ``ValueError``
    where nothing is found.
    """
    import fill_voids
    import torch
    from skimage.measure import label
    from torch.nn.functional import interpolate

    def resize(x: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        return interpolate(x[None, None], shape, mode="trilinear", align_corners=False)[0, 0]

    find_box, segment = _deepbet()
    ras = torch.from_numpy(np.ascontiguousarray(head.transpose(2, 1, 0)[::-1, ::-1]))
    with torch.inference_mode():
        small = resize(ras, (128, 128, 128))
        low, high = np.quantile(small.numpy(), [0.005, 0.995])
        coarse = find_box(_deepbet_scale(small, low, high)[None, None])[0, 1].numpy() > 0.5  # type: ignore[operator]
        box = _box(_largest(coarse, label), tuple(ras.shape))
        crop = resize(ras[box], (256, 256, 256))
        fine = segment(_deepbet_scale(crop, low, high)[None, None])[0, 1]  # type: ignore[operator]
        mask = np.zeros(tuple(ras.shape), dtype=bool)
        mask[box] = resize(fine, tuple(ras[box].shape)).numpy() > 0.5
    mask = fill_voids.fill(np.asfortranarray(_largest(mask, label)))
    return np.ascontiguousarray(mask[::-1, ::-1].transpose(2, 1, 0))


def _deepbet_scale(x, low: float, high: float):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    x = ((x - low) / max(high - low, 1e-12)).clamp(0, 1)
    return 0.226 * (x - x.mean()) / x.std().clamp(min=1e-12) + 0.449


def _largest(mask: NDArray[Any], label) -> NDArray[np.bool_]:  # type: ignore[no-untyped-def]  # noqa: ANN001
    labels = label(mask)
    if labels.max() == 0:
        raise ValueError("nothing in it looks like a brain")
    return labels == 1 + np.bincount(labels.ravel())[1:].argmax()


def _box(coarse: NDArray[Any], shape: tuple[int, ...], margin: float = 0.1) -> tuple[slice, ...]:
    box = []
    for axis, n in enumerate(shape):
        used = np.flatnonzero(coarse.mean(axis=tuple(a for a in range(3) if a != axis)) > 0.02)
        if not used.size:
            raise ValueError("nothing in it looks like a brain")
        scale = n / coarse.shape[axis]
        low, high = used[0] * scale, (used[-1] + 1) * scale
        grow = margin * (high - low)
        box.append(slice(max(0, int(low - grow)), min(n, int(np.ceil(high + grow)))))
    return tuple(box)
