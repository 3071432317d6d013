"""A lesion network with more channels computes what the narrow one did, and learns with all of them."""

import pytest
import torch

from localdiff_cli.segmentation.network import LesionNetwork, LesionNetworkSettings
from localdiff_cli.training.widen import fits_into, widened


def network(channels, seed=0, **settings):
    torch.manual_seed(seed)
    return LesionNetwork(LesionNetworkSettings(channels=channels, **settings)).eval()


@pytest.mark.parametrize("units", [0, 2])
@pytest.mark.parametrize("channels", [(8, 24), (12, 16), (8, 16)])
def test_two_levels_compute_the_same(channels, units):
    narrow = network((8, 16), num_res_units=units)
    wide = widened(narrow, network(channels, seed=1, num_res_units=units))
    image = torch.rand(2, 1, 16, 24)
    torch.testing.assert_close(wide(image), narrow(image), atol=1e-6, rtol=1e-5)


def test_four_levels_compute_the_same_though_their_skips_have_moved():
    narrow = network((4, 6, 8, 12))
    wide = widened(narrow, network((6, 8, 12, 14), seed=1))
    image = torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(wide(image), narrow(image), atol=1e-6, rtol=1e-5)


def test_new_channels_are_heard_after_a_step():
    wide = widened(network((8, 16)), network((12, 24), seed=1)).train()
    before = {name: value.clone() for name, value in wide.state_dict().items()}
    optimiser = torch.optim.SGD(wide.parameters(), lr=0.1)
    for _ in range(2):
        wide(torch.rand(2, 1, 16, 16)).square().mean().backward()
        optimiser.step()
    moved = wide.state_dict()["unet.model.0.conv.unit1.conv.weight"][:8, 8:]
    assert (before["unet.model.0.conv.unit1.conv.weight"][:8, 8:] == 0).all()
    assert (moved != 0).any()


@pytest.mark.parametrize(
    ("narrow", "wide", "fits"),
    [
        ({}, {"channels": (32, 64, 128, 192)}, True),
        ({}, {"channels": (48, 64, 128, 320)}, True),
        ({}, {"channels": (31, 64, 128, 192)}, False),
        ({}, {"channels": (32, 64, 128)}, False),
        ({"num_res_units": 1}, {}, False),
        ({"space_to_depth": 4}, {}, False),
        ({"dropout": 0.3}, {}, True),
    ],
)
def test_what_fits_into_what(narrow, wide, fits):
    assert fits_into(LesionNetworkSettings(**narrow), LesionNetworkSettings(**wide)) is fits
