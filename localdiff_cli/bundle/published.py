"""The JSON schema of a bundle's metadata, made from the settings themselves: ``python -m localdiff_cli.bundle.published``
writes it.

It is ``models/schema.json``; a bundle of one's own can be checked against it by any JSON Schema validator before localdiff
sees it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from localdiff_cli.adapters.diffusers_unet import DiffusersUNetSettings
from localdiff_cli.adapters.monai_unet import MonaiUNetSettings
from localdiff_cli.bundle.packing import Storage
from localdiff_cli.bundle.schema import Contrast, Defaults, GridSpec, Head, SegmenterDefaults
from localdiff_cli.diffusion.network import NetworkSettings
from localdiff_cli.diffusion.schedule import GivenSchedule, Schedule
from localdiff_cli.segmentation.network import LesionNetworkSettings
from localdiff_cli.volumes.likeness import Typical
from localdiff_cli.volumes.whole import write_text

FILE = "models/schema.json"

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the file")]


@dataclass(frozen=True)
class CalibrationSpec:
    """A detector's calibration on held-out healthy slices: patch distances ``values`` at the quantiles ``levels``, and the
    map's σ_a."""

    levels: tuple[float, ...]
    values: tuple[float, ...]
    sigma_a: float


@dataclass(frozen=True)
class DetectorSpec:
    """A PatchCore detector: its backbone, the scale of its input, and its calibration."""

    backbone: str
    input_scale: float
    calibration: CalibrationSpec
    backbone_sha256: Digest | None = None


@dataclass(frozen=True)
class LentDetector:
    """The detector of another ``bundle`` of the same condition, and the SHA-256 of its memory bank."""

    bundle: str
    sha256: Digest


@dataclass(frozen=True)
class _Monai(MonaiUNetSettings):
    kind: Annotated[str, Field(pattern="^monai$")] = "monai"


@dataclass(frozen=True)
class _Diffusers(DiffusersUNetSettings):
    kind: Annotated[str, Field(pattern="^diffusers$")] = "diffusers"


@dataclass(frozen=True, kw_only=True)
class Metadata(Head):
    """``configs/metadata.json`` of a bundle. What is written for people (training, results, licence, data) may be of any form."""

    condition: Contrast
    target: Contrast
    grid: GridSpec
    files: dict[str, Digest]
    storage: Annotated[dict[str, Storage], Field(description="how the weights of each file lie in it")] = field(default_factory=dict)
    defaults: Defaults | SegmenterDefaults  # type: ignore[assignment]
    schedule: Schedule | GivenSchedule  # type: ignore[assignment]
    network: NetworkSettings | LesionNetworkSettings | _Monai | _Diffusers  # type: ignore[assignment]
    detector: DetectorSpec | LentDetector  # type: ignore[assignment]
    typical: Typical | None = None  # type: ignore[assignment]


REQUIRED = ("format", "task", "name", "condition", "bias", "brain")


def json_schema() -> dict[str, Any]:
    """Return the schema as JSON Schema 2020-12: settings accept only keys that they have, the metadata as a whole any
    other."""
    schema = TypeAdapter(Metadata).json_schema()
    parts: dict[str, dict[str, Any]] = schema["$defs"]
    closed = {name: part | {"additionalProperties": False} for name, part in parts.items()}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "localdiff model bundle"}
    return head | schema | {"title": head["title"], "$defs": closed, "required": list(REQUIRED)}


def main() -> None:
    """Write the schema where it is published: ``models/schema.json`` of the checkout."""
    write_text(Path(FILE), json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
