"""Add what MONAI requires to bundles that were made earlier: ``python -m localdiff_cli.monai_bundle.upgrade models/*``.

Keys that are there are left, and the bundle's hash does not change.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from localdiff_cli.batch.report import say
from localdiff_cli.bundle import METADATA, open_bundle, read_metadata
from localdiff_cli.errors import ModelError
from localdiff_cli.monai_bundle.metadata import INFERENCE, inference_config, monai_metadata
from localdiff_cli.volumes.whole import write_text


def upgrade(folder: Path) -> None:
    """Write the missing keys and ``configs/inference.json``. Raise :class:`ModelError` for a folder that is no bundle."""
    before = open_bundle(str(folder))
    metadata = read_metadata(folder)
    write_text(folder / METADATA, json.dumps(metadata | monai_metadata(metadata), indent=1, ensure_ascii=False) + "\n")
    write_text(folder / INFERENCE, json.dumps(inference_config(metadata), indent=1) + "\n")
    if open_bundle(str(folder)).hash != before.hash:
        raise ModelError(f"{folder}: its hash changed; expected the same", code="bundle")


def main() -> None:
    """Upgrade every bundle named."""
    for word in sys.argv[1:]:
        if (Path(word) / METADATA).is_file():
            upgrade(Path(word))
            say(f"{word}: as MONAI wants it")


if __name__ == "__main__":
    main()
