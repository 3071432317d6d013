"""``summary.json``: its content and its schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from localdiff_cli.evaluation.cohort.counts import CohortMisdiagnosis, Rate
from localdiff_cli.evaluation.cohort.judge import Judge
from localdiff_cli.evaluation.cohort.lesions import LesionRow
from localdiff_cli.evaluation.cohort.realism import FEATURES, Realism
from localdiff_cli.evaluation.cohort.summary import MetricSummary, Summary, measure_of
from localdiff_cli.evaluation.metrics.case import CaseResult
from localdiff_cli.evaluation.metrics.catalogue import ARMS, METRICS, RATES, in_table_order, split_arm
from localdiff_cli.evaluation.metrics.lesion import ContrastAgreement
from localdiff_cli.evaluation.metrics.measure import Measure

SCHEMA_VERSION = 1

_NUMBER = {"type": ["number", "null"]}
_TEXT = {"type": "string"}
_COUNT = {"type": "integer"}


def _object(properties: Mapping[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    required = [key for key in properties if key not in optional]
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}


def _map_of(schema: Mapping[str, Any]) -> dict[str, object]:
    return {"type": "object", "additionalProperties": dict(schema)}


def _list_of(schema: Mapping[str, Any]) -> dict[str, object]:
    return {"type": "array", "items": dict(schema)}


_MEASURE = _object({"value": _NUMBER, "reason": _TEXT})
_INTERVAL = _object({"estimate": _NUMBER, "low": _NUMBER, "high": _NUMBER, "level": {"type": "number"}, "n": _COUNT, "reason": _TEXT})
_RATE = _object({"count": _COUNT, "total": _COUNT, "share": _INTERVAL})
_TEST = _object({"n": _COUNT, "difference": _INTERVAL, "p_value": _NUMBER, "effect_size": _NUMBER, "method": _TEXT, "reason": _TEXT})
_ARM = {"type": "string", "enum": list(ARMS.values())}
_METRIC = _object(
    {
        "figure": {"type": "string", "enum": list(METRICS)},
        "arm": _ARM,
        "unit": _TEXT,
        "better": {"type": "string", "enum": ["higher", "lower", ""]},
        "mean": _INTERVAL,
        "median": _NUMBER,
        "missing": _COUNT,
        "reasons": _list_of(_TEXT),
    }
)
_PROMISED = _object(
    {
        "certificate": _TEXT, "promises": _list_of(_TEXT), "whom": _TEXT, "p_value": {"type": "number"}, "void": {"type": "boolean"},
        "interval": _NUMBER, "drawn_ml": _NUMBER, "unknown_ml": _NUMBER,
    }
)  # fmt: skip
_VOLUME = _object(
    {
        "name": _TEXT,
        "patient": _TEXT,
        "shape": _list_of(_COUNT),
        "spacing_mm": _list_of({"type": "number"}),
        "data_range": {"type": "number"},
        "data_range_source": _TEXT,
        "brain_mask": _TEXT,
        "lesion_mask": {"type": ["string", "null"]},
        "notes": _list_of(_TEXT),
        "used": _map_of(_TEXT),
        "metrics": _map_of(_NUMBER),
        "reasons": _map_of(_TEXT),
        "promised": {**_PROMISED, "type": ["object", "null"]},
    }
)
_MISDIAGNOSIS = _object(
    {
        "rates": _map_of(_object(dict.fromkeys(RATES, _RATE), optional=tuple(RATES))),
        "reductions": _map_of(_INTERVAL),
        "sweep": _list_of(_object({"delta": {"type": "number"}, "arm": _ARM, **_RATE["properties"]})),
    }
)

_JUDGE = _object({"dice": {"type": "number"}, "n": _COUNT, "least": {"type": "number"}, "reason": _TEXT})
_LESIONS = _object(
    {
        "size": _TEXT, "arm": _ARM, "lesions": _COUNT, "total": _COUNT, "missed": _COUNT, "invented": _COUNT, "share": _INTERVAL,
        "contrast_kept": _NUMBER,
    }
)  # fmt: skip

_REALISM = _object({"slices": _COUNT, "reference_slices": _COUNT, "fid": _MEASURE, "kid": _MEASURE})

SCHEMA: Mapping[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "localdiff evaluate: summary.json",
    **_object(
        {
            "schema_version": {"type": "integer", "enum": [SCHEMA_VERSION]},
            "n_volumes": _COUNT,
            "n_patients": _COUNT,
            "unpaired": _list_of(_object({"name": _TEXT, "reason": _TEXT})),
            "settings": {"type": "object"},
            "run": {"type": "object"},
            "metrics": _map_of(_METRIC),
            "comparisons": _map_of(_TEST),
            "contrast": _map_of(_object({"n": _COUNT, "slope": _MEASURE, "correlation": _MEASURE, "bias": _MEASURE})),
            "misdiagnosis": {**_MISDIAGNOSIS, "type": ["object", "null"]},
            "judge": {**_JUDGE, "type": ["object", "null"]},
            "lesions": _list_of(_LESIONS),
            "realism": _object({"features": _TEXT, "arms": _map_of(_REALISM)}),
            "volumes": _list_of(_VOLUME),
        }
    ),
}
"""JSON schema of ``summary.json``. Numbers are rounded to 6 digits; null always has a reason beside it.

