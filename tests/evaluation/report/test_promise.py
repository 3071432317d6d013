"""The panel says what was promised, for whom, and how each patient fared; where nothing was promised there is none."""

from dataclasses import replace

import numpy as np
import pytest

from localdiff_cli.evaluation.cohort.summary import summarise
from localdiff_cli.evaluation.metrics.case import evaluate_case
from localdiff_cli.evaluation.metrics.promised import Promised
from localdiff_cli.evaluation.report.document import to_document
from localdiff_cli.evaluation.report.page import render_report
from localdiff_cli.evaluation.report.promise import promise_panels
from tests.evaluation.conftest import make_case

SAYS = "patients with more than 5 ml falsely drawn: at most 10.0%, with 90% confidence (measured 0.0% in 24 patients)"
PROMISED = Promised("0123456789ab", (SAYS,), "24 patients (24 glioma)", 0.5, False, 0.9, 3.5, None)


@pytest.fixture(scope="module")
def promised(settings):
    """Two patients under one certificate, one of them unlike its patients; the limits hold in the first and miss the other's lesion."""
    cases = []
    for seed in (0, 1):
        case = make_case(seed)
        high = case.reference + np.where(case.truth & (seed == 1), -0.05, 0.1)
        cases.append(replace(case, low=case.reference - 0.1, high=high))
    results = [evaluate_case(case, settings) for case in cases]
    told = (PROMISED, replace(PROMISED, void=True, p_value=0.04))
    return summarise([replace(result, promised=each) for result, each in zip(results, told, strict=True)], settings)


def test_the_panel_shows_each_patient_and_counts_those_of_whom_nothing_is_promised(promised):
    (panel,) = promise_panels(promised)
    assert (panel.promises, panel.void, panel.regions) == ((SAYS,), 1, ("brain", "inside the lesion"))
    assert panel.rows[0].coverage == ("100.0 %", "100.0 %")
    assert panel.rows[1].coverage[1] == "0.0 %"
    assert [(row.holds, row.drawn, row.unknown) for row in panel.rows] == [
        ("holds (p = 0.500)", "3.5 ml", "–"), ("void (p = 0.040)", "3.5 ml", "–"),
    ]  # fmt: skip


def test_the_page_and_the_document_say_it(promised, summary):
    page = render_report(promised)
    for words in ("What was promised", SAYS, "24 patients (24 glioma)", "For 1 of 2 volumes nothing is promised", "void (p = 0.040)"):
        assert words in page
    assert to_document(promised)["volumes"][1]["promised"]["void"] is True
    assert promise_panels(summary) == ()
    assert "What was promised" not in render_report(summary)
