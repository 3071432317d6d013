"""Draw the slices of a volume: plain where nothing is out of distribution, Local Diffusion where something is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from localdiff_cli.diffusion.branching import crop_around
from localdiff_cli.diffusion.fusion import LocalSettings, Process, Region, ShowsAnomaly, local, plain
from localdiff_cli.diffusion.noise import INITIAL, NoiseKey
from localdiff_cli.diffusion.samplers import Model, step_of
from localdiff_cli.diffusion.schedule import Schedule, step_pairs
from localdiff_cli.tasks.slices import Chunk

OOD_CROP_MARGIN = 16

Shows = Callable[[Tensor, Tensor, Tensor], ShowsAnomaly]
"""From condition, B and brain of a slice to the classifier of its x_0 estimates."""


@dataclass(frozen=True)
class SampleSettings:
    """How the reverse process runs: see the options of ``localdiff translate`` of the same names."""

    mode: str
    sampler: str
    eta: float
    steps: int
    samples: int
    seed: int
    noise: str
    local: LocalSettings
    guided: bool
    ood_crop: bool


@dataclass(frozen=True, eq=False)
class Networks:
    """The loaded networks: ``model`` and its ``schedule`` on ``device``, for guided timing the classifier of one slice, the
    OOD expert.

    ``told``: the expert sees the whole condition and M. ``classifier`` and ``expert_account`` name their bundles and
    hashes.
    """

    model: Model
    schedule: Schedule
    device: torch.device
    multiple: int
    shows: Shows | None = None
    classifier: str | None = None
    expert: Model | None = None
    expert_account: str | None = None
    told: bool = False


@dataclass(frozen=True, eq=False)
class SliceSampler:
    """Draws the slices of one volume: plain where B is empty, Local Diffusion where it is not."""

    networks: Networks
    settings: SampleSettings
    fingerprint: str

    def __call__(self, chunk: Chunk, ood_map: Tensor, ood_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and standard deviation over samples, ``(N, 1, H, W)`` in [0, 1], for a chunk and its M and B."""
        samples = torch.stack([self._one(chunk, ood_map, ood_mask, s) for s in range(self.settings.samples)])
        mean = samples.mean(dim=0)
        return mean, samples.std(dim=0, correction=0) if len(samples) > 1 and len(mean) else torch.zeros_like(mean)

    def _one(self, chunk: Chunk, ood_map: Tensor, ood_mask: Tensor, number: int) -> Tensor:
        is_local = ood_mask.flatten(1).any(dim=1) if self.settings.mode == "local" else torch.zeros(len(chunk.condition), dtype=torch.bool)
        x0 = torch.zeros_like(chunk.condition)
        for rows in self._groups(is_local):
            key = NoiseKey(self.settings.seed, number, self.fingerprint, self.settings.noise == "shared")
            slices = [chunk.active_numbers[i] for i in rows]
            x0[rows] = self._group(
                chunk.condition[rows], ood_map[rows], ood_mask[rows], chunk.brain[rows], key, slices, bool(is_local[rows[0]])
            )
        return ((x0 + 1) / 2).clamp(0, 1) * chunk.brain

    def _groups(self, is_local: Tensor) -> list[list[int]]:
        """Slices that may share a batch: all plain ones; local ones too, unless each needs its own crop or its own fusion
        step."""
        apart = [i for i, flag in enumerate(is_local.tolist()) if not flag]
        branched = [i for i, flag in enumerate(is_local.tolist()) if flag]
        alone = self.settings.ood_crop or self.settings.guided
        return [group for group in (apart, *([[i] for i in branched] if alone else [branched])) if group]

    def _group(
        self, condition: Tensor, ood_map: Tensor, ood_mask: Tensor, brain: Tensor, key: NoiseKey, slices: list[int], is_local: bool
    ) -> Tensor:
        device, shape = self.networks.device, (condition.shape[2], condition.shape[3])
        process = Process(
            self.networks.model,
            self.networks.schedule,
            step_of(self.settings.sampler, self.settings.eta),
            step_pairs(self.networks.schedule.num_train_timesteps, self.settings.steps),
            lambda number: key.batch(number, slices, shape).to(device),
            self.networks.expert,
            told=self.networks.told,
        )
        c, x_T = condition.to(device), key.batch(INITIAL, slices, shape).to(device)
        if not is_local:
            return plain(process, c, x_T).cpu()
        crop = crop_around(ood_mask, OOD_CROP_MARGIN, self.networks.multiple) if self.settings.ood_crop else None
        region = Region(ood_mask.to(device), ood_map.to(device), crop)
        shows = self.networks.shows(c, region.mask, brain.to(device)) if self.settings.guided and self.networks.shows else None
        return local(process, c, x_T, region, self.settings.local, shows).cpu()
