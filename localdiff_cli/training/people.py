"""The people of a cohort, of whatever kind: their files, what they suffer from, and their slices, prepared once.

Unlike the pairs of ``fit`` nobody needs a target or a mask. Beside ``sub-*_<condition>`` may lie ``_<target>``, ``_mask``
or ``_wmhauto`` (lesions), ``_ventricles`` and ``_brain``; ``participants.tsv`` names the split and the disease.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.errors import LocaldiffError
from localdiff_cli.evaluation.metrics.harm import labelled
from localdiff_cli.training.pairs import Pair, read_pairs
from localdiff_cli.training.slices import mask_from_file_or_empty
from localdiff_cli.training.tables import read_table
from localdiff_cli.volumes.brain import Brain, brain_from_file, check_same_grid
from localdiff_cli.volumes.files import stem
from localdiff_cli.volumes.formats import suffixes
from localdiff_cli.volumes.prepare import Prepared, PrepareSettings, prepare
from localdiff_cli.volumes.reader import open_volume
from localdiff_cli.volumes.whole import whole_file

CACHE_VERSION = 1
LESIONS = ("mask", "wmhauto")
KINDS = ("healthy", "elderly", "multiple sclerosis", "glioma", "metastasis")
"""Looked for in a participant's row where the table has no column ``disease``."""
NOT_SAID = "not said"


@dataclass(frozen=True)
class Person:
    """One person's files; what is None does not exist. ``kind``: of disease."""

    name: str
    kind: str
    condition: Path
    target: Path | None = None
    lesions: Path | None = None
    ventricles: Path | None = None
    brain: Path | None = None

    @property
    def files(self) -> tuple[Path | None, ...]:
        """All of them, in a fixed order."""
        return self.condition, self.target, self.lesions, self.ventricles, self.brain


@dataclass(frozen=True, eq=False)
class Slices:
    """A person's slices with brain on the network's grid: their canonical ``numbers``, ``thickness`` in mm and the volume's
    fingerprint.

    ``condition`` and ``target`` ``(S, H, W)`` uint16, 65535 = 1.0; ``lesions`` as in evaluation/metrics/harm.py;
    ``ventricles`` None where not known.
    """

    numbers: NDArray[np.int64]
    thickness: float
    fingerprint: str
    condition: NDArray[np.uint16]
    target: NDArray[np.uint16] | None
    brain: NDArray[np.bool_]
    lesions: NDArray[np.int16]
    ventricles: NDArray[np.bool_] | None


def people(data: Iterable[Path], condition: str, target: str, split: str | None, exclude: Collection[str] = ()) -> list[Person]:
    """Return everybody (of a split, where it is given) who has the condition; of those of ``exclude`` the split need not be
    known. Raise as :func:`read_pairs` does."""
    sources = list(data)
    rows = [row for source in sources if source.is_dir() for row in _participants(source)]
    kinds = {row["participant_id"]: kind_of(row) for row in rows}
    pairs = [pair for pair in read_pairs(sources, condition, target, exclude=exclude, everybody=True) if split in (None, pair.split)]
    return [_person(pair, condition, kinds.get(pair.name.split("_")[0], NOT_SAID)) for pair in pairs]


