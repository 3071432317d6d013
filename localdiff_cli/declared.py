"""Options declared once: a field of a settings class carries its option, help and limits; commands and checks are made from it.

A field reads ``name: Annotated[type, typer.Option("--name", help=…), Range(0, 1)] = default``. Imports nothing heavy.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Annotated, Any, Protocol, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, OptionInfo

from localdiff_cli.errors import UsageError
from localdiff_cli.roles import Role, Writes

PANELS = (
    "Files", "Reference", "Model", "Local Diffusion", "OOD region", "Sampling", "Input",
    "Network", "Training", "Promises", "Cohort", "Output", "Misdiagnosis", "Run",
)  # fmt: skip
"""The panels of a command's help, in their order."""


class Limit(Protocol):
    """A condition on a value, beyond its type."""

    def check(self, option: str, value: Any) -> None:
        """Raise :class:`UsageError` where the value does not meet it."""
        ...


@dataclass(frozen=True)
class Range:
    """A number from ``low`` to ``high``, both included."""

    low: float
    high: float

    def check(self, option: str, value: float) -> None:
        """Raise :class:`UsageError` for a number outside."""
        check_range(option, value, self.low, self.high)


@dataclass(frozen=True)
class OneOf:
    """One of a few words; those of a registry are looked up when a value is checked."""

    words: Collection[str]

    def check(self, option: str, value: str) -> None:
        """Raise :class:`UsageError` for another word."""
        check_choice(option, value, self.words)


def check_choice(option: str, value: str, choices: Collection[str]) -> None:
    """Raise :class:`UsageError` for a value that is not among the choices."""
    if value not in choices:
        raise UsageError(f"{option} {value}: expected one of {', '.join(choices)}", code="choice")


def check_range(option: str, value: float, low: float, high: float) -> None:
    """Raise :class:`UsageError` for a number outside [low, high]."""
    if not low <= value <= high:
        raise UsageError(f"{option} {value:g}: expected {low:g} to {high:g}", code="range")


def check(settings: Any) -> None:
    """Check every value against the limits that its field declares. Raise :class:`UsageError`, which names the option."""
    for field, hint in _declared(type(settings)):
        value = getattr(settings, field.name)
        for limit in get_args(hint)[1:] if value is not None else ():
            if isinstance(limit, Range | OneOf):
                limit.check(_flag(hint), value)


def asked_for(settings: Any) -> list[Role]:
    """Return the outputs that the options ask for, in the order of their fields."""
    marks = [(each, getattr(settings, field.name)) for field, hint in _declared(type(settings)) for each in get_args(hint)[1:]]
    return [mark.role for mark, value in marks if isinstance(mark, Writes) and mark.wanted(value)]


def command(*classes: type, without: Collection[str] = (), **instead: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a function the options of these classes; it is called with one object of each, in order.

    A field that several of them have is one option. ``without``: fields that keep their defaults; ``instead``: other
    declarations for some fields.
    """
    found: dict[str, inspect.Parameter] = {}
    for each in (each for cls in classes for each in _parameters(cls) if each.name not in without):
        found.setdefault(each.name, each.replace(annotation=instead[each.name]) if each.name in instead else each)
    ordered = sorted(found.values(), key=lambda each: _panel(each.annotation))

    def wrap(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def call(**values: Any) -> None:
            function(*(_made(cls, values) for cls in classes))

        call.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
        call.__annotations__ = {each.name: each.annotation for each in ordered}
        return call

    return wrap


def _declared(cls: type) -> Iterator[tuple[Field[Any], Any]]:
    """The fields that are options, with their annotations."""
    hints = get_type_hints(cls, include_extras=True)
    return ((each, hints[each.name]) for each in fields(cls) if get_origin(hints[each.name]) is Annotated)


def _parameters(cls: type) -> Iterator[inspect.Parameter]:
    """The fields as parameters of a function, those of nested settings among them; several values of one option are a list
    there."""
    nested = [each.default_factory for each in fields(cls) if is_dataclass(each.default_factory)]
    for field, hint in _declared(cls):
        kind, *more = get_args(hint)
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        if get_origin(kind) is tuple:
            several: Any = list[get_args(kind)[0]]  # type: ignore[misc]
            needed = field.default is MISSING
            hint, default = Annotated[(several if needed else several | None, *more)], default if needed else None
        yield inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
    for each in nested:
        yield from _parameters(each)  # type: ignore[arg-type]


def _made(cls: type, values: dict[str, Any]) -> Any:
    """An object of the class from the values of its options."""
    given = {field.name: values[field.name] for field, _ in _declared(cls) if field.name in values}
    several = {field.name for field, hint in _declared(cls) if get_origin(get_args(hint)[0]) is tuple}
    nested = {each.name: _made(each.default_factory, values) for each in fields(cls) if is_dataclass(each.default_factory)}  # type: ignore[arg-type]
    return cls(**{name: tuple(value or ()) if name in several else value for name, value in given.items()}, **nested)


def _option(hint: Any) -> OptionInfo | ArgumentInfo:
    return next(each for each in get_args(hint)[1:] if isinstance(each, OptionInfo | ArgumentInfo))


def _panel(hint: Any) -> int:
    """The place of the option's panel; arguments come first."""
    info = _option(hint)
    return -1 if isinstance(info, ArgumentInfo) else PANELS.index(info.rich_help_panel or PANELS[-1])


def _flag(hint: Any) -> str:
    """The option's first name."""
    info = _option(hint)
    words = [word for word in (info.default, *(info.param_decls or ())) if isinstance(word, str)]  # Annotated has the first one elsewhere
    return next(word for word in words if word.startswith("--")).partition("/")[0]
