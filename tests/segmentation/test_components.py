"""From probability to lesions."""

import numpy as np
import pytest

from localdiff_cli.segmentation.components import drop_small


def brute_force(mask, voxel, smallest):
    """Components by flooding, 26 neighbours a voxel."""
    left, kept = {tuple(p) for p in np.argwhere(mask)}, np.zeros_like(mask)
    while left:
        component, edge = set(), [left.pop()]
        while edge:
            z, y, x = edge.pop()
            component.add((z, y, x))
            near = {(z + i, y + j, x + k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)} & left
            left -= near
            edge += near
        if len(component) * voxel >= smallest:
            kept[tuple(np.array(sorted(component)).T)] = True
    return kept


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("voxel", "smallest"), [(1.0, 3.0), (0.5, 3.0), (2.0, 7.0)])
def test_small_components_go_as_in_a_brute_force_count(seed, voxel, smallest):
    mask = np.random.default_rng(seed).random((6, 9, 8)) < 0.05
    mask[1:4, 2:4, 3:5] = True
    expected = brute_force(mask, voxel, smallest)
    assert expected.any()
    assert not np.array_equal(expected, mask)
    assert np.array_equal(drop_small(mask, voxel, smallest), expected)


def test_a_component_of_exactly_the_smallest_volume_stays_and_corners_join():
    mask = np.zeros((3, 3, 3), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = True
    assert np.array_equal(drop_small(mask, 2.0, 6.0), mask)
    assert not drop_small(mask, 2.0, 6.1).any()


def test_without_a_limit_or_a_lesion_nothing_changes():
    mask = np.random.default_rng(0).random((3, 4, 5)) < 0.3
    assert np.array_equal(drop_small(mask, 1.0, 0.0), mask)
    assert not drop_small(np.zeros((2, 2, 2), bool), 1.0, 100.0).any()
