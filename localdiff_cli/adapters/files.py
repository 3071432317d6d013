"""Reading other libraries' files without running anything in them: JSON, safetensors, and PyTorch files of tensors only."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from localdiff_cli.errors import ModelError

WRAPPINGS = ("state_dict", "model")
"""Keys under which training loops keep the state dict of a checkpoint."""


def unusable(what: Path | str, found: str, expected: str) -> ModelError:
    """Return the error for a model that cannot be adapted."""
    return ModelError(f"{what}: found {found}; expected {expected}", code="adapter")


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object. Raise :class:`ModelError` where it is not one."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise unusable(path, f"something not readable as JSON ({error})", "a JSON file") from error
    if not isinstance(values, dict):
        raise unusable(path, type(values).__name__, "a JSON object")
    return values


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the state dict in a ``.safetensors`` or PyTorch file. Raise :class:`ModelError` where it holds anything but
    tensors."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, OSError, EOFError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise unusable(path, f"no readable weights ({reason})", "safetensors, or a PyTorch file of tensors only") from error
    tensors = next((found[key] for key in WRAPPINGS if isinstance(found, Mapping) and isinstance(found.get(key), Mapping)), found)
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise unusable(path, "something else than a state dict", "tensors by name")
    return dict(tensors)


def fill(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Give a network exactly these weights and freeze it; weights of the older MONAI Generative are renamed.

    Raise :class:`ModelError` where a weight is missing, left over, of another shape or not finite.
    """
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise unusable(path, "weights that are not finite", "finite ones")
    renamed = getattr(network, "load_old_state_dict", None) if any(".proj_attn." in name for name in tensors) else None
    try:
        (renamed or network.load_state_dict)(tensors)
    except (KeyError, RuntimeError) as error:
        said = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise unusable(path, f"weights that do not fit the configuration ({said[:300]})", "matching ones") from error
    network.eval().requires_grad_(False)
