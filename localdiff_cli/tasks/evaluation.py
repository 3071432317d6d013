"""Evaluate one case: bring translation, reference, masks and maps onto one grid and one intensity scale, then measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.errors import VolumeError
from localdiff_cli.evaluation.metrics.case import Case, CaseResult, evaluate_case
from localdiff_cli.evaluation.metrics.image import DataRange
from localdiff_cli.evaluation.settings import EvaluationSettings
from localdiff_cli.threads import apart
from localdiff_cli.volumes.brain import Brain, brain_from_file, check_same_grid, support
from localdiff_cli.volumes.contrast import read_sidecar
from localdiff_cli.volumes.intensity import DEFAULT_WINDOW, WINDOWS, Scale
from localdiff_cli.volumes.prepare import Prepared, PrepareSettings, prepare
from localdiff_cli.volumes.reader import SliceReader, Volume, open_volume

if TYPE_CHECKING:
    from localdiff_cli.bundle import SegmenterDefaults
    from localdiff_cli.segmentation.network import LesionNetwork

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
DATA_RANGE = "robust z of the reference's brain, window mapped to [0, 1]"


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case; only ``translation`` and ``reference`` are needed."""

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


@dataclass(frozen=True)
class EvaluationOptions:
    """How cases are read: ``contrast`` of the translation, ``bias`` of the reference, resampling, τ of the OOD map, the segmenter."""

    settings: EvaluationSettings
    contrast: str | None
    bias: str = "n4"
    resample_reference: bool = False
    tau: float = 0.5
    segmenter: str | None = None


def _settings(contrast: str | None, bias: str) -> PrepareSettings:
    return PrepareSettings(bias=bias, window=WINDOWS.get(contrast or "", DEFAULT_WINDOW))


def _stack(read: Callable[[int], NDArray], volume: Volume) -> Array:
    return np.stack([read(k) for k in range(volume.frame.shape[0])]).astype(np.float32, copy=False)


def read_canonical(path: Path, grid: Volume, what: str, *, resample: bool = False, nearest: bool = False) -> Array:
    """A volume on ``grid``, canonical. Raises :class:`VolumeError` for another grid unless it may be resampled."""
    volume = open_volume(path)
    array = _stack(SliceReader(volume).read, volume)
    if not resample or (volume.shape == grid.shape and np.allclose(volume.affine, grid.affine, atol=1e-3)):
        check_same_grid(volume, grid, what)
        return array
    return resampled(array, canonical_affine(volume), canonical_affine(grid), grid.frame.shape, nearest=nearest)


def canonical_affine(volume: Volume) -> NDArray[np.float64]:
    """The RAS affine of the canonical array ``(slice, row, column)``."""
    frame = volume.frame
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for canonical_axis, (stored_axis, flip) in enumerate(zip(frame.axes, frame.flips, strict=True)):
        turn[stored_axis, canonical_axis] = -1 if flip else 1
        turn[stored_axis, 3] = frame.shape[canonical_axis] - 1 if flip else 0
    return volume.affine @ turn


def resampled(array: Array, affine: NDArray, to_affine: NDArray, shape: tuple[int, int, int], *, nearest: bool) -> Array:
    """``array`` at the voxels of another grid, linear (or nearest for masks), 0 outside."""
    from scipy import ndimage

    mapping = np.linalg.inv(affine) @ to_affine
    return ndimage.affine_transform(array, mapping[:3, :3], mapping[:3, 3], output_shape=shape, order=0 if nearest else 1, prefilter=False)


def _brain(files: CaseFiles, volume: Volume) -> Brain:
    """The mask given, else the support of the translation, which localdiff writes as 0 outside the brain."""
    if files.brain is not None:
        return brain_from_file(files.brain, volume)
    mask = support(SliceReader(volume), 0.0, 0.0)
    if mask.mean() > 0.95:
        raise VolumeError(
            f"{files.translation}: is not 0 outside the brain, so the brain is not known; expected a localdiff output, or give --brain",
            code="brain",
        )
    return Brain(mask, "support of the translation")


def _scaled(volume: Volume, contrast: str | None, brain: Brain, bias: str) -> Array:
    """A real volume on the common scale: bias field out, robust z of its own brain, 0 outside."""
    prepared = prepare(volume, _settings(contrast, bias), brain=brain)
    return _stack(lambda k: np.where(brain.mask[k], prepared.scale.normalise(prepared.corrected(k)), np.float32(0)), volume)


def _translated(path: Path, grid: Volume, contrast: str | None, brain: Brain, what: str) -> Array:
    """A translation on the common scale: as localdiff wrote it, a matched one taken back, another tool's by its own robust z."""
    volume = open_volume(path)
    check_same_grid(volume, grid, what)
    sidecar = read_sidecar(path)
    if not sidecar.get("Synthetic"):
        return _scaled(volume, contrast, brain, "none")
    array = _stack(SliceReader(volume).read, volume)
    stored = sidecar.get("OutputScale")
    if isinstance(stored, dict):
        array = Scale(float(stored["Median"]), float(stored["SD"]), tuple(stored["Window"])).normalise(array)
    return np.where(brain.mask, array, np.float32(0))


