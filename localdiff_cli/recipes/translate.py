"""The recipe of ``translate``: from options and bundle to networks, detector and settings."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from localdiff_cli.batch.work import Say, VolumeWork
from localdiff_cli.bundle import Bundle, load_expert, load_interval, load_segmenter, load_translator, open_bundle, schedule_of
from localdiff_cli.declared import check_range
from localdiff_cli.errors import ModelError, UsageError
from localdiff_cli.options import DetectorOptions, TranslateOptions
from localdiff_cli.recipes.detector import choose_detector, mask_settings
from localdiff_cli.recipes.network import NetworkRecipe, announce, batch_of
from localdiff_cli.roles import Role
from localdiff_cli.volumes.partners import IMAGE, Source

if TYPE_CHECKING:
    import torch

    from localdiff_cli.guarantees.certificate import Certificate
    from localdiff_cli.tasks.sampling import Networks, SampleSettings, Shows
    from localdiff_cli.tasks.translation import TranslateWork
    from localdiff_cli.tasks.unknown import Finder, UnknownSettings


def sample_settings(options: TranslateOptions, bundle: Bundle) -> SampleSettings:
    """Return the user's choices over the bundle's defaults. Raise :class:`UsageError` where they cannot be run."""
    from localdiff_cli.diffusion.fusion import LocalSettings
    from localdiff_cli.tasks.sampling import SampleSettings

    defaults, timesteps = bundle.defaults, schedule_of(bundle).num_train_timesteps

    def chosen(value: float | None, default: float) -> float:
        return default if value is None else value

    steps = int(chosen(options.steps, defaults.steps))
    local = LocalSettings(
        context=chosen(options.context, defaults.context),
        branch_step=int(chosen(options.branch_step, defaults.branch_step)),
        fusion_step=int(chosen(options.fusion_step, defaults.fusion_step)),
        soft=defaults.soft if options.soft is None else options.soft,
        ood_branch=options.ood_branch,
        emphasis=chosen(options.emphasis, defaults.emphasis),
    )
    check_range("--steps", steps, 1, timesteps)
    sampler = options.sampler or defaults.sampler
    if options.eta is not None and sampler != "ddim":
        raise UsageError(f"--eta {options.eta:g}: belongs to ddim; --sampler {sampler} has no such choice", code="conflict")
    if not (local.branch_step >= 0 and local.fusion_step >= 0 and local.branch_step + local.fusion_step <= steps):
        raise UsageError(
            f"--branch-step {local.branch_step} and --fusion-step {local.fusion_step}: "
            f"expected 0 or more each, together at most --steps {steps}",
            code="range",
        )
    return SampleSettings(
        options.mode, sampler, chosen(options.eta, defaults.eta), steps, options.samples, options.seed,
        options.noise, local, options.guided, defaults.ood_crop if options.ood_crop is None else options.ood_crop,
    )  # fmt: skip


def unknown_settings(options: TranslateOptions, bundle: Bundle, tau: float, *, by_map: bool = False) -> UnknownSettings:
    """Return the user's choices over the bundle's defaults; ``tau`` is the cut of B. A region that the user brings
    (``by_map``) is drawn however smooth it is. Raise :class:`UsageError` where unknown is not below τ."""
    from localdiff_cli.tasks.unknown import UnknownSettings

    defaults = bundle.defaults
    if options.unknown_tau is not None and options.unknown_tau >= tau:
        raise UsageError(
            f"--unknown-tau {options.unknown_tau:g}: expected a cut below --tau {tau:g}, from which on a region is drawn", code="range"
        )
    threshold = defaults.unknown_threshold if options.unknown_tau is None else options.unknown_tau
    if options.suspect_tau is not None and suspect_bundle(options, bundle) is None:
        raise UsageError("--suspect-tau: there is no --suspect bundle; name one", code="conflict")
    texture = (0.0 if by_map else defaults.texture) if options.texture is None else options.texture
    suspect = defaults.suspect_threshold if options.suspect_tau is None else options.suspect_tau
    return UnknownSettings(
        threshold if threshold is not None and threshold < tau else None, options.unknown or defaults.unknown, texture,
        suspect if suspect_bundle(options, bundle) else None,
    )  # fmt: skip


def suspect_bundle(options: TranslateOptions, bundle: Bundle) -> str | None:
    """Return the name of the segmenter of lesions that the OOD branch cannot draw; None where there is none."""
    name = options.suspect or bundle.defaults.suspect
    return None if name in (None, "none") else name


def _suspect(options: TranslateOptions, bundle: Bundle, device: torch.device) -> tuple[Finder | None, dict[str, object] | None]:
    """That segmenter on the translator's slices, and its account. Raises :class:`UsageError` for one of other input."""
    from localdiff_cli.segmentation.coarse import CoarseFinder

    name = suspect_bundle(options, bundle)
    if name is None:
        return None, None
    found, grid = open_bundle(name), bundle.grid.spacing
    factor = max(1, round(found.grid.spacing / grid))
    alike = found.task == "segment" and found.condition == bundle.condition and found.bias == bundle.bias
    if not (alike and math.isclose(found.grid.spacing, factor * grid)):
        own, its = ((each.condition.contrast, each.condition.window, each.bias) for each in (bundle, found))
        raise UsageError(
            f"--suspect {name}: made to {found.task}; contrast, window and bias correction {its}, at {found.grid.spacing} mm; expected a "
            f"segmenter of {own}, at {grid} mm or a multiple of it",
            code="wrong-contrast",
        )
    return CoarseFinder(load_segmenter(found, device), factor), {"Bundle": found.name, "BundleHash": found.hash}


