"""Evaluate one case: every volume onto the case's grid first; there its brain, one intensity scale, the segmenter, the
figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.errors import VolumeError
from localdiff_cli.evaluation.metrics.case import Case, CaseResult, evaluate_case
from localdiff_cli.evaluation.metrics.image import DataRange
from localdiff_cli.evaluation.metrics.promised import promised_in
from localdiff_cli.evaluation.settings import FigureSettings
from localdiff_cli.tasks.judges import Segmenter, SliceFeatures
from localdiff_cli.volumes.advice import EVALUATE
from localdiff_cli.volumes.brain import Brain, auto_brain, looks_stripped, support
from localdiff_cli.volumes.contrast import read_sidecar
from localdiff_cli.volumes.intensity import DEFAULT_WINDOW, WINDOWS, Scale
from localdiff_cli.volumes.placement import CaseGrid, OnGrid
from localdiff_cli.volumes.prepare import PrepareSettings, prepare_read, survey
from localdiff_cli.volumes.reader import open_volume
from localdiff_cli.volumes.written import made_here, matched_scale, network_scale, scale_of, translation_sidecar

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
DATA_RANGE = "robust z of the reference's brain, window mapped to [0, 1]"
OWN_SCALE = "by its own robust z inside the brain, so that a factor or an offset over the whole brain does not count"
MOST_LESION = 0.6
"""Share of the brain that lesions may fill: no lesion of a living person does."""
LEAST_COVERED = 0.5
"""Share of the brain that every image must show, or the case is refused: the images then lie in different places."""


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case; ``translation`` and ``reference`` are needed. ``without``: roles asked for of which it has none."""

    name: str
    patient: str
    translation: Path
    reference: Path
    truth: Path | None = None
    baseline: Path | None = None
    segmentation: Path | None = None
    reference_segmentation: Path | None = None
    baseline_segmentation: Path | None = None
    ood: Path | None = None
    condition: Path | None = None
    brain: Path | None = None
    lower: Path | None = None
    upper: Path | None = None
    source: Path | None = None
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class CaseSettings:
    """How cases are read: ``contrast`` of the translation, ``bias`` of the reference, resampling, τ of the OOD map, the
    segmenter."""

    settings: FigureSettings
    contrast: str | None
    bias: str = "n4"
    resample_reference: bool = False
    tau: float = 0.5
    segmenter: str | None = None
    affine_from: str | None = None

    @property
    def window(self) -> tuple[float, float]:
        """The z window of the contrast."""
        return WINDOWS.get(self.contrast or "", DEFAULT_WINDOW)


@dataclass(frozen=True)
class Scaled:
    """An image on the common scale, 0 outside the brain; ``intensities`` as others compare them; ``how`` the scale was found."""

    image: Array
    intensities: Array
    how: str


def measure(
    files: CaseFiles, options: CaseSettings, segmenter: Segmenter | None = None, features: SliceFeatures | None = None
) -> CaseResult:
    """Read one case and measure it. Raise :class:`VolumeError` with the file and the reason."""
    grid = CaseGrid(open_volume(files.translation, options.affine_from), options.resample_reference)
    images, limits = _images(files, grid), _limits(files, grid)
    brain, notes = _compared_brain(_brain(files, grid, images), images | limits, files.name)
    _check_finite(images | limits, brain)
    reference, scale = _reference(images["reference"], grid, brain, options)
    scaled = {"reference": reference} | {
        role: _translated(images[role], grid, brain, scale, options) for role in ("translation", "baseline") if role in images
    }
    given = _masks(files, grid)
    masks = {role: mask & brain.mask for role, (mask, _) in given.items()}
    notes += tuple(_outside(files.name, role, mask, brain) for role, (mask, _) in given.items() if (mask & ~brain.mask).any())
    _check_lesions(files, masks, brain)
    if segmenter is not None:
        for role in scaled:
            written = None if role == "reference" else scale_of(images[role].path, options.window)
            masks[_segmentation_of(role)] = segmenter(grid.reader(images[role]), brain, written)
    low, high = _interval(limits, images["translation"], grid, brain, options)
    case = replace(_case(files, grid, brain, scaled, masks, options), low=low, high=high)
    used = {role: f"{images[role].how}; {each.how}" for role, each in scaled.items()} | {role: how for role, (_, how) in given.items()}
    used |= {role: f"{each.how}; on the translation's scale" for role, each in limits.items()}
    result = evaluate_case(case, options.settings)
    missing = tuple(f"{files.name}: no {role.replace('_', ' ')} belongs to it" for role in files.without)
    promised = promised_in(read_sidecar(files.translation))
    result = replace(result, used=used, notes=(*notes, *missing, *result.notes), promised=promised)
    return result if features is None else replace(result, features=_features(features, scaled, brain))


