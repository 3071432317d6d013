"""The two nouns of a run. A *recipe* can be pickled, and any process can follow it; what it loads there is the *work*,
networks and all.

:class:`Recipe` and :class:`Work` are what processes and clusters carry out, whatever the task is. :class:`VolumeRecipe` and
:class:`VolumeWork` are what a command brings for its volumes; ``batch.volume`` adds claims, resume and records to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from localdiff_cli.batch.discover import Item

OnSlice = Callable[[int, int], None]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """The result of one volume's work: sidecar facts, the verdict's reasons to review it, table rows for ``slices.tsv``."""

    facts: dict[str, object]
    review: tuple[str, ...] = ()
    slice_rows: tuple[dict[str, object], ...] = ()


@dataclass(frozen=True)
class Estimate:
    """What one volume is expected to cost on this machine: wall seconds and peak memory in MB."""

    seconds: float
    megabytes: float


class VolumeWork(Protocol):
    """One command's work on one volume, with its networks loaded."""

    @property
    def settings(self) -> dict[str, object]:
        """Everything that decides the result; equal settings and input mean equal output."""
        ...

    @property
    def device(self) -> str:
        """Where the networks run."""
        ...

    def companions(self, item: Item) -> list[Path]:
        """Return further files that decide this item's result: its own mask, map or reference."""
        ...

    def lacking(self, items: Sequence[Item]) -> dict[Path, str]:
        """Return why items would fail for want of such a file, by their relative names."""
        ...

    def smaller(self) -> VolumeWork | None:
        """Return the same work with half the batch; None where the batch is one slice."""
        ...

    def estimate(self, shape: tuple[int, int, int]) -> Estimate:
        """Return what a volume of this shape, ``(slices, rows, columns)``, will cost."""
        ...

    def __call__(self, item: Item, on_slice: OnSlice) -> Outcome:
        """Do it."""
        ...


class VolumeRecipe(Protocol):
    """How to make a command's work. It can be pickled: worker processes and cluster nodes load it themselves."""

    def outputs(self, item: Item) -> list[Path]:
        """Return all volumes that the work writes for this item; the sidecar lies beside the first."""
        ...

    def load(self, say: Say) -> VolumeWork:
        """Load the networks. Raise :class:`LocaldiffError` where they, or the options, cannot be used."""
        ...


class Work(Protocol):
    """What is ready for one task after another."""

    def __call__(self, task: Any, attempt: int, on_slice: OnSlice, /) -> Any:
        """Return the result of a task; tasks and results are anything that can be pickled."""
        ...


class Recipe(Protocol):
    """What a run hands to its processes."""

    def name(self, task: Any) -> str:
        """Return the task's name in messages."""
        ...

    def load(self, say: Say) -> Work:
        """Make the work, once per process. Raise :class:`LocaldiffError` where it cannot be made."""
        ...

    def pause(self, result: Any, attempt: int) -> float | None:
        """Return the seconds after which to try a task again; None where its result is final."""
        ...

    def lost(self, task: Any, attempt: int, code: str, reason: str) -> Any:
        """Return the result of a task whose worker died or hung."""
        ...


def printable(relative: Path) -> str:
    """Return a volume's name for tables and sidecars; bytes that are not UTF-8 are marked."""
    return relative.as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "replace")
