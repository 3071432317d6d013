"""From a volume on disk to slices for the network."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.advice import EVALUATE, FIT
from localdiff_cli.volumes.brain import Brain
from localdiff_cli.volumes.intensity import WINDOWS
from localdiff_cli.volumes.prepare import PrepareSettings, prepare, survey
from localdiff_cli.volumes.reader import SliceReader, open_volume

from .synthetic import ORIENTATIONS, affine_of, brain_array, canonical, ellipsoid, error_of, real, save_nifti

PLAIN = PrepareSettings(brain="none", bias="none", shape=(32, 32))


def surveyed(path: Path):
    return survey(SliceReader(open_volume(path)))


def network_slices(path: Path, settings: PrepareSettings = PLAIN) -> np.ndarray:
    prepared = prepare(open_volume(path), settings)
    return np.stack([np.stack(prepared.network_slice(k)) for k in range(prepared.volume.frame.shape[0])])


# --- the survey ---


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_fingerprint_and_background_are_the_same_in_every_orientation(tmp_path, orientation):
    array = brain_array((9, 10, 8)).astype(np.float32)
    background = ellipsoid(array.shape) >= 1
    array[background] = np.repeat([5.0, 3.0], 4)[np.nonzero(background)[2]]  # a tie: 5 in the lower slices, 3 in the upper ones
    image = nib.Nifti1Image(array, affine_of((1, 1.2, 3), 10))
    image.to_filename(tmp_path / "a.nii")
    image.as_reoriented(orientation).to_filename(tmp_path / "b.nii")
    one, two = surveyed(tmp_path / "a.nii"), surveyed(tmp_path / "b.nii")
    assert (one.fingerprint, one.background, one.strides) == (two.fingerprint, two.background, two.strides)
    np.testing.assert_array_equal(one.sample, two.sample)


def test_fingerprint_is_that_of_the_values_not_of_the_file(tmp_path):
    array = brain_array().astype(np.int16)
    files = [save_nifti(tmp_path / "a.nii", array), save_nifti(tmp_path / "b.nii.gz", array.astype(np.float64), kind=nib.Nifti2Image)]
    sitk.WriteImage(sitk.ReadImage(str(files[0])), str(tmp_path / "c.nrrd"))
    prints = {surveyed(path).fingerprint for path in (*files, tmp_path / "c.nrrd")}
    array[10, 10, 5] += 1
    assert len(prints) == 1
    assert surveyed(save_nifti(tmp_path / "d.nii", array)).fingerprint not in prints


@pytest.mark.parametrize(("value", "code"), [(0, "all-zero"), (7, "constant")])
def test_volume_without_any_contrast_is_refused(tmp_path, value, code):
    with pytest.raises(VolumeError) as caught:
        surveyed(save_nifti(tmp_path / "a.nii.gz", np.full((9, 9, 4), value, np.int16)))
    assert caught.value.code == code
    assert "a.nii.gz" in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_voxels_are_refused_unless_accepted_as_zero(tmp_path, bad):
    array = brain_array().astype(np.float32)
    array[2, 3, 4] = bad
    array[10, 12, 5] = bad
    path = save_nifti(tmp_path / "a.nii.gz", array)
    with pytest.raises(VolumeError, match="--nan zero") as caught:
        prepare(open_volume(path), PLAIN)
    assert caught.value.code == "not-finite"
    clean = np.nan_to_num(array, nan=0, posinf=0, neginf=0)
    accepted = network_slices(path, PrepareSettings(brain="none", bias="none", shape=(32, 32), nan="zero"))
    np.testing.assert_array_equal(accepted, network_slices(save_nifti(tmp_path / "b.nii.gz", clean)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_voxels_outside_the_brain_stop_nothing(tmp_path, bad):
    tissue = brain_array()
    clean = np.where(tissue > 0, tissue, 0).astype(np.float32)
    holed = np.where(tissue > 0, tissue, bad).astype(np.float32)
    expected = network_slices(save_nifti(tmp_path / "clean.nii.gz", clean))
    np.testing.assert_array_equal(network_slices(save_nifti(tmp_path / "holed.nii.gz", holed)), expected)


def test_a_hint_names_only_what_the_command_has(tmp_path):
    array = brain_array().astype(np.float32)
    array[10, 12, 5] = np.nan
    path = save_nifti(tmp_path / "a.nii.gz", array)
    for advice, hint, absent in ((FIT, "--exclude", "--nan"), (EVALUATE, "in the file first", "--nan")):
        with pytest.raises(VolumeError, match=hint) as caught:
            prepare(open_volume(path), replace(PLAIN, advice=advice))
        assert absent not in str(caught.value)


def test_all_nan_is_all_zero_where_nan_counts_as_zero(tmp_path):
    with pytest.raises(VolumeError) as caught:
        surveyed(save_nifti(tmp_path / "a.nii.gz", np.full((9, 9, 4), np.nan, np.float32)))
    assert caught.value.code == "all-zero"


def test_background_of_nan_counts_as_zero(tmp_path):
    array = np.where(brain_array() > 0, brain_array(), np.nan).astype(np.float32)
    found = prepare(open_volume(save_nifti(tmp_path / "a.nii.gz", array)), PrepareSettings(brain="none", bias="none", nan="zero"))
    np.testing.assert_array_equal(found.brain.mask, np.isfinite(canonical(tmp_path / "a.nii.gz")))


# --- slices for the network ---


@pytest.mark.parametrize("orientation", ORIENTATIONS[::7], ids=str)
def test_network_sees_the_same_whatever_the_orientation(tmp_path, orientation):
    image = nib.Nifti1Image(brain_array().astype(np.int16), affine_of((1.1, 1.2, 3)))
    image.to_filename(tmp_path / "a.nii.gz")
    image.as_reoriented(orientation).to_filename(tmp_path / "b.nii.gz")
    settings = PrepareSettings(brain="none", bias="n4", shape=(32, 32))
    np.testing.assert_array_equal(network_slices(tmp_path / "b.nii.gz", settings), network_slices(tmp_path / "a.nii.gz", settings))


def test_condition_is_within_zero_and_one_and_zero_outside_the_brain(brain_file):
    slices = network_slices(brain_file)
    condition, inside = slices[:, 0], slices[:, 1].astype(bool)
    assert condition.dtype == np.float32
    assert condition.min() >= 0
    assert condition.max() <= 1
    assert not condition[~inside].any()
    assert np.median(condition[inside]) == pytest.approx(0.4, abs=0.05)


def test_equal_spacing_gives_the_formula_to_the_voxel(tmp_path):
    path = save_nifti(tmp_path / "a.nii.gz", brain_array().astype(np.int16), affine_of((1, 1, 3)))
    prepared = prepare(open_volume(path), PLAIN)
    native = np.where(prepared.brain.mask[5], prepared.scale.normalise(canonical(path)[5]), 0)
    back = prepared.grid.to_native(prepared.network_slice(5)[0])
    np.testing.assert_array_equal(back, native.astype(np.float32))


@pytest.mark.parametrize("shape", [(22, 26, 1), (22, 26, 2), (22, 26, 3), (22, 26), (5, 5, 5), (2, 30, 30)], ids=str)
@pytest.mark.parametrize("bias", ["n4", "none"])
def test_thin_and_tiny_volumes_are_prepared(tmp_path, shape, bias):
    array = np.random.default_rng(0).integers(500, 1500, shape).astype(np.int16)
    path = save_nifti(tmp_path / "a.nii.gz", array, affine_of((1, 1, 3)))
    prepared = prepare(open_volume(path), PrepareSettings(brain="none", bias=bias, shape=(32, 32)))
    assert np.isfinite(prepared.network_slice(0)[0]).all()


@pytest.mark.parametrize("bias", ["n4", "none"])
def test_brain_of_a_few_voxels_is_prepared_or_refused(tmp_path, bias):
    volume = open_volume(save_nifti(tmp_path / "a.nii.gz", brain_array((60, 60, 20)).astype(np.int16), affine_of((1, 1, 1))))
    mask = np.zeros((20, 60, 60), bool)
    mask[10, 30:34, 30:34] = True
    error = error_of(lambda: prepare(volume, PrepareSettings(bias=bias), brain=Brain(mask, "given")).network_slice(10))
    assert error is None or error.code in ("bias", "brain")


def test_constant_brain_and_empty_brain_are_refused(tmp_path):
    array = np.where(ellipsoid((22, 26, 11)) < 1, 700, 0).astype(np.int16)
    volume = open_volume(save_nifti(tmp_path / "a.nii.gz", array))
    with pytest.raises(VolumeError) as caught:
        prepare(volume, PLAIN)
    assert caught.value.code == "constant"
    with pytest.raises(VolumeError) as caught:
        prepare(volume, PLAIN, brain=Brain(np.zeros((11, 26, 22), bool), "given"))
    assert caught.value.code == "brain"


def test_volume_of_another_plane_is_refused_with_the_reason(tmp_path):
    path = save_nifti(tmp_path / "a.nii.gz", brain_array().astype(np.int16), affine_of((6, 1, 1)))
    with pytest.raises(VolumeError, match="another plane") as caught:
        prepare(open_volume(path), PLAIN)
    assert caught.value.code == "other-plane"


def test_brain_setting_takes_a_file_or_a_folder(tmp_path, brain_file):
    masks = tmp_path / "masks"
    masks.mkdir()
    mask = np.zeros((22, 26, 11), np.uint8)
    mask[6:16, 8:18, 2:9] = 1
    file = save_nifti(masks / "sub-01_brain.nii.gz", mask)
    for brain in (file, masks):
        prepared = prepare(open_volume(brain_file), PrepareSettings(brain=str(brain), bias="none"))
        assert prepared.brain.mask.sum() == mask.sum()


def test_bias_is_divided_out(brain_file):
    plain, corrected = (prepare(open_volume(brain_file), PrepareSettings(brain="none", bias=bias)) for bias in ("none", "n4"))
    assert plain.bias is None
    field = corrected.bias.slice(5, (26, 22))
    np.testing.assert_allclose(corrected.corrected(5) * field, plain.corrected(5), rtol=1e-5)


def test_same_volume_is_prepared_to_the_same_bits(brain_file):
    settings = PrepareSettings(brain="none", shape=(32, 32))
    np.testing.assert_array_equal(network_slices(brain_file, settings), network_slices(brain_file, settings))


def test_lesion_does_not_change_how_healthy_tissue_looks(tmp_path):
    array = brain_array((40, 44, 12))
    lesion = (ellipsoid(array.shape, 0.35) < 1) & (array > 0)
    healthy = network_slices(save_nifti(tmp_path / "a.nii.gz", array.astype(np.int16), affine_of((1, 1, 3))))
    ill = network_slices(save_nifti(tmp_path / "b.nii.gz", np.where(lesion, 4000, array).astype(np.int16), affine_of((1, 1, 3))))
    same = (healthy[:, 1] > 0) & (ill[:, 0] < 0.99)
    assert np.abs(healthy[:, 0] - ill[:, 0])[same].mean() < 0.05


# --- cost ---

MEASURE = """
import sys
from dataclasses import replace
from pathlib import Path
from localdiff_cli.volumes.prepare import PrepareSettings, prepare
from localdiff_cli.volumes.reader import open_volume
from localdiff_cli.volumes.writer import SliceWriter

