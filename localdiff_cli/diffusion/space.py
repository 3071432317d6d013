"""Where a reverse process runs: on pixels in [−1, 1], or on what an autoencoder makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from localdiff_cli.diffusion.network import BACKGROUND


def _as_it_is(condition: Tensor) -> Tensor:
    return condition


def _as_pixels(image: Tensor) -> Tensor:
    return 2 * image - 1


@dataclass(frozen=True, eq=False)
class Space:
    """The grid and the range of x_t.

    ``encode`` takes a (masked) condition in [0, 1] to what the network is shown; ``background`` is the target's background
    there, a number or ``(1, C, h, w)``; ``clip`` keeps the x_0 estimates in [−1, 1]. ``image`` takes an image of the target
    in [0, 1] to its x_0.
    """

    encode: Callable[[Tensor], Tensor] = _as_it_is
    background: float | Tensor = BACKGROUND
    clip: bool = True
    image: Callable[[Tensor], Tensor] = _as_pixels


PIXELS = Space()
"""The space of the project's own networks."""
