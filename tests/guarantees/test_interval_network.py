"""The interval network's distances: above zero, of any size of slice, the same however slices are batched."""

import pytest
import torch

from localdiff_cli.guarantees.interval_network import IntervalNetwork, IntervalSettings, distances

SMALL = IntervalSettings(channels=(8, 8))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = IntervalNetwork(SMALL)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return made.eval()


def planes(n, rows=24, columns=20):
    return torch.rand(3, n, 1, rows, columns, generator=torch.Generator().manual_seed(n))


def test_both_distances_are_above_zero_on_a_grid_of_any_size(network):
    assert SMALL.multiple == 4
    for rows, columns in ((24, 20), (23, 21)):
        found = distances(network, *planes(2, rows, columns))
        assert found.shape == (2, 2, rows, columns)
        assert found.min() > 0


def test_a_slice_has_its_distances_whatever_is_beside_it(network):
    condition, ood_map, image = planes(5)
    together = distances(network, condition, ood_map, image)
    alone = torch.cat([distances(network, condition[k : k + 1], ood_map[k : k + 1], image[k : k + 1]) for k in range(5)])
    assert torch.equal(together, alone)
    assert not torch.equal(together[0], distances(network, condition, ood_map, image.flip(-1))[0])


def test_nothing_has_no_distances(network):
    assert distances(network, *planes(0)).shape == (0, 2, 24, 20)


def test_a_fresh_network_says_five_hundredths_of_the_range():
    torch.manual_seed(1)
    assert 0.02 < float(distances(IntervalNetwork(SMALL).eval(), *planes(3)).mean()) < 0.12
