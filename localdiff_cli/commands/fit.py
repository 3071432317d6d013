"""``localdiff fit``: train the parts of a bundle on pairs of volumes."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from localdiff_cli.batch.report import say
from localdiff_cli.commands.run import check_choice, check_range
from localdiff_cli.errors import EXIT_OK

if TYPE_CHECKING:
    from localdiff_cli.training.fit import FitJob


@dataclass(frozen=True)
class FitOptions:
    """Options that every fit has."""

    data: tuple[Path, ...]
    out: Path
    condition: str
    target: str | None
    work: Path | None
    healthy: tuple[str, ...]
    bias: str
    device: str
    licence: str


@dataclass(frozen=True)
class TrainOptions:
    """Options of the two fits that train a network."""

    steps: int
    batch_size: int
    rate: float
    seed: int


def _command() -> str:
    return "localdiff " + shlex.join(sys.argv[1:])


def _job(options: FitOptions) -> FitJob:
    from localdiff_cli.diffusion.device import choose_device
    from localdiff_cli.training.fit import FitJob
    from localdiff_cli.training.pairs import read_pairs
    from localdiff_cli.volumes.prepare import PrepareSettings

    check_choice("--bias", options.bias, ("n4", "none"))
    pairs = read_pairs(options.data, options.condition, options.target)
    work = options.work or options.out.with_name(options.out.name + ".work")
    return FitJob(
        tuple(pairs), (options.condition, options.target), options.out, work, PrepareSettings(bias=options.bias), _command(),
        choose_device(options.device), say, options.healthy, options.licence,
    )  # fmt: skip


def _check(train: TrainOptions) -> None:
    check_range("--steps", train.steps, 1, 10_000_000)
    check_range("--batch-size", train.batch_size, 1, 4096)
    check_range("--rate", train.rate, 1e-8, 1)


def fit_translator(
    options: FitOptions, train: TrainOptions, *, prediction: str, schedule: str, channels: tuple[int, ...], space_to_depth: int, region_augment: float
) -> int:
    """Train a translator; the exit code."""
    _check(train)
    check_choice("--prediction", prediction, ("epsilon", "sample", "v_prediction"))
    check_choice("--schedule", schedule, ("linear_beta", "scaled_linear_beta", "sigmoid_beta", "cosine"))
    check_range("--region-augment", region_augment, 0, 1)
    from localdiff_cli.bundle import Defaults
    from localdiff_cli.diffusion.network import NetworkSettings
    from localdiff_cli.diffusion.schedule import Schedule
    from localdiff_cli.training import fit
    from localdiff_cli.training.augment import AugmentSettings
    from localdiff_cli.training.loop import LoopSettings

    network = NetworkSettings(
        space_to_depth=space_to_depth, channels=channels, num_res_blocks=1, attention_levels=(*([False] * (len(channels) - 1)), True)
    )
    loop = LoopSettings(steps=train.steps, batch_size=train.batch_size, rate=train.rate, seed=train.seed)
    bundle = fit.fit_translator(
        _job(options), network, Schedule(name=schedule, prediction=prediction), AugmentSettings(region=region_augment), loop, Defaults()
    )
    say(f"wrote {bundle.path}")
    return EXIT_OK


def fit_detector(options: FitOptions, *, backbone: str, backbone_weights: Path | None, input_scale: float, coreset: int, every: int, seed: int) -> int:
    """Fit a PatchCore detector; the exit code."""
    check_range("--coreset", coreset, 10, 1_000_000)
    from localdiff_cli.training import fit

    settings = fit.DetectorSettings(backbone, backbone_weights, input_scale, coreset, every, seed)
    bundle = fit.fit_detector(_job(options), settings)
    say(f"wrote {bundle.path}")
    return EXIT_OK


def fit_segmenter(options: FitOptions, train: TrainOptions, *, channels: tuple[int, ...], threshold: float, min_volume: float) -> int:
    """Train a lesion segmenter; the exit code."""
    _check(train)
    check_range("--threshold", threshold, 0.001, 0.999)
    from localdiff_cli.bundle import SegmenterDefaults
    from localdiff_cli.segmentation.network import LesionNetworkSettings
    from localdiff_cli.training import fit
    from localdiff_cli.training.augment import AugmentSettings
    from localdiff_cli.training.loop import LoopSettings

    loop = LoopSettings(steps=train.steps, batch_size=train.batch_size, rate=train.rate, seed=train.seed)
    bundle = fit.fit_segmenter(
        _job(options), LesionNetworkSettings(channels=channels), AugmentSettings(), loop, SegmenterDefaults(threshold=threshold, min_volume=min_volume)
    )
    say(f"wrote {bundle.path}")
    return EXIT_OK


def numbers(option: str, text: str) -> tuple[int, ...]:
    """``64,96,128`` → (64, 96, 128). Raises :class:`UsageError` for anything else."""
    from localdiff_cli.errors import UsageError

    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{option} {text}: expected whole numbers with commas, such as 64,96,128", code="choice") from error


