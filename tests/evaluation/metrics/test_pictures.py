from __future__ import annotations

import numpy as np
import pytest

from localdiff_cli.evaluation.metrics.pictures import take_pictures, telling_slice
from tests.evaluation.conftest import make_case

ROLES = ("condition", "ood", "plain", "local", "reference")


def pictures_of(case, lesion=True, longest=176, **changes):
    images = {
        "condition": case.condition, "ood": case.ood_map, "plain": case.baseline, "local": case.translation, "reference": case.reference,
    } | changes  # fmt: skip
    error = np.abs(case.translation - case.reference)
    return take_pictures(images, error, case.brain, case.truth if lesion else None, 0.5, longest)


def test_the_slice_with_the_largest_lesion_is_taken_else_that_with_the_largest_error():
    case = make_case(2)
    areas = case.truth.sum(axis=(1, 2))
    assert areas[pictures_of(case).slice_index] == areas.max()
    error = np.zeros(case.brain.shape)
    error[4] = case.brain[4]
    assert telling_slice(error, case.brain, None) == (4, "largest error")
    assert telling_slice(error, case.brain, np.zeros_like(case.brain)) == (4, "largest error")


def test_plain_local_and_reference_share_one_window():
    case = make_case(1)
    found = pictures_of(case, plain=case.reference / 2, local=case.reference)
    panels = {panel.role: panel.pixels for panel in found.panels}
    assert tuple(panels) == (*ROLES, "error")
    assert panels["plain"].max() < 0.6 * panels["reference"].max()
    assert np.array_equal(panels["local"], panels["reference"])
    assert all(pixels.dtype == np.uint8 for pixels in panels.values())


def test_what_was_not_given_is_not_shown():
    found = pictures_of(make_case(1), condition=None, ood=None, plain=None)
    assert [panel.role for panel in found.panels] == ["local", "reference", "error"]


def test_pictures_are_shrunk_but_never_grown():
    case = make_case(1)
    assert max(pictures_of(case, longest=32).panels[0].pixels.shape) == 32
    rows, columns = pictures_of(case).panels[0].pixels.shape
    assert rows <= case.brain.shape[1]
    assert columns <= case.brain.shape[2]


@pytest.mark.parametrize("longest", [176, 20])
def test_the_outline_encloses_the_lesion_in_picture_pixels(longest):
    case = make_case(1)
    found = pictures_of(case, longest=longest)
    shape = found.panels[0].pixels.shape
    (line,) = found.outline
    assert np.allclose(line[0], line[-1])
    y, x = line.T
    area = abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2
    plane = case.truth[found.slice_index]
    grown = np.prod(pictures_of(case).panels[0].pixels.shape) / np.prod(shape)
    assert area * grown == pytest.approx(plane.sum(), rel=0.12)
    full = pictures_of(case).panels[0].pixels.shape
    rows, columns = np.nonzero(plane)
    box = np.array([np.flatnonzero(case.brain.any(axis=(0, 2)))[0] - 4, np.flatnonzero(case.brain.any(axis=(0, 1)))[0] - 4]).clip(0)
    centre = (np.array([rows.mean(), columns.mean()]) + 0.5 - box) * np.array(shape) / np.array(full)
    assert np.array([y.mean(), x.mean()]) == pytest.approx(centre, abs=0.25)


def test_an_empty_brain_has_no_pictures_and_a_constant_image_has_some():
    case = make_case(1)
    empty = np.zeros_like(case.brain)
    images = dict.fromkeys(ROLES) | {"local": case.translation, "reference": case.reference}
    assert take_pictures(images, case.reference, empty, None, 0.5, 64) is None
    flat = pictures_of(case, reference=np.full_like(case.reference, 0.5))
    assert {panel.role: panel for panel in flat.panels}["reference"].pixels.max() == 0
