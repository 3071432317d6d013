"""Sampling the slices of a volume: what it costs, and what it must not depend on."""

import numpy as np
import pytest
import torch

from localdiff_cli.diffusion.device import autocast, choose_device, on_device
from localdiff_cli.diffusion.fusion import LocalSettings
from localdiff_cli.diffusion.schedule import Schedule
from localdiff_cli.errors import DeviceError
from localdiff_cli.tasks.sampling import Networks, SampleSettings, SliceSampler
from localdiff_cli.tasks.slices import Chunk
from localdiff_cli.tasks.translation import FUSED, IND, OOD, UNKNOWN, source_labels

H, W = 96, 80
CPU = torch.device("cpu")


class Counting:
    """A cheap network that remembers the shape of everything it was asked for."""

    def __init__(self):
        self.shapes = []

    def __call__(self, x_t, condition, t):
        self.shapes.append(tuple(x_t.shape))
        return torch.tanh(0.5 * x_t + condition - 0.3 * torch.roll(x_t, 1, -1))


def settings(**changes):
    values = {
        "mode": "local", "sampler": "ddim", "eta": 0.0, "steps": 5, "samples": 1, "seed": 0, "noise": "shared",
        "local": LocalSettings(context=0.95, branch_step=0, fusion_step=1), "guided": False, "ood_crop": False,
    }  # fmt: skip
    return SampleSettings(**values | changes)


def chunk(n, first=10):
    """``n`` active slices among empty ones."""
    generator = torch.Generator().manual_seed(0)
    condition = torch.rand(n, 1, H, W, generator=generator)
    brain = torch.zeros(n, 1, H, W, dtype=torch.bool)
    brain[..., 10:90, 10:70] = True
    numbers = tuple(range(first, first + 2 * n))
    return Chunk(numbers, tuple(range(0, 2 * n, 2)), condition * brain, brain)


def regions(n, ood):
    """B and M: a square in the slices ``ood``."""
    mask = torch.zeros(n, 1, H, W, dtype=torch.bool)
    mask[list(ood), :, 30:38, 30:38] = True
    return mask.float() * 0.8, mask


def draw(network, sample, part, ood_map, mask):
    networks = Networks(on_device(network, CPU, "fp32"), Schedule(), CPU, 16)
    return SliceSampler(networks, sample, "fingerprint")(part, ood_map, mask)


def part_of(whole, rows):
    return Chunk(whole.numbers, tuple(whole.active[i] for i in rows), whole.condition[rows], whole.brain[rows])


def test_a_chunk_without_brain_asks_nothing_of_the_network():
    network = Counting()
    empty = Chunk((1, 2), (), torch.zeros(0, 1, H, W), torch.zeros(0, 1, H, W, dtype=torch.bool))
    mean, spread = draw(network, settings(samples=2), empty, empty.condition, empty.brain)
    assert network.shapes == []
    assert mean.shape == spread.shape == (0, 1, H, W)


def test_a_slice_wholly_in_distribution_takes_one_forward_a_step():
    network = Counting()
    draw(network, settings(), chunk(3), *regions(3, ()))
    assert network.shapes == [(1, 1, H, W)] * 15


def test_an_ood_slice_takes_two_forwards_a_branched_step_and_one_after_fusion():
    network = Counting()
    draw(network, settings(), chunk(2), *regions(2, (1,)))
    assert len(network.shapes) == 5 + 2 * 4 + 1
    network = Counting()
    draw(network, settings(local=LocalSettings(branch_step=2, fusion_step=0)), chunk(1), *regions(1, (0,)))
    assert len(network.shapes) == 2 + 2 * 3


def test_with_a_crop_the_ood_branch_pays_for_its_window_only():
    network = Counting()
    draw(network, settings(ood_crop=True), chunk(1), *regions(1, (0,)))
    whole = [shape for shape in network.shapes if shape == (1, 1, H, W)]
    windows = [shape for shape in network.shapes if shape != (1, 1, H, W)]
    assert len(whole) == 4 + 1
    assert len(windows) == 4
    assert len(set(windows)) == 1
    assert windows[0][2] * windows[0][3] < 0.6 * H * W
    assert all(n % 16 == 0 for n in windows[0][2:])


def test_plain_mode_ignores_the_region():
    network = Counting()
    local, _ = draw(network, settings(mode="plain"), chunk(2), *regions(2, (0, 1)))
    assert len(network.shapes) == 10
    plain, _ = draw(Counting(), settings(), chunk(2), *regions(2, ()))
    assert torch.equal(local, plain)


@pytest.mark.parametrize("noise", ["shared", "independent"])
@pytest.mark.parametrize("extra", [{}, {"ood_crop": True}, {"samples": 2}, {"sampler": "ddpm"}, {"sampler": "ddim", "eta": 1.0}], ids=str)
def test_a_slice_does_not_depend_on_those_it_is_batched_with(noise, extra):
    whole, (ood_map, mask) = chunk(4), regions(4, (1, 3))
    sample = settings(noise=noise, **extra)
    together = draw(Counting(), sample, whole, ood_map, mask)
    for rows in ([0], [3], [2, 1], [3, 0, 1]):
        apart = draw(Counting(), sample, part_of(whole, rows), ood_map[rows], mask[rows])
        for a, b in zip(together, apart, strict=True):
            assert torch.equal(a[rows], b)


