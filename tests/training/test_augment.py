"""Augmentation varies slices without tearing condition, target and brain apart."""

import pytest
import torch
from torch.nn.functional import max_pool2d

from localdiff_cli.training.augment import AugmentSettings, grown, place, random_blob, recontrast, restrict_regions

SHAPE = (64, 48)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch():
    """Condition, target (its double) and brain of six slices."""
    condition = 0.1 + 0.4 * torch.rand(6, 1, *SHAPE, generator=generator(1))
    brain = torch.zeros(6, 1, *SHAPE)
    brain[:, :, 12:50, 10:38] = 1
    return condition * brain, 2 * condition * brain, brain


def test_channels_of_a_slice_are_placed_alike_and_slices_differently(batch):
    placed = place(torch.cat(batch, dim=1), AugmentSettings(), generator())
    condition, target, brain = placed.split(1, dim=1)
    assert torch.allclose(target, 2 * condition, atol=1e-5)
    assert not condition[brain == 0].any()
    centres = [(b.squeeze() > 0.5).nonzero().float().mean(0) for b in brain]
    assert len({tuple(c.round().tolist()) for c in centres}) > 1
    assert not torch.equal(condition, batch[0])


def test_without_ranges_placing_only_mirrors(batch):
    still = AugmentSettings(rotation=0, scale=0, shift=0)
    placed = place(batch[0], still, generator())
    mirrored = 0
    for before, after in zip(batch[0], placed, strict=True):
        same, flipped = torch.allclose(before, after, atol=1e-4), torch.allclose(before.flip(-1), after, atol=1e-4)
        assert same or flipped
        mirrored += flipped
    assert 0 < mirrored < 6


def test_rotation_and_scale_keep_the_brains_shape_on_a_grid_that_is_not_square():
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(48.0), indexing="ij")
    disc = (((y - 31.5) ** 2 + (x - 23.5) ** 2) < 15**2).float().expand(20, 1, 64, 48)
    placed = place(disc, AugmentSettings(rotation=45, scale=0, shift=0), generator())
    for turned in placed:
        inside = turned.squeeze() > 0.5
        height, width = inside.any(1).sum(), inside.any(0).sum()
        assert abs(int(height) - int(width)) <= 2


def test_recontrast_keeps_range_background_and_follows_its_generator(batch):
    condition, _, brain = batch
    varied = recontrast(condition, brain, AugmentSettings(), generator(3))
    assert varied.min() >= 0
    assert varied.max() <= 1
    assert not varied[brain == 0].any()
    assert not torch.allclose(varied, condition)
    assert torch.equal(varied, recontrast(condition, brain, AugmentSettings(), generator(3)))
    assert not torch.equal(varied, recontrast(condition, brain, AugmentSettings(), generator(4)))


def test_recontrast_without_noise_keeps_the_order_of_intensities(batch):
    condition, _, brain = batch
    varied = recontrast(condition, brain, AugmentSettings(noise=0, contrast=0.25, gamma=0.25), generator())
    for before, after, inside in zip(condition, varied, brain, strict=True):
        pair = torch.stack([before[inside > 0], after[inside > 0]])
        assert torch.corrcoef(pair)[0, 1] > 0.9


def test_recontrast_of_a_slice_without_brain_is_empty():
    empty = torch.zeros(2, 1, *SHAPE)
    assert not recontrast(empty, empty, AugmentSettings(), generator()).any()


def test_condition_and_target_are_restricted_to_the_same_blob(batch):
    condition, target, _ = batch
    c, t = restrict_regions(condition, target, AugmentSettings(region=1.0), generator())
    assert torch.equal(t, 2 * c)
    kept = c > 0
    assert torch.equal(c[kept], condition[kept])
    shares = [float((k & (b > 0)).sum() / (b > 0).sum()) for k, b in zip(kept, condition, strict=True)]
    assert max(shares) < 0.9
    assert max(shares) > 0


def test_the_share_of_restricted_slices_is_the_probability():
    condition = torch.ones(400, 1, 16, 16)
    c, _ = restrict_regions(condition, condition, AugmentSettings(region=0.25), generator())
    share = float((c.flatten(1).mean(1) < 1).float().mean())
    assert share == pytest.approx(0.25, abs=0.07)
    untouched, _ = restrict_regions(condition, condition, AugmentSettings(region=0.0), generator())
    assert torch.equal(untouched, condition)


def test_blobs_are_of_zeros_and_ones_and_of_moderate_size():
    blobs = random_blob(50, SHAPE, generator())
    assert blobs.unique().tolist() == [0.0, 1.0]
    assert blobs.flatten(1).mean(1).min() > 0.02
    assert blobs.flatten(1).mean(1).max() < 0.5


@pytest.mark.parametrize("reach", [0, 1, 4])
def test_grown_is_the_largest_value_of_the_square_and_shrunk_the_smallest(reach):
    images = torch.rand(2, 2, 20, 17, generator=torch.Generator().manual_seed(0))
    square = max_pool2d(images, 2 * reach + 1, 1, reach)
    assert torch.equal(grown(images, reach), square)
    assert torch.equal(grown(images, -reach), -max_pool2d(-images, 2 * reach + 1, 1, reach))
