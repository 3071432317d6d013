"""What a bundle's metadata may say: settings whose range and meaning stand beside the field, and the check of JSON against
them.

Settings of networks and schedules stand where they are used (``diffusion/``, ``segmentation/``, ``adapters/``), with their
ranges likewise.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from localdiff_cli.choices import DetectorName, SamplerName
from localdiff_cli.errors import ModelError
from localdiff_cli.volumes.likeness import Typical

FORMAT = 1
MEND = "Install the bundle again, or check it with: localdiff models verify"
METADATA = "configs/metadata.json"
CALIBRATION = "configs/calibration.json"
INTERVAL = "models/interval.safetensors"

T = TypeVar("T")


def _rising(window: tuple[float, float]) -> tuple[float, float]:
    if not window[0] < window[1]:
        raise ValueError("two rising numbers")
    return window


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("printable characters only")
    return text


Suffix = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w+.-]{0,63}$", description="BIDS suffix, such as T1w")]
Bound = Annotated[float, Field(gt=-1000, lt=1000)]
Pixels = Annotated[int, Field(ge=1, le=4096)]
Share = Annotated[float, Field(ge=0, le=1)]
Steps = Annotated[int, Field(ge=0, le=100_000)]
Millimetres = Annotated[float, Field(ge=0, le=50)]
Text = Annotated[str, Field(max_length=200), AfterValidator(_printable)]


@dataclass(frozen=True)
class Contrast:
    """A contrast's BIDS suffix and its z window (see volumes/intensity.py)."""

    contrast: Suffix
    window: Annotated[tuple[Bound, Bound], AfterValidator(_rising), Field(description="robust z values that become 0 and 1")]

    def on_scale(self, z: float) -> float:
        """Return a robust z on the scale of the window, whose ends are 0 and 1."""
        low, high = self.window
        return (z - low) / (high - low)

    @property
    def segmenter(self) -> str:
        """The name of the bundle that finds lesions on this contrast: ``lesion-t1`` for T1w."""
        return f"lesion-{self.contrast.removesuffix('w').lower()}"


@dataclass(frozen=True)
class GridSpec:
    """The network's grid: plane, pixel spacing (mm) and (rows, columns)."""

    plane: Literal["axial"] = "axial"
    spacing: Annotated[float, Field(ge=0.05, le=10, description="mm")] = 1.0
    shape: Annotated[tuple[Pixels, Pixels], Field(description="rows, columns")] = (208, 176)


@dataclass(frozen=True)
class Defaults:
    """How a translator is sampled unless the user says otherwise; see the options of ``localdiff translate``."""

    sampler: Annotated[SamplerName, Field(description="--sampler")] = "ddim"
    eta: Annotated[Share, Field(description="--eta: DDIM's η")] = 0.0
    steps: Annotated[int, Field(ge=1, le=100_000, description="--steps: reverse steps")] = 10
    context: Annotated[Share, Field(description="--lambda: λ")] = 0.95
    branch_step: Annotated[Steps, Field(description="--branch-step: plain steps before the branches part")] = 0
    fusion_step: Annotated[Steps, Field(description="--fusion-step: joint steps after fusion")] = 1
    soft: Annotated[bool, Field(description="--soft: fuse by the OOD map M, not by the mask B")] = False
    ood_crop: Annotated[bool, Field(description="--ood-crop: the OOD branch on a window around B")] = False
    detector: Annotated[DetectorName, Field(description="--detector")] = "patchcore"
    detector_model: Annotated[
        Text | None, Field(description="--detector-model: segmenter that makes M with --detector segmenter; null: lesion-<contrast>")
    ] = None
    false_alarm: Annotated[float, Field(ge=1e-6, le=1 - 1e-6, description="--false-alarm: share of healthy pixels")] = 0.02
    threshold: Annotated[Share, Field(description="--tau: cut of the OOD map")] = 0.5
    open_mm: Annotated[Millimetres, Field(description="--open: radius of the opening of B")] = 2.0
    dilate_mm: Annotated[Millimetres, Field(description="--dilate: radius of the dilation of B")] = 3.0
    peak: Annotated[
        Share, Field(description="--peak: M, or its average, that a region of B must reach somewhere, by the default detector; 0: none")
    ] = 0.0
    through_plane_mm: Annotated[
        Millimetres, Field(description="--through-plane: σ of the average of M through the slices, by the default detector")
    ] = 0.0
    residue: Annotated[
        float,
        Field(
            ge=0,
            le=50,
            description="--residue: what shines so at the brain's rim, robust SDs, is not looked at by the default detector; 0: none",
        ),
    ] = 0.0
    emphasis: Annotated[float, Field(ge=0, le=10, description="--emphasis: how far the OOD branch goes")] = 1.0
    unknown: Annotated[Literal["plain", "blank"], Field(description="--unknown: what stands in an unknown region")] = "plain"
    unknown_threshold: Annotated[Share | None, Field(description="--unknown-tau: M from which a region is called unknown")] = None
    texture: Annotated[Share, Field(description="--texture: share of the brain's texture below which a region is unknown")] = 0.0
    suspect: Annotated[Text | None, Field(description="--suspect: segmenter whose finds are called unknown where nothing is drawn")] = None
    suspect_threshold: Annotated[Share, Field(description="--suspect-tau: cut of that segmenter's probability")] = 0.5