def spread(everybody: Sequence[Person], most: int) -> list[Person]:
    """Return at most so many of them, evenly spread over the list."""
    step = max(1, -(-len(everybody) // most))
    return list(everybody[::step])


def _participants(folder: Path) -> list[dict[str, str]]:
    table = folder / "participants.tsv"
    if not table.is_file():
        return []
    return [row for _, row in read_table(table).rows if "participant_id" in row]


def kind_of(row: dict[str, str]) -> str:
    """Return what a participant suffers from: the first words of ``disease``, up to a comma, else one of ``KINDS`` that the
    row names."""
    if row.get("disease"):
        return row["disease"].split(",")[0].strip()
    told = " ".join(filter(None, row.values())).lower()
    return next((kind for kind in KINDS if kind in told), NOT_SAID)


def _person(pair: Pair, condition: str, kind: str) -> Person:
    base = stem(pair.condition).removesuffix(f"_{condition}")

    def near(*names: str) -> Path | None:
        places = (pair.condition.with_name(f"{base}_{name}{suffix}") for name in names for suffix in suffixes())
        return next((place for place in places if place.is_file()), None)

    lesions = pair.mask or near(*LESIONS)
    return Person(pair.name, kind, pair.condition, pair.target, lesions, near("ventricles"), pair.brain or near("brain"))


@dataclass(frozen=True)
class Ready:
    """How condition and target are prepared."""

    condition: PrepareSettings
    target: PrepareSettings


def slices_of(person: Person, ready: Ready, cache: Path, report: Callable[[str], None]) -> Slices | None:
    """Return a person's slices, from ``cache`` if they were prepared before; None, and a report, for files that cannot be
    used."""
    path = cache / f"{person.name}-{digest([CACHE_VERSION, stamps(person), asdict(ready)])}.npz"
    try:
        if not path.is_file():
            with whole_file(path) as partial, partial.open("wb") as handle:
                np.savez_compressed(handle, allow_pickle=False, **_extract(person, ready))
    except LocaldiffError as error:
        report(f"left out {person.name}: {error}")
        return None
    with np.load(path) as arrays:
        found = {name: arrays[name] for name in arrays}
    told = {"thickness": float(found.pop("thickness")), "fingerprint": str(found.pop("fingerprint"))}
    return Slices(**{"target": None, "ventricles": None} | found | told)


def stamps(person: Person) -> list[tuple[str, int, int] | None]:
    """Return name, size and time of each file: another file is another person's."""
    return [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) if p else None for p in person.files]


def digest(key: list[Any]) -> str:
    """Return a name for what a key decides."""
    return hashlib.sha256(json.dumps(key, default=str).encode()).hexdigest()[:24]


def _extract(person: Person, ready: Ready) -> dict[str, NDArray[Any]]:
    volume = open_volume(person.condition, ready.condition.affine_from)
    brain = brain_from_file(person.brain, volume) if person.brain else None
    condition = prepare(volume, ready.condition, brain=brain)
    slices = [int(k) for k in np.flatnonzero(condition.brain.mask.any(axis=(1, 2)))]
    inside = {k: condition.network_slice(k)[1] for k in slices}
    kept = [k for k in slices if inside[k].any()]
    spacing = volume.frame.spacing
    lesions = labelled(mask_from_file_or_empty(person.lesions, condition), float(np.prod(spacing)) / 1000)
    arrays = {
        "numbers": np.array(kept), "thickness": np.array(spacing[0]), "fingerprint": np.array(condition.survey.fingerprint),
        "condition": _stack(condition, kept), "brain": np.stack([inside[k] for k in kept]),
        "lesions": np.stack([_labels(condition, lesions[k]) for k in kept]),
    }  # fmt: skip
    if person.ventricles is not None:
        ventricles = mask_from_file_or_empty(person.ventricles, condition)
        arrays["ventricles"] = np.stack([_mask(condition, ventricles[k]) for k in kept])
    if person.target is not None:
        arrays["target"] = _stack(_target(person.target, condition, ready.target), kept)
    return arrays


def _target(path: Path, condition: Prepared, settings: PrepareSettings) -> Prepared:
    """The target, made ready inside the condition's brain."""
    volume = open_volume(path, settings.affine_from)
    check_same_grid(volume, condition.volume, "target")
    return replace(prepare(volume, settings, brain=Brain(condition.brain.mask, condition.brain.source)), grid=condition.grid)


def _stack(prepared: Prepared, numbers: list[int]) -> NDArray[np.uint16]:
    return np.stack([np.rint(prepared.network_slice(k)[0] * 65535).astype(np.uint16) for k in numbers])


def _mask(prepared: Prepared, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return prepared.grid.to_network(mask, cubic=False) > 0.5


def _labels(prepared: Prepared, labels: NDArray[np.int16]) -> NDArray[np.int16]:
    """A slice of labels on the network's grid."""
    found = np.zeros(prepared.grid.shape, np.int16)
    for label in np.unique(labels[labels != 0]):
        found[_mask(prepared, labels == label)] = label
    return found
