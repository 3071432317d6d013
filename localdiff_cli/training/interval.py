"""Fit the interval network of a translator: from training people who were translated as ``localdiff translate`` does it
(tasks/translated.py) it learns, by pinball loss, how far below and above what was drawn the true value may lie.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from localdiff_cli.bundle import INTERVAL, Bundle, copy_bundle
from localdiff_cli.errors import UsageError
from localdiff_cli.evaluation.metrics.intervals import PARTS
from localdiff_cli.guarantees.interval_network import IntervalNetwork, IntervalSettings
from localdiff_cli.training.job import FitJob, progress, save, version
from localdiff_cli.training.loop import LoopSettings, LossOf, train, trained_seconds
from localdiff_cli.training.people import digest

RARE = 4.0
"""What was drawn by the OOD branch or called unknown counts so many times in the loss: it is a small part of the brain."""
ONE = 65535
"""1.0 in a plane of what was drawn; the source labels are stored as they are."""

Plane = NDArray[np.uint16]
"""A person's translated slices ``(S, 5, H, W)``: condition, M, drawn image, true image, source labels."""


@dataclass(frozen=True, eq=False)
class Translated:
    """The people that a network learns from: their names, and their slices on disk, every n-th (``every``)."""

    names: tuple[str, ...]
    files: tuple[Path, ...]
    every: int

    @property
    def slices(self) -> int:
        """How many there are."""
        return sum(len(np.load(path, mmap_mode="r")) for path in self.files)

    def draw(self, n: int, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Return ``n`` slices of people drawn alike, half of them mirrored: ``(n, 5, H, W)`` as :data:`Plane`, float32, the
        middle of ``shape`` of each."""
        chosen = []
        for number in torch.randint(len(self.files), (n,), generator=generator).tolist():
            slices: Plane = np.load(self.files[number], mmap_mode="r")
            chosen.append(_middle(slices[int(torch.randint(len(slices), (1,), generator=generator))], shape))
        planes = torch.from_numpy(np.stack(chosen).astype(np.float32))
        planes[:, :-1] /= ONE
        mirrored = (torch.rand(n, generator=generator) < 0.5).view(-1, 1, 1, 1)
        return torch.where(mirrored, planes.flip(-1), planes)


def _middle(planes: Plane, shape: tuple[int, int]) -> Plane:
    """The middle of ``(5, H, W)``: large brains have larger grids than the network's own."""
    top, left = ((have - want) // 2 for have, want in zip(planes.shape[1:], shape, strict=True))
    return planes[:, top : top + shape[0], left : left + shape[1]]


def pinball(low: Tensor, high: Tensor, true: Tensor, weight: Tensor, level: float) -> Tensor:
    """Return the pinball losses of both limits, at (1 − level) / 2 and (1 + level) / 2, averaged by ``weight``."""
    tails = ((low, (1 - level) / 2), (high, (1 + level) / 2))
    lost = sum(torch.maximum(q * (true - limit), (q - 1) * (true - limit)) for limit, q in tails)
    return (weight * lost).sum() / weight.sum()


def interval_loss(translated: Translated, shape: tuple[int, int], level: float, batch_size: int) -> LossOf:
    """Return the loss of one step: of the brain alone, more of what was not drawn by the ordinary process."""

    def loss_of(network: nn.Module, generator: torch.Generator) -> Tensor:
        seen, true, source = translated.draw(batch_size, shape, generator).to(next(network.parameters()).device).split((3, 1, 1), dim=1)
        below, above = network(seen).split(1, dim=1)
        ordinary = sum((source == label).float() for label in PARTS["ordinary"])
        weight = (source > 0).float() * (RARE - (RARE - 1) * ordinary)
        image = seen[:, 2:]
        return pinball(image - below, image + above, true, weight, level)

    return loss_of


def check_base(job: FitJob, base: Bundle) -> None:
    """Raise :class:`UsageError` for a bundle to add to that is not the base."""
    if job.out.exists() and job.out.resolve() != base.path.resolve():
        raise UsageError(f"--out {job.out}: is not {base.name}; give the base's own folder, or a new one for a copy with the network")


def fit_interval(job: FitJob, base: Bundle, translated: Translated, settings: IntervalSettings, loop: LoopSettings) -> Bundle:
    """Train the base's interval network on people whom it has translated, and write it into the bundle (see
    :func:`check_base`)."""
    job.say(f"{translated.slices} slices of {len(translated.names)} people")
    torch.manual_seed(loop.seed)
    model, checkpoint = IntervalNetwork(settings).to(job.device), job.work / f"{job.out.name}-interval.pt"
    known = {"network": asdict(settings), "data": digest([path.name for path in translated.files])}
    loss = interval_loss(translated, base.grid.shape, settings.level, loop.batch_size)
    average, curve = train(model, loss, loop, checkpoint, progress(job), None, known, job.team)
    account = {
        "command": job.command, "seconds": round(trained_seconds(checkpoint)), "loop": asdict(loop), "slices": translated.slices,
        "every": translated.every,
        "patients": {"train": sorted(translated.names)}, "curve": curve, "monai": version("monai"), "torch": torch.__version__,
    }  # fmt: skip
    if not job.out.exists() and job.team.rank == 0:
        copy_bundle(base, job.out)
    metadata = {"interval": asdict(settings), "training": {"interval": account}}
    return save(job, metadata, {INTERVAL: average.state_dict()})