def _segmentation_of(role: str) -> str:
    return "segmentation" if role == "translation" else f"{role}_segmentation"


def _images(files: CaseFiles, grid: CaseGrid) -> dict[str, OnGrid]:
    """The images of a case by role, each on its grid."""
    given = {"translation": files.translation, "reference": files.reference, "baseline": files.baseline}
    return {role: grid.image(path, role) for role, path in given.items() if path is not None}


def _limits(files: CaseFiles, grid: CaseGrid) -> dict[str, OnGrid]:
    """The limits of an interval, each on the case's grid; empty unless both are given."""
    if files.lower is None or files.upper is None:
        return {}
    return {"lower limit": grid.bring(files.lower, "lower limit"), "upper limit": grid.bring(files.upper, "upper limit")}


def _interval(
    limits: Mapping[str, OnGrid], translation: OnGrid, grid: CaseGrid, brain: Brain, options: CaseSettings
) -> tuple[Array | None, Array | None]:
    """The lower and the upper limit on the translation's own scale; None where none were given."""
    if not limits:
        return None, None
    common, _, _ = _own_scale(translation, grid, brain, options)
    low, high = (common(each.array) for each in limits.values())
    return low, high


def _masks(files: CaseFiles, grid: CaseGrid) -> dict[str, tuple[Mask, str]]:
    """The lesion masks given, by role, each on the case's grid, and how it came there."""
    roles = ("truth", "segmentation", "reference_segmentation", "baseline_segmentation")
    given = {role: getattr(files, role) for role in roles}
    return {role: grid.mask(path, role.replace("_", " ")) for role, path in given.items() if path is not None}


def _outside(name: str, role: str, mask: Mask, brain: Brain) -> str:
    """The note that part of a lesion mask counts nowhere, since nothing is compared there."""
    share = float((mask & ~brain.mask).sum()) / float(mask.sum())
    return f"{name}: {share:.1%} of the {role.replace('_', ' ')} lies outside the brain mask and is left out of all figures"


def _check_lesions(files: CaseFiles, masks: Mapping[str, Mask], brain: Brain) -> None:
    """Raise :class:`VolumeError` where the expert's mask marks most of the brain: it is one of tissues, or of the brain
    itself."""
    if "truth" not in masks:
        return
    share = float(masks["truth"][brain.mask].mean())
    if share > MOST_LESION:
        raise VolumeError(
            f"{files.truth}: marks {share:.0%} of the brain; expected lesions, not a mask of tissues or of the brain itself. "
            "Name a mask of lesions alone (--truth)",
            code="not-a-lesion-mask",
        )


def _brain(files: CaseFiles, grid: CaseGrid, images: Mapping[str, OnGrid]) -> Brain:
    """The mask given; else the support of a localdiff output; else of any image without its skull; else one found in the
    reference."""
    if files.brain is not None:
        mask, how = grid.mask(files.brain, "brain mask")
        if not mask.any():
            raise VolumeError(f"{files.brain}: the brain mask is empty; expected voxels above 0", code="brain")
        return Brain(mask, "given" if how == "same grid" else f"given, {how}")
    reader = grid.reader(images["translation"])
    if made_here(translation_sidecar(files.translation)):
        mask = support(reader, 0.0, 0.0)
        if mask.mean() <= 0.95:
            return Brain(mask, "support of the translation")
    else:
        found = survey(reader)
        mask = support(reader, found.background, found.tolerance)
        if looks_stripped(mask, grid.volume):
            return Brain(mask, "support of the translation")
    reader = grid.reader(images["reference"])
    found = survey(reader)
    brain = auto_brain(reader, found.background, found.tolerance, EVALUATE)
    return replace(brain, source=f"{brain.source}, found on the reference")


def _compared_brain(brain: Brain, images: Mapping[str, OnGrid], name: str) -> tuple[Brain, tuple[str, ...]]:
    """The brain that all images show, and a note where one shows less. Raises :class:`VolumeError` where one shows less
    than half."""
    notes, mask = [], brain.mask
    for role, image in images.items():
        if image.covered is None or (image.covered | ~brain.mask).all():
            continue
        share = float(image.covered[brain.mask].mean())
        if share < LEAST_COVERED:
            raise VolumeError(
                f"{image.path}: the {role}'s field of view covers {share:.0%} of the brain of {name}; expected all of it. "
                "The headers place them apart: check both",
                code="other-place",
            )
        notes.append(f"{name}: the {role}'s field of view covers {share:.1%} of the brain; figures are of that part")
        mask = mask & image.covered
    source = f"{brain.source}, cut to what all images cover" if notes else brain.source
    return replace(brain, mask=mask, source=source), tuple(notes)


