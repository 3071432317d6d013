"""The BIDS validator, where it is installed: ``localdiff-bids --validate``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from localdiff_cli.errors import UsageError

NAME = "bids-validator-deno"


def validator() -> str | None:
    """Return the validator's program, on the PATH or beside this Python (an environment need not be activated); None where
    there is none."""
    return shutil.which(NAME, path=os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)]))


def check_dataset(root: Path) -> None:
    """Run the validator. Raise :class:`UsageError` for a dataset with errors, and where it is not installed."""
    program = validator()
    if program is None:
        raise UsageError(f"--validate: needs {NAME}: pip install 'localdiff[bids]'", code="no-validator")
    done = subprocess.run([program, "--ignoreWarnings", str(root)], capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-40:])
        raise UsageError(f"{root}: {NAME} found errors; mend them, or leave --validate out:\n{said}", code="invalid")
