"""``localdiff fit``: train the parts of a bundle on pairs of volumes."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from localdiff_cli.batch.report import recorded_arguments, say
from localdiff_cli.choices import DetectorName
from localdiff_cli.commands.run import check_affine_from
from localdiff_cli.declared import check
from localdiff_cli.errors import EXIT_OK, ModelError, UsageError
from localdiff_cli.options import DetectorFit, ExpertFit, FitOptions, IntervalFit, SegmenterFit, TrainOptions, TranslatorFit

if TYPE_CHECKING:
    from localdiff_cli.bundle import Bundle
    from localdiff_cli.diffusion.schedule import Prediction
    from localdiff_cli.training.job import FitJob, Start
    from localdiff_cli.training.loop import LoopSettings


def _job(options: FitOptions, train: TrainOptions | None = None) -> FitJob:
    from localdiff_cli.diffusion.device import choose_device
    from localdiff_cli.training.board import NoBoard, TensorBoard
    from localdiff_cli.training.job import FitJob
    from localdiff_cli.training.pairs import read_pairs, without
    from localdiff_cli.training.processes import local_device, processes
    from localdiff_cli.volumes.advice import FIT
    from localdiff_cli.volumes.prepare import PrepareSettings

    check_affine_from(options.affine_from)
    notes: list[str] = []
    pairs = without(read_pairs(options.data, options.condition, options.target, notes.append, options.exclude), options.exclude)
    out = Path(os.path.abspath(options.out))
    work = options.work or out.with_name(out.name + ".work")
    prepare = PrepareSettings(
        bias=options.bias, spacing=options.spacing, shape=_rows_columns(options), affine_from=options.affine_from, advice=FIT
    )
    device = choose_device(local_device(options.device))
    team = processes(device)
    board = TensorBoard(train.tensorboard) if train and train.tensorboard and team.rank == 0 else NoBoard()
    return FitJob(
        tuple(pairs), (options.condition, options.target), out, work, prepare, f"localdiff {recorded_arguments(sys.argv[1:])}",
        device, say if team.rank == 0 else _silent, options.healthy, options.licence, tuple(notes), team, board,
    )  # fmt: skip


def _silent(_: str) -> None:
    """What processes but the first say."""


def _check_options(options: FitOptions) -> None:
    check(options)
    for option, contrast in (("--condition", options.condition), ("--target", options.target)):
        if contrast is not None and not contrast.isalnum():
            raise UsageError(f"{option} {contrast}: expected a BIDS suffix, letters and digits, such as T1w", code="choice")
    _rows_columns(options)


def _rows_columns(options: FitOptions) -> tuple[int, int]:
    """The shape of the network's grid. Raises :class:`UsageError` for one that no network can have."""
    shape = numbers("--shape", options.shape)
    if len(shape) != 2 or not all(32 <= n <= 1024 for n in shape):
        raise UsageError(f"--shape {options.shape}: expected rows and columns, 32 to 1024 each, such as 208,176", code="range")
    return shape[0], shape[1]


def _joined(values: tuple[int, ...]) -> str:
    return ",".join(map(str, values))


def _check_channels(channels: tuple[int, ...], fewest: int, unit: int) -> None:
    if not fewest <= len(channels) <= 8 or any(not 0 < c <= 1024 or c % unit for c in channels):
        what = f"{fewest} to 8 numbers up to 1024" + (f", each a multiple of {unit}" if unit > 1 else "")
        raise UsageError(f"--channels {_joined(channels)}: expected {what}", code="range")


def _check_multiple(shape: tuple[int, ...], multiple: int) -> None:
    if any(n % multiple for n in shape):
        raise UsageError(
            f"--shape {_joined(shape)}: this network halves its grid too often for it; expected multiples of {multiple}, "
            "or fewer --channels",
            code="range",
        )


def _loop(train: TrainOptions) -> LoopSettings:
    from localdiff_cli.training.loop import LoopSettings

    return LoopSettings(
        steps=train.steps, batch_size=train.batch_size, rate=train.rate, seed=train.seed, precision=train.precision,
        accumulate=train.accumulate,
    )  # fmt: skip