def _check_finite(images: Mapping[str, OnGrid], brain: Brain) -> None:
    """Raise :class:`VolumeError` where an image is not finite inside the brain; outside nothing is compared."""
    for role, image in images.items():
        count = 0 if image.holes is None else int(np.count_nonzero(image.holes & brain.mask))
        if count:
            raise VolumeError(
                f"{image.path}: found {count} voxels of NaN or infinity in the {role} inside the brain; expected finite ones there. "
                "Repair the volume, or give a brain mask without them (--brain)", code="not-finite",
            )  # fmt: skip


def _reference(image: OnGrid, grid: CaseGrid, brain: Brain, options: CaseSettings) -> tuple[Scaled, Scale]:
    """The reference on the common scale: bias field out as asked, robust z of its own brain, 0 outside; and that scale."""
    reader = grid.reader(image)
    prepared = prepare_read(reader, PrepareSettings(bias=options.bias, window=options.window, advice=EVALUATE), brain=brain)
    normal = np.stack([prepared.scale.normalise(prepared.corrected(k)) for k in range(len(image.array))])
    bias = "bias n4" if prepared.bias is not None else "bias none" if options.bias == "none" else "bias none (z-scored already)"
    how = f"{bias}; robust z of its brain"
    return Scaled(_inside(normal, brain), _inside(image.array, brain), how), prepared.scale


def _translated(image: OnGrid, grid: CaseGrid, brain: Brain, reference: Scale, options: CaseSettings) -> Scaled:
    """A translation on the common scale: as localdiff wrote it, a matched one taken back, another tool's by its own robust z.

    ``intensities`` of an unmatched localdiff output are in the units of the ``reference``'s scale, all others as stored.
    """
    (common, own_units, how), stored = _own_scale(image, grid, brain, options), image.array
    normal = common(stored)
    units = stored if own_units else np.clip(reference.denormalise(normal), 0, None)
    return Scaled(_inside(normal, brain), _inside(units, brain), how)


def _own_scale(image: OnGrid, grid: CaseGrid, brain: Brain, options: CaseSettings) -> tuple[Callable[[Array], Array], bool, str]:
    """What brings a translation onto the common scale, whether it is in units of its own, and how the scale was found."""
    sidecar = translation_sidecar(image.path)
    if not made_here(sidecar):
        settings = PrepareSettings(bias="none", window=options.window, advice=EVALUATE)
        return prepare_read(grid.reader(image), settings, brain=brain).scale.normalise, True, OWN_SCALE
    matched = matched_scale(sidecar, image.path)
    if matched is not None:
        return replace(matched, window=options.window).normalise, True, "taken back from the units of --match"
    own = network_scale(sidecar, image.path, options.window)
    if own.window == options.window:
        return lambda stored: stored, False, "as localdiff wrote it, in [0, 1]"
    how = f"as localdiff wrote it, from its bundle's window {list(own.window)} to {list(options.window)}"
    return lambda stored: replace(own, window=options.window).normalise(own.denormalise(stored)), False, how


def _inside(image: Array, brain: Brain) -> Array:
    return np.where(brain.mask, image, np.float32(0))


def _case(
    files: CaseFiles, grid: CaseGrid, brain: Brain, scaled: Mapping[str, Scaled], masks: Mapping[str, Mask], options: CaseSettings
) -> Case:
    """All arrays of a case on its grid."""
    ood_map = grid.map(files.ood) if files.ood else None
    condition = grid.bring(files.condition, "condition").array if files.condition else None
    return Case(
        name=files.name,
        patient=files.patient,
        translation=scaled["translation"].image,
        reference=scaled["reference"].image,
        baseline=scaled["baseline"].image if "baseline" in scaled else None,
        intensities={_arm(role): each.intensities for role, each in scaled.items()},
        brain=brain.mask,
        brain_name=brain.source,
        spacing=grid.volume.frame.spacing,
        data_range=DataRange(1.0, DATA_RANGE),
        condition=None if condition is None else np.where(brain.mask, condition, condition.min()),
        ood_map=ood_map,
        ood_mask=None if ood_map is None else ood_map >= options.tau,
        truth=masks.get("truth"),
        segmentation=masks.get("segmentation"),
        reference_segmentation=masks.get("reference_segmentation"),
        baseline_segmentation=masks.get("baseline_segmentation"),
        source=grid.labels(files.source, "source map", range(5)) if files.source else None,
    )


def _arm(role: str) -> str:
    """The prefix of a role's figures."""
    return "" if role == "translation" else f"{role}_"


def _features(features: SliceFeatures, scaled: Mapping[str, Scaled], brain: Brain) -> dict[str, Array]:
    return {_arm(role): features(each.image, brain.mask) for role, each in scaled.items()}
