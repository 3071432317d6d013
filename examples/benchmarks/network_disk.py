"""What a network file system adds to the engine: the same run on a folder that answers late, every request counted.

``python -m examples.benchmarks.network_disk --volumes 200 --milliseconds 0 1 5`` mounts a folder through FUSE (``pip install mfusepy``,
Debian's ``fuse3``; Linux), waits so long before every answer, and runs the engine's own work on it (engine.py, ``--light``): once to do the
volumes, once to find them done. The kernel keeps what it knows of a file for a second, as NFS does for three. Locks are the kernel's
here; NFS asks its server for each. What a volume's requests cost is their number times the wait, so the number is the figure to take away:
it depends on no machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from examples.benchmarks.engine import Light, make_volumes, one_run

KINDS = ("getattr", "readdir", "open", "create", "read", "write", "fsync", "release", "rename", "unlink", "mkdir", "other")
MOUNT_SECONDS = 30.0


def answers(root: Path, seconds: float, counts: Any) -> dict[str, Callable[..., Any]]:
    """The requests of FUSE, each answered from ``root`` after ``seconds`` and counted in ``counts`` by its kind."""

    def late(name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
        place = KINDS.index(name if name in KINDS else "other")

        def request(self: object, *arguments: Any) -> Any:
            with counts.get_lock():
                counts[place] += 1
            time.sleep(seconds)
            return answer(*arguments)

        return request

    def at(path: str) -> str:
        return f"{root}{path}"

    def attributes(path: str, handle: int | None = None) -> dict[str, int]:
        found = os.lstat(at(path))
        times = {f"st_{kind}time": getattr(found, f"st_{kind}time_ns") for kind in "amc"}
        return {name: getattr(found, name) for name in ("st_mode", "st_ino", "st_nlink", "st_uid", "st_gid", "st_size")} | times

    made: dict[str, Callable[..., Any]] = {
        "getattr": attributes,
        "readdir": lambda path, handle: [".", "..", *os.listdir(at(path))],
        "open": lambda path, flags: os.open(at(path), flags),
        "create": lambda path, mode, handle=None: os.open(at(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode),
        "read": lambda path, size, offset, handle: os.pread(handle, size, offset),
        "write": lambda path, data, offset, handle: os.pwrite(handle, data, offset),
        "fsync": lambda path, datasync, handle: os.fsync(handle),
        "release": lambda path, handle: os.close(handle),
        "rename": lambda old, new: os.rename(at(old), at(new)),
        "unlink": lambda path: os.unlink(at(path)),
        "mkdir": lambda path, mode: os.mkdir(at(path), mode),
        "rmdir": lambda path: os.rmdir(at(path)),
        "link": lambda target, source: os.link(at(source), at(target)),
        "chmod": lambda path, mode: os.chmod(at(path), mode),
        "truncate": lambda path, length, handle=None: os.truncate(at(path), length),
        "utimens": lambda path, times=None: os.utime(at(path), ns=times),
    }
    return {name: late(name, answer) for name, answer in made.items()}


def serve(root: Path, mount: Path, seconds: float, counts: Any) -> None:
    """Answer for ``mount`` until it is unmounted."""
    import mfusepy

    kind = type("Distant", (mfusepy.Operations,), {"use_ns": True, **answers(root, seconds, counts)})
    mfusepy.FUSE(kind(), str(mount), foreground=True, nothreads=False)


@contextmanager
def distant(root: Path, mount: Path, seconds: float) -> Iterator[Any]:
    """``root`` under ``mount``, every request answered after ``seconds``; yields the counts, in the order of KINDS."""
    counts = multiprocessing.get_context("spawn").Array("q", len(KINDS))
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(root, mount, seconds, counts))
    server.start()
    try:
        until = time.monotonic() + MOUNT_SECONDS
        while not os.path.ismount(mount):
            if not server.is_alive() or time.monotonic() > until:
                raise OSError(f"{mount}: FUSE did not mount it; is there /dev/fuse, and fusermount3?")
            time.sleep(0.05)
        yield counts
    finally:
        subprocess.run(["fusermount3", "-u", "-z", str(mount)], check=False, capture_output=True)
        server.join(MOUNT_SECONDS)
        server.terminate()


def engine_on(folder: Path, volumes: int, counts: Any) -> list[tuple[str, float, list[int]]]:
    """Two runs on ``folder/in``, to work and to find all done: title, seconds, requests of each kind. ``counts`` None: none are counted."""
    rows = []
    for title in ("work", "already done"):
        before = list(counts) if counts else [0] * len(KINDS)
        spent = one_run(folder / "in", Light(folder / "out"), 0, volumes)
        assert spent.done + spent.skipped == volumes
        rows.append((title, spent.seconds, [now - then for now, then in zip(counts or before, before, strict=True)]))
    return rows


def line(place: str, title: str, volumes: int, seconds: float, requests: Sequence[int]) -> str:
    """One run of the table."""
    kinds = ", ".join(f"{count / volumes:.1f} {kind}" for kind, count in zip(KINDS, requests, strict=True) if count)
    return f"| {place} | {title} | {1000 * seconds / volumes:.1f} | {sum(requests) / volumes:.1f} | {kinds} |"


def main() -> None:
    """Print the table, a line as it comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--volumes", type=int, default=200)
    parser.add_argument("--milliseconds", type=float, nargs="+", default=[0, 1, 5], help="before each answer")
    options = parser.parse_args()
    print("| place | run | ms a volume | requests a volume | of which |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for latency in (None, *options.milliseconds):
            root, mount = Path(name) / f"root-{latency}", Path(name) / f"mount-{latency}"
            root.mkdir()
            mount.mkdir()
            make_volumes(root / "in", options.volumes, linked=True)
            if latency is None:
                rows, place = engine_on(root, options.volumes, None), "the disk itself"
            else:
                with distant(root, mount, latency / 1000) as counts:
                    rows, place = engine_on(mount, options.volumes, counts), f"{latency:g} ms away"
            for title, seconds, requests in rows:
                print(line(place, title, options.volumes, seconds, requests), flush=True)


if __name__ == "__main__":
    main()
