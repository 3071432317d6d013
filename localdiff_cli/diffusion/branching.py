"""Branching: separate reverse processes inside and outside the OOD region (examples/docs/concepts.md §2).

Both branches are one state, the OOD half stacked on the IND half, so that they share x_T, the noise and one forward pass
per step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from localdiff_cli.diffusion.network import BACKGROUND
from localdiff_cli.diffusion.samplers import Denoise, Model, State, denoiser
from localdiff_cli.diffusion.schedule import Schedule
from localdiff_cli.diffusion.space import PIXELS, Space

OOD_BRANCHES = ("network", "copy", "mean")
"""Where the OOD branch's x_0 comes from: the network's estimate; c · B, the condition itself; or half of each."""


@dataclass(frozen=True)
class Crop:
    """A window ``rows`` × ``columns`` of a slice."""

    rows: slice
    columns: slice

    def cut(self, image: Tensor) -> Tensor:
        """Return the window of ``(N, C, H, W)``."""
        return image[..., self.rows, self.columns]

    def paste(self, window: Tensor, like: Tensor) -> Tensor:
        """Return the window in a slice that is background elsewhere."""
        whole = torch.full_like(like, BACKGROUND)
        whole[..., self.rows, self.columns] = window
        return whole


def crop_around(ood_mask: Tensor, margin: int, multiple: int) -> Crop:
    """Return the smallest window around B ``(N, 1, H, W)`` with ``margin`` pixels, its sides and corner multiples of
    ``multiple``.

    >>> mask = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    >>> mask[..., 10:14, 20:22] = True
    >>> crop = crop_around(mask, margin=2, multiple=4)
    >>> crop.rows, crop.columns
    (slice(8, 16, None), slice(16, 24, None))
    """
    used = ood_mask.flatten(0, 1).any(dim=0)
    return Crop(_window(used.any(dim=1), margin, multiple), _window(used.any(dim=0), margin, multiple))


def _window(used: Tensor, margin: int, multiple: int) -> slice:
    places = used.nonzero().flatten()
    low = max(0, int(places[0]) - margin) // multiple * multiple
    high = min(len(used), -(-(int(places[-1]) + 1 + margin) // multiple) * multiple)
    return slice(low, high)


def ood_condition(condition: Tensor, ood_mask: Tensor) -> Tensor:
    """Return c · B."""
    return condition * ood_mask


def ind_condition(condition: Tensor, ood_mask: Tensor, context: float) -> Tensor:
    """Return c · max(1 − B, λ)."""
    return condition * (1 - ood_mask.to(condition.dtype)).clamp(min=context)


def split(state: State) -> State:
    """Split one process into two that start alike: ``(N, …)`` → ``(2N, …)``, OOD half first.

    >>> split(State(torch.zeros(3, 1, 8, 8))).x.shape
    torch.Size([6, 1, 8, 8])
    """
    return State(torch.cat([state.x, state.x]), None if state.x0 is None else torch.cat([state.x0, state.x0]), state.t_of_x0)


def branch_denoiser(
    model: Model, schedule: Schedule, condition: Tensor, ood_mask: Tensor, context: float, *, expert: Model | None = None,
    crop: Crop | None = None, space: Space = PIXELS, seen: Tensor | None = None, ood_branch: str = "network", told: Tensor | None = None,
    emphasis: float = 1.0,
) -> Denoise:  # fmt: skip
    """Return the x_0 estimates of both branches for a stacked state.

    ``condition`` ``(N, C, H, W)`` in [0, 1]; ``ood_mask`` B ``(N, 1, H, W)`` bool. The OOD branch's estimate is background
    outside B. ``expert`` is a second network for the OOD branch; with ``crop`` that branch costs only as much as its
    region. ``space`` says where x_t lives; ``seen`` is B on the condition's grid where that differs from x_t's. An
    ``ood_branch`` of copy or mean takes the condition for the target: they must share a contrast. A copy uses no network.
    With ``told``, the soft map M ``(N, 1, H, W)``, the expert is one that sees the whole of c, and M beside it.
    ``emphasis`` w draws x_0^ood + (w − 1)(x_0^ood − x_0^ind): beyond 1, what the OOD branch adds is drawn more strongly
    than the branch itself draws it, as classifier-free guidance does (Ho & Salimans 2022, eq. 6). Raise ``ValueError`` for
    another ``ood_branch``.
    """
    if ood_branch not in OOD_BRANCHES:
        raise ValueError(f"ood_branch: found {ood_branch!r}; expected one of {', '.join(OOD_BRANCHES)}")
    on_condition = ood_mask if seen is None else seen
    masked = ood_condition(condition, on_condition)
    inside = space.encode(masked) if told is None else torch.cat([condition, told], dim=1)
    outside = space.encode(ind_condition(condition, on_condition, context))
    copied = None if ood_branch == "network" else space.image(masked)

    def within(drawn: Tensor, x0_ind: Tensor) -> Tensor:
        """The OOD branch's x_0: what the network has ``drawn``, or its mean with c · B, emphasised; background outside B."""
        x0_ood = drawn if copied is None else (drawn + copied) / 2
        return torch.where(ood_mask, emphasised(x0_ood, x0_ind, emphasis), space.background)

    ind = denoiser(model, schedule, outside, clip=space.clip)
    if copied is not None and ood_branch == "copy":
        return lambda x, t: torch.cat([copied, ind(x.chunk(2)[1], t)])
    if expert is None and crop is None:
        both = denoiser(model, schedule, torch.cat([inside, outside]), clip=space.clip)

        def together(x: Tensor, t: int) -> Tensor:
            x0_ood, x0_ind = both(x, t).chunk(2)
            return torch.cat([within(x0_ood, x0_ind), x0_ind])

        return together
    ood = denoiser(expert or model, schedule, inside if crop is None else crop.cut(inside), clip=space.clip)

    def branched(x: Tensor, t: int) -> Tensor:
        x_ood, x_ind = x.chunk(2)
        x0_ood = ood(x_ood, t) if crop is None else crop.paste(ood(crop.cut(x_ood), t), x_ood)
        x0_ind = ind(x_ind, t)
        return torch.cat([within(x0_ood, x0_ind), x0_ind])

    return branched


def emphasised(x0_ood: Tensor, x0_ind: Tensor, emphasis: float) -> Tensor:
    """Return x_0^ood + (w − 1)(x_0^ood − x_0^ind) in the network's range [−1, 1]; x_0^ood itself for w = 1."""
    return x0_ood if emphasis == 1 else (x0_ood + (emphasis - 1) * (x0_ood - x0_ind)).clamp(-1, 1)
