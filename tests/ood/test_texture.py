"""Regions too smooth to be tissue: levelled ones are found; lesions that have texture, or stand out, are not."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from localdiff_cli.ood.texture import texture_of, too_smooth


@pytest.fixture(scope="module")
def slice_and_regions():
    """A textured slice with grain, and two discs: one levelled but for its grain, one darker but textured."""
    rng = np.random.default_rng(0)
    fold = ndimage.gaussian_filter(rng.standard_normal((96, 96)), 3)
    tissue = 0.5 + 0.1 * fold / fold.std()
    y, x = np.mgrid[:96, :96]
    levelled, lesion = (y - 30) ** 2 + (x - 30) ** 2 < 12**2, (y - 62) ** 2 + (x - 60) ** 2 < 12**2
    image = np.where(levelled, 0.5, tissue)
    image = np.where(lesion, 0.3 + 0.5 * (tissue - 0.5), image) + 0.02 * rng.standard_normal((96, 96))
    brain = (y - 48) ** 2 + (x - 48) ** 2 < 44**2
    return tuple(torch.from_numpy(each)[None, None] for each in (image.astype(np.float32), levelled, lesion, brain))


def test_a_levelled_region_is_too_smooth_and_a_textured_one_is_not(slice_and_regions):
    image, levelled, lesion, brain = slice_and_regions
    found = too_smooth(image, levelled | lesion, brain, 0.25, 1.0)
    assert torch.equal(found, levelled)
    assert not too_smooth(image, lesion, brain, 0.25, 1.0).any()
    assert not too_smooth(image, levelled, brain, 0.0, 1.0).any()


def test_a_smooth_region_that_stands_out_is_a_lesion_all_the_same(slice_and_regions):
    image, levelled, _, brain = slice_and_regions
    for shift in (-0.2, 0.2):
        assert not too_smooth(image + shift * levelled, levelled, brain, 0.25, 1.0).any()
    assert torch.equal(too_smooth(image + 0.03 * levelled, levelled, brain, 0.25, 1.0), levelled)


def test_texture_is_measured_in_millimetres_and_without_grain(slice_and_regions):
    image = slice_and_regions[0][0, 0].numpy()
    fine = np.kron(image, np.ones((2, 2), np.float32))
    apart = abs(texture_of(fine, 0.5)[8:-8:2, 8:-8:2] - texture_of(image, 1.0)[4:-4, 4:-4])
    assert apart.mean() < 0.005
    grain = (0.5 + 0.05 * np.random.default_rng(1).standard_normal((96, 96))).astype(np.float32)
    assert texture_of(grain, 1.0).mean() < 0.3 * 0.05


def test_contrast_of_the_whole_slice_does_not_matter(slice_and_regions):
    image, levelled, lesion, brain = slice_and_regions
    assert torch.equal(too_smooth(0.3 + 0.2 * image, levelled | lesion, brain, 0.25, 1.0), levelled)


def test_nothing_is_found_in_nothing():
    empty = torch.zeros(2, 1, 16, 16)
    assert too_smooth(empty, empty > 0, empty == 0, 0.25, 1.0).shape == empty.shape
    assert not too_smooth(empty[:0], empty[:0] > 0, empty[:0] == 0, 0.25, 1.0).numel()


def test_a_region_smaller_than_its_rim_is_judged_with_its_rim(slice_and_regions):
    image, _, _, brain = slice_and_regions
    speck = torch.zeros_like(brain)
    speck[..., 45:48, 45:48] = True
    assert not too_smooth(image, speck, brain, 0.25, 1.0).any()
    assert torch.equal(too_smooth(image, speck, brain, 1e6, 1.0), speck)
