"""Single slices, translated and judged: one record a slice, remembered on disk, and means over them with the patient as the unit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from examples.benchmarks.insertions import ring_of
from examples.benchmarks.mri import UNIT, Bench, Row
from examples.benchmarks.table import percent
from examples.benchmarks.translation import chunk_of
from localdiff_cli.bundle import open_bundle
from localdiff_cli.evaluation.cohort.statistics import Bootstrap, Interval, bootstrap_ratio
from localdiff_cli.evaluation.metrics.lesion import lesion_contrast
from localdiff_cli.evaluation.metrics.segmentation import slice_dice
from localdiff_cli.segmentation.network import lesion_probability
from localdiff_cli.tasks.sampling import SliceSampler
from localdiff_cli.tasks.slices import Chunk
from localdiff_cli.training.slices import PatientSlices
from localdiff_cli.volumes.whole import write_text

HOST_SHARE = 1 / 4
Record = dict[str, Any]
"""What was measured on one slice: numbers, and None where there is nothing to measure."""

LOCAL_ROWS = (
    Row("plain", "none"),
    Row("local, segmenter map, expert", "segmenter", expert=True),
    Row("local, patchcore, expert", "patchcore", expert=True),
)


@dataclass(frozen=True, eq=False)
class Slices:
    """Slices of one patient on the network's grid: their ``numbers``, ``condition`` and ``target`` ``(N, H, W)`` in [0, 1], masks bool."""

    patient: str
    numbers: tuple[int, ...]
    condition: NDArray[np.float32]
    target: NDArray[np.float32]
    brain: NDArray[np.bool_]
    lesion: NDArray[np.bool_]

    def only(self, wanted: NDArray[np.bool_]) -> Slices:
        """Those that ``wanted`` ``(N,)`` says."""
        numbers = tuple(np.array(self.numbers)[wanted].tolist())
        return Slices(self.patient, numbers, self.condition[wanted], self.target[wanted], self.brain[wanted], self.lesion[wanted])

    @property
    def with_lesion(self) -> Slices:
        """Slices with a lesion pixel inside the brain."""
        return self.only(np.asarray((self.lesion & self.brain).any(axis=(1, 2))))

    @property
    def hosts(self) -> Slices:
        """Lesion-free slices with at least ``HOST_SHARE`` of the brain of the patient's largest one."""
        area = self.brain.sum(axis=(1, 2))
        return self.only(~self.lesion.any(axis=(1, 2)) & (area >= HOST_SHARE * area.max()))


def slices_of(patient: PatientSlices, every: int) -> Slices:
    """Every n-th slice of a patient."""
    chunk, target, lesion = chunk_of(patient, every)
    return Slices(patient.name, chunk.numbers, chunk.condition[:, 0].numpy(), target, chunk.brain[:, 0].numpy(), lesion)


def translate(bench: Bench, row: Row, slices: Slices) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The image that a row makes of each slice and B, ``(N, H, W)``; a row of source ``true`` gives the target. Noise as for the slice."""
    if row.source == "true":
        return slices.target, np.zeros_like(slices.brain)
    condition, brain = torch.from_numpy(slices.condition)[:, None], torch.from_numpy(slices.brain)[:, None]
    chunk = Chunk(slices.numbers, tuple(range(len(condition))), condition, brain)
    nothing = torch.zeros_like(brain)
    found: tuple[Tensor, Tensor] = (nothing.float(), nothing)
    if row.source != "none":
        found = bench.region(row, chunk, torch.from_numpy(slices.lesion)[:, None])
    networks = bench.networks if row.expert else replace(bench.networks, expert=None)
    settings = replace(bench.settings, mode="plain" if row.source == "none" else "local")
    image = SliceSampler(networks, settings, slices.patient)(chunk, *found)[0]
    return image[:, 0].numpy(), found[1][:, 0].numpy()


def marked(bench: Bench, image: NDArray[np.float32], brain: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What the frozen segmenter of the target contrast marks, ``(N, H, W)``."""
    probability = lesion_probability(bench.segmenter, torch.from_numpy(image)[:, None], torch.from_numpy(brain)[:, None])
    return probability[:, 0].numpy() >= bench.cut


