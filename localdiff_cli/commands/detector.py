"""Choose a detector by name, or the map that the user brings; used by ``detect`` and ``translate`` alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localdiff_cli.bundle import Bundle, detector_bundle, load_detector, load_segmenter, open_bundle
from localdiff_cli.commands.run import check_place
from localdiff_cli.declared import check
from localdiff_cli.errors import UsageError
from localdiff_cli.options import DetectorOptions
from localdiff_cli.volumes.partners import MAP, Source
from localdiff_cli.volumes.reader import file_hash

if TYPE_CHECKING:
    import torch

    from localdiff_cli.tasks.detection import SliceDetector
    from localdiff_cli.volumes.prepare import Prepared

Bind = Callable[["Prepared", Path], "SliceDetector"]


def check_detector(options: DetectorOptions) -> None:
    """Raise :class:`UsageError` for options out of range or that exclude one another."""
    if options.map is not None and (options.detector or options.false_alarm is not None or options.detector_model):
        raise UsageError("--map brings the OOD map: --detector, --detector-model and --false-alarm do not apply", code="conflict")
    if options.map is not None and not options.map.exists():
        raise UsageError(f"--map {options.map}: no such file or folder", code="not-found")
    if options.map is not None:
        check_place(Source(str(options.map), MAP, option="--map"))
    check(options)


def choose_detector(options: DetectorOptions, bundle: Bundle, device: torch.device) -> tuple[Bind, dict[str, Any]]:
    """The detector, ready to be bound to volumes, and its account for the sidecar."""
    from localdiff_cli.tasks.detection import bind_map

    if options.map is not None:
        fingerprint = {"Hash": file_hash(options.map)} if options.map.is_file() else {}
        return bind_map(options.map), {"Name": "map", "Source": options.map.name, **fingerprint}
    return MAKERS[options.detector or ("segmenter" if bundle.task == "segment" else bundle.defaults.detector)](options, bundle, device)


def _patchcore(options: DetectorOptions, bundle: Bundle, device: torch.device) -> tuple[Bind, dict[str, Any]]:
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


def _segmenter(options: DetectorOptions, bundle: Bundle, device: torch.device) -> tuple[Bind, dict[str, Any]]:
    from localdiff_cli.segmentation.detector import SegmenterDetector
    from localdiff_cli.tasks.detection import DetectorBinding

    if options.false_alarm is not None:
        raise UsageError("--false-alarm belongs to patchcore; the segmenter's probability is cut with --tau", code="conflict")
    own = bundle.task == "segment" and options.detector_model is None
    source = bundle if own else open_bundle(options.detector_model or bundle.condition.segmenter)
    _check_same_input(source, bundle)
    detector = SegmenterDetector(load_segmenter(source, device))
    return DetectorBinding(detector, device), {"Name": "segmenter", "Bundle": source.name, "BundleHash": source.hash}


MAKERS: dict[str, Callable[[DetectorOptions, Bundle, torch.device], tuple[Bind, dict[str, Any]]]] = {
    "patchcore": _patchcore,
    "segmenter": _segmenter,
}
"""Makes each detector that choices.py names, ready to be bound to volumes, with its account for the sidecar."""
