"""``localdiff detect`` from the outside."""

import json

import nibabel as nib
import numpy as np
import pytest

IMAGE = "sub-01/sub-01_T1w.nii.gz"


def voxels(path):
    return np.asanyarray(nib.load(path).dataobj)


def test_the_map_is_a_probability_inside_the_brain_on_the_inputs_grid(cli, folder, tmp_path):
    result = cli("detect", "--in", folder, "--out", tmp_path / "out", "--save-mask", "--save-score", "--save-brain")
    assert result.exit_code == 0, result.output
    source = nib.load(folder / IMAGE)
    base = tmp_path / "out" / "sub-01" / "sub-01_T1w"
    ood, mask, score = (nib.load(f"{base}_{ending}.nii.gz") for ending in ("ood", "oodmask", "score"))
    outside = source.get_fdata() == 0
    for image in (ood, mask, score):
        assert np.array_equal(image.affine, source.affine)
        assert (image.get_fdata()[outside] == 0).all()
    assert ood.get_fdata().min() >= 0
    assert ood.get_fdata().max() <= 1
    assert mask.get_data_dtype() == np.uint8
    assert len(np.unique(score.get_fdata()[~outside])) > 100


def test_the_table_has_a_row_a_slice_also_after_a_resume(cli, folder, tmp_path):
    for _ in range(2):
        assert cli("detect", "--in", folder, "--out", tmp_path / "out").exit_code == 0
        lines = (tmp_path / "out" / "slices.tsv").read_text().splitlines()
        assert lines[0].split("\t") == ["volume", "slice", "score", "share", "decision"]
        assert len(lines) == 1 + 2 * 6
        assert {line.split("\t")[-1] for line in lines[1:]} <= {"IND", "OOD"}


def test_more_false_alarms_allowed_give_a_larger_mask(cli, folder, tmp_path):
    shares = []
    for q in (0.01, 0.2, 0.6):
        assert cli("detect", "--in", folder / IMAGE, "--out", tmp_path / str(q), "--false-alarm", q).exit_code == 0
        shares.append(json.loads((tmp_path / str(q) / "sub-01_T1w_ood.json").read_text())["OODShare"])
    assert shares[0] <= shares[1] < shares[2]


def test_a_map_of_your_own_comes_through_on_the_same_grid(cli, folder, tmp_path):
    image = nib.load(folder / IMAGE)
    lesion = np.zeros(image.shape, np.uint8)
    lesion[18:26, 20:28, 3] = 4
    nib.save(nib.Nifti1Image(lesion, image.affine), tmp_path / "lesion.nii.gz")
    assert (
        cli("detect", "--in", folder / IMAGE, "--out", tmp_path / "out", "--map", tmp_path / "lesion.nii.gz", "--save-mask").exit_code == 0
    )
    mask = voxels(tmp_path / "out" / "sub-01_T1w_oodmask.nii.gz")
    assert np.array_equal(mask > 0, (lesion > 0) & (image.get_fdata() > 0))


@pytest.mark.parametrize(("fill", "word"), [(3.0, "found values"), (np.nan, "found values")])
def test_a_map_outside_its_range_is_refused(cli, folder, tmp_path, fill, word):
    image = nib.load(folder / IMAGE)
    nib.save(nib.Nifti1Image(np.full(image.shape, fill, np.float32), image.affine), tmp_path / "map.nii.gz")
    result = cli("detect", "--in", folder / IMAGE, "--out", tmp_path / "out", "--map", tmp_path / "map.nii.gz")
    assert result.exit_code == 1
    assert word in result.output


def test_a_map_on_another_grid_is_refused(cli, folder, tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((5, 5, 5), np.uint8), np.eye(4)), tmp_path / "map.nii.gz")
    result = cli("detect", "--in", folder / IMAGE, "--out", tmp_path / "out", "--map", tmp_path / "map.nii.gz")
    assert result.exit_code == 1
    assert "same grid" in result.output
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_a_map_and_a_detector_exclude_one_another(cli, folder, tmp_path):
    result = cli("detect", "--in", folder, "--out", tmp_path / "out", "--map", folder / IMAGE, "--detector", "patchcore")
    assert result.exit_code == 2


def test_a_thin_brain_is_flagged_for_review_when_most_of_it_is_foreign(cli, folder, tmp_path):
    assert cli("detect", "--in", folder, "--out", tmp_path / "out", "--false-alarm", 0.9).exit_code == 0
    assert "review" in (tmp_path / "out" / "qc.tsv").read_text()


@pytest.mark.parametrize("other", [("--map", "{map}"), ("--detector", "segmenter")])
def test_weights_of_a_backbone_that_nothing_asks_are_refused(cli, folder, tmp_path, other):
    (tmp_path / "map").mkdir()
    (tmp_path / "weights.safetensors").touch()
    extra = [text.format(map=tmp_path / "map") for text in other]
    result = cli("detect", "--in", folder, "--out", tmp_path / "out", *extra, "--backbone-weights", tmp_path / "weights.safetensors")
    assert result.exit_code == 2
    assert "--backbone-weights" in result.output
