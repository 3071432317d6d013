"""Super-resolution by conditional diffusion: the condition is the low-resolution image on the target's grid (examples/docs/concepts.md §5).

What digits.py and photographs.py share: the condition, the training, plain and local sampling, the figures of single images.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from examples.benchmarks.weights import Training, digest_of
from localdiff_cli.diffusion.fusion import LocalSettings, Process, Region, local, plain
from localdiff_cli.diffusion.network import NetworkSettings, TranslatorNetwork
from localdiff_cli.diffusion.noise import INITIAL, NoiseKey
from localdiff_cli.diffusion.samplers import step_of
from localdiff_cli.diffusion.schedule import CLEAN, Schedule, StepPair, step_pairs
from localdiff_cli.evaluation.cohort.statistics import Bootstrap, Interval, bootstrap_mean, bootstrap_sums
from localdiff_cli.evaluation.metrics.image import DataRange, ssim_maps, ssim_of_slices
from localdiff_cli.ood.backbone import load_backbone
from localdiff_cli.ood.detector import PatchCoreDetector
from localdiff_cli.ood.fit import calibrate_detector, fit_bank
from localdiff_cli.threads import apart
from localdiff_cli.training.loop import LoopSettings, LossOf
from localdiff_cli.training.translator import denoising_loss
from localdiff_cli.volumes.whole import write_text

SCHEDULE = Schedule()
UNIT = DataRange(1.0, "pixels in [0, 1]")
PUBLISHED = LocalSettings(context=0.5, fusion_step=2)
"""λ as the paper's code has it for digits, the last 2 of 50 steps joint: a joint step much earlier redraws everything."""


KINDS: tuple[str, ...] = ("network", "copy", "mean")
"""Who may draw inside an OOD region, as ``--ood-branch`` has it."""


@dataclass(frozen=True)
class Row:
    """One way to make the high-resolution image; ``source`` of the OOD region: true (the image), condition, none (plain), or a map's.

    ``published``: sampled as the authors do, and B = (M ≥ 1) as it is. ``pasted``: the condition inside B, the plain sample outside.
    """

    label: str
    source: str
    local: LocalSettings = PUBLISHED
    published: bool = False
    pasted: bool = False


def yardsticks(noun: str) -> tuple[Row, ...]:
    """The rows without an OOD region."""
    return (
        Row(f"true {noun}", "true"),
        Row("condition alone", "condition"),
        Row("plain", "none"),
        Row("plain, as published", "none", published=True),
    )


def drawn_inside(source: str, name: str, kinds: tuple[str, ...]) -> tuple[Row, ...]:
    """Who draws inside an OOD region: each of ``kinds`` by our sampling, the condition pasted there, and all kinds as published."""
    return (
        *(Row(f"local, {name}, {kind}", source, replace(PUBLISHED, ood_branch=kind)) for kind in kinds),
        Row(f"condition pasted into plain, {name}", source, pasted=True),
        *(Row(f"local, {name}, {kind}, as published", source, replace(PUBLISHED, ood_branch=kind), published=True) for kind in KINDS),
    )


@dataclass(frozen=True)
class Sampling:
    """A reverse process: ``steps``, ``seed``, ``sampler``, and Local Diffusion's own settings.

    ``sigmoid``: the steps lie where the published sigmoid schedule has them (see :func:`sigmoid_pairs`), not evenly in t.
    """

    steps: int = 50
    local: LocalSettings = PUBLISHED
    seed: int = 0
    sampler: str = "ddim"
    sigmoid: bool = False

    @property
    def as_published(self) -> Sampling:
        """Ancestral DDPM along the sigmoid schedule, as the authors sample."""
        return replace(self, sampler="ddpm", sigmoid=True)

    @property
    def pairs(self) -> tuple[StepPair, ...]:
        """The (t, t_prev) pairs walked."""
        return sigmoid_pairs(self.steps) if self.sigmoid else step_pairs(SCHEDULE.num_train_timesteps, self.steps)


def sigmoid_pairs(steps: int) -> tuple[StepPair, ...]:
    """``steps`` pairs whose noise is that of the published sigmoid schedule (from −3 to 3) at k / ``steps``, k = ``steps`` … 0.

    A network knows x_t by its share of noise: ours, trained on a linear schedule, is asked at the timesteps where that is the same.
    """
    end = 1 / (1 + np.exp(-3))
    bars = (1 / (1 + np.exp(6 * np.arange(steps, 0, -1) / steps - 3)) - (1 - end)) / (2 * end - 1)
    known = SCHEDULE.alphas_cumprod.numpy()
    times = [int(np.abs(known - bar).argmin()) for bar in bars]
    return tuple(pairwise([*times, CLEAN]))


