"""M in the light of neighbouring slices: the average, what is sure, and what a slice takes from its neighbours."""

import math

import numpy as np
import pytest
import torch

from localdiff_cli.ood.through_plane import ALL, NOTHING, SUSPECTED, averaged, seen_from_the_side

SIGMA, PEAK = 1.0, 0.65


def volume(*values, at=slice(2, 4)):
    """Slices of 6 × 6 pixels, brain everywhere, whose inner 2 × 2 pixels have a value of M each."""
    ood_map = np.zeros((len(values), 6, 6), np.float32)
    for k, value in enumerate(values):
        ood_map[k, at, at] = value
    return ood_map, np.ones(ood_map.shape, bool)


def seen(ood_map, brain, peak=PEAK):
    stacks = (torch.from_numpy(stack)[:, None] for stack in (ood_map * brain, brain))
    return seen_from_the_side(*stacks, SIGMA, peak)[:, 0].numpy()


def middle(stack):
    return [round(float(v), 6) for v in stack[:, 2, 2]]


def test_the_average_has_the_weights_of_a_gaussian_and_ends_after_three_standard_deviations():
    weights = [math.exp(-0.5 * away**2) for away in range(4)]
    total = weights[0] + 2 * sum(weights[1:])
    found = middle(averaged(*volume(*[0] * 10, 1, *[0] * 10), SIGMA))
    for away in range(4):
        assert found[10 + away] == found[10 - away] == pytest.approx(weights[away] / total, abs=1e-6)
    assert found[6] == found[14] == 0


def test_what_is_the_same_in_all_slices_stays_to_the_ends_of_the_volume_and_the_rim_of_the_brain():
    ood_map, brain = volume(*[0.7] * 5)
    brain[3:, :, :3] = False
    found = averaged(ood_map * brain, brain, 2.0)
    assert np.allclose(found, ood_map * brain, atol=1e-6)
    assert not found[~brain].any()


def test_the_average_does_not_ask_from_which_end_the_slices_are_counted():
    chance = np.random.default_rng(0)
    brain = chance.random((9, 6, 6)) > 0.3
    ood_map = chance.random(brain.shape, np.float32) * brain
    assert np.array_equal(averaged(ood_map[::-1], brain[::-1], 1.7)[::-1], averaged(ood_map, brain, 1.7))


def test_one_slice_alone_is_its_own_average():
    ood_map, brain = volume(0.4)
    assert np.allclose(averaged(ood_map, brain, 5.0), ood_map, atol=1e-6)


def test_a_find_of_one_slice_alone_stays_as_a_suspicion():
    found = seen(*volume(0, 0, 0, 0, 1, 0, 0, 0, 0))
    assert middle(found) == [0, 0, 0, 0, pytest.approx(SUSPECTED), 0, 0, 0, 0]


def test_a_slice_between_two_that_show_a_lesion_takes_it_from_them():
    found = seen(*volume(0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0))
    assert middle(found)[2:9] == [1] * 7
    assert (found[5] > 0).sum() == 4


def test_a_long_lesion_goes_one_standard_deviation_beyond_its_ends():
    found = middle(seen(*volume(0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0)))
    assert found[3:9] == [1] * 6
    assert 0.2 < found[2] < 1
    assert found[2] == found[9]
    assert found[1] == found[10] == 0


def test_a_slice_that_shows_half_of_its_part_keeps_its_own_outline():
    for marked in (2, 1):
        ood_map, brain = volume(1, 1, 1, 1, 1)
        ood_map[2] = 0
        ood_map[2, 2, 2 : 2 + marked] = 0.9
        ood_map[2, 2, 1] = 0.3  # of its outline, and not of the neighbours'
        found = seen(ood_map, brain)
        assert np.array_equal(found[2], ood_map[2]) == (marked == 2)
        assert (found[2] >= 0.2).sum() == (3 if marked == 2 else 4)


def test_every_region_of_a_slice_is_asked_for_itself_and_what_lies_elsewhere_stays_a_suspicion():
    ood_map, brain = volume(1, 1, 1, 1, 1, at=slice(0, 2))
    ood_map[:, 4:, 4:] = 1
    ood_map[2] = 0
    ood_map[2, 4:, 4:] = 0.7
    ood_map[2, 0, 5] = 0.9
    found = seen(ood_map, brain)[2]
    assert (found[:2, :2] == 1).all()
    assert np.allclose(found[4:, 4:], 0.7)
    assert found[0, 5] == pytest.approx(SUSPECTED)


def test_a_region_is_sure_as_a_whole_where_its_average_reaches_the_peak_in_another_slice():
    found = middle(seen(*volume(0.5, 0.5, 0.5, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0.5, 0.5, 0.5)))
    assert found[:8] == [0.5, 0.5, 0.5, 1, 1, 1, 1, 1]
    assert found[14:] == [pytest.approx(SUSPECTED)] * 3


def test_averages_are_spread_between_what_counts_nothing_and_what_counts_all():
    ood_map, brain = volume(1, 1, 1, 1, 0, 0, 0, 0, 0)
    average = averaged(ood_map, brain, SIGMA)[4, 2, 2]
    assert NOTHING < average < ALL
    assert seen(ood_map, brain)[4, 2, 2] == pytest.approx((average - NOTHING) / (ALL - NOTHING), rel=1e-5)


def test_nothing_outside_the_brain_has_a_probability():
    ood_map, brain = volume(1, 1, 0, 1, 1)
    brain[2, 2, 2] = False
    found = seen(ood_map, brain, 0.5)
    assert not found[~brain].any()
    assert (found[2] > 0).sum() == 3