@dataclass(frozen=True)
class SegmenterDefaults:
    """How a segmenter's probability becomes a mask: threshold, and the smallest 3D component kept (mm³)."""

    threshold: Annotated[Share, Field(description="--threshold: cut of the probability")] = 0.5
    min_volume: Annotated[float, Field(ge=0, le=1e9, description="--min-volume: smallest lesion kept, mm³")] = 0.0


@dataclass(frozen=True)
class Head:
    """What must be right for a bundle to be opened at all; its parts are checked when they are used."""

    format: Literal[1]
    task: Literal["translate", "segment"]
    name: Text
    bias: Literal["n4", "none"]
    brain: Text
    files: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    detector: dict[str, Any] = field(default_factory=dict)
    expert: dict[str, Any] = field(default_factory=dict)
    interval: dict[str, Any] = field(default_factory=dict)
    typical: dict[str, Any] | None = None


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
    def drawing_hash(self) -> str:
        """The same over all that decides what is drawn: without the interval network, which decides bands alone."""
        files = {name: digest for name, digest in self.metadata.get("files", {}).items() if name != INTERVAL}
        parts = {key: self.metadata.get(key) for key in FUNCTIONAL_KEYS} | {"files": files}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def calibration(self) -> Path | None:
        """The certificate that the bundle ships with, None where it has none."""
        path = self.path / CALIBRATION
        return path if path.is_file() else None

    @property
    def has_detector(self) -> bool:
        """Whether there is a PatchCore memory bank: its own, or that of the bundle it names."""
        return "detector" in self.metadata

    @property
    def has_expert(self) -> bool:
        """Whether a second network for the OOD branch is inside."""
        return "expert" in self.metadata

    @property
    def has_interval(self) -> bool:
        """Whether a network that begins the bands of ``--interval`` is inside."""
        return "interval" in self.metadata

    @property
    def expert_is_told(self) -> bool:
        """Whether that network sees the whole condition and the OOD map, not its region alone."""
        return bool(self.metadata.get("expert", {}).get("told", False))

    @property
    def typical(self) -> Typical | None:
        """What the intensities of the training people looked like, where the bundle says so."""
        described = self.metadata.get("typical")
        if isinstance(described, dict) and "mean" in described:
            raise ModelError(
                f"{self.path}: says what training looked like by mean and SD, as earlier versions did; expected median and spread. Make it "
                "anew with localdiff fit detector, or take 'typical' out of configs/metadata.json"
            )
        return None if described is None else settings_of(Typical, described, self.path)

    @property
    def defaults(self) -> Defaults:
        """The bundle's sampling defaults."""
        return settings_of(Defaults, self.metadata.get("defaults", {}), self.path)

    @property
    def finder(self) -> str:
        """The name of the segmenter bundle that makes M where ``--detector segmenter`` is asked."""
        return self.defaults.detector_model or self.condition.segmenter

    @property
    def segmenter_defaults(self) -> SegmenterDefaults:
        """A segmenter's defaults."""
        return settings_of(SegmenterDefaults, self.metadata.get("defaults", {}), self.path)


FUNCTIONAL_KEYS = ("format", "task", "condition", "target", "grid", "bias", "brain", "schedule", "network", "detector", "defaults")


def damaged(path: Path, found: str, expected: str) -> ModelError:
    """Return the error for a bundle's file ``path`` that holds something other than it should."""
    return ModelError(f"{path}: found {_short(found)}; expected {expected}. {MEND}", code="bundle")


def _short(found: str, most: int = 400) -> str:
    """What a damaged file holds may be of any length."""
    return found if len(found) <= most else f"{found[:most]}…"


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def checked(kind: type[T], values: Any, path: Path) -> T:
    """Return JSON values as ``kind``, with every type and range checked against its fields. Raise :class:`ModelError`,
    which names the first fault."""
    try:
        made: T = _adapter(cast(Hashable, kind)).validate_json(json.dumps(values), strict=True)
        return made
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(each) for each in first["loc"]) or kind.__name__
        missing = first["type"].startswith("missing")
        found = f"no {place}" if missing else f"{place} = {first['input']!r}"
        expected = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        raise damaged(path, f"{found} in {kind.__name__}", "one" if missing else expected) from error


def settings_of(kind: type[T], values: Any, path: Path) -> T:
    """Return a frozen settings object from JSON. Raise :class:`ModelError` for unknown keys, another type or a value out of
    range."""
    if not isinstance(values, dict):
        raise damaged(path, f"{kind.__name__} is {type(values).__name__}", "an object")
    known = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    unknown = set(values) - known
    if unknown:
        raise damaged(path, f"unknown settings {sorted(unknown)}", f"only {sorted(known)}")
    return checked(kind, values, path)


def parse(path: Path, metadata: dict[str, Any]) -> Bundle:
    """Return the bundle in ``path`` that ``metadata`` describes. Raise :class:`ModelError` where it describes none."""
    head = checked(Head, metadata, path)
    condition = settings_of(Contrast, metadata.get("condition"), path)
    translates = head.task == "translate" and "target" in metadata
    target = settings_of(Contrast, metadata["target"], path) if translates else condition
    grid = settings_of(GridSpec, metadata.get("grid", {}), path)
    bundle = Bundle(path, head.name, head.task, condition, target, grid, head.bias, head.brain, metadata)
    _ = bundle.typical  # said now, not after the first volume
    return bundle
