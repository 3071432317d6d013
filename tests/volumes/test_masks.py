"""What the values of a mask mean: decided from them, said, and refused where they are no mask's."""

import numpy as np
import pytest
from scipy import ndimage

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.masks import BINARY, EMPTY, LABELS, PROBABILITY, mask_content

from .synthetic import brain_array

RNG = np.random.default_rng(3)
TRUTH = np.zeros((20, 24, 5), bool)
TRUTH[4:14, 6:18, 1:4] = True


def labels():
    values = TRUTH * 4
    values[:8] = np.where(values[:8] > 0, 1, 0)
    values[12:] = np.where(values[12:] > 0, 2, 0)
    return values


def content(array):
    return mask_content((array[:, :, k] for k in range(array.shape[2])), "m.nii")


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (TRUTH.astype(np.uint8), BINARY),
        (TRUTH * 255, BINARY),
        ((TRUTH * 255).astype(np.uint8).astype(np.int8), BINARY),
        (TRUTH / np.float32(255), BINARY),
        (TRUTH + np.float32(1e-7) * (RNG.random(TRUTH.shape) < 0.5), BINARY),
        (np.where(TRUTH, 0.99983, 0.00017).astype(np.float32), BINARY),
        (np.where(TRUTH, 1, np.nan).astype(np.float32), BINARY),
        (labels(), LABELS),
        (labels().astype(np.float32), LABELS),
        (labels() + np.float32(2e-5), LABELS),
        (labels() * 250 + (labels() > 0) * 1000, LABELS),
        (ndimage.zoom(TRUTH.astype(np.float32), 1, order=1) * 0.9 + 0.05 * RNG.random(TRUTH.shape), PROBABILITY),
    ],
    ids=["uint8", "255", "signed byte", "1/255", "noise", "interpolated", "NaN outside", "labels", "float", "scaled", "large", "soft"],
)
def test_every_encoding_of_a_mask_gives_the_same_mask(array, kind):
    found = content(array)
    assert found.kind == kind
    np.testing.assert_array_equal(found.hard(array), TRUTH)
    assert found.said.startswith(kind)


@pytest.mark.parametrize("scale", [1, 100, 255])
def test_a_mask_interpolated_to_fractions_is_cut_at_a_half(scale):
    soft = ndimage.gaussian_filter(TRUTH.astype(np.float64), (0.7, 0.7, 0)) * scale
    array = soft if scale == 1 else np.rint(soft).astype(np.uint8)
    found = content(array)
    assert found.kind == PROBABILITY
    np.testing.assert_array_equal(found.hard(array), array >= scale / 2)
    assert found.soft(array).max() <= 1


@pytest.mark.parametrize("array", [np.zeros(TRUTH.shape), np.float32(1e-7) * RNG.random(TRUTH.shape)], ids=["zeros", "noise alone"])
def test_an_empty_mask_stays_empty(array):
    found = content(array)
    assert found.kind in (EMPTY, PROBABILITY)
    assert not found.hard(array).any()


@pytest.mark.parametrize(
    "array",
    [
        brain_array().astype(np.int16),
        np.clip(brain_array() / 8, 0, 255).astype(np.uint8),
        brain_array() * 0.37,
        (brain_array() - 400) / 90,
        np.where(brain_array() > 0, brain_array(), 432).astype(np.int16),
        labels() * RNG.uniform(0.5, 1, TRUTH.shape),
        labels() - 1,
        np.full(TRUTH.shape, 3),
        labels() + 1,
        np.where(TRUTH, 0, -1024),
    ],
    ids=["image", "bytes", "float image", "z-scores", "grey", "interpolated labels", "negative labels", "no background", "no 0", "air"],
)
def test_what_is_neither_mask_labels_nor_probability_is_refused_with_its_values(array):
    with pytest.raises(VolumeError, match=r"found values from .* to .*expected two values") as caught:
        content(array)
    assert caught.value.code == "not-a-mask"


def test_a_map_of_one_degree_is_a_map_and_not_a_mask_in_its_place():
    array = TRUTH * np.float32(0.5)
    assert content(array).hard(array).any()
    assert content(array).as_map().soft(array).max() == 0.5
    assert content(TRUTH * 4).as_map().soft(TRUTH * 4).max() == 1
