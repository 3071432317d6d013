"""One image of each visit: where a session has several T1w, which one is translated, and why."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from localdiff_cli.bids.filters import Filter, fits
from localdiff_cli.bids.index import Scan

PLAIN = ("sub", "ses", "run")
"""Entities that every ordinary scan may have; any other says that something about it is special."""


@dataclass(frozen=True)
class Choice:
    """The image of a visit, ``others`` of its kind that were left, and the reason; without others there is none."""

    scan: Scan
    others: tuple[Scan, ...] = ()
    reason: str = ""


def _is_magnitude(scan: Scan) -> bool:
    return scan.name.get("part") in (None, "mag")


def _rank(scan: Scan) -> tuple[tuple[str, object], ...]:
    """What decides between two images of a visit, first things first, each with its words."""
    name = scan.name
    special = [key for key, _ in name.entities if key not in PLAIN]
    run = name.get("run") or "0"
    return (
        ("no contrast agent in its name", name.get("ce") is not None),
        ("magnitude, not phase", not _is_magnitude(scan)),
        ("fewest special entities in its name", len(special)),
        ("the first run", int(run) if run.isdecimal() else 0),
        ("first by name", str(name)),
    )


def _visit(scan: Scan) -> tuple[str, str]:
    return scan.name.subject, scan.name.session or ""


def choose(scans: Iterable[Scan], suffix: str, rules: Filter) -> Iterator[Choice]:
    """Yield one image of every visit, with this ``suffix`` and among those that the ``rules`` allow; ``scans`` come visit
    by visit.

    Phase, real and imaginary parts show no contrast and are never taken, unless the rules ask for a ``part``.
    """
    kept = (scan for scan in scans if scan.name.suffix == suffix and fits(scan, rules) and (_is_magnitude(scan) or "part" in rules))
    for _, group in itertools.groupby(kept, key=_visit):
        ordered = sorted(group, key=lambda scan: tuple(value for _, value in _rank(scan)))
        yield Choice(ordered[0], tuple(ordered[1:]), _reason(ordered))


def _reason(ordered: list[Scan]) -> str:
    if len(ordered) == 1:
        return ""
    first, second = _rank(ordered[0]), _rank(ordered[1])
    words = next(words for (words, mine), (_, other) in zip(first, second, strict=True) if mine != other)
    return f"{words}, of {len(ordered)} images of this visit"