def fit_translator(options: FitOptions, train: TrainOptions, own: TranslatorFit) -> int:
    """Train a translator, from the weights of another bundle where one is given; return the exit code."""
    _check_options(options)
    check(train)
    check(own)
    channels = numbers("--channels", own.channels)
    _check_channels(channels, fewest=1, unit=32)
    from localdiff_cli.bundle import Defaults
    from localdiff_cli.diffusion.network import NetworkSettings
    from localdiff_cli.diffusion.schedule import Schedule
    from localdiff_cli.training import translator
    from localdiff_cli.training.augment import AugmentSettings

    network = NetworkSettings(
        space_to_depth=own.space_to_depth, channels=channels, num_res_blocks=1, attention_levels=(*([False] * (len(channels) - 1)), True)
    )
    _check_multiple(_rows_columns(options), network.multiple)
    job = _job(options, train)
    bundle = translator.fit_translator(
        job,
        network,
        Schedule(name=own.schedule, prediction=cast("Prediction", own.prediction)),
        AugmentSettings(region=own.region_augment),
        _loop(train),
        Defaults(),
        None if own.start is None else _start(own.start),
        around_lesions=own.around_lesions,
        first=own.first_share,
        invented=own.invented_weight,
    )
    job.say(f"wrote {bundle.path}")
    return EXIT_OK


def _start(text: str) -> Start:
    """``BUNDLE`` or ``BUNDLE:PART`` as weights to start from."""
    from localdiff_cli.bundle import open_bundle
    from localdiff_cli.training.job import Start

    name, colon, part = text.rpartition(":")
    return Start(open_bundle(name), part) if colon and re.fullmatch(r"[\w.-]+", part) else Start(open_bundle(text))


def _like(base: str, options: FitOptions) -> tuple[Bundle, FitOptions]:
    """The translator bundle ``--base``, and the options with its contrasts, grid and bias."""
    from localdiff_cli.bundle import open_bundle

    bundle = open_bundle(base)
    if bundle.task != "translate":
        raise ModelError(f"--base {base}: made to {bundle.task}; choose a translator from: localdiff models list", code="task")
    alike = replace(
        options, condition=bundle.condition.contrast, target=bundle.target.contrast, bias=bundle.bias,
        spacing=bundle.grid.spacing, shape=_joined(bundle.grid.shape),
    )  # fmt: skip
    return bundle, alike


def fit_interval(options: FitOptions, train: TrainOptions, own: IntervalFit) -> int:
    """Train the network that begins a bundle's bands; return the exit code. The base says contrasts, grid and bias."""
    check(train)
    check(own)
    channels = numbers("--channels", own.channels)
    _check_channels(channels, fewest=2, unit=1)
    from localdiff_cli.commands.calibrate import translation_of
    from localdiff_cli.guarantees.interval_network import IntervalSettings
    from localdiff_cli.tasks.translated import translate_people
    from localdiff_cli.training import interval
    from localdiff_cli.training.people import people

    bundle, alike = _like(own.base, options)
    job = _job(alike, train)
    interval.check_base(job, bundle)
    names = {pair.name for pair in job.pairs}
    everybody = people(options.data, bundle.condition.contrast, bundle.target.contrast, "train", options.exclude)
    found = [person for person in everybody if person.target is not None and person.name in names]
    work = translation_of(own.base, str(job.device), options.affine_from, job.say)
    translated = translate_people(job, work, found, own.every)
    made = interval.fit_interval(job, bundle, translated, IntervalSettings(channels=channels, level=own.level), _loop(train))
    job.say(f"wrote {made.path}")
    return EXIT_OK


