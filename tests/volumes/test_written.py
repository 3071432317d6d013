"""The scale that a translation's sidecar names."""

from dataclasses import replace

import numpy as np
import pytest

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.intensity import Scale
from localdiff_cli.volumes.prepare import PrepareSettings, prepare
from localdiff_cli.volumes.reader import open_volume
from localdiff_cli.volumes.written import made_here, translation_sidecar, written_scale
from tests.volumes.synthetic import affine_of, brain_array, save_nifti

OURS = {"Synthetic": True, "LocaldiffVersion": "0.1.0", "OutputWindow": [-6.0, 8.0], "OutputScale": None}
OTHER = (-4.0, 6.0)
MATCHED = {"Median": 400.0, "SD": 60.0, "Window": [-6.0, 8.0]}


def test_voxels_in_0_1_are_the_window_of_the_network(tmp_path):
    scale = written_scale(OURS, tmp_path, OTHER)
    z = np.linspace(-4, 6, 11)
    stored = Scale(0.0, 1.0, (-6.0, 8.0)).normalise(z)
    np.testing.assert_allclose((stored - scale.median) / scale.sd, z, atol=1e-5)
    np.testing.assert_allclose(scale.normalise(stored), stored, atol=1e-6)


def test_a_matched_translation_is_on_the_scale_of_its_reference(tmp_path):
    assert written_scale(OURS | {"OutputScale": MATCHED}, tmp_path, OTHER) == Scale(400.0, 60.0, (-6.0, 8.0))


@pytest.mark.parametrize("sidecar", [{}, {"Synthetic": True, "OutputWindow": [-6, 8]}, OURS | {"Synthetic": False}])
def test_an_image_that_is_not_ours_has_none(tmp_path, sidecar):
    assert written_scale(sidecar, tmp_path, OTHER) is None


def test_where_no_window_is_named_it_is_that_of_the_contrast(tmp_path):
    assert written_scale(OURS | {"OutputWindow": None}, tmp_path, OTHER).window == OTHER


@pytest.mark.parametrize("window", [[8], [8, -6], [-6, float("inf")], "18", "wide", {"low": -6}])
def test_a_window_that_cannot_be_read_is_refused(tmp_path, window):
    with pytest.raises(VolumeError, match="found an OutputWindow in its sidecar"):
        written_scale(OURS | {"OutputWindow": window}, tmp_path, OTHER)


@pytest.mark.parametrize("broken", [{"SD": "x"}, {"SD": 0}, {"SD": -2}, {"Median": float("nan")}, {"Window": None}])
def test_a_scale_that_cannot_be_read_is_refused(tmp_path, broken):
    for scale in (MATCHED | broken, [1, 2], "x", {}):
        with pytest.raises(VolumeError, match="found an OutputScale in its sidecar"):
            written_scale(OURS | {"OutputScale": scale}, tmp_path, OTHER)


def test_a_sidecar_that_cannot_be_read_is_refused_and_a_missing_one_is_empty(tmp_path):
    (tmp_path / "a_FLAIR.json").write_text("{")
    with pytest.raises(VolumeError, match="scale is not known"):
        translation_sidecar(tmp_path / "a_FLAIR.nii.gz")
    assert not translation_sidecar(tmp_path / "b_FLAIR.nii.gz")
    assert made_here(OURS)


def test_a_volume_whose_scale_is_written_is_prepared_on_it(tmp_path):
    """Its own spread would stretch it, and N4 would find a field where there is none."""
    array = brain_array().astype(np.float32)
    flat = np.where(array > 0, 0.43 + 0.03 * (array - array[array > 0].mean()) / array[array > 0].std(), 0).astype(np.float32)
    volume = open_volume(save_nifti(tmp_path / "a_FLAIR.nii.gz", flat, affine_of((1, 1, 3))))
    settings = PrepareSettings(brain="none", window=(-4.0, 12.0))
    own, told = prepare(volume, replace(settings, bias="none")), prepare(volume, settings, written=written_scale(OURS, tmp_path, OTHER))
    assert told.bias is None
    assert not any("z-scored" in doubt for doubt in told.brain.doubts)
    assert told.quantiles == pytest.approx(own.quantiles)
    inside = told.brain.mask[5]
    z = told.scale.normalise(told.corrected(5))[inside] * 16 - 4
    np.testing.assert_allclose(z, 14 * told.reader.read(5)[inside] - 6, atol=1e-4)
    assert np.std(own.scale.normalise(own.corrected(5))[inside]) > 1.5 * np.std(told.scale.normalise(told.corrected(5))[inside])
