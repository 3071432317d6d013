"""What the engine needs to know of a command: a recipe that any process can follow, and the work on one volume it makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from localdiff_cli.batch.discover import Item

OnSlice = Callable[[int, int], None]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What one volume's work gave: sidecar facts, the verdict's reasons to review it, table rows for ``slices.tsv``."""

    facts: dict[str, Any]
    review: tuple[str, ...] = ()
    slice_rows: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Estimate:
    """What one volume is expected to cost on this machine: wall seconds and peak memory in MB."""

    seconds: float
    megabytes: float


class Work(Protocol):
    """One command's work on one volume, with its networks loaded."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the result; equal settings and input mean equal output."""
        ...

    @property
    def device(self) -> str:
        """Where the networks run."""
        ...

    def companions(self, item: Item) -> list[Path]:
        """Further files that decide this item's result: its own mask, map or reference."""
        ...

    def smaller(self) -> Work | None:
        """The same work with half the batch; None where the batch is one slice."""
        ...

    def estimate(self, shape: tuple[int, int, int]) -> Estimate:
        """What a volume of this shape, ``(slices, rows, columns)``, will cost."""
        ...

    def __call__(self, item: Item, on_slice: OnSlice) -> Outcome:
        """Do it."""
        ...


class Recipe(Protocol):
    """How to make a command's work. It can be pickled: worker processes and cluster nodes load it themselves."""

    def outputs(self, item: Item) -> list[Path]:
        """All volumes that the work writes for this item; the sidecar lies beside the first."""
        ...

    def load(self, say: Say) -> Work:
        """Load the networks. Raises :class:`LocaldiffError` where they, or the options, cannot be used."""
        ...


def printable(relative: Path) -> str:
    """A volume's name for tables and sidecars; bytes that are not UTF-8 are marked."""
    return relative.as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "replace")
