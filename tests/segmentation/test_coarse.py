"""A lesion network of a coarser grid on finer slices: what it finds lies where it is, on slices of any size."""

import pytest
import torch

from localdiff_cli.segmentation.coarse import CoarseFinder
from localdiff_cli.segmentation.network import LesionNetwork, LesionNetworkSettings, lesion_probability

SETTINGS = LesionNetworkSettings(channels=(8, 8), num_res_units=1)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return LesionNetwork(SETTINGS).eval()


class Dark(LesionNetwork):
    """Finds what is dark, pixel by pixel."""

    def forward(self, image):
        return 40 * (0.5 - image)


def test_it_finds_on_the_coarse_grid_what_lies_at_that_place_of_the_fine_one():
    image, brain = torch.ones(1, 1, 32, 32), torch.ones(1, 1, 32, 32, dtype=torch.bool)
    image[..., 8:16, 20:28] = 0
    found = CoarseFinder(Dark(SETTINGS).eval(), 2)(image, brain)
    assert found.shape == image.shape
    assert (found[..., 9:15, 21:27] > 0.9).all()
    assert found[..., :6, :].max() < 0.1
    assert found[..., 18:, :].max() < 0.1


def test_outside_the_brain_there_is_nothing_and_each_slice_stands_alone(network):
    image = torch.rand(3, 1, 30, 26, generator=torch.Generator().manual_seed(0))
    brain = torch.zeros(3, 1, 30, 26, dtype=torch.bool)
    brain[..., 4:26, 5:21] = True
    find = CoarseFinder(network, 2)
    found = find(image, brain)
    assert not found[~brain].any()
    assert torch.equal(found[1:2], find(image[1:2], brain[1:2]))
    assert find(image[:0], brain[:0]).shape == (0, 1, 30, 26)


def test_with_a_factor_of_one_it_is_the_network_itself_and_a_size_that_does_not_divide_is_padded(network):
    image, brain = torch.rand(1, 1, 16, 16), torch.ones(1, 1, 16, 16, dtype=torch.bool)
    assert torch.equal(CoarseFinder(network, 1)(image, brain), lesion_probability(network, image, brain))
    odd = CoarseFinder(network, 3)(image, brain)
    assert odd.shape == image.shape
    assert torch.isfinite(odd).all()
