"""Programs on PATH that need no interpreter of their own: a server has loaded the command line and forks for each call.

A script of examples/ calls ``localdiff`` half a dozen times; to start Python, torch and MONAI anew takes longer than all that the
tests ask of it. Working folder, environment, arguments, standard streams and exit code are those of the caller's process.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOADED = (
    "localdiff_cli.bids.app", "localdiff_cli.commands.detect", "localdiff_cli.commands.models", "localdiff_cli.tasks.detection",
    "localdiff_cli.tasks.translation", "localdiff_cli.tasks.segmentation", "localdiff_cli.tasks.evaluation",
    "localdiff_cli.evaluation.report.page", "monai.networks.nets", "matplotlib.pyplot",
)  # fmt: skip
CALLER = """#!{python} -ISE
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
words = {words!r} + sys.argv[1:]
socket.send_fds(server, [b" "], [0, 1, 2])
server.sendall(json.dumps([words, os.getcwd(), dict(os.environ)]).encode())
server.shutdown(socket.SHUT_WR)
sys.exit(int(server.recv(16) or 70))
"""


def serve(address: str) -> None:
    """Answer calls as long as the process that started this one lives."""
    parent = os.getppid()
    for name in LOADED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        while os.getppid() == parent:
            if select.select([server], [], [], 5.0)[0]:
                caller, _ = server.accept()
                if os.fork() == 0:
                    _answer(caller)
                caller.close()


def _answer(caller: socket.socket) -> None:
    """Run one call in a process of its own and tell its exit code; a signal's is 128 and its number, as a shell says it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, streams, _, _ = socket.recv_fds(caller, 1, 3)
    words, folder, environment = json.loads(b"".join(iter(lambda: caller.recv(1 << 16), b"")))
    worker = os.fork()
    if worker == 0:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os._exit(_run(words, folder, environment))
    code = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    caller.sendall(str(code if code >= 0 else 128 - code).encode())
    os._exit(0)


def _run(words: list[str], folder: str, environment: dict[str, str]) -> int:
    """``python`` with these words: a file and its arguments, or ``-m``, a module and its arguments."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            importlib.import_module(words[1]).main()
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


@contextmanager
def programs(folder: Path, words: Mapping[str, Sequence[str]]) -> Iterator[Path]:
    """A folder to put on PATH: each name is a program, ``python`` with these words before its arguments."""
    with tempfile.TemporaryDirectory() as short:  # a socket's address has room for a hundred characters
        address, said = Path(short) / "socket", folder / "server.log"
        for name, before in words.items():
            program = folder / name
            program.write_text(CALLER.format(python=sys.executable, address=str(address), words=list(before)), encoding="utf-8")
            program.chmod(0o755)
        with said.open("w", encoding="utf-8") as log:
            server = subprocess.Popen([sys.executable, "-m", "tests.served", str(address)], cwd=ROOT, stderr=log)
        try:
            while not address.exists():
                assert server.poll() is None, said.read_text(encoding="utf-8")
                time.sleep(0.05)
            yield folder
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    serve(sys.argv[1])
