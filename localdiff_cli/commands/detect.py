"""``localdiff detect``: where is the condition unlike anything seen in training?"""

from __future__ import annotations

from dataclasses import dataclass

from localdiff_cli.batch.engine import Work
from localdiff_cli.batch.report import Reporter
from localdiff_cli.bundle import open_bundle
from localdiff_cli.commands.detector import DetectorOptions, check_detector, choose_detector
from localdiff_cli.commands.run import RunOptions, announce, check_brain, check_choice, run_work


@dataclass(frozen=True)
class DetectOptions:
    """The options of ``detect`` beyond the shared ones."""

    model: str = "t1-to-t2"
    brain: str = "auto"
    bias: str | None = None
    nan: str = "refuse"
    save_mask: bool = False
    save_score: bool = False
    save_brain: bool = False
    device: str = "auto"
    batch_size: int | None = None


def detect(run: RunOptions, options: DetectOptions, detector: DetectorOptions) -> int:
    """Detect in every volume of ``run.source``; the exit code."""
    check_brain(options.brain)
    check_choice("--nan", options.nan, ("refuse", "zero"))
    check_choice("--bias", options.bias or "n4", ("n4", "none"))
    check_detector(detector)
    bundle = open_bundle(options.model)

    def make(reporter: Reporter) -> Work:
        from localdiff_cli.diffusion.device import choose_device
        from localdiff_cli.tasks.detection import DetectWork, MaskSettings
        from localdiff_cli.tasks.slices import prepare_settings

        device = choose_device(options.device)
        announce(reporter, bundle, device)
        bind, account = choose_detector(detector, bundle, device)
        defaults = bundle.defaults if bundle.task == "translate" else None
        return DetectWork(
            bundle, run.out, bind,
            prepare_settings(bundle, brain=options.brain, bias=options.bias, nan=options.nan, multiple=16),
            MaskSettings(
                detector.tau if detector.tau is not None else defaults.threshold if defaults else 0.5,
                detector.open_mm if detector.open_mm is not None else defaults.open_mm if defaults else 0.0,
                detector.dilate_mm if detector.dilate_mm is not None else defaults.dilate_mm if defaults else 0.0,
            ),
            account, options.save_mask, options.save_score, options.save_brain, options.batch_size or 8,
        )  # fmt: skip

    return run_work(run, bundle.condition.contrast, make)
