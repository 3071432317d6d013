from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from localdiff_cli.evaluation.metrics.ring_correlation import PATCH, ring_correlation, scan, supported_frequency


def texture(seed, shape=(2, 96, 96), sigma=2.0):
    image = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), (0, sigma, sigma))
    return (0.5 + 0.1 * image / image.std()).astype(np.float32)


BRAIN = np.ones((2, 96, 96), bool)


def test_an_image_supports_itself_to_the_finest_detail():
    found = scan(texture(0), texture(0), BRAIN, 1.0, 0.5, 0.2)
    assert (found.frequency.value, found.unsupported.value) == (1, 0)
    assert (found.support == 1).all()


def test_unrelated_structure_is_unsupported():
    found = scan(texture(0), texture(1), BRAIN, 1.0, 0.5, 0.2)
    assert found.unsupported.value > 0.9


def test_a_structure_that_is_not_in_the_reference_shows_on_the_map_where_it_is():
    """Half of each slice is another texture: there, and not in the other half, the support is lost."""
    reference = texture(0)
    image = reference.copy()
    image[:, :, 60:] = texture(1)[:, :, 60:]
    found = scan(image, reference, BRAIN, 1.0, 0.5, 0.2)
    assert np.nanmean(found.support[:, :, :24]) > 0.95
    assert np.nanmean(found.support[:, :, 80:]) < 0.3
    assert 0.1 < found.unsupported.value < 0.6


def test_factor_and_offset_do_not_matter_and_fine_noise_costs_fine_detail_only():
    reference = texture(0)
    assert scan(0.5 * reference + 0.2, reference, BRAIN, 1.0, 0.5, 0.2).frequency.value == 1
    noisy = reference + 0.02 * np.random.default_rng(2).normal(size=reference.shape).astype(np.float32)
    found = scan(noisy, reference, BRAIN, 1.0, 0.5, 0.2)
    assert found.unsupported.value < 0.1
    assert 0.2 < found.frequency.value < 0.9


def test_patches_without_structure_or_brain_are_not_counted():
    flat = scan(np.full((2, 96, 96), 0.5, np.float32), texture(0), BRAIN, 1.0, 0.5, 0.2)
    assert "no patch" in flat.frequency.reason
    assert np.isnan(flat.support).all()
    edge = np.zeros_like(BRAIN)
    edge[:, :32, :32] = True
    found = scan(texture(0), texture(0), edge, 1.0, 0.5, 0.2)
    assert np.isnan(found.support[:, 60:, 60:]).all()
    assert "no patch" in scan(texture(0)[:, :20], texture(0)[:, :20], BRAIN[:, :20], 1.0, 0.5, 0.2).unsupported.reason


def test_the_correlation_is_that_of_the_spectra_ring_by_ring():
    """Two waves: one shared, one of opposite sign."""
    at = np.arange(PATCH)
    low, high = np.cos(2 * np.pi * 3 * at / PATCH), np.cos(2 * np.pi * 10 * at / PATCH)
    a, b = (np.tile(low + sign * high, (PATCH, 1))[None] for sign in (1, -1))
    found = ring_correlation(a, b)[0]
    assert found[3] == pytest.approx(1, abs=1e-6)
    assert found[10] == pytest.approx(-1, abs=1e-6)
    assert found[0] == 1


@pytest.mark.parametrize(("curve", "at"), [((1, 0.9, 0.8), 1.0), ((1, 0.6, 0.4), 0.75), ((1, 0.0, 1.0), 0.25)])
def test_support_ends_where_the_curve_first_falls_below_the_threshold(curve, at):
    assert supported_frequency(np.array([curve], float), 0.5)[0] == pytest.approx(at)
