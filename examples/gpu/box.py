"""A box of time, and a table that is on the disk as soon as a row is known: what a card has measured stays, whatever comes after."""

from __future__ import annotations

import csv
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

COLUMNS = ("part", "what", "found", "bound", "verdict")


@dataclass
class Box:
    """``seconds`` from now on, and ``<folder>/<name>.tsv``, whose rows are printed too."""

    folder: Path
    name: str
    seconds: float
    started: float = field(default_factory=time.monotonic)
    failures: int = 0

    def __post_init__(self) -> None:
        """Begin a new table."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path.write_text("")
        self._write(COLUMNS)

    @property
    def path(self) -> Path:
        """The table."""
        return self.folder / f"{self.name}.tsv"

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.seconds - (time.monotonic() - self.started)

    def row(self, part: str, what: str, found: object, bound: object = "", verdict: str = "") -> None:
        """One more row; a verdict ``fails`` counts."""
        self.failures += verdict == "fails"
        self._write((part, what, _text(found), _text(bound), verdict))

    def within(self, part: str, what: str, found: float, bound: float) -> None:
        """A row whose verdict is whether ``found`` is at most ``bound``."""
        self.row(part, what, found, f"<= {bound:g}", "holds" if found <= bound else "fails")

    def run(self, part: str, least: float, work: Callable[[], None]) -> None:
        """Do a part where ``least`` seconds are left; what goes wrong in it is a row, and the next part goes on."""
        if self.left < least:
            self.row(part, "left out", f"{self.left:.0f} s left", f"{least:.0f} s needed", "left out")
            return
        before = time.monotonic()
        try:
            work()
        except Exception as error:
            traceback.print_exc()
            self.row(part, "stopped", f"{type(error).__name__}: {error}".splitlines()[0], "", "fails")
        self.row(part, "seconds", time.monotonic() - before)

    def _write(self, cells: tuple[str, ...]) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as handle:
            csv.writer(handle, delimiter="\t", lineterminator="\n").writerow(cells)
            handle.flush()
            os.fsync(handle.fileno())
        print("\t".join(cells), flush=True)


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
