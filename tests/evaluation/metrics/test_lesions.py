from __future__ import annotations

import numpy as np
import pytest

from localdiff_cli.evaluation.metrics.image import DataRange
from localdiff_cli.evaluation.metrics.lesions import LesionSettings, contrast_kept, lesion_counts, single_lesions
from localdiff_cli.evaluation.metrics.measure import measured, missing

SHAPE = (8, 60, 60)
SETTINGS = LesionSettings(0.0, 3.0, (2.0, 1.0, 1.0), DataRange(1.0, "unit"))


def block(k, row, column, depth=1, side=2):
    mask = np.zeros(SHAPE, bool)
    mask[k : k + depth, row : row + side, column : column + side] = True
    return mask


@pytest.fixture
def found():
    """Three lesions (8, 200 and 1000 mm³); the translation's mask loses the small one and has one of its own, the baseline's is empty."""
    small, middle, large = block(1, 10, 10), block(1, 30, 30, 1, 10), block(3, 10, 35, 6, 10)
    truth = small | middle | large
    own = middle | block(3, 12, 40, 1, 1) | block(6, 50, 5, 1, 3)
    reference = np.full(SHAPE, 0.3, np.float32) + 0.4 * truth
    image = np.full(SHAPE, 0.3, np.float32) + 0.2 * middle + 0.4 * large
    masks = {"": own, "baseline_": np.zeros(SHAPE, bool), "reference_": truth}
    images = {"": image, "baseline_": np.full(SHAPE, 0.3, np.float32), "reference_": reference}
    return single_lesions(truth, masks, images, np.ones(SHAPE, bool), SETTINGS), masks


def test_each_lesion_has_its_volume_size_and_whether_it_is_found(found):
    lesions, _ = found
    true = [each for each in lesions if each.image is None]
    assert [(each.volume_mm3, each.size) for each in true] == [(8, "under 0.1 ml"), (200, "0.1 to 1 ml"), (1000, "1 ml and more")]
    assert [each.found[""] for each in true] == [False, True, True]
    assert not any(each.found["baseline_"] for each in true)
    assert [each.slice_index for each in true] == [1, 1, 5]


def test_what_is_kept_of_each_lesions_contrast_is_relative_to_the_true_one(found):
    lesions, _ = found
    kept = [each.kept[""].value for each in lesions if each.image is None]
    assert kept == pytest.approx([0, 0.5, 1], abs=1e-5)
    assert all(each.kept["baseline_"].value == 0 for each in lesions if each.image is None)


def test_a_mark_that_touches_no_lesion_is_invented_on_its_image_alone(found):
    lesions, _ = found
    (invented,) = [each for each in lesions if each.image is not None]
    assert (invented.image, invented.volume_mm3, invented.slice_index) == ("", 18, 6)
    assert invented.found == {"baseline_": False, "reference_": False}


def test_the_counts_of_a_volume(found):
    lesions, masks = found
    counts = {key: measure.value for key, measure in lesion_counts(lesions, masks).items()}
    assert counts == {
        "lesions": 3, "lesions_found": 2, "lesions_invented": 1, "lesions_missed": 1, "baseline_lesions_found": 0,
        "baseline_lesions_invented": 0, "baseline_lesions_missed": 3, "reference_lesions_found": 3, "reference_lesions_invented": 0,
        "lesion_contrast_kept": 0.5, "baseline_lesion_contrast_kept": 0,
    }  # fmt: skip


def test_a_lesion_that_the_segmenter_does_not_find_on_the_true_contrast_is_not_missed():
    truth = block(2, 20, 20)
    masks = {"": np.zeros(SHAPE, bool), "reference_": np.zeros(SHAPE, bool)}
    images = {"": np.zeros(SHAPE, np.float32), "reference_": truth.astype(np.float32)}
    lesions = single_lesions(truth, masks, images, np.ones(SHAPE, bool), SETTINGS)
    assert lesion_counts(lesions, masks)["lesions_missed"].value == 0


def test_the_ring_of_a_lesion_leaves_other_lesions_out():
    """Two lesions two voxels apart: the brighter neighbour must not darken the contrast of the first."""
    one, two = block(2, 20, 20), block(2, 20, 24)
    image = (0.3 + 0.2 * one + 0.7 * two).astype(np.float32)
    lesions = single_lesions(one | two, {}, {"": image, "reference_": image}, np.ones(SHAPE, bool), SETTINGS)
    assert lesions[0].contrast[""].value == pytest.approx(0.2, abs=1e-5)


def test_next_to_no_contrast_cannot_be_kept():
    assert "nothing to keep" in contrast_kept(measured(0.2), measured(0.01)).reason
    assert contrast_kept(missing("no ring"), measured(0.3)).reason == "no ring"
    assert contrast_kept(measured(-0.1), measured(0.2)).value == -0.5


def test_no_lesion_at_all_counts_as_none():
    masks = {"": block(3, 5, 5), "reference_": np.zeros(SHAPE, bool)}
    images = {"": np.zeros(SHAPE, np.float32), "reference_": np.zeros(SHAPE, np.float32)}
    lesions = single_lesions(np.zeros(SHAPE, bool), masks, images, np.ones(SHAPE, bool), SETTINGS)
    counts = lesion_counts(lesions, masks)
    assert (counts["lesions"].value, counts["lesions_invented"].value, counts["lesions_missed"].value) == (0, 1, 0)
