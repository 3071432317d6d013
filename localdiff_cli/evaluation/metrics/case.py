"""One volume judged: arrays in, a frozen, picklable result out, so that a process pool can judge one case per worker in
constant memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.errors import VolumeError
from localdiff_cli.evaluation.metrics.image import Compartment, DataRange, region_figures, ssim_maps
from localdiff_cli.evaluation.metrics.intervals import check_limits, interval_figures, interval_regions
from localdiff_cli.evaluation.metrics.lesion import ContrastAgreement, contrast_agreement, lesion_contrast, ring_around
from localdiff_cli.evaluation.metrics.lesions import LesionResult, LesionSettings, lesion_counts, single_lesions
from localdiff_cli.evaluation.metrics.measure import Measure, measured
from localdiff_cli.evaluation.metrics.misdiagnosis import SliceEvidence, collect_evidence, judge_slices, tally
from localdiff_cli.evaluation.metrics.ood_maps import ood_figures
from localdiff_cli.evaluation.metrics.own_maximum import own_maximum_figures
from localdiff_cli.evaluation.metrics.pictures import ERROR_SHARE, Pictures, take_pictures
from localdiff_cli.evaluation.metrics.promised import Promised
from localdiff_cli.evaluation.metrics.ring_correlation import RingCorrelation, scan
from localdiff_cli.evaluation.metrics.segmentation import compare_masks
from localdiff_cli.evaluation.metrics.slices import Arm, SliceResult, slice_results
from localdiff_cli.evaluation.settings import FigureSettings

MIRROR_MARGIN = 0.05


@dataclass(frozen=True)
class Case:
    """The arrays of one volume, all canonical ``(slices, rows, columns)`` of one grid, ``spacing`` in mm in that order.

    ``translation``, ``reference`` (true target contrast) and ``baseline`` share intensity units, whose span is
    ``data_range``. Masks are bool. ``intensities``: translation, reference and baseline by the prefix of their figures, in
    units in which air is 0 (as stored, or the reference's). ``truth``: the lesion; without it ``reference_segmentation``
    stands in and is named so. ``ood_map`` in [0, 1]. ``low`` and ``high``: limits of the true value, in units of the
    images; ``source``: labels of what made each voxel. ``name`` and ``patient`` (default: the name) are the only words that
    reach tables and report.
    """

    name: str
    translation: NDArray[Any]
    reference: NDArray[Any]
    brain: NDArray[np.bool_]
    spacing: tuple[float, float, float]
    data_range: DataRange
    patient: str = ""
    brain_name: str = "brain mask"
    truth: NDArray[np.bool_] | None = None
    truth_name: str = "expert mask"
    condition: NDArray[Any] | None = None
    baseline: NDArray[Any] | None = None
    segmentation: NDArray[np.bool_] | None = None
    reference_segmentation: NDArray[np.bool_] | None = None
    baseline_segmentation: NDArray[np.bool_] | None = None
    ood_map: NDArray[Any] | None = None
    ood_mask: NDArray[np.bool_] | None = None
    low: NDArray[Any] | None = None
    high: NDArray[Any] | None = None
    source: NDArray[np.uint8] | None = None
    intensities: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class CaseResult:
    """All figures of one volume: ``metrics`` by key (see catalogue.py), ``slices`` that show brain, ``evidence`` by arm,
    ``pictures``.

    ``lesion_name`` says whose mask the lesion is (empty: none was given); ``notes`` are warnings a reader must see;
    ``features`` of the slices that show brain by arm, ``(slices, d)``, where they were asked for. ``used``: by image, how
    it came onto the grid and the scale on which it was compared. ``lesions``: those of the truth and those invented, one by
    one. ``promised``: what the translation's sidecar says of a certificate.
    """

    name: str
    patient: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    data_range: DataRange
    brain_name: str
    lesion_name: str
    metrics: Mapping[str, Measure]
    slices: tuple[SliceResult, ...]
    evidence: Mapping[str, SliceEvidence]
    pictures: Pictures | None
    notes: tuple[str, ...] = ()
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    used: Mapping[str, str] = field(default_factory=dict)
    lesions: tuple[LesionResult, ...] = ()
    promised: Promised | None = None


def evaluate_case(case: Case, settings: FigureSettings) -> CaseResult:
    """Judge one volume. Raise :class:`VolumeError` where grids differ or an image holds values that are not finite."""
    check_case(case)
    case = _prepared(case, settings.skull_strip)
    lesion, lesion_name = _lesion_of(case)
    inside = None if lesion is None else lesion & case.brain
    ring = None if inside is None else ring_around(inside, case.brain, case.spacing, settings.ring_gap_mm, settings.ring_mm)
    arms = _arms(case, _regions(case, inside, ring, lesion_name, settings.skull_strip))
    evidence = _evidence(case, lesion)
    slices = slice_results(arms, case.reference, case.brain, inside, ring, case.data_range, evidence, settings.misdiagnosis)
    metrics: dict[str, Measure] = {}
    for arm in arms:
        metrics |= _image_metrics(arm)
    if inside is not None and ring is not None:
        metrics |= _contrast_metrics(case, inside, ring, slices)
    if lesion is not None:
        metrics |= _mask_metrics(case, lesion, settings)
    metrics |= _count_metrics(evidence, settings)
    single = () if lesion is None else _single_lesions(case, lesion, settings)
    if lesion is not None:
        metrics |= lesion_counts(single, _segmentations(case))
    metrics |= _interval_metrics(case, lesion)
    scans = _scans(case, settings)
    metrics |= _frc_metrics(scans) | _own_maximum_metrics(case)
    return CaseResult(
        case.name,
        case.patient or case.name,
        _shape(case),
        case.spacing,
        case.data_range,
        case.brain_name,
        lesion_name,
        metrics,
        slices,
        evidence,
        _pictures(case, inside, settings, scans[""]),
        mirror_notes(case),
        lesions=single,
    )


def check_case(case: Case) -> None:
    """Raise :class:`VolumeError` unless all arrays are 3D of one shape and all images finite."""
    if case.reference.ndim != 3:
        raise VolumeError(f"{case.name}: reference has shape {case.reference.shape}, expected (slices, rows, columns)", code="not-3d")
    for label, array in _arrays(case).items():
        if array.shape != case.reference.shape:
            raise VolumeError(
                f"{case.name}: {label} is {_times(array.shape)}, the reference {_times(case.reference.shape)}; "
                "bring them to one grid (--resample-ref) or check the pairing",
                code="grids-differ",
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            count = array.size - np.count_nonzero(np.isfinite(array))
            raise VolumeError(f"{case.name}: {label} holds {count} values that are not finite; repair the volume", code="not-finite")


def mirror_notes(case: Case) -> tuple[str, ...]:
    """Return a warning where the translation fits the left-right mirrored reference clearly better: two headers disagree
    about a side."""
    both = case.brain & case.brain[..., ::-1]
    direct, mirrored = (_correlation(case.translation[both], image[both]) for image in (case.reference, case.reference[..., ::-1]))
    if mirrored <= direct + MIRROR_MARGIN:
        return ()
    return (
        f"{case.name}: fits the left-right mirrored reference better than the reference itself (correlation {mirrored:.2f}, not "
        f"{direct:.2f}); check the orientation in both headers",
    )


def _correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _arrays(case: Case) -> dict[str, NDArray[Any]]:
    named = {label: value for label, value in vars(case).items() if isinstance(value, np.ndarray)}
    named |= {f"{arm or 'translation'} intensities": value for arm, value in case.intensities.items()}
    return {label.replace("_", " "): value for label, value in named.items()}


def _shape(case: Case) -> tuple[int, int, int]:
    slices, rows, columns = case.reference.shape
    return slices, rows, columns


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def _prepared(case: Case, strip: bool) -> Case:
    """Images as float32, masks as bool, and with ``strip`` the images 0 outside the brain."""
    brain = case.brain.astype(bool, copy=False)

    def image(array: NDArray[Any]) -> NDArray[np.float32]:
        return (np.where(brain, array, 0) if strip else array).astype(np.float32, copy=False)

    def mask(array: NDArray[Any] | None) -> NDArray[np.bool_] | None:
        return None if array is None else array.astype(bool, copy=False)

    return replace(
        case,
        brain=brain,
        translation=image(case.translation),
        reference=image(case.reference),
        baseline=None if case.baseline is None else image(case.baseline),
        truth=mask(case.truth),
        segmentation=mask(case.segmentation),
        reference_segmentation=mask(case.reference_segmentation),
        baseline_segmentation=mask(case.baseline_segmentation),
        ood_mask=mask(case.ood_mask),
    )


def _lesion_of(case: Case) -> tuple[NDArray[np.bool_] | None, str]:
    """The lesion mask and whose it is."""
    if case.truth is not None:
        return case.truth, case.truth_name
    if case.reference_segmentation is not None:
        return case.reference_segmentation, "segmenter on the true contrast"
    return None, ""


def _regions(
    case: Case, inside: NDArray[np.bool_] | None, ring: NDArray[np.bool_] | None, lesion_name: str, strip: bool
) -> tuple[Compartment, ...]:
    whole = Compartment("whole", None, f"whole volume, 0 outside {case.brain_name}" if strip else "whole volume")
    brain = Compartment("brain", case.brain, case.brain_name)
    if inside is None:
        return whole, brain
    return (
        whole,
        brain,
        Compartment("lesion", inside, f"{lesion_name} inside {case.brain_name}"),
        Compartment("ring", ring, f"ring around {lesion_name} inside {case.brain_name}"),
        Compartment("outside", case.brain & ~inside, f"{case.brain_name} minus {lesion_name}"),
    )


def _arms(case: Case, regions: tuple[Compartment, ...]) -> tuple[Arm, ...]:
    """The images to judge, each with its figures in all regions."""
    arms = []
    for prefix, image in (("", case.translation), ("baseline_", case.baseline)):
        if image is not None:
            maps = ssim_maps(image, case.reference, case.data_range)
            figures = tuple(region_figures(image, case.reference, region, case.data_range, maps) for region in regions)
            arms.append(Arm(prefix, image, maps, figures))
    return tuple(arms)


def _image_metrics(arm: Arm) -> dict[str, Measure]:
    names = ("psnr", "ssim", "ssim_slices", "mae", "nrmse")
    return {f"{arm.prefix}{name}_{figures.region}": getattr(figures, name) for figures in arm.figures for name in names}


def _contrast_metrics(
    case: Case, lesion: NDArray[np.bool_], ring: NDArray[np.bool_], slices: tuple[SliceResult, ...]
) -> dict[str, Measure]:
    """Lesion contrast of the volume, and how the contrasts of its slices follow the reference's."""
    true = lesion_contrast(case.reference, lesion, ring, case.data_range)
    metrics = {"reference_contrast": true}
    for prefix, image in (("", case.translation), ("baseline_", case.baseline)):
        if image is None:
            continue
        own = lesion_contrast(image, lesion, ring, case.data_range)
        over_slices = contrast_agreement(
            [each.metrics[f"{prefix}contrast"] for each in slices], [each.metrics["reference_contrast"] for each in slices]
        )
        metrics |= {f"{prefix}contrast": own} | _difference(prefix, own, true) | _agreement_metrics(prefix, over_slices)
    return metrics


def _difference(prefix: str, own: Measure, true: Measure) -> dict[str, Measure]:
    if own.value is None or true.value is None:
        absent = own if own.value is None else true
        return {f"{prefix}contrast_difference": absent, f"{prefix}contrast_error": absent}
    difference = own.value - true.value
    return {f"{prefix}contrast_difference": measured(difference), f"{prefix}contrast_error": measured(abs(difference))}


def _agreement_metrics(prefix: str, agreement: ContrastAgreement) -> dict[str, Measure]:
    return {f"{prefix}slice_contrast_{name}": getattr(agreement, name) for name in ("slope", "correlation", "bias")}


def _mask_metrics(case: Case, lesion: NDArray[np.bool_], settings: FigureSettings) -> dict[str, Measure]:
    """Segmentation figures of each arm, and the OOD map's, against the lesion."""
    metrics: dict[str, Measure] = {}
    for prefix, mask in _segmentations(case).items():
        figures = compare_masks(mask, lesion, case.spacing, settings.surface_tolerance_mm)
        metrics |= {f"{prefix}{name}": measure for name, measure in vars(figures).items()}
    if case.ood_map is not None:
        found = ood_figures(case.ood_map, case.ood_mask, lesion, case.brain, settings.pro_limit)
        metrics |= {f"ood_{name}": measure for name, measure in vars(found).items()}
    return metrics


def _interval_metrics(case: Case, lesion: NDArray[np.bool_] | None) -> dict[str, Measure]:
    """Coverage and width of the limits given; empty without both."""
    if case.low is None or case.high is None:
        return {}
    check_limits(case.low, case.high, case.brain, case.name)
    return interval_figures(case.low, case.high, case.reference, interval_regions(case.brain, lesion, case.source), case.data_range)


def _segmentations(case: Case) -> dict[str, NDArray[np.bool_]]:
    masks = {"": case.segmentation, "baseline_": case.baseline_segmentation}
    if case.truth is not None:
        # Without an expert mask the reference's segmentation is the truth itself: comparing it with itself says nothing.
        masks["reference_"] = case.reference_segmentation
    return {prefix: mask for prefix, mask in masks.items() if mask is not None}


def _evidence(case: Case, lesion: NDArray[np.bool_] | None) -> dict[str, SliceEvidence]:
    if lesion is None or case.reference_segmentation is None:
        return {}
    return {
        prefix: collect_evidence(mask, case.reference_segmentation, lesion, case.brain) for prefix, mask in _segmentations(case).items()
    }


def _count_metrics(evidence: Mapping[str, SliceEvidence], settings: FigureSettings) -> dict[str, Measure]:
    metrics: dict[str, Measure] = {}
    for prefix, each in evidence.items():
        counts = tally(judge_slices(each, settings.misdiagnosis))
        if prefix == "":
            metrics["lesion_bearing_slices"] = measured(counts.lesion_bearing)
            metrics["found_slices"] = measured(counts.found)
            metrics["lesion_free_slices"] = measured(counts.lesion_free)
        if prefix != "reference_":
            metrics[f"{prefix}missed_slices"] = measured(counts.missed)
        metrics[f"{prefix}invented_slices"] = measured(counts.invented)
    return metrics


def _judged_images(case: Case) -> dict[str, NDArray[Any]]:
    """The images under judgement by the prefix of their figures."""
    images = {"": case.translation, "baseline_": case.baseline}
    return {arm: image for arm, image in images.items() if image is not None}


def _single_lesions(case: Case, lesion: NDArray[np.bool_], settings: FigureSettings) -> tuple[LesionResult, ...]:
    how = LesionSettings(settings.ring_gap_mm, settings.ring_mm, case.spacing, case.data_range)
    images = _judged_images(case) | {"reference_": case.reference}
    return single_lesions(lesion & case.brain, _segmentations(case), images, case.brain, how)


def _scans(case: Case, settings: FigureSettings) -> dict[str, RingCorrelation]:
    span = case.data_range.value
    return {
        arm: scan(image, case.reference, case.brain, span, settings.frc_threshold, settings.frc_frequency)
        for arm, image in _judged_images(case).items()
    }


def _frc_metrics(scans: Mapping[str, RingCorrelation]) -> dict[str, Measure]:
    return {f"{arm}frc_{name}": getattr(each, name) for arm, each in scans.items() for name in ("frequency", "unsupported")}


def _own_maximum_metrics(case: Case) -> dict[str, Measure]:
    """Whole-volume figures as papers report them; empty where the case has no intensities in which air is 0."""
    reference = case.intensities.get("reference_")
    if reference is None:
        return {}
    judged = {arm: image for arm, image in case.intensities.items() if arm != "reference_"}
    return {f"{arm}{name}": each for arm, image in judged.items() for name, each in own_maximum_figures(image, reference).items()}


def _pictures(case: Case, lesion: NDArray[np.bool_] | None, settings: FigureSettings, scanned: RingCorrelation) -> Pictures | None:
    images = {
        "condition": case.condition,
        "ood": case.ood_map,
        "plain": case.baseline,
        "local": case.translation,
        "reference": case.reference,
        "frc": np.nan_to_num(1 - scanned.support) if scanned.frequency.value is not None else None,
    }
    error = np.abs(case.translation - case.reference)
    top = ERROR_SHARE * case.data_range.value if case.data_range.value > 0 else float(error.max(initial=0)) or 1.0
    return take_pictures(images, error, case.brain, lesion, top, settings.picture_px)
