from __future__ import annotations

from dataclasses import replace

import pytest

from localdiff_cli.evaluation.cohort.statistics import Bootstrap, Interval, paired_test
from localdiff_cli.evaluation.cohort.summary import summarise
from localdiff_cli.evaluation.report.rows import interval_cell, metric_rows, rate_rows, words_of_test


def test_a_row_shows_the_summary_s_number(summary):
    (row,) = metric_rows(summary, ["psnr_brain"])
    mean = summary.metric("psnr_brain").mean
    assert row.own.value == mean.estimate
    assert row.own.text == f"{mean.estimate:.2f} dB"
    assert row.own.interval == f"{mean.low:.2f} to {mean.high:.2f}"
    assert row.n == "7"
    assert row.test[0].startswith("p ")
    assert row.test[1].startswith("r = ")


def test_missing_volumes_are_counted_in_the_row(summary):
    assert metric_rows(summary, ["psnr_lesion"])[0].n == "6 (1 of 7 volumes without)"


def test_rates_show_count_and_total(summary):
    rows = {row.key: row for row in rate_rows(summary)}
    rate = summary.misdiagnosis.rate("missed")
    assert list(rows) == ["missed", "missed_patients", "invented"]
    assert rows["missed"].own.counted == f"{rate.count} of {rate.total}"
    assert rows["missed"].reference.text == "–"


@pytest.mark.parametrize(
    ("interval", "text", "reason"),
    [
        (Interval(-0.0001, -0.5, 0.5, 0.95, 5), "0.000", ""),
        (Interval(None, None, None, 0.95, 0, "nobody"), "–", "nobody"),
        (Interval(-1.5, None, None, 0.95, 2, "n = 2"), "−1.500", "n = 2"),
    ],
)
def test_cells_have_true_minus_signs_and_reasons(interval, text, reason):
    cell = interval_cell(interval, 3)
    assert (cell.text, cell.reason) == (text, reason)


def test_a_test_is_told_with_its_effect_or_its_reason():
    assert words_of_test(paired_test([1] * 20, [0] * 20, Bootstrap()))[0] == "p < 0.001"
    assert "n = 1" in words_of_test(paired_test([1], [0], Bootstrap()))[0]


def test_without_masks_there_are_no_rates(results, settings):
    assert rate_rows(summarise([replace(results[0], evidence={})], settings)) == []
