"""``localdiff detect``: where is the condition unlike anything seen in training?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from localdiff_cli.batch.work import Say, Work
from localdiff_cli.bundle import Bundle, open_bundle
from localdiff_cli.commands.detector import check_detector, choose_detector
from localdiff_cli.commands.recipe import BRAIN, NetworkRecipe
from localdiff_cli.commands.run import announce, batch_of, check_brain, run_work
from localdiff_cli.declared import check
from localdiff_cli.options import DetectOptions, DetectorOptions, RunOptions
from localdiff_cli.tasks.outputs import Role

if TYPE_CHECKING:
    from localdiff_cli.tasks.detection import MaskSettings


def mask_settings(bundle: Bundle, detector: DetectorOptions) -> MaskSettings:
    """The user's τ, radii and peak over the bundle's; a segmenter bundle's own threshold, and no radii.

    The bundle's peak was chosen with its default detector: other detectors and maps from files are taken as they are.
    """
    from localdiff_cli.tasks.detection import MaskSettings

    translates = bundle.task == "translate"
    threshold = bundle.defaults.threshold if translates else bundle.segmenter_defaults.threshold
    open_mm, dilate_mm = (bundle.defaults.open_mm, bundle.defaults.dilate_mm) if translates else (0.0, 0.0)
    return MaskSettings(
        threshold if detector.tau is None else detector.tau,
        open_mm if detector.open_mm is None else detector.open_mm,
        dilate_mm if detector.dilate_mm is None else detector.dilate_mm,
        _default_peak(bundle, detector) if detector.peak is None else detector.peak,
    )


def _default_peak(bundle: Bundle, detector: DetectorOptions) -> float:
    by_default = bundle.task == "translate" and detector.map is None and detector.detector in (None, bundle.defaults.detector)
    return bundle.defaults.peak if by_default else 0.0


@dataclass(frozen=True)
class DetectRecipe(NetworkRecipe):
    """How any process makes ready for ``detect``."""

    options: DetectOptions
    detector: DetectorOptions

    def roles(self) -> list[tuple[bool, Role]]:
        """The map; on request mask, score and brain."""
        options = self.options
        return [
            (True, Role("map", "ood", "float32", "localdiff OOD map")),
            (options.save_mask, Role("mask", "oodmask", "uint8", "localdiff OOD mask")),
            (options.save_score, Role("score", "score", "float32", "localdiff anomaly score")),
            (options.save_brain, BRAIN),
        ]

    def load(self, say: Say) -> Work:
        """Load bundle and detector. Raises :class:`LocaldiffError` where they cannot be used."""
        from localdiff_cli.diffusion.device import automatic_batch, choose_device
        from localdiff_cli.tasks.detection import DetectWork
        from localdiff_cli.tasks.slices import prepare_settings

        options, bundle = self.options, open_bundle(self.options.model)
        device = choose_device(options.device)
        announce(say, bundle, device)
        bind, account = choose_detector(self.detector, bundle, device)
        return DetectWork(
            bundle=bundle,
            plan=self.plan,
            torch_device=device,
            bind=bind,
            prepare=prepare_settings(
                bundle, brain=options.brain, bias=options.bias, nan=options.nan, multiple=16, affine_from=options.affine_from
            ),
            mask=mask_settings(bundle, self.detector),
            detector=account,
            map=self.detector.map,
            batch_size=batch_of(options.batch_size, automatic_batch(device)),
        )


def detect_recipe(out: Path, options: DetectOptions, detector: DetectorOptions) -> DetectRecipe:
    """The recipe, its options checked. Raises :class:`UsageError` where they cannot be run."""
    check_brain(options.brain)
    batch_of(options.batch_size, 1)
    check(options)
    check_detector(detector)
    return DetectRecipe(out, options, detector)


def detect(run: RunOptions, options: DetectOptions, detector: DetectorOptions) -> int:
    """Detect in every volume of ``run.source``; the exit code."""
    recipe = detect_recipe(run.out, options, detector)
    return run_work(run, open_bundle(options.model).condition.contrast, recipe)
