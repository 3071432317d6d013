"""What a lesion network finds, and what there was to be seen."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from examples.benchmarks.segmentation import contrast_z, slices_found
from localdiff_cli.training.slices import PatientSlices

SHAPE = (4, 30, 30)
BLOB = (slice(0, 3), slice(10, 16), slice(10, 16))


def patient(inside=0.4, around=0.5):
    """Three slices with a lesion and one without."""
    lesion = np.zeros(SHAPE, bool)
    lesion[BLOB] = True
    condition = np.where(lesion, inside, around)
    return PatientSlices("sub-01", "val", np.rint(condition * 65535).astype(np.uint16), None, np.ones(SHAPE, bool), lesion, True)


def test_a_lesion_counts_as_found_slice_by_slice():
    one = patient()
    found = one.lesion.copy()
    found[1] = False
    found[2, 12:] = False
    assert slices_found(found, one) == (2, 3)
    assert slices_found(found & False, one) == (0, 3)
    assert json.dumps(slices_found(found, one)) == "[2, 3]"


def test_a_spot_is_no_large_lesion():
    one = patient()
    one.lesion[0, 10:16, 10:16] = False
    one.lesion[0, 3, 3] = True
    assert slices_found(one.lesion, one) == (2, 2)


@pytest.mark.parametrize("inside", [0.3, 0.5, 0.6])
def test_the_contrast_is_in_robust_deviations_of_the_window(inside):
    assert contrast_z(patient(inside), (-6.0, 6.0), 1.0) == pytest.approx(12 * (inside - 0.5), abs=1e-3)


def test_a_patient_without_a_lesion_has_no_contrast():
    one = patient()
    one.lesion[:] = False
    assert math.isnan(contrast_z(one, (-6.0, 6.0), 1.0))
