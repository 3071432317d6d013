"""The Boutiques descriptor of ``localdiff-bids``: by which CBRAIN, VIP and ``bosh`` run it."""

from __future__ import annotations

import json

from localdiff_cli import __version__
from localdiff_cli.bids.app import bids
from localdiff_cli.interfaces.described import Described, describe

KINDS: dict[type, dict[str, object]] = {int: {"type": "Number", "integer": True}, float: {"type": "Number"}, bool: {"type": "Flag"}}
FOLDERS = ("bids_dir", "bids_filter_file", "ref", "truth")
"""Inputs that are files or folders which must be there."""


def boutiques() -> dict[str, object]:
    """Return the descriptor, schema 0.5."""
    found = describe(bids)
    positional = " ".join(_key(each) for each in found if each.flag is None)
    return {
        "name": "localdiff-bids",
        "tool-version": __version__,
        "schema-version": "0.5",
        "description": "Translate one MRI contrast of a BIDS dataset into another without inventing or erasing disease. For research use; "
        "not for diagnosis.",
        "command-line": f"localdiff-bids {positional} {' '.join(_key(each) for each in found if each.flag is not None)}",
        "inputs": [_input(each) for each in found],
        "output-files": [
            {
                "id": "derivatives",
                "name": "derivative dataset",
                "path-template": "[OUTPUT_DIR]",
                "description": "BIDS derivatives; of the group level the folder report/ in them",
                "optional": False,
            }
        ],
        "error-codes": [
            {"code": 1, "description": "some volumes failed; see failures.tsv"},
            {"code": 2, "description": "wrong usage"},
            {"code": 3, "description": "no input found"},
            {"code": 4, "description": "device or model unusable"},
            {"code": 5, "description": "a limit set with --fail-under was missed"},
        ],
        "tags": {"domain": ["neuroinformatics", "mri", "bids-app"]},
    }


def _key(each: Described) -> str:
    return f"[{each.name.upper()}]"


def _input(each: Described) -> dict[str, object]:
    text = " ".join(each.help.split())
    made = {
        "id": each.name,
        "name": each.name.replace("_", " "),
        "value-key": _key(each),
        "description": text,
        "optional": not each.required,
    }
    made |= {"type": "File"} if each.name in FOLDERS else KINDS.get(each.kind, {"type": "String"})
    if each.flag is not None:
        made["command-line-flag"] = each.flag
    if each.several:
        made |= {"list": True, "list-separator": f" {each.flag} "}
    if each.default not in (None, False):
        made["default-value"] = each.default
    if each.name == "level":
        made["value-choices"] = ["participant", "group"]
    return made


def main() -> None:
    """Print it: ``python -m localdiff_cli.interfaces.boutiques > localdiff-bids.json``."""
    print(json.dumps(boutiques(), indent=1))


if __name__ == "__main__":
    main()
