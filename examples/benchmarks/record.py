"""Show a table on the terminal and put it into a bundle's metadata and card, with the command that made it."""

from __future__ import annotations

import json
import sys
from typing import Any

from localdiff_cli.batch.report import recorded_arguments
from localdiff_cli.bundle import METADATA, Bundle, read_metadata
from localdiff_cli.bundle.card import card
from localdiff_cli.volumes.whole import write_text

Rows = list[dict[str, Any]]


def show(title: str, rows: Rows) -> str:
    """A table as tab-separated text under its title."""
    if not rows:
        return f"{title}: nothing measured"
    return "\n".join([title, "\t".join(rows[0]), *("\t".join(str(value) for value in row.values()) for row in rows)])


def record(bundle: Bundle, title: str, rows: Rows, program: str, note: str = "") -> None:
    """Put a table into the bundle; the bundle's hash does not change."""
    metadata = read_metadata(bundle.path)
    block = {"command": f"{program} {recorded_arguments(sys.argv[1:])}", "note": note, "rows": rows}
    metadata["results"] = metadata.get("results", {}) | {title: block}
    write_text(bundle.path / METADATA, json.dumps(metadata, indent=1, ensure_ascii=False) + "\n")
    write_text(bundle.path / "README.md", card(metadata))
