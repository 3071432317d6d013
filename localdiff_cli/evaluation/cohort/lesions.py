"""Lesions one by one over all patients, by size: how many are missed, how many invented, how much of their contrast is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from localdiff_cli.evaluation.cohort.statistics import Bootstrap, Interval, bootstrap_ratio
from localdiff_cli.evaluation.metrics.case import CaseResult
from localdiff_cli.evaluation.metrics.lesions import SIZES, LesionResult
from localdiff_cli.evaluation.metrics.measure import rounded, values_of

ALL_SIZES = "all sizes"


@dataclass(frozen=True)
class LesionRow:
    """Lesions of one ``size`` on the image of one ``arm``.

    ``missed`` of ``total`` lesions with their ``share`` (resampled by patient): of those found on the true contrast where a
    segmenter was run on it, else of all. ``invented``: marked components that touch no lesion. ``kept``: median over
    lesions of the contrast kept.
    """

    size: str
    arm: str
    lesions: int
    total: int
    missed: int
    invented: int
    share: Interval
    kept: float | None


def lesion_rows(patients: Mapping[str, Sequence[CaseResult]], bootstrap: Bootstrap) -> tuple[LesionRow, ...]:
    """Return a row for each size and arm that has masks; empty where no lesion was judged one by one."""
    lesions = {patient: [each for case in cases for each in case.lesions] for patient, cases in patients.items()}
    every = [each for own in lesions.values() for each in own]
    arms = [arm for arm in ("", "baseline_") if any(arm in each.found or each.image == arm for each in every)]
    return tuple(_row(size, arm, lesions, bootstrap) for size in (ALL_SIZES, *SIZES) for arm in arms)


def _row(size: str, arm: str, patients: Mapping[str, Sequence[LesionResult]], bootstrap: Bootstrap) -> LesionRow:
    fitting = {patient: [each for each in own if size in (ALL_SIZES, each.size)] for patient, own in patients.items()}
    true = {patient: [each for each in own if each.image is None and arm in each.found] for patient, own in fitting.items()}
    counted = {patient: [each for each in own if each.found.get("reference_", True)] for patient, own in true.items()}
    missed = {patient: sum(not each.found[arm] for each in own) for patient, own in counted.items()}
    totals = {patient: len(own) for patient, own in counted.items() if own}
    share = bootstrap_ratio(
        [missed[patient] for patient in totals], list(totals.values()), bootstrap, "no lesion of this size that the segmenter finds"
    )
    kept = values_of(each.kept[arm] for own in true.values() for each in own if arm in each.kept)
    return LesionRow(
        size, arm, sum(map(len, true.values())), sum(totals.values()), sum(missed[patient] for patient in totals),
        sum(each.image == arm for own in fitting.values() for each in own), share, rounded(np.median(kept)) if kept else None,
    )  # fmt: skip