def _networks(options: TranslateOptions, bundle: Bundle, device: torch.device) -> Networks:
    from localdiff_cli.diffusion.device import autocast, on_device
    from localdiff_cli.tasks.sampling import Networks

    autocast(device, options.precision)
    network = load_translator(bundle, device)
    shows, classifier = _classifier(options, bundle, device) if options.guided else (None, None)
    source = _expert_source(options, bundle)
    expert = None if source is None else on_device(load_expert(source, device), device, options.precision)
    account = None if source is None else f"{source.name} {source.hash}"
    model = on_device(network, device, options.precision)
    told = source is not None and source.expert_is_told
    return Networks(model, schedule_of(bundle), device, network.settings.multiple, shows, classifier, expert, account, told)


def _classifier(options: TranslateOptions, bundle: Bundle, device: torch.device) -> tuple[Shows, str]:
    """The classifier of guided timing and its account."""
    from localdiff_cli.tasks.guidance import lesion_shows

    name = options.classifier or bundle.target.segmenter
    try:
        classifier = open_bundle(name)
    except ModelError as error:
        raise UsageError(f"--guided needs a classifier of {bundle.target.contrast} lesions: {error}", code="no-classifier") from error
    if classifier.condition.contrast != bundle.target.contrast:
        raise UsageError(
            f"--classifier {name}: works on {classifier.condition.contrast}, the translation is {bundle.target.contrast}",
            code="wrong-contrast",
        )
    shows = lesion_shows(load_segmenter(classifier, device), classifier.segmenter_defaults.threshold)
    return shows, f"{classifier.name} {classifier.hash}"


def match_source(options: TranslateOptions, bundle: Bundle) -> Source | None:
    """Return where ``--match`` looks for a volume's reference: images of the target contrast only."""
    return Source(str(options.match), IMAGE, bundle.target.contrast, "--match") if options.match else None


def _expert_source(options: TranslateOptions, bundle: Bundle) -> Bundle | None:
    """The bundle that holds the OOD expert, None for the training-free method. Raises :class:`UsageError` for one of
    another kind."""
    unasked = options.mode == "plain" or options.ood_branch == "copy"
    if unasked or options.expert == "none" or (options.expert == "auto" and not bundle.has_expert):
        return None
    source = bundle if options.expert == "auto" else open_bundle(options.expert)

    def kind(each: Bundle) -> tuple[object, ...]:
        return each.condition, each.target, each.grid.spacing, schedule_of(each)

    if source.task != "translate" or kind(source) != kind(bundle):
        raise UsageError(
            f"--expert {options.expert}: made for {source.condition.contrast} to {source.target.contrast} at {source.grid.spacing} mm; "
            f"expected the contrasts, grid and noise schedule of {bundle.name}", code="wrong-expert",
        )  # fmt: skip
    return source


