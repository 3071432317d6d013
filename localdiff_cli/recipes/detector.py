"""Make a detector by name, or from the map that the user brings; used by ``detect`` and ``translate`` alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from localdiff_cli.bundle import Bundle, detector_bundle, load_detector, load_segmenter, open_bundle
from localdiff_cli.errors import ModelError, UsageError
from localdiff_cli.options import DetectorOptions
from localdiff_cli.volumes.files import file_hash
from localdiff_cli.volumes.looks import lesions_are_bright

if TYPE_CHECKING:
    import torch

    from localdiff_cli.bundle.schema import Contrast
    from localdiff_cli.tasks.detection import MaskSettings, SliceDetector
    from localdiff_cli.volumes.prepare import Prepared

Bind = Callable[["Prepared", Path], "SliceDetector"]


def choose_detector(options: DetectorOptions, bundle: Bundle, device: torch.device) -> tuple[Bind, dict[str, object]]:
    """Return the detector, ready to be bound to volumes, and its account for the sidecar."""
    from localdiff_cli.tasks.detection import bind_map

    if options.map is not None:
        fingerprint = {"Hash": file_hash(options.map)} if options.map.is_file() else {}
        return bind_map(options.map), {"Name": "map", "Source": options.map.name, **fingerprint}
    return MAKERS[options.detector or ("segmenter" if bundle.task == "segment" else bundle.defaults.detector)](options, bundle, device)


def _patchcore(options: DetectorOptions, bundle: Bundle, device: torch.device) -> tuple[Bind, dict[str, object]]:
    from localdiff_cli.tasks.detection import DetectorBinding

    source = detector_bundle(open_bundle(options.detector_model) if options.detector_model else bundle)
    _check_same_input(source, bundle)
    false_alarm = options.false_alarm if options.false_alarm is not None else bundle.defaults.false_alarm
    detector = load_detector(source, false_alarm, device, options.backbone_weights)
    account = {
        "Name": "patchcore", "Bundle": source.name, "BundleHash": source.hash, "Backbone": detector.backbone.name,
        "FalseAlarm": false_alarm, "TauA": detector.tau_a, "SigmaA": detector.calibration.sigma_a,
        "BackboneWeights": detector.backbone.weights_hash,
    }  # fmt: skip
    return DetectorBinding(detector, device), account


def _check_same_input(source: Bundle, bundle: Bundle) -> None:
    """Raise :class:`UsageError` where a detector's bundle expects slices made ready in another way than the translator's."""
    if source.condition.contrast != bundle.condition.contrast:
        raise UsageError(
            f"--detector-model {source.name}: works on {source.condition.contrast}, the input is {bundle.condition.contrast}",
            code="wrong-contrast",
        )
    if (source.condition.window, source.grid.spacing) != (bundle.condition.window, bundle.grid.spacing):
        raise UsageError(
            f"--detector-model {source.name}: works at {source.grid.spacing} mm on the window {source.condition.window}, "
            f"{bundle.name} at {bundle.grid.spacing} mm on {bundle.condition.window}; choose one that was fitted alike",
            code="wrong-grid",
        )


def _segmenter(options: DetectorOptions, bundle: Bundle, device: torch.device) -> tuple[Bind, dict[str, object]]:
    from localdiff_cli.segmentation.detector import SegmenterDetector
    from localdiff_cli.tasks.detection import DetectorBinding

    if options.false_alarm is not None:
        raise UsageError("--false-alarm belongs to patchcore; the segmenter's probability is cut with --tau", code="conflict")
    if options.backbone_weights is not None:
        raise UsageError("--backbone-weights belongs to patchcore; the segmenter has its own weights", code="conflict")
    own = bundle.task == "segment" and options.detector_model is None
    source = bundle if own else open_bundle(options.detector_model or bundle.finder)
    _check_same_input(source, bundle)
    detector = SegmenterDetector(load_segmenter(source, device))
    return DetectorBinding(detector, device), {"Name": "segmenter", "Bundle": source.name, "BundleHash": source.hash}


def mask_settings(bundle: Bundle, detector: DetectorOptions) -> MaskSettings:
    """Return the user's τ, radii, peak, average through the slices and residue, otherwise the bundle's; a segmenter bundle's
    own threshold, and no radii.

    The bundle's peak, average and residue were chosen with its default detector: other detectors and maps from files are
    taken as they are. Raise :class:`UsageError` for a residue that the bundle's window or contrast does not allow.
    """
    from localdiff_cli.tasks.detection import MaskSettings

    translates = bundle.task == "translate"
    own = translates and detector.map is None and detector.detector in (None, bundle.defaults.detector)
    own = own and _is_own(detector.detector_model, bundle)
    threshold = bundle.defaults.threshold if translates else bundle.segmenter_defaults.threshold
    open_mm, dilate_mm = (bundle.defaults.open_mm, bundle.defaults.dilate_mm) if translates else (0.0, 0.0)
    return MaskSettings(
        threshold if detector.tau is None else detector.tau,
        open_mm if detector.open_mm is None else detector.open_mm,
        dilate_mm if detector.dilate_mm is None else detector.dilate_mm,
        (bundle.defaults.peak if own else 0.0) if detector.peak is None else detector.peak,
        (bundle.defaults.through_plane_mm if own else 0.0) if detector.through_plane_mm is None else detector.through_plane_mm,
        bright_from((bundle.defaults.residue if own else 0.0) if detector.residue is None else detector.residue, bundle.condition),
    )


def bright_from(residue: float, condition: Contrast) -> float | None:
    """Return where a residue of so many robust SDs begins on the window's scale, [0, 1]; None for 0. Raise
    :class:`UsageError` where that lies beyond the window, or lesions are bright on this contrast."""
    if residue == 0:
        return None
    if lesions_are_bright(condition.contrast):
        raise UsageError(
            f"--residue {residue:g}: lesions are bright on {condition.contrast}, at the brain's rim too; expected 0", code="contrast"
        )
    high = condition.window[1]
    if residue > high:
        raise UsageError(f"--residue {residue:g}: the model sees nothing above {high:g} SDs; expected 0, or up to {high:g}", code="range")
    return condition.on_scale(residue)


def _is_own(model: str | None, bundle: Bundle) -> bool:
    """Whether ``model``, a name or a folder, is what the bundle's default detector is made from: its finder, or the bundle that has its
    PatchCore bank. None means it. Where the own one is not there, no model is it."""
    if model is None:
        return True
    segments = bundle.defaults.detector == "segmenter"
    try:
        own = open_bundle(bundle.finder) if segments else detector_bundle(bundle)
    except ModelError:
        return False
    named = open_bundle(model)
    return (named if segments else detector_bundle(named)).path.resolve() == own.path.resolve()


MAKERS: dict[str, Callable[[DetectorOptions, Bundle, torch.device], tuple[Bind, dict[str, object]]]] = {
    "patchcore": _patchcore,
    "segmenter": _segmenter,
}
"""Makes each detector that choices.py names, ready to be bound to volumes, with its account for the sidecar."""
