"""What a translation's sidecar says was promised for it: read for the report, never trusted to be complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Promised:
    """A certificate as one translation names it.

    ``certificate``: the first letters of its hash. ``promises`` and ``whom``: sentences. ``void``: whether it fails for
    this volume, whose conformal ``p_value`` is given. ``interval``: level of the bands, None without. ``drawn_ml``,
    ``unknown_ml``: None where not said.
    """

    certificate: str
    promises: tuple[str, ...]
    whom: str
    p_value: float
    void: bool
    interval: float | None
    drawn_ml: float | None
    unknown_ml: float | None


def promised_in(sidecar: Mapping[str, Any]) -> Promised | None:
    """Return the certificate that a sidecar names; None where it names none, or not as localdiff writes it."""
    try:
        told = sidecar["Calibration"]
        intervals = told["Intervals"]
        return Promised(
            str(told["CertificateHash"])[:12], tuple(_sentence(each) for each in told["Promises"]), _whom(told), float(told["PValue"]),
            bool(told["Void"]), None if intervals is None else float(intervals["level"]), _number(sidecar.get("OODMillilitres")),
            _number(sidecar.get("UnknownMillilitres")),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _sentence(promise: Mapping[str, Any]) -> str:
    confidence = promise["Confidence"]
    how = "on average over new patients" if confidence is None else f"with {float(confidence):.0%} confidence"
    return (
        f"{promise['Says']}: at most {float(promise['AtMost']):.1%}, {how} (measured {float(promise['Measured']):.1%} in "
        f"{int(promise['Patients'])} patients)"
    )


def _whom(told: Mapping[str, Any]) -> str:
    kinds = ", ".join(f"{int(count)} {kind}" for kind, count in told["Kinds"].items())
    chose = int(told["ChoseSettings"])
    caution = f"; {chose} of them had also been used to choose settings, so that it may be a little too good" if chose else ""
    return f"{int(told['Patients'])} patients ({kinds}){caution}"
