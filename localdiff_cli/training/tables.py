"""Tables that people write: tab-separated text, read to the letter or refused with the line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from localdiff_cli.errors import UsageError
from localdiff_cli.volumes.files import absent_content

MISSING = ("", "n/a", "na", "nan", "none", "null", "-")
"""What a cell without a value holds, in lower case: BIDS writes n/a."""


@dataclass(frozen=True)
class Table:
    """Columns and rows of a table; ``rows`` with the number of their line, cells without a value left out."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]


def read_table(path: Path) -> Table:
    """Return a tab-separated table. Quotes mean nothing, apart from a pair around a whole cell; blanks around cells and
    blank lines are dropped.

    Raise :class:`UsageError` where it is not text, a column is named twice, or a row has another number of cells than the
    header.
    """
    if absent := absent_content(path):
        raise UsageError(f"{path}: {absent}", code="not-fetched")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise UsageError(f"{path}: not a table ({error}); expected tab-separated text in UTF-8") from error
    lines = [(number, _cells(line)) for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1)]
    lines = [(number, cells) for number, cells in lines if any(cells)]
    columns = tuple(lines[0][1]) if lines else ()
    if len(set(columns)) < len(columns):
        raise UsageError(f"{path}: found columns {', '.join(columns)}; expected every name once")
    return Table(path, columns, tuple((number, _row(path, number, columns, cells)) for number, cells in lines[1:]))


def _cells(line: str) -> list[str]:
    return [_unquoted(cell.strip()) for cell in line.split("\t")]


def _unquoted(cell: str) -> str:
    whole = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return cell[1:-1].replace('""', '"').strip() if whole else cell


def _row(path: Path, number: int, columns: tuple[str, ...], cells: list[str]) -> dict[str, str]:
    if len(cells) != len(columns):
        raise UsageError(
            f"{path}: line {number} has {len(cells)} cells ({_shown(cells)}), the header {len(columns)}; expected one cell for "
            "every column, separated by tabs (not by blanks or commas)"
        )
    return {column: cell for column, cell in zip(columns, cells, strict=True) if cell.lower() not in MISSING}


def _shown(cells: list[str]) -> str:
    text = " | ".join(cells)
    return text if len(text) <= 80 else text[:77] + "…"
