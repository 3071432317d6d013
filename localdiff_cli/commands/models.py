"""``localdiff models``: list, show and verify bundles."""

from __future__ import annotations

from localdiff_cli.batch.report import say
from localdiff_cli.bundle import bundle_folders, bundle_paths, open_bundle, verify
from localdiff_cli.errors import EXIT_OK, EXIT_UNUSABLE, ModelError


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
            lines = verify(bundle)
            say(f"{bundle.name}: good\n" + "\n".join(f"  {line}" for line in lines))
        except ModelError as error:
            say(f"{name}: BAD\n  {error}")
            code = EXIT_UNUSABLE
    return code
