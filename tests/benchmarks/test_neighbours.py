"""The 2.5D condition: it begins as the 2D network, sees its neighbours once trained, and slices know their own."""

import argparse

import numpy as np
import pytest
import torch

from examples.benchmarks import neighbours
from examples.benchmarks.mri import Row
from examples.benchmarks.neighbours import NeighbourNetwork, with_neighbours
from examples.benchmarks.translation import chunk_of
from examples.benchmarks.variants import Variant
from localdiff_cli.bundle import load_translator
from localdiff_cli.training.augment import AugmentSettings
from localdiff_cli.training.translator import ChosenSlices
from tests.training.data import slices


def test_each_slice_stands_between_its_own_neighbours():
    numbers = np.arange(4)[:, None, None] + np.zeros((1, 2, 2))
    assert with_neighbours(numbers)[:, :, 0, 0].tolist() == [[0, 0, 1], [1, 0, 2], [2, 1, 3], [3, 2, 3]]


def test_it_begins_as_the_translator_and_heeds_its_neighbours_after_a_step(bench):
    base = load_translator(bench.bundle, torch.device("cpu")).requires_grad_(True)
    network = NeighbourNetwork(base)
    x_t, condition, t = torch.randn(2, 1, 32, 32), torch.rand(2, 3, 32, 32), torch.tensor([3, 900])
    torch.testing.assert_close(network(x_t, condition, t), base(x_t, condition[:, :1], t))
    made = slices("a", n=5)
    loss_of = neighbours.neighbour_loss(ChosenSlices((made,), (np.arange(4),)), bench.networks.schedule, AugmentSettings(), 2)
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    loss_of(network, torch.Generator().manual_seed(0)).backward()
    optimiser.step()
    other = torch.cat([condition[:, :1], 1 - condition[:, 1:]], dim=1)
    assert (network(x_t, condition, t) - network(x_t, other, t)).abs().max() > 1e-4


def test_untrained_it_draws_what_the_2d_row_draws(bench, patient, monkeypatch, tmp_path):
    monkeypatch.setattr(neighbours, "patients", lambda *_: [slices("t", n=4)])
    monkeypatch.setattr(neighbours, "VARIANTS", {"further": Variant("further", 1, 1e-12)})
    options = argparse.Namespace(data=[tmp_path], work=tmp_path)
    model = neighbours.trained(bench, options, "made here")
    image = neighbours.translate(model, bench, patient, slice(0, 4))
    chunk, target, lesion = chunk_of(patient, 1)
    plain = bench.image(Row("plain", "none"), patient, chunk, target, torch.from_numpy(lesion)[:, None])
    assert image == pytest.approx(plain, abs=0.02)  # the weights are kept in half precision
    assert (tmp_path / "bench" / f"neighbours-{bench.bundle.name}.safetensors").is_file()
