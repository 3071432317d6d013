"""``--bids-filter-file``: which of a dataset's images to use, in the form that fMRIPrep and other BIDS Apps take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localdiff_cli.bids.index import Scan
from localdiff_cli.bids.names import ENTITIES
from localdiff_cli.errors import UsageError

SHORT = {long: short for short, long in ENTITIES.items()} | {short: short for short in ENTITIES}
ANY, NONE = ("*", "Query.ANY", "Query.REQUIRED"), ("Query.NONE",)
"""An entity that must be there, with any value; one that must not."""
IGNORED = {"datatype": ("anat",), "scope": ("raw", "all")}
"""Keys that other tools need and that can only have these values here."""

Filter = Mapping[str, Any]


def read_filters(path: Path) -> dict[str, Filter]:
    """Return the filters by kind of image, in lower case: ``{"t1w": {"session": "01", "acquisition": ["mprage", null]}}``.

    Raise :class:`UsageError` for another form and for entities that BIDS does not have.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--bids-filter-file {path}: cannot be read ({error}); expected JSON", code="filter") from error
    if not isinstance(found, dict) or not all(isinstance(rules, dict) for rules in found.values()):
        raise UsageError(f'--bids-filter-file {path}: expected an object such as {{"t1w": {{"session": "01"}}}}', code="filter")
    for kind, rules in found.items():
        unknown = sorted(set(rules) - set(SHORT) - set(IGNORED) - {"suffix", "extension"})
        if unknown:
            raise UsageError(f"--bids-filter-file {path}: {kind}: found {', '.join(unknown)}; expected entities of BIDS", code="filter")
    return {kind.lower(): rules for kind, rules in found.items()}


def fits(scan: Scan, rules: Filter) -> bool:
    """Return whether an image satisfies every rule: a value, a list of them, ``null`` (absent) or ``"*"`` (present)."""
    return all(_one(scan, key, values if isinstance(values, list) else [values]) for key, values in rules.items())


def _one(scan: Scan, key: str, allowed: list[Any]) -> bool:
    if key in IGNORED:
        return any(value in IGNORED[key] for value in allowed)
    if key in ("suffix", "extension"):
        return getattr(scan.name, key) in allowed
    found = scan.name.get(SHORT[key])
    return any(_matches(found, value) for value in allowed)


def _matches(found: str | None, wanted: Any) -> bool:
    if wanted is None or wanted in NONE:
        return found is None
    if wanted in ANY:
        return found is not None
    if found is None:
        return False
    same_number = found.isdecimal() and str(wanted).isdecimal() and int(found) == int(wanted)  # run 1 is run-01
    return found == str(wanted) or same_number
