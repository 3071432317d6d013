"""Who works on which volume: claims in the output folder, so that several runs on the same folder share the work.

A claim is a small file with its owner. It is made, taken over and removed under one lock of the folder (``filelock``:
``flock``, which NFS passes on to its server), so two runs never hold the same one. The owner touches it every 20 s. A claim
whose process is gone from this host is stale at once, whatever the clock says; that of another host after three missed
heartbeats. An owner that cannot finish a volume marks its claim as left: it is then stale at once for everybody, including
the owner's own second try.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from filelock import FileLock

HEARTBEAT_SECONDS = 20.0
MISSED_HEARTBEATS = 3
STATE_FOLDER = ".localdiff"
MAX_PID = 2**31


def key_of(name: str) -> str:
    """Return a volume's key: a file name of fixed length, whatever the volume is called."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]


@dataclass(frozen=True)
class Owner:
    """A process: its host (with the boot and the process namespace, where the system tells them), number and start time."""

    host: str
    pid: int
    started: str


def _text(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    return ""


@lru_cache(maxsize=1)
def _host() -> str:
    namespace = ""
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return " ".join(part for part in (socket.gethostname(), _text("/proc/sys/kernel/random/boot_id"), namespace) if part)


def _started(pid: int) -> str:
    """A process's start: on Linux in clock ticks since boot, which no change of the clock moves; elsewhere as psutil tells it.

    Empty where nobody tells: that process is another user's.
    """
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if len(fields) > 19:
        return fields[19]
    import psutil

    with suppress(psutil.Error):
        return str(psutil.Process(pid).create_time())
    return ""


def this_process() -> Owner:
    """Return this process as an owner."""
    return Owner(_host(), os.getpid(), _started(os.getpid()))


def is_alive(owner: Owner) -> bool | None:
    """Return whether a claim's process still runs; None where that cannot be seen from this host."""
    if owner.host != _host():
        return None
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return _started(owner.pid) == owner.started


@dataclass(frozen=True)
class Claim:
    """A claim that is held. ``inherited``: its last owner died while holding it, so half-made outputs of the volume are
    ours to replace."""

    path: Path
    token: str
    inherited: bool


class Claims:
    """The claims of an output folder, as one process sees them."""

    def __init__(self, out: Path, heartbeat: float = HEARTBEAT_SECONDS) -> None:
        self.folder = out / STATE_FOLDER / "claims"
        self.heartbeat = heartbeat
        self._held: dict[str, Path] = {}
        self._ended: set[str] = set()
        self._seen: dict[str, tuple[int, float]] = {}
        self._beating: threading.Thread | None = None

    def _guard(self) -> FileLock:
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder.parent / "guard.lock")

    def path(self, key: str) -> Path:
        """Return the claim's file."""
        return self.folder / f"{key}.json"

    def take(self, key: str, name: str) -> Claim | None:
        """Claim a volume; None where a living process holds it. Raise ``OSError`` where the folder cannot be written."""
        path, token = self.path(key), uuid.uuid4().hex
        with self._guard():
            held = _read(path)
            if held is not None and not self._is_stale(key, path, held):
                return None
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps({"Volume": name, "Token": token, "Owner": asdict(this_process())}), encoding="utf-8")
            os.replace(partial, path)
        self._held[token] = path
        self._beat()
        return Claim(path, token, inherited=held is not None)

    def release(self, claim: Claim) -> None:
        """Give a claim back, unless another process took it over."""
        self._end(claim)
        with self._guard():
            if (_read(claim.path) or {}).get("Token") == claim.token:
                claim.path.unlink(missing_ok=True)

    def leave(self, claim: Claim) -> None:
        """Mark a claim as left: what its volume's outputs hold is half-made, and the process that takes it next inherits that."""
        self._end(claim)
        with self._guard():
            held = _read(claim.path) or {}
            if held.get("Token") == claim.token:
                claim.path.write_text(json.dumps(held | {"Left": True}), encoding="utf-8")  # cut short, it has no owner and falls too

    def _end(self, claim: Claim) -> None:
        self._held.pop(claim.token, None)
        self._ended.add(claim.token)

    def clear_stale(self, key: str) -> None:
        """Remove the claim of a process that is gone."""
        with self._guard():
            held = _read(self.path(key))
            if held is not None and self._is_stale(key, self.path(key), held):
                self.path(key).unlink(missing_ok=True)

    def clear_partials(self) -> None:
        """Remove what processes that were killed while they claimed left."""
        if self.folder.is_dir() and any(self.folder.glob("*.partial")):
            with self._guard():
                for path in self.folder.glob("*.partial"):
                    path.unlink(missing_ok=True)

    def holder(self, key: str) -> str:
        """Return who holds a volume, for messages."""
        owner = _owner(_read(self.path(key)) or {})
        return "nobody" if owner is None else f"process {owner.pid} on {owner.host.split(' ')[0]}"

    def _is_stale(self, key: str, path: Path, held: dict[str, object]) -> bool:
        if held.get("Left") is True or str(held.get("Token")) in self._ended:
            return True
        owner = _owner(held)
        alive = None if owner is None else is_alive(owner)
        if alive is not None:
            return not alive
        try:
            touched = path.stat().st_mtime_ns
        except FileNotFoundError:
            return True
        known, since = self._seen.get(key, (None, 0.0))
        if known != touched:
            self._seen[key] = (touched, time.monotonic())
            return False
        return time.monotonic() - since > MISSED_HEARTBEATS * self.heartbeat

    def _beat(self) -> None:
        if self._beating is None:
            self._beating = threading.Thread(target=self._touch, daemon=True, name="claims")
            self._beating.start()

    def _touch(self) -> None:
        while True:
            time.sleep(self.heartbeat)
            for path in list(self._held.values()):
                with suppress(OSError):
                    os.utime(path)


def _read(path: Path) -> dict[str, object] | None:
    """What a claim says; None where there is none, and nothing known where it cannot be read."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return {}
    return held if isinstance(held, dict) else {}


def _owner(held: dict[str, object]) -> Owner | None:
    said = held.get("Owner")
    try:
        owner = Owner(str(said["host"]), int(said["pid"]), str(said["started"])) if isinstance(said, dict) else None
    except (LookupError, OverflowError, TypeError, ValueError):
        return None
    return owner if owner is not None and 0 < owner.pid < MAX_PID else None
