"""Toy jobs and works that worker processes can load: they copy files, crash, hang or fail as told. No torch."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from localdiff_cli.batch.work import Estimate, Outcome
from localdiff_cli.errors import ModelError, VolumeError
from localdiff_cli.volumes.whole import whole_file


def misbehave(how: str, marker: Path) -> None:
    """Do what ``how`` says; ``once-…`` only the first time that ``marker`` does not exist."""
    if how.startswith("once-"):
        if marker.exists():
            return
        marker.write_text("")
        how = how.removeprefix("once-")
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "exit":
        os._exit(7)
    elif how == "hang":
        time.sleep(600)
    elif how == "memory":
        raise MemoryError
    elif how == "volume":
        raise VolumeError("bad volume", code="truncated")
    elif how == "model":
        raise ModelError("bank does not fit")


@dataclass(frozen=True)
class ToyJob:
    """Tasks are words: what to do, then anything."""

    folder: Path
    load_how: str = ""

    def name(self, task):
        return task

    def load(self, say):
        say("loaded")
        misbehave(self.load_how, self.folder / "load")

        def act(task, attempt, on_slice):
            on_slice(1, 2)
            misbehave(task.split()[0], self.folder / task.replace(" ", "-"))
            return (task, attempt, os.getpid(), os.environ.get("OMP_NUM_THREADS"))

        return act

    def pause(self, result, attempt):
        if result[0].startswith("busy") and attempt == 1 and not (self.folder / "waited").exists():
            (self.folder / "waited").write_text("")
            return 0.2
        return 0.0 if result[1] in ("crash", "timeout") and attempt < 2 else None

    def lost(self, task, attempt, code, reason):
        return (task, code, reason, attempt)


@dataclass(frozen=True)
class CopyRecipe:
    """A work that copies its input to two outputs; ``trouble`` maps a file's name to what :func:`misbehave` does halfway."""

    out: Path
    folder: Path
    trouble: dict = field(default_factory=dict)
    seconds: float = 0.0
    parameter: int = 1
    device: str = "cpu"

    def outputs(self, item):
        return [self.out / item.relative, self.out / item.relative.with_name("extra_" + item.relative.name)]

    def load(self, say):
        return self

    @property
    def settings(self):
        return {"Command": "copy", "Parameter": self.parameter}

    def companions(self, item):
        return []

    def lacking(self, items):
        return {}

    def smaller(self):
        return None

    def estimate(self, shape):
        return Estimate(1.0, 100.0)

    def __call__(self, item, on_slice):
        for path in self.outputs(item):
            with whole_file(path) as partial:
                partial.write_bytes(item.path.read_bytes() * self.parameter)
                time.sleep(self.seconds)
                misbehave(self.trouble.get(item.path.name, ""), self.folder / f"{item.path.name}.marker")
        return Outcome({"Content": "copy"}, (), ({"slice": 1, "share": 0.5},))
