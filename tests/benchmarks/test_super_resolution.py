"""What the super-resolution experiments share: condition, windows of a training, sampling, figures."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from examples.benchmarks import super_resolution as sr
from localdiff_cli.diffusion.network import NetworkSettings
from localdiff_cli.evaluation.cohort.statistics import Bootstrap
from localdiff_cli.training.loop import LoopSettings, step_generator
from tests.training.data import Spy


class Blur(torch.nn.Module):
    """A network that answers with its blurred condition and a little of the noise, whatever the timestep."""

    def forward(self, x_t, condition, t):
        return 2 * F.avg_pool2d(condition, 5, 1, 2) - 1 + 0.01 * x_t


def fused_at_the_end(row):
    """A row without joint steps: :class:`Blur` would redraw all that the branches drew in them."""
    return replace(row, local=replace(row.local, fusion_step=0))


@pytest.fixture
def images():
    return torch.rand(6, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def test_the_condition_knows_the_means_of_squares_and_nothing_finer(images):
    condition = sr.low_resolution(images, 4)
    assert condition.shape == images.shape
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    squares = F.pixel_unshuffle(images, 4)[:, order]
    assert torch.allclose(sr.low_resolution(F.pixel_shuffle(squares, 4), 4), condition, atol=1e-6)
    assert not torch.allclose(sr.low_resolution(images.flip(2), 4), condition)


def test_a_training_learns_from_windows_of_its_images(images):
    network, loop = NetworkSettings(4, (32, 32), 1, (False, False)), LoopSettings(steps=1, batch_size=2)
    training = sr.training("x", "", images, 2, network, loop, 16)
    spy = Spy()
    assert float(training.loss_of(spy, step_generator(0, 0)).detach()) > 0
    assert spy.seen[0].shape == (2, 1, 16, 16)
    whole = sr.low_resolution(images, 2).unfold(2, 16, 1).unfold(3, 16, 1)
    assert all(bool((whole == window).all(dim=(-1, -2)).any()) for window in spy.seen[0][:, 0])
    assert training.digest != sr.training("x", "", 1 - images, 2, network, loop, 16).digest


def test_an_image_does_not_depend_on_those_beside_it(images):
    condition, numbers = sr.low_resolution(images, 2), np.arange(10, 16)
    mask = torch.zeros_like(condition, dtype=torch.bool)
    mask[1:, :, 8:20, 8:20] = True
    every = sr.upsample(Blur(), sr.Sampling(10), condition, numbers, mask.float(), mask, 4)
    few = sr.upsample(Blur(), sr.Sampling(10), condition[3:5], numbers[3:5], mask[3:5].float(), mask[3:5], 1)
    assert torch.allclose(every[3:5], few, atol=1e-6)
    plain = sr.upsample(Blur(), sr.Sampling(10), condition, numbers, None, None, 4)
    assert torch.allclose(every[:1], plain[:1], atol=1e-6)
    assert not torch.allclose(every[1:], plain[1:], atol=1e-3)
    assert bool(((every >= 0) & (every <= 1)).all())


def test_the_published_schedule_is_walked_by_its_noise():
    """lucidrains' sigmoid schedule from −3 to 3, as the authors use it: its last joint steps come at a signal-to-noise of 74 and 155."""
    pairs = sr.sigmoid_pairs(50)
    assert len(pairs) == 50
    assert all(now > then for now, then in pairs)
    assert pairs[-1][1] == -1
    bars = [sr.SCHEDULE.alpha_bar(now) for now, _ in pairs]
    ratios = [bar / (1 - bar) for bar in bars[-2:]]
    assert ratios == pytest.approx([74, 155], rel=0.05)
    sigmoid = [1 / (1 + math.exp(3 - 6 * k / 50)) for k in range(51)]
    expected = [(sigmoid[k] - sigmoid[0]) / (sigmoid[50] - sigmoid[0]) for k in range(51)]
    assert bars == pytest.approx(expected[:50], abs=5e-3)
    assert sr.Sampling().as_published.pairs == pairs
    assert sr.Sampling().pairs != pairs


def test_pasting_takes_the_condition_inside_the_mask_alone(images):
    mask = torch.zeros(6, 1, 32, 32, dtype=torch.bool)
    mask[..., :8] = True
    made = sr.pasted(images, 1 - images, mask)
    assert torch.equal(made[..., :8], images[..., :8])
    assert torch.equal(made[..., 8:], (1 - images)[..., 8:])


def test_psnr_ssim_and_the_reduction():
    true = np.zeros((28, 28), np.float32)
    assert sr.decibels(true + 0.1, true) == pytest.approx(20, abs=1e-4)
    assert sr.decibels(true, true) is None
    assert sr.similarity(true, true) == pytest.approx(1)
    assert sr.similarity(np.eye(28, dtype=np.float32), true) < 0.9
    wrong, before = np.array([True, False, False, False]), np.array([True, True, False, False])
    assert sr.reduction(wrong, before, Bootstrap()).estimate == pytest.approx(0.5)
    assert sr.reduction(before, ~before & False, Bootstrap()).estimate is None


def test_the_same_key_is_not_measured_again(tmp_path):
    assert sr.measured_once(tmp_path, ["a", 1], lambda: {"x": 1}) == {"x": 1}
    assert sr.measured_once(tmp_path, ["a", 1], lambda: {"x": 2}) == {"x": 1}
    assert sr.measured_once(tmp_path, ["a", 2], lambda: {"x": 2}) == {"x": 2}