def test_independent_noise_differs_between_slices_and_shared_noise_does_not():
    same = chunk(2)
    same = Chunk(same.numbers, same.active, same.condition[:1].repeat(2, 1, 1, 1), same.brain)
    shared, _ = draw(Counting(), settings(), same, *regions(2, ()))
    apart, _ = draw(Counting(), settings(noise="independent"), same, *regions(2, ()))
    assert torch.equal(shared[0], shared[1])
    assert not torch.equal(apart[0], apart[1])


def test_the_mean_and_spread_are_those_of_the_samples():
    part, region = chunk(1), regions(1, ())
    singles = []
    for number in range(3):
        networks = Networks(on_device(Counting(), CPU, "fp32"), Schedule(), CPU, 16)
        singles.append(SliceSampler(networks, settings(), "fingerprint")._one(part, *region, number))
    mean, spread = draw(Counting(), settings(samples=3), part, *region)
    assert torch.allclose(mean, torch.stack(singles).mean(0))
    assert torch.allclose(spread, torch.stack(singles).std(0, correction=0))
    assert spread.max() > 0
    assert draw(Counting(), settings(samples=1), part, *region)[1].max() == 0


def test_results_are_images_in_range_and_zero_outside_the_brain():
    part = chunk(2)
    mean, _ = draw(Counting(), settings(), part, *regions(2, (0,)))
    assert mean.min() >= 0
    assert mean.max() <= 1
    assert not mean[~part.brain].any()
    assert mean[part.brain].std() > 0


def test_the_seed_and_the_volume_decide_the_noise():
    part, region = chunk(1), regions(1, ())
    first = draw(Counting(), settings(), part, *region)[0]
    assert torch.equal(first, draw(Counting(), settings(), part, *region)[0])
    assert not torch.equal(first, draw(Counting(), settings(seed=1), part, *region)[0])
    networks = Networks(on_device(Counting(), CPU, "fp32"), Schedule(), CPU, 16)
    assert not torch.equal(first, SliceSampler(networks, settings(), "another")(part, *region)[0])


def test_guided_timing_asks_the_classifier_of_each_ood_slice_only():
    asked = []

    def shows(condition, mask, brain):
        assert condition.shape == mask.shape == brain.shape == (1, 1, H, W)
        return lambda x0: bool(asked.append(tuple(x0.shape))) or True

    networks = Networks(on_device(Counting(), CPU, "fp32"), Schedule(), CPU, 16, shows)
    SliceSampler(networks, settings(guided=True), "fingerprint")(chunk(3), *regions(3, (1,)))
    assert asked == [(1, 1, H, W)]


@pytest.mark.parametrize(
    ("changes", "inside", "partly"),
    [
        ({"local": LocalSettings(fusion_step=1)}, FUSED, FUSED),
        ({"local": LocalSettings(fusion_step=0)}, OOD, OOD),
        ({"local": LocalSettings(fusion_step=0, soft=True)}, OOD, FUSED),
        ({"local": LocalSettings(fusion_step=0), "guided": True}, FUSED, FUSED),
    ],
    ids=str,
)
def test_source_labels_say_which_process_made_each_voxel(changes, inside, partly):
    brain = np.array([True, True, True, False])
    mask = np.array([False, True, True, False])
    weight = np.array([0.2, 1.0, 0.6, 0.0], np.float32)
    assert source_labels(mask, mask & False, weight, brain, settings(**changes)).tolist() == [IND, inside, partly, 0]


def test_what_is_unknown_is_labelled_where_nothing_was_drawn():
    brain, mask = np.ones(3, bool), np.array([False, False, True])
    unknown, weight = np.array([False, True, True]), np.array([0.0, 0.15, 1.0], np.float32)
    assert source_labels(mask, unknown, weight, brain, settings(local=LocalSettings(fusion_step=0))).tolist() == [IND, UNKNOWN, OOD]


def test_on_a_cpu_every_slice_runs_alone():
    network = Counting()
    run = on_device(network, CPU, "fp32")
    x, condition, t = torch.randn(3, 1, H, W), torch.rand(3, 1, H, W), torch.tensor([5, 6, 7])
    assert run(x, condition, t).shape == (3, 1, H, W)
    assert network.shapes == [(1, 1, H, W)] * 3


@pytest.mark.parametrize("name", ["toaster", "", "cuda:-3", "cuda:x", "cuda:99999999999999999999", "meta", "cuda:1000", "gpu"])
def test_a_device_that_is_not_there_is_an_error_that_names_it(name):
    with pytest.raises(DeviceError) as error:
        choose_device(name)
    assert error.value.exit_code == 4
    assert f"--device {name}:" in str(error.value)


def test_what_is_asked_for_is_what_runs():
    assert choose_device("cpu") == CPU
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device("auto").type == expected


def test_without_a_gpu_asking_for_one_never_falls_back(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == CPU
    for name in ("cuda", "cuda:0", "mps"):
        with pytest.raises(DeviceError):
            choose_device(name)


def test_reduced_precision_on_a_cpu_is_refused():
    with pytest.raises(DeviceError, match="fp32"):
        autocast(CPU, "bf16")
    with autocast(CPU, "fp32"):
        assert not torch.is_autocast_enabled("cpu")
