"""Print the packages that localdiff needs and this Python lacks, with the versions of constraints.txt.

``python -m examples.gpu.missing``; what those need in turn is known when they are installed, so run.sh asks until nothing is missing.
"""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def needed(project: str) -> list[str]:
    """The names in ``dependencies`` of a pyproject.toml, read without a TOML library: an old Python has none."""
    block = project.split("\ndependencies = [", 1)[1].split("\n]", 1)[0]
    return re.findall(r'^\s*"([\w.-]+)', block, re.MULTILINE)


def pinned(name: str, constraints: str) -> str:
    """``name==version`` as the tests ran with, the bare name where there is none."""
    found = re.search(rf"^{re.escape(name)}==([^;\s]+)", constraints, re.MULTILINE | re.IGNORECASE)
    return f"{name}=={found[1]}" if found else name


def missing() -> list[str]:
    """What is not installed of what is needed, by localdiff or by what is installed."""
    constraints = (ROOT / "constraints.txt").read_text()
    open_, seen, lacking = needed((ROOT / "pyproject.toml").read_text()), set(), []
    while open_:
        name = open_.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in seen:
            continue
        seen.add(key)
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            lacking.append(pinned(name, constraints))
            continue
        open_ += [re.split(r"[\s;<>=!~\[(]", line, maxsplit=1)[0] for line in requires if "extra ==" not in line and ";" not in line]
    return sorted(lacking)


if __name__ == "__main__":
    print(" ".join(missing()))
