"""Tiny networks of other libraries with random weights, and a process to sample them by."""

import torch

from localdiff_cli.diffusion.fusion import Process, Region
from localdiff_cli.diffusion.noise import INITIAL, NoiseKey
from localdiff_cli.diffusion.samplers import step_of
from localdiff_cli.diffusion.schedule import step_pairs

SIDE = 16
KEY = NoiseKey(3, 0, "volume")
UNET = {
    "in_channels": 2, "out_channels": 1, "num_res_blocks": 1, "channels": [32, 32], "attention_levels": [False, True],
    "num_head_channels": 16, "use_flash_attention": True,
}  # fmt: skip


def roughen(network, seed=0):
    """Random weights everywhere: a fresh network's last layer is zero and would hide every difference."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return network.eval().requires_grad_(False)


def process(model, schedule, *, steps=4, channels=1, side=SIDE, **more):
    """A DDIM process with noise of ``channels`` × ``side`` × ``side``."""

    def noise_of(number):
        return torch.cat([KEY.batch(number, [k], (side, side)) for k in range(channels)], dim=1)

    more = {"step": step_of("ddim"), "pairs": step_pairs(schedule.num_train_timesteps, steps), "noise_of": noise_of} | more
    return Process(model, schedule, **more)


def noise(channels=1, side=SIDE):
    """x_T, another field for each channel."""
    keys = [NoiseKey(3, k, "volume") for k in range(channels)]
    return torch.cat([key.batch(INITIAL, [0], (side, side)) for key in keys], dim=1)


def condition(side=SIDE):
    """A slice in [0, 1]."""
    return torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(1))


def square(side=SIDE, low=5, high=11):
    """A region of one square."""
    mask = torch.zeros(1, 1, side, side, dtype=torch.bool)
    mask[..., low:high, low:high] = True
    return Region(mask, mask.float())
