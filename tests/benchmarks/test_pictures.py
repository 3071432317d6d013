"""The page of pictures: its rule and its columns."""

from dataclasses import replace

import numpy as np
from matplotlib.image import imread

from examples.benchmarks import pictures


def test_the_slice_with_most_lesion_is_shown(patient):
    patient.lesion[1, 8:30, 8:20] = True
    (shown,) = pictures.chosen_slices(patient, 1)
    assert len(shown.condition) == 1
    assert np.array_equal(shown.condition[0], patient.condition[1])


def test_several_slices_are_spread_over_those_with_a_lesion(patient):
    shown = pictures.chosen_slices(patient, 2)
    assert [np.flatnonzero([np.array_equal(one.condition[0], c) for c in patient.condition]).tolist() for one in shown] == [[2], [3]]


def test_a_page_has_a_row_a_patient(bench, patient, tmp_path):
    cases = [one for name in ("a", "b") for one in pictures.chosen_slices(replace(patient, name=name), 1)]
    images, lesion, mask = pictures.panels(bench, cases[0])
    assert [row.label for row in pictures.columns_of(bench)] == ["true T2w", "plain", "local, no expert", "local, expert"]
    assert len(images) == 5
    assert lesion.any()
    assert mask.shape == lesion.shape
    assert not np.array_equal(images[3], images[4])
    pictures.page(bench, cases, tmp_path / "page.png")
    assert imread(tmp_path / "page.png").shape[0] > 300
