"""Other ways to sample the same network: the published scheme of Local Diffusion, and MONAI's own inferer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from localdiff_cli.diffusion.branching import branch_denoiser, split
from localdiff_cli.diffusion.fusion import Process, fuse
from localdiff_cli.diffusion.samplers import Model, State, denoiser, step_of
from localdiff_cli.diffusion.schedule import Schedule, step_pairs


@dataclass(frozen=True)
class Published:
    """The published configuration on MRI (examples/docs/concepts.md §3): DDIM ``steps``, fusion at ``fusion_step``, λ ``context``."""

    steps: int = 50
    fusion_step: int = 2
    context: float = 0.95


def published(model: Model, schedule: Schedule, condition: Tensor, x_T: Tensor, ood_mask: Tensor, scheme: Published) -> Tensor:
    """x_0 of slices ``(N, 1, H, W)``: both branches at full size on every one, whether its B is empty or not."""
    process = Process(model, schedule, step_of("ddim"), step_pairs(schedule.num_train_timesteps, scheme.steps), _no_noise)
    branched = branch_denoiser(model, schedule, condition, ood_mask, scheme.context)
    fusion = scheme.steps - scheme.fusion_step
    state = process.walk(branched, split(State(x_T)), 0, fusion)
    joint = denoiser(model, schedule, condition)
    return process.walk(joint, fuse(state, ood_mask.to(x_T.dtype)), fusion, scheme.steps).x


def _no_noise(number: int) -> Tensor:
    raise AssertionError("DDIM with η = 0 draws no noise")


class _Concatenated(nn.Module):
    """Our network as MONAI's inferer calls one: x_t and condition stacked as channels, one timestep for all slices."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, stacked: Tensor, timesteps: Tensor, context: Tensor | None = None) -> Tensor:
        """``stacked`` ``(N, 2, H, W)``, ``timesteps`` ``(1,)`` → ``(N, 1, H, W)``."""
        return self.network(stacked[:, :1], stacked[:, 1:], timesteps.expand(len(stacked)))


def monai(network: nn.Module, schedule: Schedule, condition: Tensor, x_T: Tensor, steps: int) -> Tensor:
    """x_0 of slices ``(N, 1, H, W)`` by MONAI's ``DiffusionInferer`` and ``DDIMScheduler``, conditional by concatenation."""
    from monai.inferers import DiffusionInferer
    from monai.networks.schedulers import DDIMScheduler

    betas: dict[str, Any] = {} if schedule.name == "cosine" else {"beta_start": schedule.beta_start, "beta_end": schedule.beta_end}
    scheduler = DDIMScheduler(
        num_train_timesteps=schedule.num_train_timesteps, schedule=schedule.name, prediction_type=schedule.prediction, **betas
    )
    scheduler.set_timesteps(steps)
    unet: Any = _Concatenated(network)
    x0 = DiffusionInferer(scheduler).sample(x_T, unet, scheduler, conditioning=condition, mode="concat", verbose=False)
    assert isinstance(x0, Tensor)
    return x0
