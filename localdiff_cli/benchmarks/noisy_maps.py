"""Local Diffusion with an OOD mask that changes from step to step: what a detector asked anew at each step, and unsure, would do."""

from __future__ import annotations

import torch
from torch import Tensor

from localdiff_cli.diffusion.branching import branch_denoiser, split
from localdiff_cli.diffusion.fusion import fuse
from localdiff_cli.diffusion.noise import INITIAL, NoiseKey
from localdiff_cli.diffusion.samplers import State, advance, denoiser, step_of
from localdiff_cli.diffusion.schedule import step_pairs
from localdiff_cli.tasks.slices import Chunk
from localdiff_cli.tasks.translation import Networks, SampleSettings


@torch.inference_mode()
def sample_redrawn(networks: Networks, settings: SampleSettings, chunk: Chunk, masks: list[Tensor], fingerprint: str) -> Tensor:
    """One sample, ``(N, 1, H, W)`` in [0, 1]; ``masks`` has a B ``(N, 1, H, W)`` for each step; that of the last branched step fuses.

    With equal masks it is the sample of :class:`SliceSampler` with a hard mask. Branches part at the first step.
    """
    schedule, numbers = networks.schedule, list(chunk.active_numbers)
    shape = (chunk.condition.shape[2], chunk.condition.shape[3])
    key = NoiseKey(settings.seed, 0, fingerprint, settings.noise == "shared")
    step, pairs = step_of(settings.sampler, settings.eta), list(enumerate(step_pairs(schedule.num_train_timesteps, settings.steps)))
    fusion = len(pairs) - settings.local.fusion_step

    def noise(number: int) -> Tensor:
        return key.batch(number, numbers, shape)

    state = split(State(noise(INITIAL)))
    for number, pair in pairs[:fusion]:
        denoise = branch_denoiser(
            networks.model, schedule, chunk.condition, masks[number], settings.local.context, expert=networks.expert
        )
        state = advance(step, denoise, schedule, state, number, pair, lambda n: torch.cat([noise(n)] * 2))
    state = fuse(state, masks[fusion - 1].float())
    joint = denoiser(networks.model, schedule, chunk.condition)
    for number, pair in pairs[fusion:]:
        state = advance(step, joint, schedule, state, number, pair, noise)
    return ((state.x + 1) / 2).clamp(0, 1) * chunk.brain
