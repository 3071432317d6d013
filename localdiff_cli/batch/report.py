"""What a person or a script sees of a run: progress on a terminal, plain lines in a log, JSON lines in a file."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from localdiff_cli.errors import UsageError
from localdiff_cli.volumes.whole import check_replaceable


class Reporter:
    """Progress and messages of one run; a context. ``quiet`` leaves errors only.

    Raises :class:`UsageError` where ``json_log`` cannot be written.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False, json_log: Path | None = None) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._json_log = json_log
        self._log: IO[str] | None = None
        self._bar: Progress | None = None
        self._volumes: TaskID | None = None
        self._slices: TaskID | None = None
        self._plain_at = 0.0
        self._total = 0
        self._numbers: dict[str, int] = {}

    def __enter__(self) -> Reporter:
        if self._json_log is not None:
            check_replaceable(self._json_log, "--json-log", b'{"event":', "log of JSON lines")
            try:
                self._json_log.parent.mkdir(parents=True, exist_ok=True)
                self._log = self._json_log.open("a", encoding="utf-8")
            except OSError as error:
                raise UsageError(f"--json-log {self._json_log}: cannot be written ({error.strerror})", code="unwritable") from error
        if self.console.is_terminal and not self.quiet:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=self.console, transient=True)
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._log is not None:
            self._log.close()

    def event(self, name: str, **values: Any) -> None:
        """One JSON line: a stable event name, the time, and values. Volumes are named, their headers never quoted."""
        if self._log is not None:
            self._log.write(json.dumps({"event": name, "time": round(time.time(), 3), **values}, default=str) + "\n")
            self._log.flush()

    def line(self, text: str) -> None:
        """A message for people."""
        if not self.quiet:
            self._print(text)

    def detail(self, text: str) -> None:
        """A message for people who asked for more (``--verbose``)."""
        if self.verbose and not self.quiet:
            self._print(text)

    def problem(self, text: str) -> None:
        """An error or a failure: shown even when quiet."""
        self._print(text)

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False)

    def start(self, volumes: int) -> None:
        """The number of volumes to come."""
        self._total = volumes
        if self._bar is not None:
            self._volumes = self._bar.add_task("volumes", total=volumes)
            self._slices = self._bar.add_task("slices", total=1)

    def started(self, name: str) -> None:
        """Work on a volume begins, or is tried again: it keeps its number."""
        self._plain_at = time.monotonic()
        number = self._numbers.setdefault(name, len(self._numbers) + 1)
        if self._bar is not None and self._slices is not None:
            title = f"[{number}/{self._total}] {name}"[:48].replace("[", r"\[")
            self._bar.update(self._slices, description=title, completed=0, total=1)
        elif not self.quiet:
            self._print(f"[{number}/{self._total}] {name}")

    def slice(self, done: int, total: int) -> None:
        """A volume's slices so far; in a log a line every half minute."""
        if self._bar is not None and self._slices is not None:
            self._bar.update(self._slices, completed=done, total=total)
        elif not self.quiet and time.monotonic() - self._plain_at > 30:
            self._plain_at = time.monotonic()
            self._print(f"  slice {done} of {total}")

    def volume_done(self) -> None:
        """A volume is finished, well or badly."""
        if self._bar is not None and self._volumes is not None:
            self._bar.advance(self._volumes)


def say(text: str) -> None:
    """A result on standard output."""
    sys.stdout.write(text + "\n")


def recorded_arguments(words: list[str]) -> str:
    """Return a command's arguments for a card, which says nothing about this machine.

    Absolute paths become relative ones, or their last part; the working folder and ``--record`` decide nothing and are left out.
    """
    kept = [word for i, word in enumerate(words) if "--work" not in (word, words[i - 1] if i else "") and not word.startswith("--work=")]
    return shlex.join(_without_folders(word) for word in kept if word != "--record")


def _without_folders(argument: str) -> str:
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    if os.path.isabs(value):
        path = Path(value)
        value = str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name
    return option + equals + value
