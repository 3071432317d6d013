"""Tiny bundles with random weights: every code path of the real ones in milliseconds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from localdiff_cli.bundle import DETECTOR, INTERVAL, SEGMENTER, TRANSLATOR, Bundle, Defaults, save_bundle
from localdiff_cli.diffusion.network import NetworkSettings, TranslatorNetwork
from localdiff_cli.diffusion.schedule import Schedule
from localdiff_cli.guarantees.interval_network import IntervalNetwork, IntervalSettings
from localdiff_cli.ood.backbone import load_backbone
from localdiff_cli.ood.fit import calibrate_detector, fit_bank
from localdiff_cli.ood.patchcore import MemoryBank
from localdiff_cli.segmentation.network import LesionNetwork, LesionNetworkSettings
from localdiff_cli.volumes.prepare import PrepareSettings, prepare
from localdiff_cli.volumes.reader import open_volume

from .brains import write_brain

GRID = {"plane": "axial", "spacing": 4.0, "shape": [48, 40]}
NETWORK = NetworkSettings(space_to_depth=2, channels=(32, 32), num_res_blocks=1, attention_levels=(False, True), num_head_channels=16)
LESION_NETWORK = LesionNetworkSettings(channels=(8, 8, 16, 16), num_res_units=1)


def _describe(contrast: str, low: float, high: float) -> dict:
    return {"contrast": contrast, "window": [low, high]}


def healthy_slices(folder: Path, seeds: range) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The slices of small brains without a lesion, prepared as ``translate`` prepares them: condition and brain ``(1, 48, 40)``."""
    settings = PrepareSettings(bias="none", spacing=4.0, shape=(48, 40), window=(-6.0, 6.0))
    slices = []
    for seed in seeds:
        prepared = prepare(open_volume(write_brain(folder / f"healthy-{seed}_T1w.nii.gz", seed, lesion=False)), settings)
        for k in range(prepared.volume.frame.shape[0]):
            condition, brain = prepared.network_slice(k)
            slices.append((torch.from_numpy(condition)[None], torch.from_numpy(brain)[None]))
    return slices


def _roughen(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Random weights everywhere: a fresh network's last layer is zero and would hide every difference."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return network.state_dict()


def make_translator(path: Path, *, detector: bool = True, target: str = "T2w") -> Bundle:
    """A T1w → T2w (or other ``target``) bundle of random weights, with a real PatchCore detector of its own tiny bank."""
    torch.manual_seed(0)
    metadata = {
        "task": "translate",
        "condition": _describe("T1w", -6, 6),
        "target": _describe(target, -4, 12),
        "grid": GRID,
        "brain": "required",
        "bias": "none",
        "network": asdict(NETWORK),
        "schedule": asdict(Schedule()),
        "defaults": asdict(Defaults(steps=3, false_alarm=0.05, open_mm=0.0, dilate_mm=0.0)),
        "licence": "none: random weights",
    }
    tensors = {TRANSLATOR: _roughen(TranslatorNetwork(NETWORK))}
    if detector:
        backbone = load_backbone()
        bank = MemoryBank(fit_bank(healthy_slices(path.parent / "healthy", range(10, 13)), backbone, 300).embeddings.half().float())
        calibration = calibrate_detector(healthy_slices(path.parent / "healthy", range(13, 15)), backbone, bank)
        metadata["detector"] = {
            "backbone": backbone.name, "backbone_sha256": backbone.weights_hash, "input_scale": backbone.input_scale,
            "calibration": calibration.to_dict(),
        }  # fmt: skip
        tensors[DETECTOR] = bank.to_tensors()
    return save_bundle(path, metadata, tensors, "tiny\n")


def add_interval(bundle: Bundle) -> Bundle:
    """The translator with an interval network of random weights."""
    torch.manual_seed(1)
    settings = IntervalSettings(channels=(8, 8))
    training = dict(bundle.metadata.get("training", {})) | {"interval": {"patients": {"train": ["sub-77", "sub-78"]}}}
    tensors = {INTERVAL: _roughen(IntervalNetwork(settings))}
    return save_bundle(bundle.path, {"interval": asdict(settings), "training": training}, tensors, "tiny\n")


def make_segmenter(path: Path, contrast: str = "T2w", window: tuple[float, float] = (-4, 12)) -> Bundle:
    """A segmenter of random weights."""
    torch.manual_seed(1)
    metadata = {
        "task": "segment", "condition": _describe(contrast, *window), "grid": GRID, "brain": "required", "bias": "none",
        "network": asdict(LESION_NETWORK), "defaults": {"threshold": 0.5, "min_volume": 0.0},
    }  # fmt: skip
    return save_bundle(path, metadata, {SEGMENTER: _roughen(LesionNetwork(LESION_NETWORK))}, "tiny\n")
