"""Slices changed on purpose: what is changed, by how much, and that nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from examples.benchmarks import insertions
from examples.benchmarks.insertions import donor_of, erase, insert, ring_of, spoil_texture


def block(rows, columns, shape=(60, 50)):
    mask = np.zeros(shape, bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


BRAIN = block((5, 55), (5, 45))
LESION = block((10, 22), (10, 20))


def grain(level, seed):
    return (np.random.default_rng(seed).normal(level, 0.01, BRAIN.shape) * BRAIN).astype(np.float32)


def contrast(image, mask):
    return float(image[mask].mean() - image[ring_of(mask, BRAIN, 1.0)].mean())


@pytest.fixture
def donor():
    condition, target = grain(0.5, 0), grain(0.4, 1)
    condition[LESION] -= 0.2
    target[LESION] += 0.3
    return donor_of("a", 3, condition, target, BRAIN, LESION, 1.0)


def test_an_inserted_lesion_keeps_its_contrast_in_both_images(donor):
    condition, target = grain(0.7, 2), grain(0.3, 3)
    changed_condition, changed_target, truth = insert(donor, condition, target, BRAIN, 1.0)
    assert np.array_equal(truth, LESION)
    core = insertions.feather(truth) == 1
    assert contrast(changed_condition, core) == pytest.approx(-0.2, abs=0.03)
    assert contrast(changed_target, core) == pytest.approx(0.3, abs=0.03)
    assert np.array_equal(changed_condition[~truth], condition[~truth])
    assert np.array_equal(changed_target[~truth], target[~truth])


def test_a_lesion_goes_to_the_nearest_place_inside_the_brain(donor):
    brain = block((30, 60), (2, 48))
    truth = insert(donor, grain(0.5, 4), grain(0.5, 5), brain, 1.0)[2]
    assert np.array_equal(truth, np.roll(LESION, (32 - 10, 0), axis=(0, 1)))
    assert insert(donor, grain(0.5, 4), grain(0.5, 5), block((0, 14), (0, 14)), 1.0) is None


def test_a_lesion_may_not_leave_the_image(donor):
    brain = block((0, 60), (0, 13))
    assert insert(donor, grain(0.5, 4), grain(0.5, 5), brain, 1.0) is None


def test_a_donor_is_the_largest_component(donor):
    condition = grain(0.5, 0)
    two = LESION | block((40, 43), (30, 33))
    assert np.array_equal(donor_of("a", 0, condition, condition, BRAIN, two, 1.0).mask, LESION)
    assert donor_of("a", 0, condition, condition, BRAIN, np.zeros_like(BRAIN), 1.0) is None
    assert [part.sum() for part in insertions.components(two, 10)] == [120]


def test_an_erased_lesion_keeps_nothing_but_its_grain():
    image = grain(0.5, 0)
    lesions = LESION | block((38, 46), (30, 40))
    image[lesions] += 0.2
    erased = erase(image, lesions, BRAIN, 1.0)
    for part in insertions.components(lesions, 1):
        assert contrast(erased, part) == pytest.approx(0, abs=0.01)
        assert erased[part].std() == pytest.approx(0.01, rel=0.3)
    assert np.array_equal(erased[~lesions], image[~lesions])


def test_textures_stay_in_their_region_and_do_what_they_are_called():
    image = grain(0.5, 0)
    image[:, ::4] += 0.1 * BRAIN[:, ::4]
    image[::11] += 0.2 * BRAIN[::11]
    core = insertions.feather(LESION) == 1

    def spoilt(kind, strength):
        changed = spoil_texture(image, LESION, kind, strength, np.random.default_rng(0))
        assert np.array_equal(changed[~LESION], image[~LESION])
        return changed

    assert (spoilt("noise", 0.05) - image)[core].std() == pytest.approx(0.05, rel=0.3)
    assert spoilt("blur", 4.0)[core].std() < 0.5 * image[core].std()
    assert np.abs(spoilt("ringing", 1.0) - image)[core].mean() > 0.02
    assert np.array_equal(spoilt("ringing", 1.0), spoilt("ringing", 1.0))


def test_an_edge_echoes_at_the_distance_of_the_ghosts():
    edge = np.zeros((96, 8), np.float32)
    edge[48] = 1
    echoes = insertions.ringing(edge, 1.0, np.random.default_rng(0))[:, 0] - edge[:, 0]
    assert set(np.argsort(-np.abs(echoes))[:2]) == {48 - 6, 48 + 6}


def test_a_disc_lies_inside_the_brain_or_there_is_none():
    disc = insertions.disc_in(BRAIN, 10, np.random.default_rng(0))
    assert 290 < disc.sum() < 340
    assert not (disc & ~BRAIN).any()
    assert insertions.disc_in(BRAIN, 25, np.random.default_rng(0)) is None
