"""Misdiagnosis over all patients: pooled shares with intervals over patients, reduction against the baseline, the sweep of
delta."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.evaluation.cohort.statistics import Bootstrap, Interval, bootstrap_ratio, bootstrap_sums
from localdiff_cli.evaluation.metrics.case import CaseResult
from localdiff_cli.evaluation.metrics.misdiagnosis import (
    MisdiagnosisSettings,
    SliceCounts,
    judge_slices,
    patient_missed,
    relative_reduction,
    tally,
)

NO_LESION = "no lesion-bearing {} whose lesion the segmenter finds on the true contrast"
NO_FREE = "no lesion-free slice"


@dataclass(frozen=True)
class Rate:
    """``count`` of ``total``: ``key`` missed, missed_patients or invented; ``arm`` the prefix of the image it is about.

    The share pools all slices; its interval resamples whole patients.
    """

    key: str
    arm: str
    count: int
    total: int
    share: Interval


@dataclass(frozen=True)
class Reduction:
    """1 − translation's share / baseline's share of a rate; negative where the translation is worse."""

    key: str
    interval: Interval


@dataclass(frozen=True)
class SweepPoint:
    """The missed rate at another ``delta``."""

    delta: float
    rate: Rate


@dataclass(frozen=True)
class CohortMisdiagnosis:
    """Rates by arm (the reference has only invented: the segmenter's own false alarms), reductions, and the sweep."""

    rates: tuple[Rate, ...]
    reductions: tuple[Reduction, ...]
    sweep: tuple[SweepPoint, ...]

    def rate(self, key: str, arm: str = "") -> Rate | None:
        """Return the rate of an arm, None where it was not computed."""
        return next((rate for rate in self.rates if (rate.key, rate.arm) == (key, arm)), None)


def cohort_misdiagnosis(
    patients: Mapping[str, Sequence[CaseResult]], settings: MisdiagnosisSettings, bootstrap: Bootstrap
) -> CohortMisdiagnosis | None:
    """Count over all patients (name → their volumes); None where no volume has the masks it takes."""
    judged = {arm: _with_arm(patients, arm) for arm in ("", "baseline_", "reference_")}
    rates: list[Rate] = []
    for arm, group in judged.items():
        if group:
            pairs = _pairs(group, arm, settings)
            keys = ("invented",) if arm == "reference_" else tuple(pairs)
            rates += [_rate(key, arm, pairs[key], bootstrap) for key in keys]
    if not rates:
        return None
    arms = [arm for arm in ("", "baseline_") if judged[arm]]
    sweep = tuple(
        SweepPoint(delta, _rate("missed", arm, _missed_pairs(judged[arm], arm, settings, delta), bootstrap))
        for delta in sorted({*settings.sweep, settings.delta})
        for arm in arms
    )
    return CohortMisdiagnosis(tuple(rates), _reductions(patients, settings, bootstrap), sweep)


def _with_arm(patients: Mapping[str, Sequence[CaseResult]], *arms: str) -> list[list[CaseResult]]:
    """For each patient the volumes that have evidence for all ``arms``; patients without one are left out."""
    groups = [[case for case in cases if all(arm in case.evidence for arm in arms)] for cases in patients.values()]
    return [group for group in groups if group]


def _pairs(group: list[list[CaseResult]], arm: str, settings: MisdiagnosisSettings) -> dict[str, NDArray[np.float64]]:
    """For each rate, (count, total) of each patient, ``(patients, 2)``."""
    tallies = [_tally_of(cases, arm, settings) for cases in group]
    return {
        "missed": _missed_pairs(group, arm, settings, settings.delta),
        "missed_patients": np.array([_patient_pair(cases, arm, settings) for cases in group], np.float64),
        "invented": np.array([(each.invented, each.lesion_free) for each in tallies], np.float64),
    }


def _missed_pairs(group: list[list[CaseResult]], arm: str, settings: MisdiagnosisSettings, delta: float) -> NDArray[np.float64]:
    tallies = [_tally_of(cases, arm, settings, delta) for cases in group]
    return np.array([(each.missed, each.found) for each in tallies], np.float64)


def _tally_of(cases: list[CaseResult], arm: str, settings: MisdiagnosisSettings, delta: float | None = None) -> SliceCounts:
    """One patient's slices counted over all its volumes."""
    tallies = [tally(judge_slices(case.evidence[arm], settings, delta)) for case in cases]
    return SliceCounts(*(sum(getattr(each, name) for each in tallies) for name in SliceCounts.__dataclass_fields__))


def _patient_pair(cases: list[CaseResult], arm: str, settings: MisdiagnosisSettings) -> tuple[int, int]:
    """(missed, counts) of one patient: one volume that loses its lesion is enough to be missed."""
    verdicts = [_volume_verdict(case, arm, settings) for case in cases]
    return int(any(missed for _, missed in verdicts)), int(any(counts for counts, _ in verdicts))


def _volume_verdict(case: CaseResult, arm: str, settings: MisdiagnosisSettings) -> tuple[bool, bool]:
    counts = tally(judge_slices(case.evidence[arm], settings))
    own = case.metrics[f"{arm}dice"].value
    # Without an expert mask the reference's own segmentation is the truth: it agrees with itself.
    true = case.metrics["reference_dice"].value if "reference_dice" in case.metrics else 1.0
    return patient_missed(counts, own or 0.0, true or 0.0, settings.delta)


def _rate(key: str, arm: str, pairs: NDArray[np.float64], bootstrap: Bootstrap) -> Rate:
    counted = pairs[pairs[:, 1] > 0]
    empty = NO_FREE if key == "invented" else NO_LESION.format("patient" if key == "missed_patients" else "slice")
    share = bootstrap_ratio(list(counted[:, 0]), list(counted[:, 1]), bootstrap, empty)
    return Rate(key, arm, int(pairs[:, 0].sum()), int(pairs[:, 1].sum()), share)


def _reductions(
    patients: Mapping[str, Sequence[CaseResult]], settings: MisdiagnosisSettings, bootstrap: Bootstrap
) -> tuple[Reduction, ...]:
    """Reduction of each rate, over the volumes that have both translation and baseline."""
    both = _with_arm(patients, "", "baseline_")
    if not both:
        return ()
    own, base = _pairs(both, "", settings), _pairs(both, "baseline_", settings)
    return tuple(Reduction(key, _reduction(own[key], base[key], bootstrap)) for key in own)


def _reduction(own: NDArray[np.float64], base: NDArray[np.float64], bootstrap: Bootstrap) -> Interval:
    rows = np.column_stack((own, base))[own[:, 1] > 0]
    empty = "the baseline's share is 0: nothing to reduce" if len(rows) and own[:, 1].sum() else "no slice or patient to count"
    return bootstrap_sums(rows, _reduction_of_sums, bootstrap, empty)


def _reduction_of_sums(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns missed, found, baseline's missed, baseline's found → reduction; NaN where it is undefined."""
    values = [relative_reduction(a / b, c / d) if b and d else None for a, b, c, d in sums]
    return np.array([np.nan if value is None else value for value in values])
