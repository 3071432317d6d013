"""What an experiment leaves behind: a table, the exact settings that made it, and a figure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localdiff_cli.evaluation.cohort.statistics import Interval
from localdiff_cli.volumes.whole import whole_file, write_text


@dataclass(frozen=True)
class Table:
    """``stem`` names the files; ``rows`` are printed as they stand; ``about`` says on what (patients, slices); ``settings`` are JSON-able.

    Where ``settings`` have ``shown``, the page shows those columns only.

    ``draw`` puts the figure on a matplotlib ``Figure``.
    """

    stem: str
    rows: list[dict[str, str]]
    about: str
    settings: dict[str, Any]
    draw: Callable[[Any], None]


def save(table: Table, folder: Path, command: str) -> None:
    """Write ``<stem>.tsv``, ``.json`` (command and settings) and ``.svg`` into ``folder``."""
    write_text(folder / f"{table.stem}.tsv", to_tsv(table.rows))
    account = {"command": command, "about": table.about} | table.settings
    write_text(folder / f"{table.stem}.json", json.dumps(account, indent=1, default=str) + "\n")
    _figure(folder / f"{table.stem}.svg", table.draw)


def _figure(path: Path, draw: Callable[[Any], None]) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(9, 4.5), layout="constrained")
    draw(canvas)
    # Without a salt matplotlib names its marks at random, and equal figures would differ; text as text is a third of the size.
    with mpl.rc_context({"svg.hashsalt": "localdiff", "svg.fonttype": "none"}), whole_file(path) as partial:
        canvas.savefig(partial, format="svg", metadata={"Date": None})


def to_tsv(rows: list[dict[str, str]]) -> str:
    """Tab-separated text; the first row's keys are the header."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def to_markdown(path: Path, shown: list[str] | None = None) -> str:
    """The TSV at ``path`` as a Markdown table, with the columns ``shown`` (all without it)."""
    with path.open(encoding="utf-8", newline="") as handle:
        lines = list(csv.DictReader(handle, delimiter="\t"))
    head = [name for name in lines[0] if shown is None or name in shown]
    cells = [head, ["---"] * len(head), *([line[name] for name in head] for line in lines)]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def percent(interval: Interval) -> str:
    """``12.3 (4.5 to 20.1)``, or why there is none."""
    return _shown(interval, 100, 1)


def decimal(interval: Interval, digits: int) -> str:
    """The same, unscaled."""
    return _shown(interval, 1, digits)


def _shown(interval: Interval, scale: float, digits: int) -> str:
    if interval.estimate is None:
        return f"n/a ({interval.reason})"
    known = interval.low is not None and interval.high is not None
    low_high = f" ({scale * interval.low:.{digits}f} to {scale * interval.high:.{digits}f})" if known else ""  # type: ignore[operator]
    return f"{scale * interval.estimate:.{digits}f}{low_high}"
