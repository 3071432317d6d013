"""Training people translated as ``localdiff translate`` does it, slice by slice, for a network that learns from what was drawn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from localdiff_cli.errors import UsageError
from localdiff_cli.ood.detector import Detection
from localdiff_cli.tasks.judged import detect_among, draw, ready_for, taken
from localdiff_cli.tasks.translation import TranslateWork
from localdiff_cli.training.interval import ONE, Plane, Translated
from localdiff_cli.training.job import FitJob
from localdiff_cli.training.people import Person, Slices, digest, slices_of, stamps
from localdiff_cli.volumes.whole import whole_file

VERSION = 1
"""Increased when what is drawn of the same files by the same bundle changes."""
CHUNK = 8
"""Slices that are translated at once."""


def translate_people(job: FitJob, work: TranslateWork, people: Sequence[Person], every: int) -> Translated:
    """Translate every n-th slice of people with a target, once for each state of their files and settings; the slices stay
    in the job's work folder.

    Raise :class:`UsageError` where nobody can be used.
    """
    # The bundle's hash stands in several accounts; the network to be fitted changes it, and not what is drawn.
    drawn_by = json.dumps(work.settings).replace(work.bundle.hash, work.bundle.drawing_hash)
    paths = {p.name: job.work / "interval" / f"{digest([VERSION, drawn_by, stamps(p), every])}.npy" for p in people}
    for person in people[job.team.rank :: job.team.size]:
        if not paths[person.name].is_file():
            _translate(job, work, person, every, paths[person.name])
    job.team.wait()
    used = [name for name, path in paths.items() if path.is_file()]
    if not used:
        raise UsageError("nobody of the train split has a target that can be used; expected people with condition and target")
    return Translated(tuple(used), tuple(paths[name] for name in used), every)


def _translate(job: FitJob, work: TranslateWork, person: Person, every: int, path: Path) -> None:
    slices = slices_of(person, ready_for(work), job.work / "slices", job.say)
    if slices is None:
        return
    rows = range(0, len(slices.numbers), every)
    everywhere = detect_among(work, slices, rows)
    parts = [range(first, min(first + CHUNK, len(rows))) for first in range(0, len(rows), CHUNK)]
    planes = [_planes(work, slices, [rows[i] for i in part], taken(everywhere, part)) for part in parts]
    with whole_file(path) as partial, partial.open("wb") as handle:
        np.save(handle, np.concatenate(planes), allow_pickle=False)
    job.say(f"translated {person.name}")


def _planes(work: TranslateWork, slices: Slices, rows: Sequence[int], known: Detection) -> Plane:
    (drawn,) = draw(work, slices, rows, [work.mask.threshold], known=known)
    assert drawn.true is not None
    assert drawn.source is not None
    images = [np.rint(each * ONE).astype(np.uint16) for each in (drawn.ood_map, drawn.local, drawn.true)]
    return np.stack([slices.condition[list(rows)], *images, drawn.source.astype(np.uint16)], axis=1)
