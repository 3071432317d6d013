"""Fusion: the branches become one again at t_f (examples/docs/concepts.md §3), and the whole of Local Diffusion from noise
to image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from localdiff_cli.diffusion.branching import Crop, branch_denoiser, split
from localdiff_cli.diffusion.samplers import Denoise, Model, NoiseOf, State, Step, advance, denoiser, sample
from localdiff_cli.diffusion.schedule import Schedule, StepPair
from localdiff_cli.diffusion.space import PIXELS, Space

ShowsAnomaly = Callable[[Tensor], bool]
"""The auxiliary classifier of guided timing: does this x_0 estimate still show the anomaly?"""


@dataclass(frozen=True)
class LocalSettings:
    """Local Diffusion: ``context`` λ, ``branch_step`` plain steps before the branches part, ``fusion_step`` joint steps
    after fusion.

    ``soft`` blends by M instead of B. ``ood_branch``: the network's x_0 inside B, or (where condition and target share a
    contrast) a copy of the condition, or the mean of both. ``emphasis`` w: how far the OOD branch goes beyond the IND
    branch, 1 as it draws.
    """

    context: float = 0.95
    branch_step: int = 0
    fusion_step: int = 1
    soft: bool = False
    ood_branch: str = "network"
    emphasis: float = 1.0


@dataclass(frozen=True, eq=False)
class Region:
    """Where a slice is OOD: ``mask`` B bool and ``map`` M in [0, 1], both ``(N, 1, H, W)``; ``crop`` around B, or None.

    ``seen`` is B on the condition's grid, where that differs from x_t's.
    """

    mask: Tensor
    map: Tensor
    crop: Crop | None = None
    seen: Tensor | None = None

    @property
    def is_everything(self) -> bool:
        """Whether the OOD branch sees and draws the whole slice."""
        return bool(self.mask.all()) and (self.seen is None or bool(self.seen.all()))

    def weight(self, soft: bool) -> Tensor:
        """Return how much of the OOD branch each pixel takes: B, or M inside B."""
        return self.map * self.mask if soft else self.mask.to(self.map.dtype)


@dataclass(frozen=True, eq=False)
class Process:
    """A reverse process: the network, its schedule, the sampler's step, the (t, t_prev) pairs and the noise of each step.

    ``expert`` is a second network for the OOD branch, which sees c · B alone, or, where it is ``told``, the whole of c and
    M; ``space`` says where x_t lives.
    """

    model: Model
    schedule: Schedule
    step: Step
    pairs: tuple[StepPair, ...]
    noise_of: NoiseOf
    expert: Model | None = None
    space: Space = PIXELS
    told: bool = False

    def joint(self, condition: Tensor) -> Denoise:
        """Return the x_0 estimate given the whole ``condition``."""
        return denoiser(self.model, self.schedule, self.space.encode(condition), clip=self.space.clip)

    def numbered(self, first: int, last: int) -> list[tuple[int, StepPair]]:
        """Return the pairs ``first`` … ``last − 1`` with their numbers."""
        return list(enumerate(self.pairs))[first:last]

    def walk(self, denoise: Denoise, state: State, first: int, last: int, noise_of: NoiseOf | None = None) -> State:
        """Run the steps ``first`` … ``last − 1``."""
        return sample(self.step, denoise, self.schedule, state, self.numbered(first, last), noise_of or self.noise_of)


def plain(process: Process, condition: Tensor, x_T: Tensor) -> Tensor:
    """Run the ordinary conditional reverse process: ``condition`` in [0, 1], ``x_T`` noise, both ``(N, 1, H, W)`` → x_0."""
    return process.walk(process.joint(condition), State(x_T), 0, len(process.pairs)).x


def fuse(state: State, weight: Tensor) -> State:
    """Fuse the branches: x_0 = B · x_0^ood + (1 − B) · x_0^ind, and x_t likewise; ``weight`` ``(N, 1, H, W)`` in [0, 1] is
    B or M.

    >>> ood, ind = torch.ones(1, 1, 1, 3), torch.zeros(1, 1, 1, 3)
    >>> fuse(State(torch.cat([ood, ind])), torch.tensor([[[[1.0, 0.5, 0.0]]]])).x.flatten().tolist()
    [1.0, 0.5, 0.0]
    """

    def blend(both: Tensor) -> Tensor:
        ood, ind = both.chunk(2)
        mixed = weight * ood + (1 - weight) * ind
        return torch.where(weight == 1, ood, torch.where(weight == 0, ind, mixed))

    return State(blend(state.x), None if state.x0 is None else blend(state.x0), state.t_of_x0)


def local(
    process: Process, condition: Tensor, x_T: Tensor, region: Region, settings: LocalSettings, shows: ShowsAnomaly | None = None
) -> Tensor:
    """Run Local Diffusion: plain, branched, fused and joint steps; ``shows`` turns on guided timing (one slice at a time).

    Equals :func:`plain` exactly where B is empty, or covers everything and the network itself draws the OOD branch. Raise
    ``ValueError`` where the plain and the joint steps together exceed all steps.
    """
    steps = len(process.pairs)
    fusion = steps - settings.fusion_step
    if not 0 <= settings.branch_step <= fusion:
        raise ValueError(f"branch_step {settings.branch_step} + fusion_step {settings.fusion_step} exceed {steps} steps")
    alike = process.expert is None and settings.ood_branch == "network" and not settings.soft
    if not region.mask.any() or (region.is_everything and alike):
        return plain(process, condition, x_T)
    joint = process.joint(condition)
    branched = branch_denoiser(
        process.model, process.schedule, condition, region.mask, settings.context,
        expert=process.expert, crop=region.crop, space=process.space, seen=region.seen, ood_branch=settings.ood_branch,
        told=region.map if process.told and process.expert is not None else None, emphasis=settings.emphasis,
    )  # fmt: skip
    weight = region.weight(settings.soft)
    state = split(process.walk(joint, State(x_T), 0, settings.branch_step))
    state = process.walk(branched, state, settings.branch_step, fusion, _doubled(process.noise_of))
    if shows is not None:
        return _guided(process, joint, branched, state, weight, fusion, shows)
    return process.walk(joint, fuse(state, weight), fusion, steps).x


def _doubled(noise_of: NoiseOf) -> NoiseOf:
    """The same noise for both branches."""

    def both(number: int) -> Tensor:
        noise = noise_of(number)
        return torch.cat([noise, noise])

    return both


def _guided(process: Process, joint: Denoise, branched: Denoise, state: State, weight: Tensor, fusion: int, shows: ShowsAnomaly) -> Tensor:
    """Guided timing: fuse at the first step whose fused x_0 estimate still shows the anomaly, at the end at the latest."""
    for number, pair in process.numbered(fusion, len(process.pairs)):
        fused = fuse(state, weight)
        if fused.x0 is not None and shows(fused.x0):
            return process.walk(joint, fused, number, len(process.pairs)).x
        state = advance(process.step, branched, process.schedule, state, number, pair, _doubled(process.noise_of))
    return fuse(state, weight).x
