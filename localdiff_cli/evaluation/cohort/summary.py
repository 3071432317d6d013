"""All volumes together: figures over patients with intervals, comparison with the baseline, contrast agreement, misdiagnosis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from localdiff_cli.errors import NoInputError
from localdiff_cli.evaluation.cohort.counts import CohortMisdiagnosis, cohort_misdiagnosis
from localdiff_cli.evaluation.cohort.judge import Judge, judge_of
from localdiff_cli.evaluation.cohort.lesions import LesionRow, lesion_rows
from localdiff_cli.evaluation.cohort.realism import Realism, realism
from localdiff_cli.evaluation.cohort.statistics import Bootstrap, Interval, PairedTest, bootstrap_mean, paired_test
from localdiff_cli.evaluation.metrics.case import CaseResult
from localdiff_cli.evaluation.metrics.catalogue import JUDGED, in_table_order, split_arm
from localdiff_cli.evaluation.metrics.lesion import ContrastAgreement, contrast_agreement
from localdiff_cli.evaluation.metrics.measure import Measure, measured, missing, rounded, values_of
from localdiff_cli.evaluation.settings import FigureSettings

NOT_GIVEN = "not computed for this volume: an input it takes was not given"


@dataclass(frozen=True)
class Unpaired:
    """A file that was not evaluated, by name, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class MetricSummary:
    """One figure over patients (a patient's volumes are averaged first): mean with interval, median.

    ``missing`` counts the volumes without a number, ``reasons`` says why.
    """

    key: str
    mean: Interval
    median: float | None
    missing: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """A figure of the translation against the same one of the baseline, over patients that have both."""

    key: str
    test: PairedTest


@dataclass(frozen=True)
class Summary:
    """An evaluation. ``volumes`` sorted by name; ``run`` what was run (versions, bundles, hashes); ``contrast`` by arm,
    over patients.

    Where the ``judge`` is not usable, no figure over patients is built on the segmenter: they are withheld, with the
    reason.
    """

    volumes: tuple[CaseResult, ...]
    patients: tuple[str, ...]
    unpaired: tuple[Unpaired, ...]
    settings: FigureSettings
    run: Mapping[str, Any]
    metrics: tuple[MetricSummary, ...]
    comparisons: tuple[Comparison, ...]
    contrast: Mapping[str, ContrastAgreement]
    misdiagnosis: CohortMisdiagnosis | None
    realism: tuple[Realism, ...] = ()
    judge: Judge | None = None
    lesions: tuple[LesionRow, ...] = ()

    @property
    def withheld(self) -> str:
        """Why figures that are built on the segmenter are withheld; empty where they are not."""
        return self.judge.reason if self.judge else ""

    def metric(self, key: str) -> MetricSummary | None:
        """Return the summary of a figure, None where it was not computed."""
        return next((metric for metric in self.metrics if metric.key == key), None)

    def comparison(self, key: str) -> PairedTest | None:
        """Return the paired test of a figure, None where there is no baseline."""
        return next((comparison.test for comparison in self.comparisons if comparison.key == key), None)


def summarise(
    results: Sequence[CaseResult], settings: FigureSettings, unpaired: Sequence[Unpaired] = (), run: Mapping[str, Any] | None = None
) -> Summary:
    """Aggregate the results of all volumes. Raise :class:`NoInputError` when there is none."""
    if not results:
        raise NoInputError("evaluation: no pair of translation and reference could be evaluated", code="no-pairs")
    volumes = tuple(sorted(results, key=lambda case: case.name))
    patients = _by_patient(volumes)
    bootstrap = Bootstrap(settings.confidence, settings.resamples, settings.seed)
    keys = in_table_order({key for case in volumes for key in case.metrics})
    judge = judge_of(patients, settings.judge_dice)
    withheld = judge.reason if judge else ""
    return Summary(
        volumes=volumes,
        patients=tuple(patients),
        unpaired=tuple(sorted(unpaired, key=lambda each: each.name)),
        settings=settings,
        run=dict(run or {}),
        metrics=tuple(_metric_summary(key, volumes, patients, bootstrap, withheld if _judged(key) else "") for key in keys),
        comparisons=_comparisons([key for key in keys if not (withheld and _judged(key))], patients, bootstrap),
        contrast=_contrast(keys, patients),
        misdiagnosis=None if withheld else cohort_misdiagnosis(patients, settings.misdiagnosis, bootstrap),
        realism=realism(volumes, settings.seed),
        judge=judge,
        lesions=() if withheld else lesion_rows(patients, bootstrap),
    )


def measure_of(case: CaseResult, key: str) -> Measure:
    """Return a volume's figure; where its inputs were not given, a reason."""
    return case.metrics.get(key, missing(NOT_GIVEN))


def patient_values(patients: Mapping[str, Sequence[CaseResult]], key: str) -> dict[str, float]:
    """Return the mean of the figure over each patient's volumes; patients without a number are left out."""
    values = {patient: values_of(measure_of(case, key) for case in cases) for patient, cases in patients.items()}
    return {patient: float(np.mean(numbers)) for patient, numbers in values.items() if numbers}


def by_patient(summary: Summary) -> dict[str, list[CaseResult]]:
    """Return the volumes of each patient."""
    return _by_patient(summary.volumes)


def _by_patient(volumes: Sequence[CaseResult]) -> dict[str, list[CaseResult]]:
    patients: dict[str, list[CaseResult]] = {}
    for case in volumes:
        patients.setdefault(case.patient, []).append(case)
    return patients


def _judged(key: str) -> bool:
    """Whether a figure is built on the segmenter's mask of an image under judgement."""
    arm, metric = split_arm(key)
    return metric.group in JUDGED and arm != "reference_"


def _metric_summary(
    key: str, volumes: Sequence[CaseResult], patients: Mapping[str, Sequence[CaseResult]], bootstrap: Bootstrap, withheld: str
) -> MetricSummary:
    """A figure over patients, or, where it is ``withheld``, why."""
    if withheld:
        return MetricSummary(key, Interval(None, None, None, bootstrap.level, 0, withheld), None, len(volumes), (withheld,))
    values = list(patient_values(patients, key).values())
    reasons = [measure.reason for case in volumes if (measure := measure_of(case, key)).reason]
    distinct = tuple(dict.fromkeys(reasons))
    mean = bootstrap_mean(values, bootstrap)
    return MetricSummary(key, mean, rounded(np.median(values)) if values else None, len(reasons), distinct)


def _comparisons(keys: Sequence[str], patients: Mapping[str, Sequence[CaseResult]], bootstrap: Bootstrap) -> tuple[Comparison, ...]:
    """Paired tests of the figures for which one way is better."""
    comparisons = []
    for key in keys:
        if f"baseline_{key}" in keys and split_arm(key)[1].better:
            own, base = patient_values(patients, key), patient_values(patients, f"baseline_{key}")
            both = [patient for patient in own if patient in base]
            test = paired_test([own[patient] for patient in both], [base[patient] for patient in both], bootstrap)
            comparisons.append(Comparison(key, test))
    return tuple(comparisons)


def _contrast(keys: Sequence[str], patients: Mapping[str, Sequence[CaseResult]]) -> dict[str, ContrastAgreement]:
    """Lesion contrast over patients, one point a patient, by arm."""
    true = patient_values(patients, "reference_contrast")
    agreements = {}
    for arm in ("", "baseline_"):
        if f"{arm}contrast" in keys:
            own = patient_values(patients, f"{arm}contrast")
            both = [patient for patient in own if patient in true]
            agreements[arm] = contrast_agreement([measured(own[each]) for each in both], [measured(true[each]) for each in both])
    return agreements
