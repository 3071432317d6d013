"""Local Diffusion with an OOD mask that changes from step to step: what a detector asked anew at each step, and unsure, would do."""

from __future__ import annotations

import torch
from torch import Tensor

from localdiff_cli.diffusion.branching import branch_denoiser, split
from localdiff_cli.diffusion.fusion import Process, fuse
from localdiff_cli.diffusion.noise import INITIAL, NoiseKey
from localdiff_cli.diffusion.samplers import State, step_of
from localdiff_cli.diffusion.schedule import step_pairs
from localdiff_cli.tasks.sampling import Networks, SampleSettings
from localdiff_cli.tasks.slices import Chunk


@torch.inference_mode()
def sample_redrawn(networks: Networks, settings: SampleSettings, chunk: Chunk, masks: list[Tensor], fingerprint: str) -> Tensor:
    """One sample, ``(N, 1, H, W)`` in [0, 1]; ``masks`` has a B ``(N, 1, H, W)`` for each step; that of the last branched step fuses.

    With equal masks it is the sample of :class:`SliceSampler` with a hard mask. Branches part at the first step.
    """
    schedule, numbers, condition = networks.schedule, list(chunk.active_numbers), chunk.condition
    shape = (condition.shape[2], condition.shape[3])
    key = NoiseKey(settings.seed, 0, fingerprint, settings.noise == "shared")

    def noise(number: int) -> Tensor:
        return key.batch(number, numbers, shape)

    pairs = step_pairs(schedule.num_train_timesteps, settings.steps)
    process = Process(networks.model, schedule, step_of(settings.sampler, settings.eta), pairs, noise, networks.expert)
    state, fusion = split(State(noise(INITIAL))), len(pairs) - settings.local.fusion_step
    for k in range(fusion):
        told = masks[k].float() if networks.expert is not None and networks.told else None
        branched = branch_denoiser(networks.model, schedule, condition, masks[k], settings.local.context, expert=networks.expert, told=told)
        state = process.walk(branched, state, k, k + 1, lambda number: torch.cat([noise(number)] * 2))
    x0 = process.walk(process.joint(condition), fuse(state, masks[fusion - 1].float()), fusion, len(pairs)).x
    return ((x0 + 1) / 2).clamp(0, 1) * chunk.brain
