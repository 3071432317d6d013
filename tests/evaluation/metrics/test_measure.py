from __future__ import annotations

import math

import pytest

from localdiff_cli.evaluation.metrics.measure import Measure, measured, missing, rounded, values_of


def test_a_number_keeps_six_digits():
    assert measured(0.12345678).value == 0.123457
    assert rounded(1234567.0) == 1234570.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused(value):
    with pytest.raises(ValueError, match="finite"):
        measured(value)


def test_neither_a_value_nor_a_reason_or_both_is_refused():
    with pytest.raises(ValueError, match="either"):
        Measure(None)
    with pytest.raises(ValueError, match="either"):
        Measure(1.0, "because")


def test_values_leave_out_what_is_missing():
    assert values_of([measured(1), missing("empty"), measured(2)]) == [1.0, 2.0]
