"""A cohort measured, person by person: what was drawn at every place of the grid, and the portrait. It stays in the work
folder."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from localdiff_cli.evaluation.metrics.harm import Drawn
from localdiff_cli.guarantees.certificate import comparable
from localdiff_cli.guarantees.interval_network import IntervalNetwork, distances
from localdiff_cli.guarantees.intervals import Curve, Limits, Voxels, residuals
from localdiff_cli.guarantees.losses import Record, record_of
from localdiff_cli.guarantees.strangeness import EVERY, Painter, Portrait, on_grid, painter
from localdiff_cli.tasks.judged import CHUNK, chunk_of, detect, draw, ready_for, scene_of
from localdiff_cli.tasks.translation import TranslateWork
from localdiff_cli.training.people import Person, Slices, digest, slices_of, stamps
from localdiff_cli.volumes.reader import open_volume
from localdiff_cli.volumes.whole import whole_file

VERSION = 5
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Measurement:
    """How people are measured: the translation, the grid, every n-th slice; the ``folder`` of what was, and where to
    report.

    The grid is every cut of ``taus`` with the first of ``emphases``, then with the next; where there are none, with the
    translation's own. ``network``: what begins the bands (None: nothing but the drawn value).
    """

    translation: TranslateWork
    taus: tuple[float, ...]
    every: int
    folder: Path
    say: Callable[[str], None]
    emphases: tuple[float, ...] = ()
    network: IntervalNetwork | None = None

    @property
    def grid(self) -> tuple[tuple[float, float], ...]:
        """Emphasis and cut of every place of the grid."""
        return tuple(product(self.emphases or (self.translation.sample.local.emphasis,), self.taus))

    def record(self, person: Person, curves: Mapping[str, Curve]) -> Record | None:
        """Return a person's losses, residuals about ``curves`` of the bands, and portrait; None for files that cannot be
        used."""
        drawn, portrait = self.drawn(person), self.portrait(person)
        if drawn is None or portrait is None:
            return None
        record, voxels = drawn
        counted = [None if each.true.size == 0 else residuals(each, curves) for each in voxels]
        at_places = [told | {"residuals": each} for told, each in zip(record["grid"], counted, strict=True)]
        return record | {"grid": at_places, "portrait": portrait}

    def drawn(self, person: Person) -> tuple[Record, list[Voxels]] | None:
        """Return what the losses are made of, and the brain's voxels at each place of the grid; None for files that cannot
        be used."""
        begins = [] if self.network is None else [asdict(self.network.settings)]
        found = self._remembered(person, [comparable(self.translation.settings), self.grid, self.every, *begins], self._draw)
        if found is None:
            return None
        record: Record = json.loads(str(found["record"]))
        return record, [
            Voxels(found["true"], found[f"image{k}"], found[f"source{k}"], found["lesion"], _begun(found, k)) for k in range(len(self.grid))
        ]

    def portrait(self, person: Person) -> Portrait | None:
        """Return the portrait of a person's whole volume, which does not depend on what is drawn; None for files that
        cannot be used."""
        settings = self.translation.settings
        found = self._remembered(person, ["portrait", settings["Detector"], settings["Prepare"]], self._paint)
        if found is None:
            return None
        spacing = open_volume(person.condition, self.translation.prepare.affine_from).frame.spacing
        return on_grid(json.loads(str(found["portrait"])), spacing)

    def _remembered(self, person: Person, key: list[Any], measure: Callable[[Slices], Arrays]) -> Arrays | None:
        """The arrays of a measurement, from the folder if it was made before."""
        path = self.folder / f"{digest([VERSION, stamps(person), *key])}.npz"
        if not path.is_file():
            slices = slices_of(person, ready_for(self.translation), self.folder / "slices", self.say)
            if slices is None:
                return None
            with whole_file(path) as partial, partial.open("wb") as handle:
                np.savez_compressed(handle, allow_pickle=False, **measure(slices))
            self.say(f"measured {person.name}")
        with np.load(io.BytesIO(path.read_bytes())) as arrays:
            return {name: arrays[name] for name in arrays}

    def _draw(self, slices: Slices) -> Arrays:
        rows = range(0, len(slices.numbers), self.every)
        scenes = [scene_of(self.translation, slices, self.every, tau) for _, tau in self.grid]
        drawings = list(draw(self.translation, slices, rows, self.taus, self.emphases or None))
        first, inside = drawings[0], drawings[0].brain
        images = [(f"image{k}", drawn.local[inside].astype(np.float32)) for k, drawn in enumerate(drawings)]
        labels = [(f"source{k}", _labels(drawn)[inside]) for k, drawn in enumerate(drawings)]
        limits = self._limits(drawings, chunk_of(slices, rows).condition) if self.network else []
        record = record_of(list(zip(drawings, scenes, strict=True)))
        return {
            "record": np.array(json.dumps(record)), "lesion": (first.lesions != 0)[inside],
            "true": np.zeros(0, np.float32) if first.true is None else first.true[inside].astype(np.float32),
            **dict(images), **dict(labels), **dict(limits),
        }  # fmt: skip

    def _limits(self, drawings: Sequence[Drawn], condition: Tensor) -> list[tuple[str, NDArray[np.float32]]]:
        """The network's limits of the brain's voxels at every place of the grid."""
        assert self.network is not None
        limits = []
        for place, drawn in enumerate(drawings):
            ood_map, image = (torch.from_numpy(each).float()[:, None] for each in (drawn.ood_map, drawn.local))
            below, above = distances(self.network, condition, ood_map, image).numpy().swapaxes(0, 1)
            limits += [(f"low{place}", (drawn.local - below)[drawn.brain]), (f"high{place}", (drawn.local + above)[drawn.brain])]
        return limits

    def _paint(self, slices: Slices) -> Arrays:
        return {"portrait": np.array(json.dumps(portrait_of(self.translation, slices, painter())))}


def _begun(found: Arrays, place: int) -> Limits | None:
    """The network's limits at a place of the grid; None where none were measured."""
    return (found[f"low{place}"], found[f"high{place}"]) if f"low{place}" in found else None


def _labels(drawn: Drawn) -> Any:
    assert drawn.source is not None
    return drawn.source


def portrait_of(work: TranslateWork, slices: Slices, into: Painter) -> Portrait:
    """Return the portrait of a person, of the slices that a painter looks at."""
    looked_at = [row for row, number in enumerate(slices.numbers) if number % EVERY == 0]
    for first in range(0, len(looked_at), CHUNK):
        chunk = chunk_of(slices, looked_at[first : first + CHUNK])
        into.see(chunk.active_numbers, chunk.condition, chunk.brain, detect(work, chunk).ood_map)
    return into.portrait()


def known_patients(accounts: Sequence[Any]) -> dict[str, set[str]]:
    """Return the patients whom the metadata of bundles names, wherever it lists ``patients``: those who ``trained`` them,
    and others.

    The others, ``chose``, are those of a list ``val``: settings were chosen on them.
    """
    names: dict[str, set[str]] = {"trained": set(), "chose": set()}
    for account in accounts:
        for key, value in account.items() if isinstance(account, dict) else ():
            if key == "patients":
                lists = value if isinstance(value, dict) else {"train": value}
                for split, each in lists.items():
                    listed = {name for name in each if isinstance(name, str)} if isinstance(each, list) else set()
                    names["chose" if split == "val" else "trained"] |= listed
            for use, further in known_patients([value]).items():
                names[use] |= further
    return names
