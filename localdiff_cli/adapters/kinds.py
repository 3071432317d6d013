"""Adapted networks inside model bundles: ``network`` and ``schedule`` of the metadata, so that the command line runs them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from localdiff_cli.adapters.diffusers_unet import DiffusersUNetSettings
from localdiff_cli.adapters.monai_unet import MonaiUNetSettings
from localdiff_cli.adapters.translator import Translator

KINDS: dict[str, type[MonaiUNetSettings] | type[DiffusersUNetSettings]] = {"monai": MonaiUNetSettings, "diffusers": DiffusersUNetSettings}
"""``kind`` of a bundle's network → its settings."""


def bundle_metadata(translator: Translator) -> dict[str, Any]:
    """Return ``network`` and ``schedule`` for ``save_bundle``; its weights are ``translator.model.state_dict()``."""
    settings = translator.model.settings
    kind = next(name for name, made in KINDS.items() if isinstance(settings, made))
    return {"network": {"kind": kind} | asdict(settings), "schedule": asdict(translator.schedule)}  # type: ignore[call-overload]
