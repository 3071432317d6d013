"""Errors with stable codes: what a script may rely on when localdiff stops.

Every error a user can meet is a :class:`LocaldiffError`. ``exit_code`` is the status of the process, ``code`` a stable
word for logs and tables, and the message names the file, what was found, what was expected and what to do.
"""

from __future__ import annotations

from typing import Any

EXIT_OK = 0
EXIT_SOME_FAILED = 1
EXIT_USAGE = 2
EXIT_NO_INPUT = 3
EXIT_UNUSABLE = 4
EXIT_LIMIT_MISSED = 5
EXIT_NOT_CERTIFIED = 6
EXIT_SIGINT = 130
EXIT_SIGPIPE = 141
EXIT_SIGTERM = 143


class LocaldiffError(Exception):
    """Base of all errors that localdiff raises on purpose."""

    exit_code: int = EXIT_SOME_FAILED

    def __init__(self, message: str, *, code: str = "error") -> None:
        super().__init__(message.encode(errors="backslashreplace").decode())  # names that are not valid UTF-8 can be printed too
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled with its code: errors travel from worker processes."""
        return _rebuilt, (type(self), str(self), self.code)


def _rebuilt(kind: type[LocaldiffError], message: str, code: str) -> LocaldiffError:
    return kind(message, code=code)


class VolumeError(LocaldiffError):
    """One volume cannot be read, used or written; the others go on."""

    exit_code = EXIT_SOME_FAILED


class UsageError(LocaldiffError):
    """The command's options do not fit together or name something that is not there."""

    exit_code = EXIT_USAGE


class NoInputError(LocaldiffError):
    """No input volume was found."""

    exit_code = EXIT_NO_INPUT


class ModelError(LocaldiffError):
    """A model bundle is missing, damaged or does not fit the task."""

    exit_code = EXIT_UNUSABLE


class DeviceError(LocaldiffError):
    """The device that was asked for cannot be used."""

    exit_code = EXIT_UNUSABLE


class LimitMissedError(LocaldiffError):
    """A figure missed the limit set with ``--fail-under``."""

    exit_code = EXIT_LIMIT_MISSED


class NotCertifiedError(LocaldiffError):
    """``calibrate`` cannot promise what was asked for; there is no certificate."""

    exit_code = EXIT_NOT_CERTIFIED
