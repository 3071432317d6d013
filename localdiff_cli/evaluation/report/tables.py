"""``metrics.tsv`` (one row per volume), ``slices.tsv`` (one row per slice) and ``lesions.tsv`` (one row per lesion).

A cell without a number is ``n/a`` (as in BIDS). Every column in which a number is missing is followed by ``<column>_reason``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from localdiff_cli.evaluation.cohort.summary import NOT_GIVEN, Summary
from localdiff_cli.evaluation.metrics.case import CaseResult
from localdiff_cli.evaluation.metrics.catalogue import ARMS, in_table_order
from localdiff_cli.evaluation.metrics.lesions import LesionResult
from localdiff_cli.evaluation.metrics.measure import Measure, measured, missing

NOT_AVAILABLE = "n/a"
NO_JUDGE = "not tried: it takes expert masks of a lesion, and the segmenter's on the true contrast"

Row = tuple[Mapping[str, str], Mapping[str, Measure]]


def metrics_tsv(summary: Summary) -> str:
    """Return one row per volume: what it was measured with, then all figures (catalogue.py) of translation, baseline and
    reference."""
    keys = in_table_order({key for case in summary.volumes for key in case.metrics})
    judge = _judge_cell(summary)
    return _tsv([(volume_context(case) | {"judge": judge}, case.metrics) for case in summary.volumes], keys)


def _judge_cell(summary: Summary) -> str:
    """Whether figures that are built on the segmenter can be read."""
    return NO_JUDGE if summary.judge is None else summary.judge.reason or "usable"


def lesions_tsv(summary: Summary) -> str:
    """Return one row per lesion of the truth, and one per marked component that touches none (kind: invented); found is 1
    or 0."""
    rows = [
        (_lesion_context(case, each) | {"judge": _judge_cell(summary)}, _lesion_measures(each))
        for case in summary.volumes
        for each in case.lesions
    ]
    return _tsv(rows, list(dict.fromkeys(key for _, metrics in rows for key in metrics)))


def _lesion_context(case: CaseResult, each: LesionResult) -> dict[str, str]:
    return {
        "name": case.name,
        "patient": case.patient,
        "kind": "lesion" if each.image is None else "invented",
        "image": "truth" if each.image is None else ARMS[each.image],
        "number": str(each.number),
        "slice": str(each.slice_index),
        "volume_mm3": format_number(each.volume_mm3),
        "size": each.size,
    }


def _lesion_measures(each: LesionResult) -> dict[str, Measure]:
    found = {f"{arm}found": measured(touched) for arm, touched in each.found.items()}
    contrast = {f"{arm}contrast": measure for arm, measure in each.contrast.items()}
    return found | contrast | {f"{arm}contrast_kept": measure for arm, measure in each.kept.items()}


def slices_tsv(summary: Summary) -> str:
    """Return one row per slice that shows brain; verdicts (lesion_bearing, found, missed, invented) are 1 or 0."""
    rows = [
        ({"name": case.name, "patient": case.patient, "slice": str(each.index)}, each.metrics)
        for case in summary.volumes
        for each in case.slices
    ]
    return _tsv(rows, list(dict.fromkeys(key for _, metrics in rows for key in metrics)))


def volume_context(case: CaseResult) -> dict[str, str]:
    """Return what a volume's figures are relative to: shape, spacing, data range and masks."""
    return {
        "name": case.name,
        "patient": case.patient,
        "shape": "x".join(map(str, case.shape)),
        "spacing_mm": "x".join(f"{step:g}" for step in case.spacing),
        "data_range": f"{case.data_range.value:g}",
        "data_range_source": case.data_range.source,
        "brain_mask": case.brain_name,
        "lesion_mask": case.lesion_name or NOT_AVAILABLE,
    }


def format_number(value: float) -> str:
    """Return the shortest text that reads back as the same number, whole numbers without a point."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _tsv(rows: Sequence[Row], keys: Sequence[str]) -> str:
    absent = missing(NOT_GIVEN)
    with_reason = {key for key in keys if any(metrics.get(key, absent).value is None for _, metrics in rows)}
    columns = [column for key in keys for column in ([key, f"{key}_reason"] if key in with_reason else [key])]
    context = list(rows[0][0]) if rows else []
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
    writer.writerow(context + columns)
    for named, metrics in rows:
        writer.writerow([*named.values(), *_cells(metrics, keys, with_reason, absent)])
    return stream.getvalue()


def _cells(metrics: Mapping[str, Measure], keys: Sequence[str], with_reason: set[str], absent: Measure) -> list[str]:
    cells = []
    for key in keys:
        measure = metrics.get(key, absent)
        cells.append(NOT_AVAILABLE if measure.value is None else format_number(measure.value))
        if key in with_reason:
            cells.append(measure.reason)
    return cells
