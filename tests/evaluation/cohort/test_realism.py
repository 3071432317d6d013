"""FID and KID against independent computations, and where they have no number."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import linalg

from localdiff_cli.evaluation.cohort.realism import fid, kid, realism
from localdiff_cli.evaluation.cohort.summary import summarise
from localdiff_cli.evaluation.report.document import SCHEMA, to_document
from localdiff_cli.evaluation.report.page import render_report
from tests.evaluation.report.test_document import faults


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(6, 6))
    return rng.normal(size=(60, 6)) @ mix, rng.normal(size=(50, 6)) + 0.4


def test_fid_equals_the_textbook_formula(rows):
    a, b = rows
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(cov_a + cov_b - 2 * np.real(linalg.sqrtm(cov_a @ cov_b)))
    assert fid(a, b).value == pytest.approx(expected, rel=1e-5)


def test_kid_equals_its_double_sum(rows):
    a, b = rows[0][:9], rows[1][:7]

    def k(x, y):
        return (x @ y / len(x) + 1) ** 3

    within = [np.mean([k(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j]) for s in (a, b)]
    expected = sum(within) - 2 * np.mean([k(x, y) for x in a for y in b])
    assert kid(a, b, 0).value == pytest.approx(expected, rel=1e-5)


def test_kid_over_subsets_comes_near_the_whole_and_is_seeded(rows):
    a, b = rows
    whole, parts = kid(a, b, 0).value, kid(a, b, 1, subsets=400, size=25)
    assert parts.value == pytest.approx(whole, rel=0.2)
    assert parts == kid(a, b, 1, subsets=400, size=25)
    assert parts != kid(a, b, 2, subsets=400, size=25)


def test_alike_sets_are_near_zero_and_a_shift_is_not():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 900, 5))
    assert fid(a, a).value == pytest.approx(0, abs=1e-5)
    assert fid(a, b).value < 0.1 < 1 < fid(a, b + 1).value
    assert abs(kid(a, b, 0).value) < 0.01 < kid(a, b + 1, 0).value


def test_too_few_slices_give_a_reason(rows):
    assert "found 6" in fid(rows[0][:6], rows[1]).reason
    assert "found 1" in kid(rows[0][:1], rows[1], 0).reason


def test_the_reports_show_both_arms_and_only_where_asked(results, settings, summary):
    rng = np.random.default_rng(0)
    arms = ("", "baseline_", "reference_")
    with_features = [replace(case, features={arm: rng.normal(size=(8, 4)).astype(np.float32) for arm in arms}) for case in results[:3]]
    with_realism = summarise(with_features, settings)
    document = json.loads(json.dumps(to_document(with_realism)))
    assert faults(document, SCHEMA) == []
    assert set(document["realism"]["arms"]) == {"translation", "baseline"}
    assert document["realism"]["arms"]["translation"]["slices"] == 8 * 3
    assert "FID" in render_report(with_realism)
    assert realism(results, 0) == ()
    assert "FID" not in render_report(summary)
