"""Weights as they are stored on disk: whole or half precision, or 8 bits with one scale for each row of a matrix or filter
of a convolution.

A tensor ``w`` in 8 bits is two: ``w`` int8 and ``w.scale`` float32, and the weight is their product. They are unpacked to
float32 when they are read, so that what is computed does not depend on how they were stored, only on what was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

Storage = Literal["float32", "float16", "int8"]
STORAGES: tuple[Storage, ...] = get_args(Storage)
SCALE = ".scale"
MOST = 127
"""The largest whole number that a packed weight can be."""


def pack(tensors: dict[str, Tensor], storage: Storage) -> dict[str, Tensor]:
    """Return the tensors to be written. With ``int8``, tensors of one dimension stay float16; whole numbers stay as they
    are."""
    stored: dict[str, Tensor] = {}
    for name, values in tensors.items():
        if not values.is_floating_point():
            stored[name] = values
        elif storage == "int8" and values.dim() > 1 and name + SCALE not in tensors:
            stored[name], stored[name + SCALE] = _in_8_bits(values.float())
        else:
            stored[name] = values if storage == "float32" else _halved(values)
    return {name: values.cpu().contiguous() for name, values in stored.items()}


def _in_8_bits(values: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers from −127 to 127, and the scale of each index of the first dimension; what is not finite makes a scale
    that is not."""
    import torch

    scale = (values.abs().flatten(1).amax(dim=1) / MOST).clamp(min=torch.finfo(torch.float32).tiny)
    return (values / _column(scale, values)).round().to(torch.int8), scale


def _halved(values: Tensor) -> Tensor:
    """As float16, but for a tensor beyond its range."""
    half = values.half()
    return half if bool(half.isfinite().all()) else values


def _column(scale: Tensor, values: Tensor) -> Tensor:
    return scale.view(-1, *([1] * (values.dim() - 1)))


def unpack(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors as float32, whole numbers as they are; all are copies. Raise :class:`ValueError` for a scale that
    does not fit."""
    import torch

    packed = {name for name, values in stored.items() if values.dtype == torch.int8 and name + SCALE in stored}
    tensors = {}
    for name, values in stored.items():
        if name in packed:
            scale = stored[name + SCALE]
            if scale.shape != values.shape[:1] or values.dim() < 2:
                raise ValueError(f"{name}: scale of shape {tuple(scale.shape)} for weights of shape {tuple(values.shape)}")
            tensors[name] = values.float() * _column(scale.float(), values)
        elif name.removesuffix(SCALE) not in packed:
            tensors[name] = values.to(torch.float32, copy=True) if values.is_floating_point() else values.clone()
    return tensors
