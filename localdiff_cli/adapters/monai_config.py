"""MONAI's JSON configurations, read as data: a component's arguments with ``@`` references followed, and no expression run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localdiff_cli.adapters.files import read_json, unusable

MOST_REFERENCES = 16

Config = Mapping[str, Any] | Path
"""A bundle's configuration (``configs/*.json``), or the arguments of one component alone: a file, or what it holds."""


def read_config(config: Config) -> Mapping[str, Any]:
    """Return the configuration as it was written."""
    return read_json(config) if isinstance(config, Path) else config


def arguments_of(config: Mapping[str, Any], class_name: str) -> dict[str, Any] | None:
    """Return the arguments of the one component whose ``_target_`` is ``class_name``; None where there is none.

    Raise :class:`ModelError` where there are several, or an argument is a Python expression (``$…``) or leads nowhere.
    """
    found = {
        key: value
        for key, value in config.items()
        if isinstance(value, Mapping) and str(value.get("_target_", "")).rpartition(".")[2] == class_name
    }
    if len(found) > 1:
        raise unusable(f"{class_name}", f"several: {', '.join(found)}", "one in the configuration; pass that one's arguments alone")
    for key, component in found.items():
        return {name: _plain(value, config, f"{key}.{name}") for name, value in component.items() if not name.startswith("_")}
    return None


def _plain(value: Any, config: Mapping[str, Any], place: str, left: int = MOST_REFERENCES) -> Any:
    """A value without references. ``@a::b`` (older: ``@a#b``) is the entry b of the entry a."""
    if isinstance(value, list | tuple):
        return tuple(_plain(item, config, place, left) for item in value)
    if not isinstance(value, str) or value[:1] not in ("@", "$", "%"):
        return value
    if value[0] != "@":
        raise unusable(place, f"{value!r}, which MONAI would run or load", "a plain value: write it into the configuration")
    if left == 0:
        raise unusable(place, f"{value!r}, references that go round", "a plain value")
    target: Any = config
    for part in value[1:].replace("#", "::").split("::"):
        if not isinstance(target, Mapping) or part not in target:
            raise unusable(place, f"{value!r}, which the configuration does not hold", "a plain value")
        target = target[part]
    return _plain(target, config, place, left - 1)
