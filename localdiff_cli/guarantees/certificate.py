"""The certificate: what was promised, for which bundle and settings, proven on whom; a JSON file that carries its own hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from localdiff_cli.errors import UsageError
from localdiff_cli.guarantees.certify import Promise
from localdiff_cli.volumes.whole import write_text

if TYPE_CHECKING:
    from localdiff_cli.guarantees.intervals import Intervals

FORMAT = 4
MAX_BYTES = 64 << 20
FREE = ("Command", "Match", "DataType", "Device", "Saved", "Calibration")
"""Settings of a translation that affect none of the risks."""
FREE_PREPARING = ("brain", "nan")
BEFORE = {"Mask": {"through_plane_mm": 0.0, "bright": None}}
"""What was done, before there was a setting for it, in the translations of earlier certificates."""


class Cohort(TypedDict):
    """Who proved it: how many patients, of what kinds, of which split, judged on every n-th slice.

    On ``chose_settings`` of them settings of the bundle were chosen; ``bands_from`` others shaped the bands.
    """

    patients: int
    kinds: dict[str, int]
    every: int
    split: str | None
    chose_settings: int
    bands_from: int


@dataclass(frozen=True)
class Certificate:
    """What a cohort has proven of a bundle.

    ``settings``: all that decides a translation but the cut ``tau``, which was chosen among ``taus``, as the ``emphasis``
    was among ``emphases``. ``cohort``: how many patients of what kinds, on how many of them settings of the bundle were
    chosen, from how many others the bands have their shape, and how they were measured; no names. ``portraits``: of each
    patient, in no order (strangeness.py). The promises hold together with ``confidence``, and are void for a volume whose
    p-value does not exceed ``void_level``. ``intervals``: ``level``, ``bands`` by region (intervals.py), on how many
    ``patients`` they were measured and whether the bundle's ``network`` begins them; None where none were asked for.
    """

    bundle: str
    bundle_hash: str
    settings: dict[str, object]
    tau: float
    taus: tuple[float, ...]
    emphasis: float
    emphases: tuple[float, ...]
    confidence: float
    promises: tuple[Promise, ...]
    cohort: Cohort
    void_level: float
    portraits: tuple[dict[str, list[float]], ...]
    version: str
    intervals: Intervals | None = None

    @property
    def content(self) -> dict[str, object]:
        """As JSON holds it, without the hash."""
        return {"format": FORMAT, **json.loads(json.dumps(asdict(self)))}

    @property
    def hash(self) -> str:
        """SHA-256 of the content."""
        return hashlib.sha256(json.dumps(self.content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    @property
    def promised(self) -> dict[str, object]:
        """For the sidecar."""
        return {
            "Tau": self.tau, "Emphasis": self.emphasis, "Confidence": self.confidence,
            "Patients": self.cohort["patients"], "Kinds": self.cohort["kinds"],
            "ChoseSettings": self.cohort["chose_settings"], "Promises": [self._told(promise) for promise in self.promises],
            "Intervals": self.intervals,
        }  # fmt: skip

    def _told(self, promise: Promise) -> dict[str, object]:
        confidence = None if promise.p_value is None else self.confidence
        return {
            "Risk": promise.risk, "AtMost": promise.level, "Says": promise.says, "Confidence": confidence, "Measured": promise.measured,
            "Patients": promise.patients, "Theorem": promise.theorem,
        }  # fmt: skip


def comparable(settings: Mapping[str, Any]) -> dict[str, object]:
    """Return the settings of a translation that a certificate is bound to."""
    kept = {name: value for name, value in settings.items() if name not in FREE}
    kept["Prepare"] = {name: value for name, value in kept["Prepare"].items() if name not in FREE_PREPARING}
    kept["Mask"] = {name: value for name, value in (kept["Mask"] or {}).items() if name != "threshold"}
    plain: dict[str, object] = json.loads(json.dumps(kept))
    return plain


def write_certificate(path: Path, certificate: Certificate) -> None:
    """Write it whole, with its hash."""
    write_text(path, json.dumps(certificate.content | {"hash": certificate.hash}, indent=1, ensure_ascii=False) + "\n")


def read_certificate(path: Path) -> Certificate:
    """Read a certificate. Raise :class:`UsageError` for a file that is not one, has another format, or has changed since it
    was written."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("format") != FORMAT:
            raise ValueError(f"format {content.get('format')!r}, expected {FORMAT}")
        given = {each.name: content[each.name] for each in fields(Certificate)}
        given |= {"promises": tuple(Promise(**each) for each in given["promises"])}
        certificate = Certificate(**given | {name: tuple(given[name]) for name in ("taus", "emphases", "portraits")})
    except OSError as error:
        raise UsageError(f"--calibration {path}: cannot be read ({error.strerror})", code="not-found") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"--calibration {path}: found no certificate ({error}); make one with localdiff calibrate", code="certificate"
        ) from error
    if content.get("hash") != certificate.hash:
        raise UsageError(
            f"--calibration {path}: its hash does not match its content; expected a file as calibrate wrote it", code="certificate"
        )
    return certificate


def check_fits(path: Path, certificate: Certificate, settings: Mapping[str, Any]) -> None:
    """Raise :class:`UsageError` unless a translation with these ``settings`` is what the certificate covers."""
    own = comparable(settings)
    certified = {name: BEFORE.get(name, {}) | value if isinstance(value, dict) else value for name, value in certificate.settings.items()}
    differing = [name for name in sorted({*own, *certified}) if own.get(name) != certified.get(name)]
    if differing:
        told = "; ".join(f"{name}: {_short(own.get(name))}, certified {_short(certified.get(name))}" for name in differing)
        raise UsageError(
            f"--calibration {path}: made for other settings or another bundle ({told}). Translate as it was calibrated, or calibrate anew",
            code="certificate",
        )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "…"


@dataclass(frozen=True)
class Verdict:
    """Whether a certificate holds for one volume: its p-value among ``patients``, and whether it is ``void``."""

    certificate: Certificate
    p_value: float
    void: bool

    @property
    def facts(self) -> dict[str, object]:
        """For the sidecar."""
        own = {"CertificateHash": self.certificate.hash, "PValue": round(self.p_value, 6), "Void": self.void}
        return {"Calibration": own | self.certificate.promised}

    @property
    def doubts(self) -> list[str]:
        """What ``qc.tsv`` says first where nothing is promised for this volume."""
        if not self.void:
            return []
        patients = self.certificate.cohort["patients"]
        return [f"certificate void: unlike the {patients} patients it was made from (p = {self.p_value:.3f}); nothing is promised here"]
