"""A wider lesion network that computes what a narrower one does, to go on training with more room (Net2Net, Chen et al.
2016).

New channels begin at random, as in a new network; the existing ones do not use them yet.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from localdiff_cli.segmentation.network import LesionNetwork, LesionNetworkSettings


def fits_into(narrow: LesionNetworkSettings, wide: LesionNetworkSettings) -> bool:
    """Return whether a network of ``narrow`` settings can become one of ``wide``: as many levels, none with fewer channels.

    >>> fits_into(LesionNetworkSettings(channels=(8, 16)), LesionNetworkSettings(channels=(8, 24)))
    True
    >>> fits_into(LesionNetworkSettings(channels=(8, 16)), LesionNetworkSettings(channels=(8, 16, 32)))
    False
    """
    alike = (narrow.space_to_depth, narrow.num_res_units) == (wide.space_to_depth, wide.num_res_units)
    return alike and len(narrow.channels) == len(wide.channels) and all(a <= b for a, b in zip(narrow.channels, wide.channels, strict=True))


@torch.no_grad()
def widened(narrow: LesionNetwork, wide: LesionNetwork) -> LesionNetwork:
    """Return ``wide``, a new network, with the weights of ``narrow`` in it: the same logits for every slice."""
    known, own = narrow.state_dict(), {name: value.clone() for name, value in wide.state_dict().items()}
    upwards = {f"{name}.weight" for name, module in wide.named_modules() if isinstance(module, nn.ConvTranspose2d)}
    for name, old in known.items():
        if old.dim() == 1:
            own[name][: len(old)] = old
        elif name in upwards:  # a transposed convolution has its inputs first
            places = _inputs(name.count("submodule"), narrow.settings.channels, wide.settings.channels)
            _place(own[name].transpose(0, 1), old.transpose(0, 1), places)
        else:
            _place(own[name], old, range(old.shape[1]))
    wide.load_state_dict(own)
    return wide


def _place(new: Tensor, old: Tensor, inputs: Sequence[int]) -> None:
    """Put the weight ``old`` (outputs, inputs, …) into ``new``, where further inputs count nothing for the outputs that
    were there."""
    new[: len(old)] = 0
    new[: len(old), list(inputs)] = old


def _inputs(level: int, narrow: tuple[int, ...], wide: tuple[int, ...]) -> list[int]:
    """Where the inputs of the way up at a level stand now: the skip connection's, then those from below."""
    below = narrow[-1] if level == len(narrow) - 2 else narrow[level]
    return [*range(narrow[level]), *range(wide[level], wide[level] + below)]