``metrics``, ``comparisons`` and a volume's ``metrics`` are keyed as the columns of ``metrics.tsv``; ``contrast`` and
``rates`` by arm (translation, baseline, reference).
"""


def to_document(summary: Summary) -> dict[str, object]:
    """Return the summary as JSON-able values that fit :data:`SCHEMA`."""
    return {
        "schema_version": SCHEMA_VERSION,
        "n_volumes": len(summary.volumes),
        "n_patients": len(summary.patients),
        "unpaired": [asdict(each) for each in summary.unpaired],
        "settings": asdict(summary.settings),
        "run": dict(summary.run),
        "metrics": {metric.key: _metric(metric) for metric in summary.metrics},
        "comparisons": {comparison.key: asdict(comparison.test) for comparison in summary.comparisons},
        "contrast": {ARMS[arm]: _agreement(agreement) for arm, agreement in summary.contrast.items()},
        "misdiagnosis": None if summary.misdiagnosis is None else _misdiagnosis(summary.misdiagnosis),
        "judge": None if summary.judge is None else _judge(summary.judge),
        "lesions": [_lesions(row) for row in summary.lesions],
        "realism": {"features": FEATURES, "arms": {ARMS[each.arm]: _realism(each) for each in summary.realism}},
        "volumes": [_volume(case, {metric.key for metric in summary.metrics}) for case in summary.volumes],
    }


def to_json(summary: Summary) -> str:
    """Return the text of ``summary.json``. Raise ``ValueError`` for a number that is not finite and ``TypeError`` for a
    ``run`` not JSON-able."""
    return json.dumps(to_document(summary), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _metric(metric: MetricSummary) -> dict[str, object]:
    arm, figure = split_arm(metric.key)
    return {
        "figure": figure.key,
        "arm": ARMS[arm],
        "unit": figure.unit,
        "better": figure.better,
        "mean": asdict(metric.mean),
        "median": metric.median,
        "missing": metric.missing,
        "reasons": list(metric.reasons),
    }


def _measure(measure: Measure) -> dict[str, object]:
    return {"value": measure.value, "reason": measure.reason}


def _agreement(agreement: ContrastAgreement) -> dict[str, object]:
    return {"n": agreement.n} | {name: _measure(getattr(agreement, name)) for name in ("slope", "correlation", "bias")}


def _judge(judge: Judge) -> dict[str, object]:
    return asdict(judge) | {"reason": judge.reason}


def _lesions(row: LesionRow) -> dict[str, object]:
    entries = asdict(row)
    return entries | {"arm": ARMS[row.arm], "contrast_kept": entries.pop("kept")}


def _realism(found: Realism) -> dict[str, object]:
    return {
        "slices": found.slices, "reference_slices": found.reference_slices, "fid": _measure(found.fid), "kid": _measure(found.kid),
    }  # fmt: skip


def _rate(rate: Rate) -> dict[str, object]:
    return {"count": rate.count, "total": rate.total, "share": asdict(rate.share)}


def _misdiagnosis(cohort: CohortMisdiagnosis) -> dict[str, object]:
    arms = dict.fromkeys(rate.arm for rate in cohort.rates)
    return {
        "rates": {ARMS[arm]: {rate.key: _rate(rate) for rate in cohort.rates if rate.arm == arm} for arm in arms},
        "reductions": {reduction.key: asdict(reduction.interval) for reduction in cohort.reductions},
        "sweep": [{"delta": point.delta, "arm": ARMS[point.rate.arm], **_rate(point.rate)} for point in cohort.sweep],
    }


def _volume(case: CaseResult, keys: set[str]) -> dict[str, object]:
    measures = {key: measure_of(case, key) for key in in_table_order(keys)}
    return {
        "name": case.name,
        "patient": case.patient,
        "shape": list(case.shape),
        "spacing_mm": list(case.spacing),
        "data_range": case.data_range.value,
        "data_range_source": case.data_range.source,
        "brain_mask": case.brain_name,
        "lesion_mask": case.lesion_name or None,
        "notes": list(case.notes),
        "used": dict(case.used),
        "metrics": {key: measure.value for key, measure in measures.items()},
        "reasons": {key: measure.reason for key, measure in measures.items() if measure.reason},
        "promised": None if case.promised is None else asdict(case.promised),
    }
