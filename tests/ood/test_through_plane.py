"""M in the light of neighbouring slices: the average, what is sure, and what a slice takes from its neighbours."""

import math

import pytest
import torch

from localdiff_cli.ood.through_plane import ALL, NOTHING, averaged, seen_from_the_side

SIGMA = 1.0


def volume(*values):
    """Slices of 6 × 6 pixels, brain everywhere, whose inner 2 × 2 pixels have a value of M each."""
    ood_map = torch.zeros(len(values), 1, 6, 6)
    for k, value in enumerate(values):
        ood_map[k, 0, 2:4, 2:4] = value
    return ood_map, torch.ones(ood_map.shape, dtype=torch.bool)


def middle(stack):
    return [round(float(v), 6) for v in stack[:, 0, 2, 2]]


def test_the_average_has_the_weights_of_a_gaussian_and_ends_after_three_standard_deviations():
    weights = [math.exp(-0.5 * away**2) for away in range(4)]
    total = weights[0] + 2 * sum(weights[1:])
    found = middle(averaged(*volume(*[0] * 10, 1, *[0] * 10), SIGMA))
    for away in range(4):
        assert found[10 + away] == found[10 - away] == pytest.approx(weights[away] / total, abs=1e-6)
    assert found[6] == found[14] == 0


def test_what_is_the_same_in_all_slices_stays_to_the_ends_of_the_volume_and_the_rim_of_the_brain():
    ood_map, brain = volume(*[0.7] * 5)
    brain[3:, :, :, :3] = False
    found = averaged(ood_map * brain, brain, 2.0)
    assert torch.allclose(found, ood_map * brain, atol=1e-6)
    assert not found[~brain].any()


def test_the_average_does_not_ask_from_which_end_the_slices_are_counted():
    ood_map = torch.rand(9, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    brain = torch.rand(ood_map.shape, generator=torch.Generator().manual_seed(1)) > 0.3
    there = averaged(ood_map * brain, brain, 1.7)
    assert torch.equal(averaged((ood_map * brain).flip(0), brain.flip(0), 1.7).flip(0), there)


def test_one_slice_alone_is_its_own_average():
    ood_map, brain = volume(0.4)
    assert torch.allclose(averaged(ood_map, brain, 5.0), ood_map, atol=1e-6)


def test_a_find_of_one_slice_alone_is_not_sure_and_its_map_stays_as_it_is():
    ood_map, brain = volume(0, 0, 0, 0, 1, 0, 0, 0, 0)
    view = seen_from_the_side(ood_map, brain, SIGMA, 0.2, 0.65)
    assert not view.sure.any()
    assert torch.equal(view.ood_map, ood_map)


def test_a_slice_between_two_that_show_a_lesion_takes_it_from_them():
    ood_map, brain = volume(0, 1, 1, 1, 0, 1, 1, 1, 0)
    view = seen_from_the_side(ood_map, brain, SIGMA, 0.2, 0.65)
    assert middle(view.ood_map)[1:-1] == [1] * 7
    assert view.sure[4, 0, 2:4, 2:4].all()
    assert view.sure[4].sum() == 4


def test_a_slice_that_shows_half_of_its_part_keeps_its_own_outline():
    ood_map, brain = volume(1, 1, 1, 1, 1)
    for marked in (2, 1):
        ood_map[2] = 0
        ood_map[2, 0, 2, 2 : 2 + marked] = 0.9
        view = seen_from_the_side(ood_map, brain, SIGMA, 0.2, 0.65)
        assert torch.equal(view.ood_map[2], ood_map[2]) == (marked == 2)
        assert view.sure[2].sum() == (2 if marked == 2 else 4)


def test_a_region_is_sure_as_a_whole_where_its_average_reaches_the_peak_in_another_slice():
    ood_map, brain = volume(0.5, 0.5, 0.5, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0.5, 0.5, 0.5)
    sure = seen_from_the_side(ood_map, brain, SIGMA, 0.2, 0.65).sure.flatten(1).any(dim=1).tolist()
    assert sure[:8] == [True] * 8
    assert not any(sure[11:])


def test_averages_are_spread_between_what_counts_nothing_and_what_counts_all():
    ood_map, brain = volume(1, 1, 1, 1, 0, 0, 0, 0, 0)
    average = averaged(ood_map, brain, SIGMA)[4, 0, 2, 2]
    assert NOTHING < average < ALL
    view = seen_from_the_side(ood_map, brain, SIGMA, 0.2, 0.65)
    assert view.ood_map[4, 0, 2, 2] == pytest.approx(float((average - NOTHING) / (ALL - NOTHING)))


def test_nothing_outside_the_brain_is_sure_or_has_a_probability():
    ood_map, brain = volume(1, 1, 0, 1, 1)
    brain[2, 0, 2, 2] = False
    view = seen_from_the_side(ood_map * brain, brain, SIGMA, 0.2, 0.5)
    assert not view.sure[~brain].any()
    assert not view.ood_map[~brain].any()