@dataclass(frozen=True)
class TranslateRecipe(NetworkRecipe):
    """How any process gets ready for ``translate``."""

    options: TranslateOptions
    detector: DetectorOptions

    @property
    def suffix(self) -> str | None:
        """As ``--suffix`` says."""
        return self.options.suffix

    @property
    def main(self) -> Role:
        """The image."""
        contrast = open_bundle(self.options.model).target.contrast
        return Role("image", "", self.options.dtype, f"localdiff synthetic {contrast}")

    def load(self, say: Say) -> VolumeWork:
        """Load bundle, networks and detector. Raise :class:`LocaldiffError` where they cannot be used."""
        from localdiff_cli.diffusion.device import automatic_batch, choose_device
        from localdiff_cli.tasks.matching import reference_scale
        from localdiff_cli.tasks.slices import file_account
        from localdiff_cli.tasks.translation import TranslateWork

        options, bundle = self.options, open_bundle(self.options.model)
        device, local = choose_device(options.device), options.mode == "local"
        announce(say, bundle, device)
        networks = _networks(options, bundle, device)
        calibration = calibration_of(options, bundle)
        certificate = _certificate(calibration) if calibration else None
        detector = replace(self.detector, tau=certificate.tau) if certificate else self.detector
        options = replace(options, emphasis=certificate.emphasis) if certificate else options
        bind, account = choose_detector(detector, bundle, device) if local else (None, {})
        # What is unknown hangs on the bundle's own cut, whichever cut a certificate brings.
        cut = mask_settings(bundle, self.detector).threshold
        unknown = unknown_settings(options, bundle, cut, by_map=self.detector.map is not None)
        suspect, suspect_account = _suspect(options, bundle, device) if local else (None, None)
        prepare = self.made_ready(bundle, networks.multiple)
        target, match = replace(prepare, window=bundle.target.window), match_source(options, bundle)
        work = TranslateWork(
            bundle=bundle,
            plan=self.plan,
            torch_device=device,
            networks=networks,
            bind=bind,
            prepare=prepare,
            mask=mask_settings(bundle, detector),
            unknown=unknown,
            suspect=suspect,
            suspect_account=suspect_account,
            sample=sample_settings(options, bundle),
            detector=account,
            reference=reference_scale(match, target) if match else None,
            reference_source=match,
            map=self.detector.map if local else None,
            match=file_account(options.match) if options.match else None,
            dtype=options.dtype,
            precision=options.precision,
            batch_size=batch_of(options.batch_size, automatic_batch(device)),
        )
        return (
            work
            if certificate is None or calibration is None
            else _certified(work, certificate, calibration, bands=options.interval is not None)
        )


def calibration_of(options: TranslateOptions, bundle: Bundle) -> Path | None:
    """Return the certificate to translate under: that of ``--calibration``, for an interval else the bundle's own.

    Raise :class:`UsageError` for an interval without either.
    """
    if options.calibration is not None or options.interval is None:
        return options.calibration
    if bundle.calibration is None:
        raise UsageError(
            f"--interval: {bundle.name} ships without a calibration; give --calibration too, made by localdiff calibrate --interval",
            code="conflict",
        )
    return bundle.calibration


def _certificate(path: Path) -> Certificate:
    """The certificate; what reads it loads statistics that a translation without one does not need."""
    from localdiff_cli.guarantees.certificate import read_certificate

    return read_certificate(path)


def _certified(work: TranslateWork, certificate: Certificate, path: Path, *, bands: bool) -> TranslateWork:
    """The same work under a certificate, with its bands where they are asked for. Raises :class:`UsageError` where it speaks
    of other settings or another bundle."""
    from localdiff_cli.guarantees.certificate import check_fits
    from localdiff_cli.guarantees.certified import Certified
    from localdiff_cli.ood.backbone import load_backbone

    check_fits(path, certificate, work.settings)
    intervals = certificate.intervals if bands else None
    network = load_interval(work.bundle, work.torch_device) if intervals and intervals["network"] else None
    return replace(work, certified=Certified(certificate, load_backbone(), intervals and intervals["bands"], network))
