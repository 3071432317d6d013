"""anomalib's PatchCore in an environment of its own, which takes its turns in a process beside ours.

The environment sees the packages of this one after its own, so that both run on the same build of torch and nothing large is fetched.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from localdiff_cli.errors import UsageError
from localdiff_cli.volumes.whole import write_text

VERSION = "2.7.0"
SCRIPT = Path(__file__).with_name("anomalib_script.py")


class Anomalib:
    """The running process: it is asked in lines of JSON and answers in them."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request. Raises :class:`UsageError` with its last words where the process has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the missing answer says it
        line = self._process.stdout.readline()
        if not line:
            words = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise UsageError(f"anomalib {VERSION} does not run here: {words[-1] if words else 'no reason given'}", code="anomalib")
        return json.loads(line)


def environment(folder: Path) -> Path:
    """The Python of anomalib's environment in ``folder``, made where it is not there. Raises :class:`UsageError` where pip fails."""
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    done = folder / f"anomalib-{VERSION}"
    if not done.is_file():
        print(f"installing anomalib {VERSION} into {folder}", flush=True)
        venv.create(folder, with_pip=False, clear=True)
        inside = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
        write_text(Path(inside) / "beside.pth", sysconfig.get_path("purelib") + "\n")
        # Our torch by its version without the build: pip then keeps what it sees, and chooses the torchvision that goes with it.
        torch = f"torch=={importlib.metadata.version('torch').partition('+')[0]}"
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"anomalib=={VERSION}", torch]
        result = subprocess.run(install, capture_output=True, text=True, check=False)
        if result.returncode:
            words = result.stderr.strip().splitlines()
            raise UsageError(f"anomalib {VERSION} cannot be installed: {words[-1] if words else 'pip failed'}", code="anomalib")
        write_text(done, "")
    return python


@contextmanager
def anomalib(work: Path, arrays: Path, threads: int) -> Iterator[Anomalib]:
    """anomalib, ready with the ``arrays`` of patches (see the script) on ``threads`` threads. Raises :class:`UsageError`."""
    log = work / "anomalib.log"
    command = [str(environment(work / "anomalib-env")), "-I", str(SCRIPT), str(arrays), str(threads)]
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        with process:
            yield Anomalib(process, log)
            process.stdin.close() if process.stdin else None
