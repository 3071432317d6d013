"""Refuse a commit of large files: ``python -m examples.large_files FILE…``. Weights, tables and pictures have folders of their own."""

from __future__ import annotations

import sys
from pathlib import Path

MOST_BYTES = 100_000
ALLOWED = ("models", "examples/data", "examples/benchmarks", "examples/picture.png")


def too_large(paths: list[Path]) -> list[Path]:
    """The files over the limit outside the folders where large ones may be."""
    return [path for path in paths if path.is_file() and path.stat().st_size > MOST_BYTES and not path.as_posix().startswith(ALLOWED)]


def main() -> None:
    """Name the files and leave with 1, or leave with 0."""
    found = too_large([Path(name) for name in sys.argv[1:]])
    for path in found:
        print(f"{path}: {path.stat().st_size:,} bytes; expected at most {MOST_BYTES:,}. Leave it out, or make it from a script")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
