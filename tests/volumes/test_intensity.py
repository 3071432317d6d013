"""The bias field and the robust scale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localdiff_cli.volumes.intensity import BiasField, bias_steps, fit_bias, robust_scale
from localdiff_cli.volumes.reader import SliceReader, open_volume

from .synthetic import brain_array, real

WINDOW = (-6.0, 6.0)


def test_scale_is_the_documented_formula():
    values = np.random.default_rng(0).gamma(9, 100, 5001).astype(np.float32)
    scale = robust_scale(values, WINDOW)
    median = np.median(values)
    z = (values - median) / (1.4826 * np.median(np.abs(values - median)))
    np.testing.assert_allclose(scale.normalise(values), np.clip((z + 6) / 12, 0, 1), atol=1e-5)
    narrow = robust_scale(values, (-1.0, 2.0)).normalise(values)
    np.testing.assert_allclose(narrow, np.clip((z + 1) / 3, 0, 1), atol=1e-5)
    assert (narrow.min(), narrow.max()) == (0, 1)


def test_scale_is_unmoved_by_a_large_bright_lesion():
    rng = np.random.default_rng(0)
    brain = rng.normal(1000, 100, 20000).astype(np.float32)
    lesion = np.where(np.arange(brain.size) < 0.12 * brain.size, 6000, brain).astype(np.float32)
    clean, ill = robust_scale(brain, WINDOW), robust_scale(lesion, WINDOW)
    assert abs(ill.median - clean.median) < 0.2 * clean.sd
    assert ill.sd / clean.sd < 1.25
    assert np.mean(lesion) > 1500  # a mean would have moved by six standard deviations


@settings(max_examples=50, deadline=None)
@given(gain=st.floats(0.01, 100), shift=st.floats(-1000, 1000))
def test_normalised_values_ignore_the_scanners_units(gain, shift):
    values = np.random.default_rng(0).normal(0, 100, 999).astype(np.float32)
    other = (values * np.float32(gain) + np.float32(shift)).astype(np.float32)
    np.testing.assert_allclose(robust_scale(other, WINDOW).normalise(other), robust_scale(values, WINDOW).normalise(values), atol=2e-3)


def test_denormalise_undoes_normalise_inside_the_window():
    values = np.linspace(900, 1100, 101, dtype=np.float32)
    scale = robust_scale(values, WINDOW)
    np.testing.assert_allclose(scale.denormalise(scale.normalise(values)), values, rtol=1e-5)


def test_clipped_share_counts_what_the_window_cuts():
    scale = robust_scale(np.random.default_rng(0).normal(0, 1, 9999).astype(np.float32), WINDOW)
    assert scale.clipped_share(np.array([0.0, 0.0, 100.0, -100.0])) == 0.5


def test_half_equal_values_fall_back_to_the_standard_deviation():
    values = np.r_[np.zeros(60), np.arange(40)].astype(np.float32)
    assert robust_scale(values, WINDOW).sd == pytest.approx(values.std(), rel=1e-5)


def test_constant_brain_has_no_scale():
    with pytest.raises(ValueError, match="constant"):
        robust_scale(np.full(10, 7.0, np.float32), WINDOW)


def planted_field(shape: tuple[int, int, int]) -> np.ndarray:
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return (0.25 * x + 0.15 * y * y - 0.1 * z).astype(np.float32)


@pytest.mark.slow
def test_n4_finds_a_field_planted_in_a_real_brain():
    volume = open_volume(real("t1t2", "sub-bratsgli00001", "sub-bratsgli00001_T1w.nii.gz"))
    reader = SliceReader(volume)
    sample = np.stack([reader.read(k)[::8, ::8] for k in range(20, 130, 8)])
    brain, spacing = sample > 0, (8.0, 8.0, 8.0)
    planted = planted_field(sample.shape)
    before = fit_bias(sample, brain, spacing)
    after = fit_bias(sample * np.exp(planted), brain, spacing)
    found = (after - before)[brain]
    assert np.corrcoef(found, planted[brain])[0, 1] > 0.95
    assert found.std() == pytest.approx(planted[brain].std(), rel=0.25)


def test_bias_of_a_brain_without_field_is_almost_flat():
    brain = brain_array((10, 30, 30)) > 0
    sample = np.where(brain, np.random.default_rng(0).normal(1000, 60, brain.shape), 0).astype(np.float32)
    assert fit_bias(sample, sample > 0, (4, 4, 4))[sample > 0].std() < 0.03


@pytest.mark.parametrize("shape", [(1, 40, 44), (2, 40, 44), (3, 40, 44), (40, 3, 44), (12, 2, 2)], ids=str)
def test_thin_volumes_are_corrected_without_a_crash(shape):
    sample = np.maximum(brain_array(shape), 1).astype(np.float32)
    field = BiasField(fit_bias(sample, np.ones(shape, bool), (1.0, 1.0, 1.0)), bias_steps(shape, (1.0, 1.0, 1.0)))
    image = field.slice(shape[0] - 1, shape[1:])
    assert image.shape == shape[1:]
    assert np.isfinite(image).all()
    assert (image > 0).all()


def test_median_of_the_field_over_the_brain_is_one():
    sample = brain_array((6, 20, 20)).astype(np.float32)
    field = BiasField(fit_bias(sample, sample > 0, (4, 4, 4)), bias_steps(sample.shape, (4, 4, 4)))
    assert np.median(field.log_field[sample > 0]) == pytest.approx(0, abs=1e-6)


def test_bias_is_the_same_every_time():
    sample = brain_array((8, 40, 40)).astype(np.float32)
    fields = [fit_bias(sample, sample > 0, (3, 2, 2)).tobytes() for _ in range(2)]
    assert fields[0] == fields[1]


def test_field_is_evaluated_between_lattice_points():
    log_field = np.linspace(0, 1, 5, dtype=np.float32)[:, None, None] * np.ones((1, 6, 7), np.float32)
    field = BiasField(log_field, (4, 2, 3))
    np.testing.assert_allclose(np.log(field.slice(6, (11, 19))), 6 / 4 * 0.25, atol=1e-5)
    np.testing.assert_allclose(np.log(field.slice(99, (11, 19))), 1, atol=1e-5)  # held beyond the last lattice point


def test_strided_field_is_a_part_of_the_whole():
    field = BiasField(np.random.default_rng(0).normal(0, 0.1, (3, 6, 7)).astype(np.float32), (2, 4, 4))
    strided = field.strided((2, 3), (5, 21, 25))
    np.testing.assert_array_equal(strided[3], field.slice(3, (21, 25))[::2, ::3])
