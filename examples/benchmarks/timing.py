"""Runs side by side: they take turns, so that what else the machine does falls on all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
Clocked = Callable[[], tuple[float, T]]
"""Does its work; its seconds and its result."""


@dataclass(frozen=True)
class Timing(Generic[T]):
    """The seconds of each turn, and the result of the first."""

    turns: tuple[float, ...]
    result: T

    @property
    def seconds(self) -> float:
        """The least of the turns: whatever else ran at the time only adds."""
        return min(self.turns)

    @property
    def spread(self) -> float:
        """How much longer the longest turn took, as a share of the least."""
        return max(self.turns) / self.seconds - 1


def clocked(work: Callable[[], T]) -> Clocked[T]:
    """A function with its wall time."""

    def run() -> tuple[float, T]:
        started = time.perf_counter()
        result = work()
        return time.perf_counter() - started, result

    return run


def by_turns(runs: Mapping[str, Clocked[T]], repeats: int) -> dict[str, Timing[T]]:
    """Every run ``repeats`` times, one after the other and round again (A B A B)."""
    turns: dict[str, list[float]] = {name: [] for name in runs}
    results: dict[str, T] = {}
    for number in range(repeats):
        for name, run in runs.items():
            seconds, result = run()
            turns[name].append(seconds)
            results.setdefault(name, result)
            print(f"turn {number + 1} of {repeats}, {name}: {seconds:.2f} s", flush=True)
    return {name: Timing(tuple(turns[name]), results[name]) for name in runs}
