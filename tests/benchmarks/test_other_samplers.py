"""The published scheme is our Local Diffusion without its short cuts; MONAI's inferer drives our network."""

import pytest
import torch

from examples.benchmarks.other_samplers import Published, monai, published
from localdiff_cli.diffusion.device import on_device
from localdiff_cli.diffusion.fusion import LocalSettings, Process, Region, local
from localdiff_cli.diffusion.network import TranslatorNetwork
from localdiff_cli.diffusion.samplers import step_of
from localdiff_cli.diffusion.schedule import Schedule, step_pairs
from tests.bundles import NETWORK

SCHEDULE = Schedule()


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = TranslatorNetwork(NETWORK).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return network


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(1)
    mask = torch.zeros(2, 1, 24, 20, dtype=torch.bool)
    mask[:, :, 6:14, 4:12] = True
    return torch.rand(mask.shape, generator=generator), torch.randn(mask.shape, generator=generator), mask


class Counting:
    """A model that counts the slices it is asked about."""

    def __init__(self, network):
        self.model, self.slices = on_device(network, torch.device("cpu"), "fp32"), 0

    def __call__(self, x_t, condition, t):
        self.slices += len(x_t)
        return self.model(x_t, condition, t)


def test_the_published_scheme_is_local_diffusion_where_every_slice_is_branched(network, images):
    condition, x_T, mask = images
    scheme = Published(steps=5, fusion_step=2)
    model = Counting(network)
    process = Process(model, SCHEDULE, step_of("ddim"), step_pairs(1000, scheme.steps), lambda number: x_T)
    ours = local(process, condition, x_T, Region(mask, mask.float()), LocalSettings(context=scheme.context, fusion_step=scheme.fusion_step))
    assert torch.equal(published(model, SCHEDULE, condition, x_T, mask, scheme), ours)


def test_the_published_scheme_pays_for_both_branches_without_a_region_too(network, images):
    condition, x_T, mask = images
    model = Counting(network)
    published(model, SCHEDULE, condition, x_T, torch.zeros_like(mask), Published(steps=5, fusion_step=2))
    assert model.slices == 2 * (2 * 3 + 2)


def test_monais_inferer_and_ours_agree_in_one_step(network, images):
    """With more steps they differ: MONAI walks other steps than it spaces (see schedule.py)."""
    condition, x_T, _ = images
    (t, _), *_ = step_pairs(1000, 1)
    with torch.no_grad():
        ours = network(x_T, condition, torch.full((2,), t)).clamp(-1, 1)
    theirs = monai(network, SCHEDULE, condition, x_T, 1)
    assert torch.allclose(theirs, ours, atol=1e-5)
    assert not torch.allclose(monai(network, SCHEDULE, condition, x_T, 3), ours, atol=1e-3)