def fit_expert(options: FitOptions, train: TrainOptions, own: ExpertFit) -> int:
    """Teach the OOD branch's own network; return the exit code. The base says contrasts, grid and bias."""
    check(train)
    check(own)
    from localdiff_cli.bundle import open_bundle
    from localdiff_cli.training import expert
    from localdiff_cli.training.augment import AugmentSettings
    from localdiff_cli.training.expert import RegionSettings
    from localdiff_cli.training.job import Start
    from localdiff_cli.training.told import ToldSettings
    from localdiff_cli.training.told_maps import Told

    bundle, alike = _like(own.base, options)
    regions, before = RegionSettings(healthy_share=own.healthy_share), bundle.defaults
    finder = before.detector if own.detector is None else cast(DetectorName, own.detector)
    defaults = replace(before, detector=finder, threshold=before.threshold if own.tau is None else own.tau)
    finders = tuple(_finder(name, bundle) for name in own.told)
    by_map = Told(ToldSettings(healthy_share=own.healthy_share), finders) if finders else None
    first = None if own.start is None else Start(open_bundle(own.start), "expert")
    job = _job(alike, train)
    made = expert.fit_expert(
        job, bundle, regions, own.patients, AugmentSettings(), _loop(train), defaults, by_map, first,
        invented=own.invented_weight, erased=own.erased_weight,
    )  # fmt: skip
    job.say(f"wrote {made.path}")
    return EXIT_OK


def _finder(name: str, base: Bundle) -> Bundle:
    """The segmenter bundle whose maps an expert is told. Raises :class:`UsageError` for one of another contrast."""
    from localdiff_cli.bundle import open_bundle

    found = open_bundle(name)
    if found.task != "segment" or found.condition != base.condition or found.grid.spacing != base.grid.spacing:
        raise UsageError(
            f"--told {name}: made to {found.task} on {found.condition.contrast}, window {found.condition.window}, at {found.grid.spacing} "
            f"mm; expected a segmenter of {base.condition.contrast}, window {base.condition.window}, at {base.grid.spacing} mm",
            code="wrong-contrast",
        )  # fmt: skip
    return found


def fit_detector(options: FitOptions, own: DetectorFit) -> int:
    """Fit a PatchCore detector; return the exit code."""
    _check_options(options)
    check(own)
    from localdiff_cli.training import detector

    settings = detector.DetectorSettings(own.backbone, own.backbone_weights, own.input_scale, own.coreset, own.every, own.seed)
    job = _job(options)
    bundle = detector.fit_detector(job, settings)
    job.say(f"wrote {bundle.path}")
    return EXIT_OK


def fit_segmenter(options: FitOptions, train: TrainOptions, own: SegmenterFit) -> int:
    """Train a lesion segmenter; return the exit code."""
    _check_options(options)
    check(train)
    check(own)
    channels = numbers("--channels", own.channels)
    _check_channels(channels, fewest=2, unit=1)
    from localdiff_cli.bundle import SegmenterDefaults, open_bundle
    from localdiff_cli.segmentation.network import LesionNetworkSettings
    from localdiff_cli.training import segmenter
    from localdiff_cli.training.augment import AugmentSettings
    from localdiff_cli.training.hard_negatives import negatives_for
    from localdiff_cli.training.job import Start
    from localdiff_cli.training.segmenter import LesionDraw, LesionLoss

    network = LesionNetworkSettings(channels=channels)
    _check_multiple(_rows_columns(options), network.multiple)
    job = _job(options, train)
    bundle = segmenter.fit_segmenter(
        job,
        network,
        AugmentSettings(),
        _loop(train),
        SegmenterDefaults(threshold=own.threshold, min_volume=own.min_volume),
        LesionDraw(own.healthy_share, own.doubt, negatives_for(options.condition) if own.hard_negatives else None),
        LesionLoss(own.missed_weight, own.by_slice),
        None if own.start is None else Start(open_bundle(own.start), "segmenter"),
    )
    job.say(f"wrote {bundle.path}")
    return EXIT_OK


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Return ``64,96,128`` as (64, 96, 128). Raise :class:`UsageError` for anything else."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{option} {text}: expected whole numbers with commas, such as 64,96,128", code="choice") from error
