"""Fit the conditional diffusion network on slices that count as healthy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from localdiff_cli.bundle import TRANSLATOR, Bundle, Defaults, load_translator, schedule_of
from localdiff_cli.diffusion.network import BACKGROUND, NetworkSettings, TranslatorNetwork
from localdiff_cli.diffusion.schedule import Schedule
from localdiff_cli.errors import UsageError
from localdiff_cli.training.augment import AugmentSettings, grown, place, recontrast, restrict_regions
from localdiff_cli.training.harm import EQUAL, HarmSettings, Penalty, harm_penalty, harm_settings
from localdiff_cli.training.job import (
    FitJob,
    Start,
    base_metadata,
    check_held_out,
    check_out,
    data_account,
    identity,
    progress,
    save_drawing,
    version,
)
from localdiff_cli.training.loop import LoopSettings, LossOf, train, trained_seconds
from localdiff_cli.training.slices import PatientSlices
from localdiff_cli.volumes.whole import whole_file

BACKGROUND_WEIGHT = 0.1
"""Pixels outside the brain (for the expert: its region) count this much in the loss: they are known, yet must stay background."""
HELD_OUT = "held-out"
MARGIN = 4
"""A lesion that is left out of the loss takes so many pixels around it with it: where it ends is not sure."""


@dataclass(frozen=True)
class ChosenSlices:
    """Index of the slices used: for each patient the rows of its arrays. Patients are drawn alike, whatever their slice count."""

    patients: tuple[PatientSlices, ...]
    rows: tuple[NDArray[np.intp], ...]

    @property
    def count(self) -> int:
        """Number of slices."""
        return sum(len(rows) for rows in self.rows)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return a random batch of ``n`` slices."""
        return draw(self, n, generator)


class Drawable(Protocol):
    """Slices of which batches are drawn: condition, target, brain, lesion, each ``(n, 1, H, W)`` float32 in [0, 1]; with
    their maps, M comes fifth."""

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return a random batch of ``n`` slices."""


def healthy_slices(patients: list[PatientSlices], split: str) -> ChosenSlices:
    """Return the lesion-free slices of a split; every slice of a patient without a mask.

    Raise :class:`UsageError` where there are none.
    """
    return _chosen(patients, split, lambda p: p.lesion_free)


def all_slices(patients: list[PatientSlices], split: str) -> ChosenSlices:
    """Return every slice of a split. Raise :class:`UsageError` where there are none."""
    return _chosen(patients, split, lambda p: np.ones_like(p.lesion_free))


def _chosen(patients: list[PatientSlices], split: str, wanted: Callable[[PatientSlices], NDArray[np.bool_]]) -> ChosenSlices:
    chosen = [(p, np.flatnonzero(wanted(p))) for p in patients if p.split == split and p.target is not None]
    chosen = [(p, rows) for p, rows in chosen if rows.size]
    if not chosen:
        raise UsageError(f"no lesion-free slices in the {split} split; expected pairs with a target")
    return ChosenSlices(tuple(p for p, _ in chosen), tuple(rows for _, rows in chosen))


def draw(slices: ChosenSlices, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a random batch: condition, target, brain, lesion, each ``(n, 1, H, W)`` float32."""
    return planes_of(draw_rows(slices, n, generator))


def draw_rows(slices: ChosenSlices, n: int, generator: torch.Generator) -> list[tuple[PatientSlices, int]]:
    """Return ``n`` random slices: the patient of each and its row in the patient's arrays."""
    weights = torch.tensor([len(rows) ** 0.5 for rows in slices.rows])
    who = torch.multinomial(weights, n, replacement=True, generator=generator).tolist()
    chosen = ((slices.patients[i], slices.rows[i]) for i in who)
    return [(patient, int(rows[int(torch.randint(len(rows), (1,), generator=generator))])) for patient, rows in chosen]


