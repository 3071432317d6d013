"""``localdiff translate``: conditional diffusion with branching and fusion."""

from __future__ import annotations

from pathlib import Path

from localdiff_cli.bundle import Bundle, open_bundle
from localdiff_cli.commands.run import check_brain, check_detector, check_place, run_work
from localdiff_cli.declared import check
from localdiff_cli.errors import ModelError, UsageError
from localdiff_cli.options import DetectorOptions, RunOptions, TranslateOptions
from localdiff_cli.recipes.network import batch_of
from localdiff_cli.recipes.translate import TranslateRecipe, calibration_of, match_source


def _check(options: TranslateOptions) -> None:
    check_brain(options.brain)
    batch_of(options.batch_size, 1)
    check(options)
    if options.suffix is not None and not options.suffix.isalnum():
        raise UsageError(f"--suffix {options.suffix}: expected letters and digits, such as T2w", code="choice")
    if options.match is not None and not options.match.exists():
        raise UsageError(f"--match {options.match}: no such file or folder", code="not-found")
    if options.mode == "plain" and options.save_map:
        raise UsageError("--save-map: the plain sampler looks for no OOD region; use localdiff detect, or --mode local", code="conflict")
    doubting = (options.emphasis, options.unknown, options.unknown_tau, options.texture, options.suspect, options.suspect_tau)
    if options.mode == "plain" and any(each is not None for each in doubting):
        told = "--emphasis, --unknown, --unknown-tau, --texture, --suspect and --suspect-tau"
        raise UsageError(f"--mode plain looks for no OOD region: {told} do not apply", code="conflict")
    branching = (options.context, options.branch_step, options.fusion_step, options.soft, options.ood_crop)
    if options.mode == "plain" and (options.guided or any(each is not None for each in branching)):
        told = "--lambda, --branch-step, --fusion-step, --soft, --hard, --ood-crop, --ood-full and --guided"
        raise UsageError(f"--mode plain has no branches: {told} do not apply", code="conflict")
    if options.mode == "plain" and options.expert not in ("auto", "none"):
        raise UsageError("--mode plain has no OOD branch: --expert does not apply", code="conflict")
    if options.mode == "plain" and options.ood_branch != "network":
        raise UsageError("--mode plain has no OOD branch: --ood-branch does not apply", code="conflict")
    if options.ood_branch == "copy" and options.expert not in ("auto", "none"):
        raise UsageError("--ood-branch copy uses no network: --expert does not apply; use mean, or omit one of the two", code="conflict")
    if options.mode == "plain" and (options.calibration is not None or options.interval is not None):
        raise UsageError("--mode plain: no promise covers it; --calibration and --interval do not apply", code="conflict")
    if options.classifier and not options.guided:
        raise UsageError("--classifier belongs to --guided", code="conflict")


def _check_copy(options: TranslateOptions, bundle: Bundle) -> None:
    """Refuse to take the condition for the target where the two are not alike."""
    if options.ood_branch != "network" and bundle.condition != bundle.target:
        raise UsageError(
            f"--ood-branch {options.ood_branch}: found {bundle.name}, {bundle.condition.contrast} {list(bundle.condition.window)} to "
            f"{bundle.target.contrast} {list(bundle.target.window)}; a copy of the condition is an answer only where both have one "
            "contrast and window; use --ood-branch network",
            code="ood-branch",
        )


def _check_calibration(path: Path, detector: DetectorOptions, options: TranslateOptions) -> None:
    """Raise :class:`UsageError` for a certificate that cannot be read or has not this interval, or beside what it decides
    itself."""
    from localdiff_cli.guarantees.certificate import read_certificate

    if detector.tau is not None or detector.map is not None or options.emphasis is not None:
        raise UsageError(
            "--calibration and --interval bring their own cut of the map and emphasis: --tau, --map and --emphasis do not apply",
            code="conflict",
        )
    interval, found = options.interval, read_certificate(path).intervals
    if interval is not None and (found is None or found["level"] != interval):
        has = "no interval" if found is None else f"the interval {found['level']:g}"
        raise UsageError(f"--interval {interval:g}: {path} has {has}; ask for that one, or calibrate anew", code="certificate")


def checked_bundle(options: TranslateOptions, detector: DetectorOptions) -> Bundle:
    """Return the translator that is asked for, once the options are known to fit together. Raise :class:`LocaldiffError`
    where they do not."""
    _check(options)
    check_detector(detector)
    if options.mode == "plain" and detector != DetectorOptions():
        raise UsageError("--mode plain looks for no OOD region: --map and the options of the detector do not apply", code="conflict")
    bundle = open_bundle(options.model)
    if bundle.task != "translate":
        raise ModelError(f"model {bundle.name}: made to {bundle.task}; choose a translator from: localdiff models list", code="task")
    if calibration := calibration_of(options, bundle):
        _check_calibration(calibration, detector, options)
    _check_copy(options, bundle)
    if match := match_source(options, bundle):
        check_place(match)
    return bundle


def translate(run: RunOptions, options: TranslateOptions, detector: DetectorOptions) -> int:
    """Translate every volume of ``run.source``; return the exit code."""
    bundle = checked_bundle(options, detector)
    return run_work(run, bundle.condition.contrast, TranslateRecipe(run.out, options, detector))
