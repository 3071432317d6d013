"""A command's options as data, read from the annotations that the command line itself is made of: one source for every
descriptor."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, OptionInfo


@dataclass(frozen=True)
class Described:
    """One parameter: its ``flag`` (None: positional), Python ``kind`` (str, int, float, bool, Path), default, help and panel.

    ``several``: it may be given more than once.
    """

    name: str
    flag: str | None
    kind: type
    default: Any
    help: str
    panel: str
    required: bool
    several: bool = False

    @property
    def example(self) -> str | None:
        """The value that the help's example gives it."""
        found = re.search(rf"Example: {re.escape(self.flag or '')} (\S+)", self.help) if self.flag else None
        return found[1] if found else None


def describe(command: Callable[..., None]) -> list[Described]:
    """Return the parameters of a command's function, in order; those that only print something and exit (``--version``) are
    left out."""
    hints = get_type_hints(command, include_extras=True)
    found = [_described(name, hints[name], parameter.default) for name, parameter in inspect.signature(command).parameters.items()]
    return [each for each in found if each is not None]


def _described(name: str, hint: Any, default: Any) -> Described | None:
    kind, info = get_args(hint)[:2] if get_origin(hint) is Annotated else (hint, None)
    if not isinstance(info, OptionInfo | ArgumentInfo) or getattr(info, "is_eager", False):
        return None
    kind, several = _kind(kind)
    words = [word for word in (info.default, *(info.param_decls or ())) if isinstance(word, str)]  # Annotated has the first one elsewhere
    flags = [word.split("/")[0] for word in words if word.startswith("--")] or [f"--{name.replace('_', '-')}"]
    flag = flags[0] if isinstance(info, OptionInfo) else None
    required = default is inspect.Parameter.empty
    said = (info.help or "").replace("\\[", "[")  # brackets are escaped for the terminal
    return Described(name, flag, kind, None if required else default, said, info.rich_help_panel or "", required, several)


def _kind(hint: Any) -> tuple[type, bool]:
    """The plain type of ``X``, ``X | None`` and ``list[X]``, and whether it is a list."""
    if get_origin(hint) in (Union, UnionType):
        hint = next(each for each in get_args(hint) if each is not type(None))
    if get_origin(hint) is list:
        return get_args(hint)[0], True
    return hint if hint in (str, int, float, bool, Path) else str, False