def planes_of(drawn: list[tuple[PatientSlices, int]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return condition, target, brain and lesion of these slices, each ``(n, 1, H, W)`` float32."""
    conditions, targets, masks = [], [], []
    for patient, row in drawn:
        assert patient.target is not None
        conditions.append(patient.condition[row])
        targets.append(patient.target[row])
        masks.append(np.stack([patient.brain[row], patient.lesion[row]]))
    condition, target = (torch.from_numpy(np.stack(s).astype(np.float32) / 65535)[:, None] for s in (conditions, targets))
    brain, lesion = torch.from_numpy(np.stack(masks).astype(np.float32)).split(1, dim=1)
    return condition, target, brain, lesion


def translator_loss(
    slices: Drawable, schedule: Schedule, augment: AugmentSettings, batch_size: int, first: float = 0.0, harm: HarmSettings = EQUAL
) -> LossOf:
    """Return the loss of one step: squared error of the network's prediction at random timesteps, lesions and a margin left
    out.

    ``first``: share of the timesteps that are the last one, T − 1, at which the network sees noise and the condition alone.
    ``harm``: what an invented lesion costs beyond its squared error.
    """

    def loss_of(network: nn.Module, generator: torch.Generator) -> Tensor:
        condition, target, brain, lesion = place(torch.cat(slices.draw(batch_size, generator), dim=1), augment, generator).split(1, dim=1)
        inside = (brain > 0.5).float()
        counted = 1 - grown((lesion > 0).float(), MARGIN)
        condition = recontrast(condition, inside, augment, generator)
        condition, target = restrict_regions(condition, target.clamp(0, 1) * inside, augment, generator)
        penalty = harm_penalty(harm, torch.zeros_like(lesion))
        return denoising_loss(network, schedule, condition, target, inside, generator, counted, first, penalty)

    return loss_of


def denoising_loss(
    network: nn.Module, schedule: Schedule, condition: Tensor, target: Tensor, inside: Tensor, generator: torch.Generator,
    counted: Tensor | None = None, first: float = 0.0, penalty: Penalty | None = None,
) -> Tensor:  # fmt: skip
    """Return the squared error of the prediction at random timesteps; images ``(N, 1, H, W)`` in [0, 1], little weight off
    ``inside``.

    ``counted``: weights from 0 to 1 of the same shape; None counts every pixel. ``first``: see :func:`first_or_any`.
    ``penalty``: what a pixel costs beyond its squared error (training/harm.py); the network must predict x_0.
    """
    device = next(network.parameters()).device
    x0 = 2 * target - 1
    t = first_or_any(len(x0), schedule.num_train_timesteps, first, generator)
    noise = torch.randn(x0.shape, generator=generator)
    x0, noise, t, condition, inside = (tensor.to(device) for tensor in (x0, noise, t, condition, inside))
    predicted = network(schedule.add_noise(x0, noise, t), condition, t)
    weight = BACKGROUND_WEIGHT + (1 - BACKGROUND_WEIGHT) * inside
    if counted is not None:
        weight = weight * counted.to(device)
    cost = (predicted - schedule.training_target(x0, noise, t)).square()
    if penalty is not None:
        cost = cost + penalty(predicted, x0)
    return (weight * cost).sum() / weight.sum()


def stratified_times(n: int, timesteps: int, generator: torch.Generator) -> Tensor:
    """Return one random timestep in each of ``n`` equal parts of [0, T), shuffled: less variance than independent draws."""
    parts = (torch.arange(n) + torch.rand(n, generator=generator)) / n
    return (parts[torch.randperm(n, generator=generator)] * timesteps).long().clamp(max=timesteps - 1)


def first_or_any(n: int, timesteps: int, first: float, generator: torch.Generator) -> Tensor:
    """Return the timesteps of a batch ``(n,)``: the last one with probability ``first``, else stratified over all."""
    times = stratified_times(n, timesteps, generator)
    return torch.where(torch.rand(n, generator=generator) < first, timesteps - 1, times) if first else times


@torch.inference_mode()
def mean_prediction(predict: Callable[[Tensor, Tensor, Tensor], Tensor], schedule: Schedule, condition: Tensor, samples: int = 2) -> Tensor:
    """Return the posterior mean as the network sees it from pure noise at the last timestep, in [0, 1]: a quick check while
    training."""
    total = torch.zeros_like(condition)
    last = schedule.num_train_timesteps - 1
    for sample in range(samples):
        generator = torch.Generator().manual_seed(sample)
        x_t = torch.randn(condition.shape, generator=generator).to(condition.device)
        predicted = predict(x_t, condition, torch.full((condition.shape[0],), last, device=condition.device))
        total += schedule.to_x0(predicted, x_t, last)
    return ((total / samples - BACKGROUND) / 2).clamp(0, 1)


def psnr(a: NDArray[Any], b: NDArray[Any], mask: NDArray[np.bool_]) -> float:
    """Return the PSNR (dB) over ``mask``, data range 1."""
    return float(10 * np.log10(1 / np.mean((a[mask] - b[mask]) ** 2, dtype=np.float64)))


def polynomial_map(slices: ChosenSlices, degree: int = 5, most: int = 200) -> NDArray[Any]:
    """Return the best polynomial intensity map from condition to target over the brain pixels of ``slices``; ``np.polyval``
    order.

    Of more than ``most`` patients it takes as many, evenly spread.
    """
    xs, ys = [], []
    for i in np.unique(np.linspace(0, len(slices.rows) - 1, min(most, len(slices.rows))).astype(int)):
        patient, rows = slices.patients[i], slices.rows[i]
        assert patient.target is not None
        brain = patient.brain[rows]
        step = max(1, int(brain.sum()) // 200_000)
        xs.append(patient.condition[rows][brain][::step] / 65535.0)
        ys.append(patient.target[rows][brain][::step] / 65535.0)
    return np.polyfit(np.concatenate(xs), np.concatenate(ys), degree)


def _check_batch(slices: ChosenSlices, n: int = 12) -> tuple[Tensor, NDArray[Any], NDArray[np.bool_]]:
    """Some evenly spread slices to watch: condition tensor, target and brain arrays."""
    flat = [(p, row) for p, rows in zip(slices.patients, slices.rows, strict=True) for row in rows]
    chosen = [flat[i] for i in np.linspace(0, len(flat) - 1, min(n, len(flat))).astype(int)]
    condition = np.stack([p.condition[row] for p, row in chosen]).astype(np.float32) / 65535
    target = np.stack([p.target[row] for p, row in chosen if p.target is not None]).astype(np.float32) / 65535
    return torch.from_numpy(condition)[:, None], target, np.stack([p.brain[row] for p, row in chosen])


def _watch(job: FitJob, watched: ChosenSlices, schedule: Schedule, which: str) -> Callable[[nn.Module, int], None]:
    """Tells of some slices at every checkpoint; ``which`` says whose they are."""
    condition, target, brain = _check_batch(watched)

    def on_checkpoint(average: nn.Module, step: int) -> None:
        average.eval()
        mean = mean_prediction(average, schedule, condition.to(job.device)).cpu().numpy()[:, 0]
        average.train()
        quality = psnr(mean, target, brain)
        job.say(f"  step {step}: PSNR of the first-step mean on {which} slices {quality:.2f} dB")
        mosaic = np.concatenate([np.concatenate(list(row[:6]), axis=1) for row in (condition.numpy()[:, 0], mean, target)], axis=0)
        _picture(job.work / f"{job.out.name}-samples-{step:06d}.png", mosaic)
        job.board.numbers(step, {f"{'validation' if which == HELD_OUT else 'training'}/PSNR of the mean, dB": quality})
        job.board.picture(step, "samples: condition, mean, target", mosaic)

    return on_checkpoint


def _picture(path: Path, mosaic: NDArray[Any]) -> None:
    from matplotlib.image import imsave

    with whole_file(path) as partial:
        imsave(str(partial), mosaic, cmap="gray", vmin=0, vmax=1)


def fit_translator(
    job: FitJob, network: NetworkSettings, schedule: Schedule, augment: AugmentSettings, loop: LoopSettings, defaults: Defaults,
    start: Start | None = None, *, around_lesions: bool = False, first: float = 0.0, invented: float = 0.0,
) -> Bundle:  # fmt: skip
    """Train the conditional diffusion network on lesion-free slices and write the bundle; random weights without ``start``.

    ``around_lesions``: on the other slices too, their lesions left out of the loss. ``first``: share of the timesteps that are
    the last. ``invented``: what inventing a lesion costs (training/harm.py). Raise :class:`UsageError` where the network or
    schedule of ``start`` is another, and as :func:`harm_settings` does.
    """
    check_out(job, "translate")
    harm = harm_settings(job.contrasts[1] or "", schedule.prediction, invented)
    model = _first_network(network, schedule, loop.seed, start, job.device)
    begun = {} if start is None else {"start": start.account}
    patients = job.patients()
    if start is not None:
        check_held_out(patients, start.account)
    used = all_slices(patients, "train") if around_lesions else healthy_slices(patients, "train")
    watched, which = (healthy_slices(patients, "val"), HELD_OUT) if any(p.split == "val" for p in patients) else (used, "training")
    job.say(f"{used.count} {'' if around_lesions else 'lesion-free '}slices of {len(used.patients)} patients")
    checkpoint = job.work / f"{job.out.name}-translator.pt"
    slices_and_times = {"around_lesions": around_lesions, "first": first} | harm.account()
    average, curve = train(
        model,
        translator_loss(used, schedule, augment, loop.batch_size, first, harm),
        loop,
        checkpoint,
        progress(job),
        _watch(job, watched, schedule, which),
        identity(patients, network=network, schedule=schedule, augment=augment)
        | begun
        | {name: asked for name, asked in slices_and_times.items() if asked},
        job.team,
    )
    yardstick = polynomial_map(used)
    metadata = base_metadata(job, "translate") | {
        "network": asdict(network),
        "schedule": asdict(schedule),
        "defaults": asdict(defaults),
        "training": {
            "translator": {
                "command": job.command, "seconds": round(trained_seconds(checkpoint)), "loop": asdict(loop), "augment": asdict(augment),
                "slices": used.count, "patients": data_account(patients), "curve": curve, "polynomial": yardstick.tolist(),
                "monai": version("monai"), "torch": torch.__version__, **begun,
                **slices_and_times,
            }
        },
    }  # fmt: skip
    return save_drawing(job, metadata, TRANSLATOR, average.state_dict())


def _first_network(network: NetworkSettings, schedule: Schedule, seed: int, start: Start | None, device: torch.device) -> nn.Module:
    """The network before its first step."""
    if start is None:
        torch.manual_seed(seed)
        return TranslatorNetwork(network).to(device)
    model = load_translator(start.bundle, device, start.weights)
    found = (model.settings, schedule_of(start.bundle))
    if found != (network, schedule):
        raise UsageError(
            f"--start {start.bundle.name}: has {found[0]}, {found[1]}; expected {network}, {schedule}. Give its --channels, "
            "--space-to-depth, --schedule and --prediction, or another bundle"
        )
    return model.requires_grad_(True)
