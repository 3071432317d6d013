"""The file formats: every module of this folder that has a ``FORMAT`` is one. To ask which formats there are imports
nothing heavy."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path

from localdiff_cli.volumes.formats.seam import Content, Format, Put, Stored

__all__ = ["Content", "Format", "Put", "Stored", "format_of", "formats", "readable", "suffix_of", "suffixes"]


@cache
def formats() -> tuple[Format, ...]:
    """Return every format, NIfTI first: its suffixes are looked for before those of others."""
    names = sorted((each.name for each in pkgutil.iter_modules(__path__)), key=lambda name: (name != "nifti", name))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return tuple(module.FORMAT for module in modules if hasattr(module, "FORMAT"))


def suffixes() -> tuple[str, ...]:
    """Return all image suffixes, lower case."""
    return tuple(suffix for each in formats() for suffix in each.suffixes)


def suffix_of(path: Path) -> str | None:
    """Return the image suffix of a path (lower case, ``.nii.gz`` whole), or None for another kind of file."""
    name = path.name.lower()
    return next((suffix for suffix in suffixes() if name.endswith(suffix) and len(name) > len(suffix)), None)


def format_of(path: Path) -> Format | None:
    """Return the format by the name, else by the content; None for another kind of file."""
    suffix = suffix_of(path)
    if suffix is None:
        return next((each for each in formats() if each.holds(path)), None)
    return next(each for each in formats() if suffix in each.suffixes)


def readable() -> str:
    """Return what can be read, for messages."""
    *others, last = (each.said for each in sorted(formats(), key=lambda each: not each.suffixes))
    return f"{', '.join(others)} or {last}"
