"""Try every Python that the project says it supports: ``python -m examples.versions``.

For each version found on this machine the wheel is built once, installed into a bare environment and tried (see release.py). Leaves with
1 where one fails; versions that are not installed are named, and count as not tried.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from examples.release import build, environment, smoke

VERSIONS = ("3.10", "3.11", "3.12", "3.13")


def attempt(version: str, wheel: Path, folder: Path, extra: list[str]) -> str:
    """The verdict on one version: works, fails or not installed."""
    python = shutil.which(f"python{version}")
    if python is None:
        return "not installed here"
    try:
        smoke(environment(folder / version, python, wheel, *extra), folder)
    except subprocess.CalledProcessError as error:
        return f"fails: {error}"
    return "works"


def main() -> None:
    """Try them one after the other and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", nargs="*", default=list(VERSIONS), help="versions to try")
    parser.add_argument("--index-url", help="package index for pip (PyTorch's CPU builds avoid gigabytes of CUDA)")
    options = parser.parse_args()
    extra = ["--extra-index-url", options.index_url] if options.index_url else []
    with tempfile.TemporaryDirectory() as name:
        wheel = build(Path(name) / "dist")
        verdicts = {version: attempt(version, wheel, Path(name), extra) for version in options.version}
    for version, verdict in verdicts.items():
        print(f"Python {version}: {verdict}")
    sys.exit(any(verdict.startswith("fails") for verdict in verdicts.values()))


if __name__ == "__main__":
    main()
