"""Masks made wrong: how far, and where."""

import pytest
import torch

from examples.benchmarks.wrong_maps import noisy, spoil


@pytest.fixture
def masks():
    mask, brain = (torch.zeros(2, 1, 40, 40, dtype=torch.bool) for _ in range(2))
    mask[0, 0, 10:20, 10:20] = True
    brain[:, :, 4:36, 4:36] = True
    return mask, brain


@pytest.mark.parametrize(("fault", "size", "pixels"), [("erode", 2, 36), ("dilate", 1, 140), ("shift", 5, 100)])
def test_the_fault_has_its_size(masks, fault, size, pixels):
    spoilt = spoil(*masks, fault, size)
    assert int(spoilt[0].sum()) == pixels
    assert not spoilt[1].any()


def test_holes_take_away_and_islands_add(masks):
    mask, brain = masks
    holed, more = spoil(mask, brain, "holes", 0.3), spoil(mask, brain, "islands", 2)
    assert not (holed & ~mask).any()
    assert holed.sum() < mask.sum() < more.sum()
    assert more[1].any()
    assert not (more & ~brain).any()
    assert torch.equal(more, spoil(mask, brain, "islands", 2))


def test_noise_on_m_flips_more_the_stronger_it_is_and_differs_by_draw(masks):
    mask, brain = masks
    assert torch.equal(noisy(mask, brain, 0.0, draw=0), mask & brain)
    flipped = [int((spoil(mask, brain, "noise", size) ^ mask).sum()) for size in (0.2, 0.5, 1.0)]
    assert flipped[0] < flipped[1] < flipped[2] < int(brain.sum()) / 2
    assert spoil(mask, brain, "noise", 1.0)[1].any()
    assert not (spoil(mask, brain, "noise", 1.0) & ~brain).any()
    assert torch.equal(spoil(mask, brain, "noise", 0.5), noisy(mask, brain, 0.5, draw=0))
    assert not torch.equal(noisy(mask, brain, 0.5, draw=0), noisy(mask, brain, 0.5, draw=1))


def test_an_unknown_fault_is_refused(masks):
    with pytest.raises(ValueError, match="unknown fault"):
        spoil(*masks, "moon", 1)