def judge(bench: Bench, image: NDArray[np.float32], ood_mask: NDArray[np.bool_], slices: Slices) -> list[Record]:
    """One record for each slice that shows a lesion.

    ``covered``, ``elsewhere``: the share of the lesion, and of the brain without it, that lies in B; ``flagged``: B is not empty; ``dice``
    of the segmenter on the image, ``true_dice`` on the target; contrast of lesion to ring in ``condition``, ``target`` and ``image``.
    """
    spacing, lesion = bench.bundle.grid.spacing, slices.lesion & slices.brain
    dice = slice_dice(marked(bench, image, slices.brain), lesion)
    true_dice = slice_dice(marked(bench, slices.target, slices.brain), lesion)
    records = []
    for i, number in enumerate(slices.numbers):
        brain, inside = slices.brain[i], lesion[i]
        ring, outside = ring_of(inside, brain, spacing), brain & ~inside
        images = {"condition": slices.condition[i], "target": slices.target[i], "image": image[i]}
        record = {name: lesion_contrast(each, inside, ring, UNIT).value for name, each in images.items()}
        record |= {"number": number, "dice": float(dice[i]), "true_dice": float(true_dice[i]), "flagged": bool(ood_mask[i].any())}
        record |= {"covered": float(ood_mask[i][inside].mean()), "elsewhere": float(ood_mask[i][outside].mean())}
        records.append(record)
    return records


def remembered(folder: Path, key: list[Any], make: Callable[[], list[Record]]) -> list[Record]:
    """What ``make`` gives, from ``folder`` if the same ``key`` was measured before."""
    path = folder / f"{hashlib.sha256(json.dumps(key, default=str).encode()).hexdigest()[:24]}.json"
    if not path.is_file():
        write_text(path, json.dumps(make()))
    records: list[Record] = json.loads(path.read_text(encoding="utf-8"))
    return records


def key_of(bench: Bench, row: Row, slices: Slices) -> list[Any]:
    """What decides a row's records of given slices: bundle, judge, detector, settings, and the slices themselves."""
    judge_hash = open_bundle(bench.bundle.target.segmenter).hash
    finder_hash = open_bundle(bench.bundle.finder).hash if row.source == "segmenter" else None
    content = hashlib.sha256()
    for array in (slices.condition, slices.target, slices.brain, slices.lesion):
        content.update(np.ascontiguousarray(array).tobytes())
    hashes = [bench.bundle.hash, judge_hash, finder_hash, content.hexdigest()]
    return [*hashes, asdict(row), asdict(bench.settings), slices.patient, slices.numbers]


def usable(bench: Bench, rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows that the bundle can run: those of an expert only if it has one."""
    return tuple(row for row in rows if bench.networks.expert or not row.expert)


def judged(bench: Bench, row: Row, slices: Slices, folder: Path) -> list[Record]:
    """A row's records of some slices, remembered in ``folder``."""
    if not slices.numbers:
        return []
    return remembered(folder, key_of(bench, row, slices), lambda: judge(bench, *translate(bench, row, slices), slices))


def mean(patients: Sequence[Sequence[Record]], value: Callable[[Record], float | None], empty: str) -> Interval:
    """Mean of ``value`` over all slices that have it, whole patients resampled; patients without such a slice are left out."""
    known = [[v for v in map(value, records) if v is not None] for records in patients]
    known = [values for values in known if values]
    return bootstrap_ratio([sum(values) for values in known], [len(values) for values in known], Bootstrap(), empty)


def detects(row: Row) -> bool:
    """Whether a row has an OOD region."""
    return row.source not in ("true", "polynomial", "none")


def in_mask(row: Row, patients: Sequence[Sequence[Record]], what: str) -> dict[str, str]:
    """How much of ``what`` was changed, and of the rest of the brain, lies in B; empty for a row without an OOD region."""
    shares = {f"{what} in B %": "covered", "rest of brain in B %": "elsewhere"}
    return {name: percent(mean(patients, itemgetter(key), "no slice")) if detects(row) else "" for name, key in shares.items()}


def count(patients: Sequence[Sequence[Record]]) -> str:
    """``slices / patients`` for a table."""
    return f"{sum(map(len, patients))} / {sum(1 for records in patients if records)}"
