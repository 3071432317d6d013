"""A cohort measured, person by person: losses at every cut of the grid, and the portrait. What was measured stays in the work folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localdiff_cli.guarantees.certificate import comparable
from localdiff_cli.guarantees.losses import Record, record_of
from localdiff_cli.guarantees.strangeness import Painter, Portrait, painter
from localdiff_cli.tasks.judged import chunk_of, detect, draw, ready_for, scene_of
from localdiff_cli.tasks.translation import TranslateWork
from localdiff_cli.training.people import Person, Slices, digest, slices_of, stamps
from localdiff_cli.volumes.whole import write_text

VERSION = 1
CHUNK = 8


@dataclass(frozen=True, eq=False)
class Measurement:
    """How a cohort is measured: the translation, the grid of cuts, every n-th slice; ``work`` folder, and where to report."""

    translation: TranslateWork
    taus: tuple[float, ...]
    every: int
    folder: Path
    say: Callable[[str], None]

    def record(self, person: Person) -> Record | None:
        """A person's losses and portrait, from the folder if they were measured before; None for files that cannot be used."""
        key = [VERSION, comparable(self.translation.settings), self.taus, self.every, stamps(person)]
        path = self.folder / f"{digest(key)}.json"
        if not path.is_file():
            slices = slices_of(person, ready_for(self.translation), self.folder / "slices", self.say)
            if slices is None:
                return None
            write_text(path, json.dumps(self._measured(slices)))
            self.say(f"measured {person.name}")
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return record

    def _measured(self, slices: Slices) -> Record:
        rows = range(0, len(slices.numbers), self.every)
        scenes = [scene_of(self.translation, slices, self.every, tau) for tau in self.taus]
        drawings = list(zip(draw(self.translation, slices, rows, self.taus), scenes, strict=True))
        return record_of(drawings) | {"portrait": portrait_of(self.translation, slices, painter())}


def portrait_of(work: TranslateWork, slices: Slices, into: Painter) -> Portrait:
    """The portrait of a person, of all slices."""
    count = len(slices.numbers)
    for first in range(0, count, CHUNK):
        chunk = chunk_of(slices, range(first, min(first + CHUNK, count)))
        into.see(chunk.active_numbers, chunk.condition, chunk.brain, detect(work, chunk).ood_map)
    return into.portrait()


def known_patients(accounts: Sequence[Any]) -> set[str]:
    """Every patient that the metadata of bundles name as used, wherever in them ``patients`` are listed."""
    names: set[str] = set()
    for account in accounts:
        for key, value in account.items() if isinstance(account, dict) else ():
            if key == "patients":
                lists = value.values() if isinstance(value, dict) else [value]
                names |= {name for each in lists if isinstance(each, list) for name in each if isinstance(name, str)}
            names |= known_patients([value])
    return names
