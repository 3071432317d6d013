from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localdiff_cli.evaluation.metrics.image import DataRange
from localdiff_cli.evaluation.metrics.lesion import contrast_agreement, lesion_contrast, ring_around
from localdiff_cli.evaluation.metrics.measure import measured, missing
from tests.evaluation.conftest import UNIT, ball, make_case


def brute_ring(lesion, brain, spacing, gap, width):
    points = np.argwhere(lesion) * spacing
    grid = np.argwhere(np.ones_like(lesion)) * spacing
    nearest = np.sqrt(((grid[:, None] - points[None]) ** 2).sum(-1)).min(1).reshape(lesion.shape)
    return (nearest > gap + 1e-6) & (nearest <= gap + width + 1e-6) & brain


@pytest.mark.parametrize(("gap", "width"), [(0.0, 2.0), (1.0, 3.0), (1.5, 2.5)])
def test_ring_equals_distances_by_brute_force_in_mm(gap, width):
    lesion, brain = ball((7, 16, 14), (3, 8, 7), (1, 2, 2)), ball((7, 16, 14), (3, 8, 7), (4, 7, 6))
    spacing = (3.0, 1.0, 0.5)
    assert np.array_equal(ring_around(lesion, brain, spacing, gap, width), brute_ring(lesion, brain, spacing, gap, width))


def test_ring_of_an_empty_lesion_is_empty():
    assert not ring_around(np.zeros((3, 4, 5), bool), np.ones((3, 4, 5), bool), (1, 1, 1), 1, 5).any()


def test_ring_stays_inside_the_brain_and_off_the_lesion():
    case = make_case(0)
    ring = ring_around(case.truth, case.brain, case.spacing, 1, 5)
    assert ring.any()
    assert not (ring & case.truth).any()
    assert not (ring & ~case.brain).any()


def test_contrast_is_a_share_of_the_data_range():
    image, lesion, ring = np.array([[[10.0, 4.0, 6.0]]]), np.array([[[True, False, False]]]), np.array([[[False, True, True]]])
    assert lesion_contrast(image, lesion, ring, DataRange(20, "")).value == 0.25


def test_contrast_without_lesion_ring_or_range_gives_reasons():
    image, full, none = np.ones((1, 2, 2)), np.ones((1, 2, 2), bool), np.zeros((1, 2, 2), bool)
    assert "no lesion" in lesion_contrast(image, none, full, UNIT).reason
    assert "ring" in lesion_contrast(image, full, none, UNIT).reason
    assert "range" in lesion_contrast(image, full, full, DataRange(0, "x")).reason


def test_agreement_equals_a_line_by_hand():
    true, own = [0.0, 0.1, 0.2, 0.3], [0.05, 0.10, 0.15, 0.20]
    found = contrast_agreement([measured(v) for v in own], [measured(v) for v in true])
    assert (found.n, found.slope.value, found.correlation.value) == (4, pytest.approx(0.5), pytest.approx(1))
    assert found.bias.value == pytest.approx(-0.025)


def test_agreement_leaves_missing_pairs_out_and_says_why_it_cannot():
    some = [measured(0.1), missing("no lesion"), measured(0.3)]
    found = contrast_agreement(some, [measured(0.2)] * 3)
    assert found.n == 2
    assert "needs 3" in found.slope.reason
    assert found.bias.value == pytest.approx(0)
    assert contrast_agreement([missing("x")], [measured(1)]).n == 0


def test_constant_contrasts_have_no_correlation():
    rising, flat = [measured(v) for v in (0.1, 0.2, 0.3)], [measured(0.1)] * 3
    assert "does not vary" in contrast_agreement(rising, flat).slope.reason
    erased = contrast_agreement(flat, rising)
    assert erased.slope.value == pytest.approx(0, abs=1e-9)
    assert "does not vary" in erased.correlation.reason


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-1, 1), min_size=3, max_size=8), st.floats(0.1, 3), st.floats(-1, 1))
def test_a_scaled_and_shifted_contrast_has_that_slope(true, slope, shift):
    if np.ptp(true) < 1e-3:
        return
    found = contrast_agreement([measured(slope * v + shift) for v in true], [measured(v) for v in true])
    assert found.slope.value == pytest.approx(slope, rel=0.02)