def pasted(condition: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """The condition itself inside B, ``image`` elsewhere: what a copy is worth without any diffusion."""
    return torch.where(mask, condition, image)


def low_resolution(images: Tensor, factor: int) -> Tensor:
    """The condition c: ``(N, 1, H, W)`` in [0, 1], averaged over squares of ``factor`` pixels, brought back by bicubic interpolation."""
    small = F.avg_pool2d(images, factor)
    return F.interpolate(small, size=images.shape[-2:], mode="bicubic", align_corners=False).clamp(0, 1)


class Refiner(nn.Module):
    """A translator network that answers with its condition plus a correction: it need not learn to copy (Li et al. 2022, SRDiff)."""

    channels = 1

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.correction = TranslatorNetwork(settings, self.channels)

    def forward(self, x_t: Tensor, condition: Tensor, t: Tensor) -> Tensor:
        """As :class:`TranslatorNetwork`, for a schedule that predicts x_0."""
        answer: Tensor = 2 * condition - 1 + self.correction(x_t, condition, t)
        return answer


class ColourRefiner(Refiner):
    """The same for RGB."""

    channels = 3


def training(
    name: str, about: str, images: Tensor, factor: int, network: NetworkSettings, loop: LoopSettings, window: int,
    kind: type[TranslatorNetwork] | type[Refiner] = TranslatorNetwork,
) -> Training:  # fmt: skip
    """The training of a ``factor`` × super-resolution network on ``images`` ``(N, C, H, W)`` in [0, 1], random windows of them."""
    sizes = {name: value for name, value in asdict(network).items() if name != "told"}  # nobody tells these networks of a map
    identity = {
        "task": f"{factor}x super-resolution", "images": len(images), "images_sha256": digest_of(images.numpy()), "window": window,
        "kind": kind.__name__, "network": sizes, "schedule": asdict(SCHEDULE),
    }  # fmt: skip
    return Training(name, lambda: kind(network), _loss(images, factor, window, loop.batch_size), loop, identity, about)


def _loss(images: Tensor, factor: int, window: int, batch_size: int) -> LossOf:
    conditions = low_resolution(images, factor)
    pairs = torch.cat([conditions, images], dim=1)

    def loss_of(network: nn.Module, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(pairs), (batch_size,), generator=generator)
        condition, target = torch.stack([_window(pairs[i], window, generator) for i in chosen.tolist()]).chunk(2, dim=1)
        return denoising_loss(network, SCHEDULE, condition, target, torch.ones_like(target), generator)

    return loss_of


def _window(pair: Tensor, side: int, generator: torch.Generator) -> Tensor:
    top, left = (int(torch.randint(size - side + 1, (1,), generator=generator)) for size in pair.shape[-2:])
    return pair[:, top : top + side, left : left + side]


def upsample(
    network: nn.Module, sampling: Sampling, condition: Tensor, numbers: NDArray[np.intp], ood_map: Tensor | None, mask: Tensor | None,
    batch: int,
) -> Tensor:  # fmt: skip
    """High-resolution images in [0, 1] from ``condition`` ``(N, C, H, W)``: plain without a mask, else Local Diffusion in M and B.

    ``numbers`` are the images' own: the noise of an image does not depend on which others are sampled with it. ``batch`` images are
    computed together on one thread, so that the result does not depend on the number of threads.
    """

    def part(rows: slice) -> Tensor:
        shape = (condition.shape[2], condition.shape[3])
        own = [int(n) for n in numbers[rows]]
        keys = [NoiseKey(sampling.seed, channel, "super-resolution", shared=False) for channel in range(condition.shape[1])]

        def noise(step: int) -> Tensor:
            return torch.cat([key.batch(step, own, shape) for key in keys], dim=1)

        process = Process(network, SCHEDULE, step_of(sampling.sampler), sampling.pairs, noise)
        x_T = noise(INITIAL)
        if mask is None or ood_map is None:
            return plain(process, condition[rows], x_T)
        return local(process, condition[rows], x_T, Region(mask[rows], ood_map[rows]), sampling.local)

    parts = apart(part, [slice(start, start + batch) for start in range(0, len(condition), batch)])
    return ((torch.cat(parts) + 1) / 2).clamp(0, 1)


def fit_patchcore(training_images: Tensor, held_out: Tensor, scale: float, false_alarm: float, size: int) -> PatchCoreDetector:
    """PatchCore whose bank is of ``training_images`` ``(N, C, H, W)``, its threshold of ``held_out`` ones; every pixel counts."""
    backbone = load_backbone(input_scale=scale)
    bank = fit_bank(((image, everywhere(image)) for image in training_images), backbone, size, max_patches=60_000)
    calibration = calibrate_detector(((image, everywhere(image)) for image in held_out), backbone, bank)
    return PatchCoreDetector(backbone, bank, calibration, false_alarm)


def everywhere(images: Tensor) -> Tensor:
    """A mask of every pixel of ``(…, C, H, W)``: bool ``(…, 1, H, W)``."""
    return torch.ones_like(images[..., :1, :, :], dtype=torch.bool)


def decibels(image: NDArray, target: NDArray) -> float | None:
    """PSNR of pixels in [0, 1], data range 1; none where they are equal."""
    error = float(np.mean((image - target) ** 2, dtype=np.float64)) if image.size else 0.0
    return 10 * float(np.log10(1 / error)) if error else None


def similarity(image: NDArray, target: NDArray) -> float:
    """SSIM of one image ``(H, W)`` in [0, 1], as evaluation/image.py has it for a slice."""
    return float(ssim_of_slices(ssim_maps(image[None], target[None], UNIT), None, (1, *image.shape))[0])


def reduction(wrong: NDArray[np.bool_], before: NDArray[np.bool_], bootstrap: Bootstrap) -> Interval:
    """1 − wrong / wrong by plain sampling (``before``) of the same images."""

    def share(totals: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(divide="ignore", invalid="ignore"):
            fewer: NDArray[np.float64] = 1 - totals[:, 0] / totals[:, 1]
        return fewer

    return bootstrap_sums(np.stack([wrong, before], axis=1).astype(np.float64), share, bootstrap, "plain has none wrong")


def mean_of(values: NDArray[Any], shown: Callable[[Interval], str]) -> str:
    """A mean over images with its interval, as ``shown`` prints it."""
    return shown(bootstrap_mean(values.astype(np.float64).tolist(), Bootstrap())) if values.size else "n/a"


def measured_once(cache: Path, key: list[Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``measure`` gives, from ``cache`` where it was measured before under the same ``key`` (JSON values)."""
    path = cache / f"{hashlib.sha256(json.dumps(key, default=str).encode()).hexdigest()[:24]}.json"
    if not path.is_file():
        write_text(path, json.dumps(measure()))
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