def _reference(files: CaseFiles, grid: Volume, brain: Brain, options: EvaluationOptions) -> Array:
    volume = open_volume(files.reference)
    same = volume.shape == grid.shape and np.allclose(volume.affine, grid.affine, atol=1e-3)
    if same or not options.resample_reference:
        check_same_grid(volume, grid, "reference")
        return _scaled(volume, options.contrast, brain, options.bias)
    raw = read_canonical(files.reference, grid, "reference", resample=True)
    from localdiff_cli.volumes.intensity import robust_scale

    try:
        scale = robust_scale(raw[brain.mask], _settings(options.contrast, "none").window)
    except ValueError as error:
        raise VolumeError(f"{files.reference}: has the same value everywhere in the brain; expected an image", code="constant") from error
    return np.where(brain.mask, scale.normalise(raw), np.float32(0))


def _mask(path: Path | None, grid: Volume, what: str, options: EvaluationOptions) -> Mask | None:
    if path is None:
        return None
    return read_canonical(path, grid, what, resample=options.resample_reference, nearest=True) > 0


class Segmenter:
    """The frozen segmenter of an evaluation, loaded once a process."""

    def __init__(self, name: str) -> None:
        import torch

        from localdiff_cli.bundle import load_segmenter, open_bundle
        from localdiff_cli.tasks.slices import prepare_settings

        self.device = torch.device("cpu")
        self.bundle = open_bundle(name)
        self.network: LesionNetwork = load_segmenter(self.bundle, self.device)
        self.cut: SegmenterDefaults = self.bundle.segmenter_defaults
        self.prepare = prepare_settings(self.bundle, brain="none", bias=None, nan="refuse", multiple=self.network.settings.multiple)

    def __call__(self, path: Path, brain: Brain) -> Mask:
        """The lesion mask of a volume whose brain is known, canonical."""
        from localdiff_cli.tasks.segmentation import segment_prepared

        prepared: Prepared = prepare(open_volume(path), self.prepare, brain=brain)
        return segment_prepared(self.network, self.device, prepared, self.cut)


def _segmentations(
    files: CaseFiles, grid: Volume, brain: Brain, options: EvaluationOptions, segmenter: Segmenter | None
) -> tuple[Mask | None, ...]:
    given = (files.segmentation, files.reference_segmentation, files.baseline_segmentation)
    if segmenter is None:
        names = ("segmentation", "reference segmentation", "baseline segmentation")
        return tuple(_mask(path, grid, what, options) for path, what in zip(given, names, strict=True))
    images = (files.translation, files.reference, files.baseline)
    return tuple(segmenter(path, brain) if path is not None else None for path in images)


class SliceFeatures:
    """The packaged ImageNet network that FID and KID look through, loaded once a process."""

    def __init__(self) -> None:
        from localdiff_cli.ood.backbone import load_backbone

        self.backbone = load_backbone()

    def __call__(self, image: Array, brain: Mask) -> Array:
        """One row of features for each slice that shows brain, ``(slices, 112)``."""
        import torch

        slices = (torch.from_numpy(image[k])[None, None] for k in np.flatnonzero(brain.any(axis=(1, 2))))
        return torch.cat(apart(lambda each: self.backbone(each)[1].mean(dim=(2, 3)), slices)).numpy()


def measure(
    files: CaseFiles, options: EvaluationOptions, segmenter: Segmenter | None = None, features: SliceFeatures | None = None
) -> CaseResult:
    """Read one case and measure it. Raises :class:`VolumeError` with the file and the reason."""
    grid = open_volume(files.translation)
    brain = _brain(files, grid)
    translation = _translated(files.translation, grid, options.contrast, brain, "translation")
    found, found_reference, found_baseline = _segmentations(files, grid, brain, options, segmenter)
    ood_map = read_canonical(files.ood, grid, "OOD map") if files.ood else None
    condition = read_canonical(files.condition, grid, "condition") if files.condition else None
    reference = _reference(files, grid, brain, options)
    baseline = _translated(files.baseline, grid, options.contrast, brain, "baseline") if files.baseline else None
    result = evaluate_case(
        Case(
            name=files.name,
            patient=files.patient,
            translation=translation,
            reference=reference,
            brain=brain.mask,
            brain_name=brain.source,
            spacing=grid.frame.spacing,
            data_range=DataRange(1.0, DATA_RANGE),
            truth=_mask(files.truth, grid, "truth", options),
            condition=None if condition is None else np.where(brain.mask, condition, condition.min()),
            baseline=baseline,
            segmentation=found,
            reference_segmentation=found_reference,
            baseline_segmentation=found_baseline,
            ood_map=ood_map,
            ood_mask=None if ood_map is None else ood_map >= options.tau,
        ),
        options.settings,
    )
    if features is None:
        return result
    arms = {"": translation, "reference_": reference, **({} if baseline is None else {"baseline_": baseline})}
    return replace(result, features={arm: features(image, brain.mask) for arm, image in arms.items()})
