"""``localdiff models``: list, show and verify bundles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localdiff_cli.batch.report import say
from localdiff_cli.bundle import (
    EXPERT,
    INTERVAL,
    SEGMENTER,
    TRANSLATOR,
    Bundle,
    bundle_folders,
    bundle_paths,
    copy_bundle,
    load_tensors,
    open_bundle,
    save_bundle,
    verify,
    weight_file,
    with_defaults,
)
from localdiff_cli.bundle.schema import CALIBRATION
from localdiff_cli.errors import EXIT_OK, EXIT_UNUSABLE, ModelError, UsageError

if TYPE_CHECKING:
    from torch import Tensor


def list_models() -> int:
    """Print one line per bundle: name, task, contrasts, folder."""
    paths = bundle_paths()
    if not paths:
        say("no bundles found in:\n" + "\n".join(f"  {folder}" for folder in bundle_folders()))
        return EXIT_UNUSABLE
    for name in paths:
        try:
            bundle = open_bundle(name)
        except ModelError as error:
            say(f"{name}\tdamaged: {error}")
            continue
        contrasts = bundle.condition.contrast + (f" → {bundle.target.contrast}" if bundle.task == "translate" else "")
        say(f"{name}\t{bundle.task}\t{contrasts}\t{bundle.path}")
    return EXIT_OK


def show_model(name: str) -> int:
    """Print the bundle's card, its hash first."""
    bundle = open_bundle(name)
    say(f"{bundle.name}  {bundle.path}\nhash {bundle.hash}\n")
    card = bundle.path / "README.md"
    readable = card.is_file() and not card.is_symlink()
    say(card.read_text(encoding="utf-8", errors="replace") if readable else "(no card)")
    return EXIT_OK


def verify_models(names: list[str]) -> int:
    """Verify the named bundles, or all; return exit code 4 when one fails."""
    code = EXIT_OK
    for name in names or list(bundle_paths()):
        try:
            bundle = open_bundle(name)
            lines = verify(bundle) + _calibration_told(bundle)
            say(f"{bundle.name}: good\n" + "\n".join(f"  {line}" for line in lines))
        except ModelError as error:
            say(f"{name}: BAD\n  {error}")
            code = EXIT_UNUSABLE
    return code


def _calibration_told(bundle: Bundle) -> list[str]:
    """What there is to say of the bundle's own calibration. Raises :class:`ModelError` for a file that is none."""
    from localdiff_cli.guarantees.certificate import read_certificate

    if bundle.calibration is None:
        return []
    try:
        certificate = read_certificate(bundle.calibration)
    except UsageError as error:
        raise ModelError(f"model {bundle.name}: its calibration cannot be used: {error}", code="bundle") from error
    if certificate.bundle_hash != bundle.hash:
        return [f"{CALIBRATION}: of another state of this bundle; translate --interval refuses it. Make it anew with localdiff calibrate"]
    return [f"{CALIBRATION}: from {certificate.cohort['patients']} people, certificate {certificate.hash[:12]}"]


def pack_model(name: str, to: Path | None) -> int:
    """Store a bundle's networks in 8 bits a weight, in place or as a copy in ``to``; drop what it measured.

    Raise :class:`ModelError` where it cannot be read or has no network, :class:`UsageError` where ``to`` is there already.
    """
    from localdiff_cli.bundle.card import card

    bundle = open_bundle(name)
    if to is not None and to.exists():
        raise UsageError(f"--to {to}: is there already; expected a folder to be made", code="exists")
    files = [file for file in (TRANSLATOR, EXPERT, INTERVAL, SEGMENTER) if file in bundle.metadata["files"]]
    if not files:
        raise ModelError(f"model {bundle.name}: found no network; expected a translator, an expert or a segmenter to pack", code="task")
    tensors = {file: load_tensors(bundle, file) for file in files}
    before = sum(weight_file(bundle, file).stat().st_size for file in files)
    verify(bundle)  # a copy of a damaged bundle would stay half-made
    target = bundle if to is None else copy_bundle(bundle, to)
    metadata = {**target.metadata, "storage": target.metadata.get("storage", {}) | dict.fromkeys(files, "int8"), "results": {}}
    made = save_bundle(target.path, metadata, tensors, card(metadata), "int8")
    after = sum(weight_file(made, file).stat().st_size for file in files)
    worst = max(_relative_error(tensors[file], load_tensors(made, file)) for file in files)
    say(f"{made.name}: {before:,} bytes of weights are {after:,}; largest relative error of a tensor {100 * worst:.2f} %")
    say("what the bundle measured was measured with other weights, and is taken out of its card; a calibration has to be made anew")
    return EXIT_OK


def _relative_error(before: dict[str, Tensor], after: dict[str, Tensor]) -> float:
    """The largest root mean square difference of a tensor, as a share of its own root mean square."""
    pairs = [(values, after[name]) for name, values in before.items() if values.is_floating_point() and values.any()]
    return max((float((new - old).norm() / old.norm()) for old, new in pairs), default=0.0)


FINDERS = ("detector_model", "suspect")
"""Settings that name a bundle with a segmenter."""


def set_defaults(name: str, settings: list[str]) -> int:
    """Store ``NAME=VALUE`` settings as the bundle's defaults and write its card anew.

    Raise :class:`UsageError` for what the bundle cannot take, :class:`ModelError` for a bundle that is not there.
    """
    from localdiff_cli.bundle.card import card
    from localdiff_cli.volumes.whole import write_text

    changes = {}
    for each in settings:
        key, sign, text = each.partition("=")
        if not sign:
            raise UsageError(f"{each}: expected NAME=VALUE, such as steps=4", code="choice")
        try:
            changes[key] = json.loads(text)
        except json.JSONDecodeError:
            changes[key] = text
    bundle = open_bundle(name)
    if bundle.task == "translate":
        _check_finders(bundle, changes)
    bundle = with_defaults(bundle, changes)
    write_text(bundle.path / "README.md", card(dict(bundle.metadata)))
    say(f"{bundle.name}: " + ", ".join(f"{key} {bundle.metadata['defaults'][key]}" for key in changes))
    return EXIT_OK


def _check_finders(bundle: Bundle, changes: dict[str, Any]) -> None:
    """Raise :class:`UsageError` where a new finder segments nothing, or another contrast than the bundle's input."""
    for key in FINDERS:
        if changes.get(key) is None:
            continue
        found, wanted = open_bundle(str(changes[key])), bundle.condition.contrast
        if found.task != "segment" or found.condition.contrast != wanted:
            does = f"to {found.task} {found.condition.contrast}"
            raise UsageError(f"{key}={changes[key]}: found a bundle {does}; expected one to segment {wanted}", code="choice")
