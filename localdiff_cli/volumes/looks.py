"""How each contrast shows disease."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """How a contrast shows disease: ``sign`` +1 bright, −1 dark; ``fluid``: whether fluid looks the same, so that z alone
    says nothing."""

    sign: int
    fluid: bool


LOOKS = {"FLAIR": Look(1, fluid=False), "T2w": Look(1, fluid=True), "T1w": Look(-1, fluid=True)}


def lesions_are_bright(contrast: str) -> bool:
    """Return whether lesions are known to be bright on a contrast."""
    return contrast in LOOKS and LOOKS[contrast].sign > 0