source, out = map(Path, sys.argv[1:])
prepared = prepare(open_volume(source), PrepareSettings(bias="none"))
with SliceWriter(out, prepared.volume, dtype="float32", description="x") as writer:
    for k in prepared.reader.order():
        writer.write(k, prepared.grid.to_native(prepared.network_slice(k)[0]))
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_stays_under_two_float32_copies_from_10_to_155_slices(tmp_path):
    peaks = []
    for slices in (10, 155):
        array = np.where(ellipsoid((240, 240, slices), 0.55) < 1, np.arange(240, dtype=np.int16)[:, None, None] + 500, 0).astype(np.int16)
        path = save_nifti(tmp_path / f"{slices}.nii.gz", array, affine_of((1, 1, 1)))
        command = [sys.executable, "-c", MEASURE, str(path), str(tmp_path / f"out{slices}.nii.gz")]
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout) * 1024)
    copies = (peaks[1] - peaks[0]) / (240 * 240 * 155 * 4)
    assert copies < 2, f"{copies:.2f} float32 copies"


def test_real_head_with_a_given_mask_is_prepared():
    folder = real("lgg", "sub-CS4941")
    settings = PrepareSettings(brain=str(folder / "sub-CS4941_brain.nii.gz"), bias="none", window=WINDOWS["T1w"])
    prepared = prepare(open_volume(folder / "sub-CS4941_T1w.nii.gz"), settings)
    condition, inside = prepared.network_slice(prepared.volume.frame.shape[0] // 2)
    assert inside.sum() > 8000
    assert 0.2 < np.median(condition[inside]) < 0.8
    assert prepared.clipped_share < 0.05


def test_a_z_scored_volume_gets_no_bias_field_and_is_to_be_reviewed(tmp_path: Path):
    array = brain_array()
    inside = array > 0
    standardised = np.where(inside, (array - array[inside].mean()) / array[inside].std(), -10).astype(np.float32)
    prepared = prepare(open_volume(save_nifti(tmp_path / "z_T1w.nii.gz", standardised)), PrepareSettings(bias="n4"))
    assert prepared.bias is None
    assert any("z-scored" in doubt for doubt in prepared.brain.doubts)
