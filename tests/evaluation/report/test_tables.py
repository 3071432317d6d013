from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from localdiff_cli.evaluation.cohort.summary import summarise
from localdiff_cli.evaluation.report.tables import format_number, metrics_tsv, slices_tsv


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text), delimiter="\t"))


def test_one_row_a_volume_with_range_and_masks(summary):
    rows = rows_of(metrics_tsv(summary))
    assert [row["name"] for row in rows] == [case.name for case in summary.volumes]
    assert rows[0]["data_range"] == "1"
    assert rows[0]["brain_mask"] == "brain mask"
    assert rows[0]["lesion_mask"] == "expert mask"
    assert rows[0]["spacing_mm"] == "4x1x1.5"


def test_one_row_a_slice(summary):
    rows = rows_of(slices_tsv(summary))
    assert len(rows) == sum(len(case.slices) for case in summary.volumes)
    assert {row["missed"] for row in rows} == {"0", "1"}


@pytest.mark.parametrize("table", [metrics_tsv, slices_tsv])
def test_every_missing_number_has_a_reason_beside_it_and_nothing_is_nan(summary, table):
    text = table(summary)
    header = text.splitlines()[0].split("\t")
    assert "nan" not in text.lower().replace("n/a", "")
    for row in rows_of(text):
        for key, cell in row.items():
            if cell == "n/a" and key != "lesion_mask":
                assert header[header.index(key) + 1] == f"{key}_reason"
                assert row[f"{key}_reason"]


def test_volumes_without_some_figures_share_the_table(results, settings):
    bare = replace(results[0], name="a", metrics={"psnr_brain": results[0].metrics["psnr_brain"]}, evidence={}, slices=())
    row = rows_of(metrics_tsv(summarise([*results, bare], settings)))[0]
    assert (row["name"], row["dice"]) == ("a", "n/a")
    assert "not given" in row["dice_reason"]


def test_a_name_with_a_tab_does_not_break_the_table(results, settings):
    odd = replace(results[0], name='sub\t"1"', patient="p")
    assert rows_of(metrics_tsv(summarise([odd], settings)))[0]["name"] == 'sub\t"1"'


def test_numbers_read_back_as_themselves():
    for value in (0.1, 1.0, -3.0, 1234570.0, 0.000123457):
        assert float(format_number(value)) == value
    assert format_number(3.0) == "3"
