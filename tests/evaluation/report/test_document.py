from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest

from localdiff_cli.evaluation.cohort.summary import summarise
from localdiff_cli.evaluation.report.document import SCHEMA, to_document, to_json
from localdiff_cli.evaluation.report.tables import metrics_tsv, slices_tsv

TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "null": type(None)}


def faults(value, schema, where="summary"):
    """What does not fit the part of JSON Schema that SCHEMA uses."""
    names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    if not any(isinstance(value, TYPES[name]) for name in names) or isinstance(value, bool):
        return [f"{where}: {value!r} is not {names}"]
    found = [] if value in schema.get("enum", [value]) else [f"{where}: {value!r} is not one of {schema['enum']}"]
    if isinstance(value, dict):
        found += [f"{where}: {key} is lacking" for key in schema.get("required", []) if key not in value]
        for key, each in value.items():
            inner = schema.get("properties", {}).get(key, schema.get("additionalProperties", True))
            found += [f"{where}: {key} is not in the schema"] if inner is False else []
            found += faults(each, inner, f"{where}.{key}") if isinstance(inner, dict) else []
    if isinstance(value, list):
        found += [fault for place, each in enumerate(value) for fault in faults(each, schema["items"], f"{where}[{place}]")]
    return found


def test_the_document_fits_its_schema(summary):
    assert faults(json.loads(to_json(summary)), SCHEMA) == []


def test_a_document_without_masks_fits_it_too(results, settings):
    bare = replace(results[0], metrics={"psnr_brain": results[0].metrics["psnr_brain"]}, evidence={}, lesion_name="")
    assert faults(json.loads(to_json(summarise([bare], settings))), SCHEMA) == []


def test_the_validator_sees_what_is_wrong(summary):
    document = to_document(summary)
    del document["n_volumes"]
    document["surprise"] = 1
    document["volumes"][0]["data_range"] = "1"
    assert len(faults(document, SCHEMA)) == 3


def test_every_null_has_a_reason(summary):
    document = to_document(summary)
    for volume in document["volumes"]:
        assert {key for key, value in volume["metrics"].items() if value is None} == set(volume["reasons"])
    for metric in document["metrics"].values():
        assert metric["mean"]["low"] is not None or metric["mean"]["reason"]
        assert metric["mean"]["estimate"] is not None or metric["reasons"]


def test_json_and_tsv_hold_the_very_same_numbers(summary):
    document = json.loads(to_json(summary))
    for row, volume in zip(csv.DictReader(io.StringIO(metrics_tsv(summary)), delimiter="\t"), document["volumes"], strict=True):
        for key, value in volume["metrics"].items():
            assert row[key] == "n/a" if value is None else float(row[key]) == value


def test_the_rates_are_the_sums_of_the_slices(summary):
    rows = list(csv.DictReader(io.StringIO(slices_tsv(summary)), delimiter="\t"))
    rates = to_document(summary)["misdiagnosis"]["rates"]
    for arm, prefix in (("translation", ""), ("baseline", "baseline_")):
        assert rates[arm]["missed"]["count"] == sum(int(row[f"{prefix}missed"]) for row in rows)
        assert rates[arm]["missed"]["total"] == sum(int(row["found"]) for row in rows)
        assert rates[arm]["invented"]["total"] == sum(int(row["lesion_free"]) for row in rows)


def test_the_same_evaluation_gives_the_same_bytes(summary, results, settings):
    again = summarise(results[::-1], settings, summary.unpaired, summary.run)
    assert to_json(again) == to_json(summary)


def test_a_run_record_that_is_not_json_is_refused(summary):
    with pytest.raises(TypeError):
        to_json(replace(summary, run={"device": object()}))
