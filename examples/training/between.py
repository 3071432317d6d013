"""Weights between two bundles' of the same network, one of which began as the other.

``python -m examples.training.between FIRST SECOND --part translator --share 0.5 --out FOLDER`` writes FIRST with the weights
(1 − share) · FIRST + share · SECOND, where SECOND was trained on from FIRST (``fit … --start``). What a network learns in further
training and what it forgets meanwhile are often apart, and half-way it has most of both (Wortsman et al., *Robust fine-tuning of
zero-shot models*, CVPR 2022). The defaults stay FIRST's: a threshold may have to be chosen anew.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from localdiff_cli.bundle import Bundle, copy_bundle, drop_parts, open_bundle, read_metadata, save_bundle
from localdiff_cli.bundle.card import card
from localdiff_cli.bundle.load import load_tensors
from localdiff_cli.bundle.schema import CALIBRATION
from localdiff_cli.errors import UsageError

PARTS = ("translator", "expert", "segmenter")


def between(first: Mapping[str, Tensor], second: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return (1 − ``share``) · first + ``share`` · second, of tensors of the same names and shapes."""
    return {name: value.float() * (1 - share) + second[name].float() * share for name, value in first.items()}


def account_of(first: Bundle, second: Bundle, part: str, share: float) -> dict[str, Any]:
    """Return how the weights between were made. Raise :class:`UsageError` unless the second's network began as the first's."""
    name, account = f"models/{part}.safetensors", second.metadata.get("training", {}).get(part, {})
    began, expected = account.get("start", {}).get("weights"), first.metadata["files"].get(name)
    if began is None or began != expected:
        found = f"{began[:12]}…" if began else "random weights"
        raise UsageError(f"{second.path}: its {part} began as {found}; expected {str(expected)[:12]}…, that of {first.path}")
    return account | {"between": {"first": expected, "second": second.metadata["files"][name], "share": share}}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the bundle. What belongs to the weights of before is left out: interval network, calibration, measured figures."""
    parser = argparse.ArgumentParser(description="Weights between those of two bundles.")
    parser.add_argument("first", help="bundle by name or folder, which gives all the rest")
    parser.add_argument("second", help="bundle by name or folder, whose network began as the first's")
    parser.add_argument("--part", choices=PARTS, default="translator")
    parser.add_argument("--share", type=float, default=0.5, help="of the second, 0 to 1 (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new bundle")
    options = parser.parse_args(arguments)
    if not 0 <= options.share <= 1:
        raise UsageError(f"--share {options.share}: expected 0 to 1", code="range")
    if options.out.exists():
        raise UsageError(f"--out {options.out}: is there already; expected a new folder", code="exists")
    first, second, name = open_bundle(options.first), open_bundle(options.second), f"models/{options.part}.safetensors"
    if name not in first.metadata["files"]:
        raise UsageError(f"{first.path}: has no {options.part}; expected one of {', '.join(first.metadata['files'])}", code="choice")
    account = account_of(first, second, options.part, options.share)
    mixed = between(load_tensors(first, name), load_tensors(second, name), options.share)
    made = drop_parts(copy_bundle(first, options.out), "interval")
    (made.path / CALIBRATION).unlink(missing_ok=True)
    metadata = read_metadata(made.path)
    metadata |= {"training": metadata["training"] | {options.part: account}, "results": {}}
    save_bundle(made.path, metadata, {name: mixed}, card(metadata), first.metadata.get("storage", {}).get(name, "float16"))


if __name__ == "__main__":
    main()
