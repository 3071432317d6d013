"""``localdiff models``: list, show and verify bundles."""

from __future__ import annotations

import json

from localdiff_cli.batch.report import say
from localdiff_cli.bundle import Bundle, bundle_folders, bundle_paths, open_bundle, verify, with_defaults
from localdiff_cli.bundle.schema import CALIBRATION
from localdiff_cli.errors import EXIT_OK, EXIT_UNUSABLE, ModelError, UsageError


def list_models() -> int:
    """One line a bundle: name, task, contrasts, folder."""
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
    """The bundle's card, its hash first."""
    bundle = open_bundle(name)
    say(f"{bundle.name}  {bundle.path}\nhash {bundle.hash}\n")
    card = bundle.path / "README.md"
    say(card.read_text(encoding="utf-8") if card.is_file() else "(no card)")
    return EXIT_OK


def verify_models(names: list[str]) -> int:
    """Verify the named bundles, or all; exit code 4 when one fails."""
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
        raise ModelError(f"model {bundle.name}: its calibration is damaged: {error}", code="bundle") from error
    if certificate.bundle_hash != bundle.hash:
        return [f"{CALIBRATION}: of another state of this bundle; translate --interval refuses it. Make it anew with localdiff calibrate"]
    return [f"{CALIBRATION}: from {certificate.cohort['patients']} people, certificate {certificate.hash[:12]}"]


def set_defaults(name: str, settings: list[str]) -> int:
    """Store ``NAME=VALUE`` settings as the bundle's defaults and write its card anew."""
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
    bundle = with_defaults(open_bundle(name), changes)
    write_text(bundle.path / "README.md", card(dict(bundle.metadata)))
    say(f"{bundle.name}: " + ", ".join(f"{key} {bundle.metadata['defaults'][key]}" for key in changes))
    return EXIT_OK
