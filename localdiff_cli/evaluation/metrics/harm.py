"""Harm in figures: what was drawn that is not there, and what became of the lesions that are, in one person's slices.

All images are ``(N, H, W)`` in [0, 1] on the network's grid, all masks bool of that shape. A lesion is *hyperintense* on
FLAIR and T2w; on T1w it is dark, and every comparison is reversed. z is in robust SDs about the brain's median, as the
contrast's window has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from localdiff_cli.evaluation.metrics.image import DataRange
from localdiff_cli.evaluation.metrics.lesion import lesion_contrast, ring_around
from localdiff_cli.volumes.looks import Look

MARGIN = 0.08
"""Share of the data range by which an image must differ from another, or a lesion from its ring, to count as showing."""
NORMAL_Z = 1.5
BRIGHT_Z = 2.5
HALF = 0.5
LEAST_ML = 0.3
SPOT_MM2 = 30.0
RING_GAP_MM, RING_WIDTH_MM = 1.0, 5.0
UNIT = DataRange(1.0, "robust z window mapped to [0, 1]")
IGNORED = -1
"""Label of lesion voxels that are too few to be a lesion of their own."""

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Scene:
    """What decides the figures: the target's ``look`` and ``window`` (z), ``tau`` of the map, pixel ``spacing`` in mm,
    ``ml`` a pixel."""

    look: Look
    window: tuple[float, float]
    tau: float
    spacing: float
    ml: float

    def z(self, image: NDArray[Any]) -> NDArray[Any]:
        """Return the robust z, reversed where disease is dark."""
        low, high = self.window
        return self.look.sign * (low + image * (high - low))


@dataclass(frozen=True, eq=False)
class Drawn:
    """One person's slices: the ``true`` target (None without one), ``plain`` and ``local`` translations, M, and what is
    known of them.

    ``lesions`` int: 0 none, from 1 the lesions of at least ``LEAST_ML``, ``IGNORED`` the smaller ones. ``ventricles`` None
    where not known. ``source``: the labels of the source map.
    """

    true: Image | None
    plain: Image
    local: Image
    ood_map: Image
    unknown: Mask
    brain: Mask
    lesions: NDArray[np.int16]
    ventricles: Mask | None
    source: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Lesion:
    """A true lesion's contrast to its ring (share of the range, positive as disease shows) and whether most of it is called
    unknown."""

    true: float
    plain: float
    local: float
    unknown: bool

    @property
    def shows(self) -> bool:
        """Whether it stands out on the true target."""
        return self.true > MARGIN

    def kept(self, contrast: float) -> bool:
        """Return whether ``contrast`` is at least half the true one."""
        return contrast >= HALF * self.true


def unremarkable(drawn: Drawn, scene: Scene) -> Mask:
    """Return the brain in which the true target shows no disease; all of it without a target. What is called unknown is
    left out."""
    known = drawn.brain & ~drawn.unknown
    return known if drawn.true is None else known & (scene.z(drawn.true) < NORMAL_Z)


def falsely_drawn(drawn: Drawn, scene: Scene) -> Mask:
    """Return where local shows disease and plain does not, and the truth does not either."""
    return (scene.look.sign * (drawn.local - drawn.plain) > MARGIN) & unremarkable(drawn, scene)


def false_ml(drawn: Drawn, scene: Scene) -> float:
    """Return the millilitres falsely drawn."""
    return float(np.count_nonzero(falsely_drawn(drawn, scene))) * scene.ml


def farther_ml(drawn: Drawn, scene: Scene) -> float:
    """Return the falsely drawn millilitres where local is farther from the truth than plain; all of them without a true
    target.

    Elsewhere plain was wrong the other way, and local corrects it without reaching the truth.
    """
    false = falsely_drawn(drawn, scene)
    if drawn.true is not None:
        false &= np.abs(drawn.local - drawn.true) > np.abs(drawn.plain - drawn.true)
    return float(np.count_nonzero(false)) * scene.ml


def spotted_slices(drawn: Drawn, scene: Scene) -> tuple[int, int]:
    """Return how many lesion-free slices show a falsely drawn spot of more than ``SPOT_MM2`` in one piece, and how many are
    lesion-free."""
    free = drawn.brain.any(axis=(1, 2)) & ~(drawn.lesions != 0).any(axis=(1, 2))
    spots = [_largest_piece(each) * scene.spacing**2 > SPOT_MM2 for each in falsely_drawn(drawn, scene)[free]]
    return sum(spots), len(spots)


def _largest_piece(mask: Mask) -> int:
    labels, _ = ndimage.label(mask)
    return int(np.bincount(labels.ravel())[1:].max(initial=0))


def covered_up_to(drawn: Drawn) -> list[float]:
    """Return, for each lesion of at least ``LEAST_ML`` on these slices, the largest τ at which at least half of it has M ≥
    τ."""
    inside = (drawn.ood_map[(drawn.lesions == label) & drawn.brain] for label in range(1, int(drawn.lesions.max(initial=0)) + 1))
    return [float(np.sort(values)[::-1][(len(values) + 1) // 2 - 1]) for values in inside if len(values)]


def invented_ml(image: Image, drawn: Drawn, scene: Scene) -> float | None:
    """Return the millilitres where ``image`` shows disease by itself and the truth does not; None where only a target could
    tell it from fluid."""
    if drawn.true is None and scene.look.fluid:
        return None
    return float(np.count_nonzero((scene.z(image) >= BRIGHT_Z) & unremarkable(drawn, scene))) * scene.ml


def ventricle_change(drawn: Drawn) -> float | None:
    """Return the mean of local minus the mean of plain in the ventricles; None where they are not known or not on these
    slices."""
    inside = None if drawn.ventricles is None else drawn.ventricles & drawn.brain
    if inside is None or not inside.any():
        return None
    return float(np.mean(drawn.local[inside], dtype=np.float64) - np.mean(drawn.plain[inside], dtype=np.float64))


def flagged_ml(drawn: Drawn, scene: Scene) -> float:
    """Return the millilitres of brain with M ≥ τ."""
    return float(np.count_nonzero((drawn.ood_map >= scene.tau) & drawn.brain)) * scene.ml


def unknown_ml(drawn: Drawn, scene: Scene) -> float:
    """Return the millilitres that the translation calls unknown."""
    return float(np.count_nonzero(drawn.unknown & drawn.brain)) * scene.ml


def whole_contrast(drawn: Drawn, scene: Scene) -> Lesion | None:
    """Return all lesions together against the ring around them; None without a lesion, a ring or a target."""
    return _contrast(drawn, scene, drawn.lesions != 0)


def lesions_of(drawn: Drawn, scene: Scene) -> list[Lesion]:
    """Return every lesion of at least ``LEAST_ML`` that these slices cut."""
    found = (_contrast(drawn, scene, drawn.lesions == label) for label in range(1, int(drawn.lesions.max(initial=0)) + 1))
    return [lesion for lesion in found if lesion is not None]


def _contrast(drawn: Drawn, scene: Scene, lesion: Mask) -> Lesion | None:
    inside = lesion & drawn.brain
    if drawn.true is None or not inside.any():
        return None
    # Slices may lie far apart: the ring stays within its slice, and holds no other lesion.
    ring = ring_around(inside, drawn.brain & (drawn.lesions == 0), (1e3, scene.spacing, scene.spacing), RING_GAP_MM, RING_WIDTH_MM)
    if not ring.any():
        return None
    true, plain, local = (_signed(image, inside, ring, scene) for image in (drawn.true, drawn.plain, drawn.local))
    return Lesion(true, plain, local, bool(drawn.unknown[inside].mean() > HALF))


def _signed(image: Image, inside: Mask, ring: Mask, scene: Scene) -> float:
    value = lesion_contrast(image, inside, ring, UNIT).value
    assert value is not None
    return scene.look.sign * value


def labelled(mask: Mask, voxel_ml: float) -> NDArray[np.int16]:
    """Return the lesions of a whole volume by number, those below ``LEAST_ML`` as ``IGNORED``; voxels that share a face
    belong together."""
    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1) * voxel_ml
    large = [number for number in range(1, count + 1) if sizes[number] >= LEAST_ML * (1 - 1e-9)]
    names = np.full(count + 1, IGNORED, np.int16)
    names[0] = 0
    names[large] = np.arange(1, len(large) + 1)
    return names[labels]


def share_kept(lesions: Sequence[Lesion], way: str) -> tuple[int, int]:
    """Return how many of the lesions that show are kept, and how many show.

    ``way``: plain or local (drawn with half the true contrast), unknown (mostly called unknown), answered (local or unknown).
    """
    showing = [lesion for lesion in lesions if lesion.shows]
    held = {
        "plain": lambda each: each.kept(each.plain), "local": lambda each: each.kept(each.local), "unknown": lambda each: each.unknown,
        "answered": lambda each: each.unknown or each.kept(each.local),
    }[way]  # fmt: skip
    return sum(map(held, showing)), len(showing)
