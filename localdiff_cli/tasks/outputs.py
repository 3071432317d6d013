"""What a command writes for a volume: the plan of its outputs, and their open writers."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.batch.discover import Item
from localdiff_cli.roles import Role
from localdiff_cli.volumes.contrast import beside, renamed
from localdiff_cli.volumes.prepare import Prepared
from localdiff_cli.volumes.writer import SliceWriter, output_files


@dataclass(frozen=True)
class Output:
    """One volume to write: its path, data type, header description and stored scale (slope, intercept)."""

    path: Path
    dtype: str
    description: str
    scale: tuple[float, float] = (1.0, 0.0)


@dataclass(frozen=True)
class OutputPlan:
    """Where the outputs of every item go: below ``out``, under the item's relative name, its BIDS ``suffix`` replaced on
    request."""

    out: Path
    roles: tuple[Role, ...]
    suffix: str | None = None

    def wanted(self, item: Item, scale: tuple[float, float] = (1.0, 0.0)) -> dict[str, Output]:
        """Return the outputs by role, the main one first; ``scale`` is that of its stored values."""
        scales = [scale] + [(1.0, 0.0)] * (len(self.roles) - 1)
        paired = zip(self.roles, scales, strict=True)
        return {role.name: Output(self.path(item, role), role.dtype, role.description, s) for role, s in paired}

    def path(self, item: Item, role: Role) -> Path:
        """Return where one kind of output goes."""
        base = self.out / renamed(item.relative, self.suffix)
        return beside(base, role.ending) if role.ending else base

    def outputs(self, item: Item) -> list[Path]:
        """Return all volumes written, the main one first."""
        return [output.path for output in self.wanted(item).values()]

    @property
    def saved(self) -> list[str]:
        """The roles beside the main one, for the sidecar."""
        return sorted(role.name for role in self.roles[1:])


class Outputs:
    """The open writers of one volume's outputs, by role; all appear whole or none does."""

    def __init__(self, prepared: Prepared, wanted: dict[str, Output]) -> None:
        self._prepared = prepared
        self._wanted = wanted
        self._stack = ExitStack()
        self._writers: dict[str, SliceWriter] = {}
        self._before: dict[Path, int] = {}

    def __enter__(self) -> Outputs:
        self._before = self._present()
        with ExitStack() as stack:
            for role, o in self._wanted.items():
                o.path.parent.mkdir(parents=True, exist_ok=True)
                writer = SliceWriter(o.path, self._prepared.volume, dtype=o.dtype, description=o.description, scale=o.scale)
                self._writers[role] = stack.enter_context(writer)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self._stack.__exit__(*error)
        except BaseException:
            # One could not be put in place: those that were go again.
            for path, inode in self._present().items():
                if self._before.get(path) != inode:
                    path.unlink(missing_ok=True)
            raise

    def _present(self) -> dict[Path, int]:
        """The files of the outputs that exist now, with their inodes."""
        return {path: path.stat().st_ino for o in self._wanted.values() for path in output_files(o.path) if path.exists()}

    def write(self, k: int, images: dict[str, NDArray[Any]], *, later: str = "") -> None:
        """Write slice ``k`` of every output; a role without an image gets zeros. ``later`` names one whose slices come
        afterwards."""
        shape = self._prepared.volume.frame.shape[1:]
        for role in self._writers.keys() - {later}:
            self._writers[role].write(k, images[role] if role in images else np.zeros(shape, dtype=np.float32))

    def write_one(self, role: str, k: int, image: NDArray[Any]) -> None:
        """Write slice ``k`` of one output."""
        self._writers[role].write(k, image)
