"""localdiff as a library: the arrays it returns are those that the commands write, and importing it is light."""

import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

import localdiff_cli
from localdiff_cli import (
    DetectOptions,
    SegmentOptions,
    TranslateOptions,
    detect_volume,
    load_bundle,
    segment_volume,
    translate_volume,
)
from localdiff_cli.errors import LocaldiffError, ModelError, UsageError

IMAGE = "sub-01/sub-01_T1w.nii.gz"


@pytest.fixture(autouse=True)
def _tiny_models(models_folder, monkeypatch):
    monkeypatch.setenv("LOCALDIFF_MODELS", str(models_folder))


@pytest.fixture
def image(folder):
    return nib.load(folder / IMAGE)


def voxels(path):
    return nib.load(path).get_fdata(dtype=np.float32)


def test_a_translated_array_is_what_the_command_writes(cli, folder, image, tmp_path):
    cli("translate", "--in", folder / IMAGE, "--out", tmp_path / "out", "--save-map", "--save-brain")

    made = translate_volume(image.get_fdata(), image.affine)

    base = tmp_path / "out" / "sub-01_T1w"
    assert np.array_equal(made.image, voxels(f"{base}.nii.gz"))
    assert np.array_equal(made.ood_map, voxels(f"{base}_ood.nii.gz"))
    assert np.array_equal(made.brain, voxels(f"{base}_brain.nii.gz") > 0)
    assert np.array_equal(made.affine, image.affine)
    assert made.facts["Contrast"] == "T2w"


def test_a_file_and_its_array_are_translated_alike(folder, image):
    options = TranslateOptions(mode="plain", steps=2, seed=3)

    by_path = translate_volume(folder / IMAGE, options=options)
    by_array = translate_volume(image.get_fdata(), image.affine, options=options)

    assert np.array_equal(by_path.image, by_array.image)
    assert not by_path.ood_map.any()


def test_a_file_whose_forms_contradict_each_other_is_translated_by_the_one_that_is_named(image, tmp_path):
    image.set_qform(image.affine, 1)
    image.set_sform(np.diag([-1, -1, 1, 1]) @ image.affine, 1)
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), None, image.header), tmp_path / "a_T1w.nii.gz")
    options = TranslateOptions(mode="plain", steps=1, affine_from="qform")
    made = translate_volume(tmp_path / "a_T1w.nii.gz", options=options)
    np.testing.assert_allclose(made.affine, image.get_qform(), atol=1e-4)


def test_an_array_in_another_voxel_order_comes_back_in_that_order(image):
    turned = nib.as_closest_canonical(image)
    options = TranslateOptions(mode="plain", steps=2)

    one, other = (translate_volume(each.get_fdata(), each.affine, options=options) for each in (image, turned))

    assert np.array_equal(nib.as_closest_canonical(nib.Nifti1Image(one.image, one.affine)).get_fdata(), other.image)


def test_a_detected_array_is_what_the_command_writes(cli, folder, image, tmp_path):
    cli("detect", "--in", folder / IMAGE, "--out", tmp_path / "out", "--save-mask", "--save-score")

    made = detect_volume(image.get_fdata(), image.affine)

    base = tmp_path / "out" / "sub-01_T1w"
    assert np.array_equal(made.ood_map, voxels(f"{base}_ood.nii.gz"))
    assert np.array_equal(made.ood_mask, voxels(f"{base}_oodmask.nii.gz") > 0)
    assert np.array_equal(made.score, voxels(f"{base}_score.nii.gz"))


def test_a_segmented_array_is_what_the_command_writes(cli, folder, tmp_path):
    path = folder / "sub-01" / "sub-01_T2w.nii.gz"
    cli("segment", "--in", path, "--out", tmp_path / "out", "--model", "lesion-t2", "--save-prob")

    made = segment_volume(path, options=SegmentOptions(model="lesion-t2"))

    assert np.array_equal(made.mask, voxels(tmp_path / "out" / "sub-01_T2w.nii.gz") > 0)
    assert np.array_equal(made.probability, voxels(tmp_path / "out" / "sub-01_T2w_prob.nii.gz"))


def test_a_translated_array_is_segmented_on_its_own_scale_as_the_file_is(cli, folder, tmp_path):
    path = folder / "sub-01" / "sub-01_T1w.nii.gz"
    made = translate_volume(path, options=TranslateOptions(model="t1-to-t2"))
    assert cli("translate", "--in", path, "--out", tmp_path / "t2", "--suffix", "T2w").exit_code == 0
    assert cli("segment", "--in", tmp_path / "t2", "--out", tmp_path / "out", "--save-prob").exit_code == 0
    there = voxels(tmp_path / "out" / "sub-01_T2w_prob.nii.gz")
    judge = SegmentOptions(model="lesion-t2")
    told = segment_volume(made.image, made.affine, options=judge, facts=made.facts)
    alone = segment_volume(made.image, made.affine, options=judge)
    np.testing.assert_allclose(told.probability, there, atol=1e-6)
    assert np.abs(alone.probability - there).max() > 0.01
    with pytest.raises(UsageError, match="of its own"):
        segment_volume(path, options=judge, facts=made.facts)


def test_a_bundle_is_opened_by_name_or_folder(models_folder):
    assert load_bundle("t1-to-t2").hash == load_bundle(models_folder / "t1-to-t2").hash
    with pytest.raises(ModelError, match="none-such"):
        load_bundle("none-such")


@pytest.mark.parametrize(
    ("image", "affine", "word"),
    [
        (np.ones((4, 4)), np.eye(4), "expected"),
        (np.ones((4, 4, 4)), None, "affine none"),
        (np.ones((4, 4, 4)), np.eye(3), "expected"),
        ("scan.nii.gz", np.eye(4), "of its own"),
        ("none-such.nii.gz", None, "none-such"),
    ],
)
def test_input_that_does_not_fit_is_refused(image, affine, word):
    with pytest.raises(LocaldiffError, match=word):
        translate_volume(image, affine)


def test_a_folder_of_several_volumes_is_refused(folder):
    with pytest.raises(UsageError, match="expected one volume"):
        detect_volume(folder, options=DetectOptions())


def test_options_that_the_command_refuses_are_refused(image):
    with pytest.raises(UsageError, match="--sampler"):
        translate_volume(image.get_fdata(), image.affine, options=TranslateOptions(sampler="magic"))


def test_importing_the_package_imports_no_heavy_library():
    program = "import sys, localdiff_cli; print([m for m in ('torch', 'monai', 'numpy', 'pydantic') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
    assert set(dir(localdiff_cli)) == set(localdiff_cli.__all__)
    with pytest.raises(AttributeError, match="no attribute 'paint_volume'"):
        _ = localdiff_cli.paint_volume
