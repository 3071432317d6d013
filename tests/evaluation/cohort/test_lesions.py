from __future__ import annotations

import csv
import io

import pytest

from localdiff_cli.evaluation.cohort.lesions import ALL_SIZES
from localdiff_cli.evaluation.report.page import render_report
from localdiff_cli.evaluation.report.tables import lesions_tsv


def test_lesions_are_counted_over_patients_by_size(summary):
    rows = {(row.size, row.arm): row for row in summary.lesions}
    every = rows[ALL_SIZES, ""]
    assert (every.lesions, every.total, every.missed) == (6, 6, 2)
    assert every.share.estimate == pytest.approx(1 / 3, abs=1e-5)
    assert every.share.n == 6
    assert rows[ALL_SIZES, "baseline_"].missed == 6
    assert sum(rows[size, ""].lesions for size, arm in rows if arm == "" and size != ALL_SIZES) == 6
    assert every.kept == pytest.approx(0.85, abs=0.1)
    assert rows[ALL_SIZES, "baseline_"].kept == pytest.approx(0, abs=0.05)


def test_the_table_has_a_row_a_lesion_and_the_page_a_section(summary):
    rows = list(csv.DictReader(io.StringIO(lesions_tsv(summary)), delimiter="\t"))
    assert len(rows) == 6
    assert [row["found"] for row in rows] == ["1", "1", "0", "1", "0", "1"]
    assert all(row["kind"] == "lesion" and float(row["volume_mm3"]) > 0 for row in rows)
    assert "<h2>Lesion by lesion" in render_report(summary)
