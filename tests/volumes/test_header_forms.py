"""What is done where a NIfTI's q-form and s-form contradict each other."""

import nibabel as nib
import numpy as np
import pytest

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.reader import open_volume

BASE = np.diag([-1.0, -1.0, 3.0, 1.0])
BASE[:3, 3] = 9, 12, -5


def moved(by=(0.0, 0.0, 0.0), *, turn=None, scale=(1, 1, 1)):
    affine = BASE @ np.diag([*scale, 1])
    affine[:3, 3] += by
    return affine if turn is None else turn @ affine


def about(axis, degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = [k for k in range(3) if k != axis]
    turn = np.eye(4)
    turn[i, i], turn[j, j], turn[i, j], turn[j, i] = c, c, -s, s
    return turn


def saved(tmp_path, sform, qform=BASE, codes=(1, 1), pixdim=None):
    image = nib.Nifti1Image(np.arange(20 * 24 * 6, dtype=np.int16).reshape(20, 24, 6), BASE)
    image.set_qform(qform, codes[0])
    image.set_sform(sform, codes[1])
    if pixdim is not None:
        image.header["pixdim"][1:4] = pixdim
    nib.save(image, tmp_path / "a.nii")
    return tmp_path / "a.nii"


@pytest.mark.parametrize(
    ("sform", "codes"),
    [
        (BASE, (1, 1)),
        (moved((0.01, 0, 0)), (1, 1)),
        (moved((30, -4, 2)), (1, 4)),
        (moved(turn=about(0, 20)), (1, 2)),
        (moved(scale=(1.002, 1, 1)), (1, 4)),
    ],
    ids=["the same", "rounding", "another space", "turned in another space", "size but for rounding"],
)
def test_two_forms_that_may_both_be_true_are_no_reason_to_doubt(tmp_path, sform, codes):
    volume = open_volume(saved(tmp_path, sform, codes=codes))
    assert volume.doubts == ()
    np.testing.assert_allclose(volume.affine, sform, atol=1e-4)


@pytest.mark.parametrize(
    ("sform", "codes", "word"),
    [
        (moved((5, 0, 0)), (1, 1), "place, under one code"),
        (moved(turn=about(2, 5)), (2, 2), "place, under one code"),
        (moved(turn=about(0, 180)), (1, 4), "orientation"),
    ],
    ids=["moved", "turned", "upside down"],
)
def test_one_code_and_two_places_is_a_review_with_both_written_out(tmp_path, sform, codes, word):
    (doubt,) = open_volume(saved(tmp_path, sform, codes=codes)).doubts
    assert word in doubt
    assert f"q-form (code {codes[0]}) [-1 0 0 9;" in doubt
    assert f"s-form (code {codes[1]}) [" in doubt
    assert "the sform was used" in doubt


@pytest.mark.parametrize(
    ("sform", "codes", "word"),
    [
        (moved(scale=(2, 2, 1)), (1, 1), "the voxel size"),
        (moved(scale=(1.1, 1, 1)), (1, 4), "the voxel size"),
        (moved(scale=(-1, 1, 1)), (1, 1), "handedness and left and right"),
        (moved(scale=(1, 1, -1)), (1, 4), "handedness"),
        (moved(turn=about(2, 180)), (1, 1), "left and right"),
        (moved(turn=about(2, 180)), (1, 4), "left and right"),
        (moved(turn=about(1, 180)), (1, 2), "left and right"),
        (moved(turn=about(2, 90)), (1, 1), "left and right"),
    ],
)
def test_a_contradiction_about_size_or_side_is_refused_until_the_user_says_which_holds(tmp_path, sform, codes, word):
    path = saved(tmp_path, sform, codes=codes)
    with pytest.raises(VolumeError, match=f"contradict each other about {word}.*--affine-from") as caught:
        open_volume(path)
    assert caught.value.code == "contradictory-header"
    for form, affine in (("sform", sform), ("qform", BASE)):
        volume = open_volume(path, form)
        np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
        assert f"the {form} was used" in volume.doubts[0]


def test_the_form_asked_for_holds_where_both_are_sound_and_a_lone_one_is_taken(tmp_path):
    path = saved(tmp_path, moved((30, 0, 0)), codes=(1, 4))
    np.testing.assert_allclose(open_volume(path, "qform").affine, BASE, atol=1e-4)
    lone = saved(tmp_path, BASE, codes=(0, 2))
    np.testing.assert_allclose(open_volume(lone, "qform").affine, BASE, atol=1e-4)


def test_voxels_that_pixdim_and_the_s_form_measure_otherwise_are_a_review(tmp_path):
    (doubt,) = open_volume(saved(tmp_path, BASE, codes=(0, 1), pixdim=(2, 2, 3))).doubts
    assert "pixdim says voxels of 2 × 2 × 3" in doubt
    assert "s-form 1 × 1 × 3" in doubt


def test_an_s_form_that_is_singular_names_the_q_form_as_the_way_out(tmp_path):
    path = saved(tmp_path, np.diag([0.0, 1, 1, 1]))
    with pytest.raises(VolumeError, match="--affine-from qform"):
        open_volume(path)
    volume = open_volume(path, "qform")
    np.testing.assert_allclose(volume.affine, BASE, atol=1e-4)
    assert "sform is damaged" in volume.doubts[0]


@pytest.mark.parametrize("command", ["translate", "detect"])
def test_every_command_asks_and_takes_the_answer_in_a_dry_run_too(cli, folder, tmp_path, command):
    path = folder / "sub-01" / "sub-01_T1w.nii.gz"
    image = nib.load(path)
    image.set_qform(image.affine, 1)
    image.set_sform(about(2, 180) @ image.affine, 1)
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), None, image.header), path)
    extra = ("--mode", "plain") if command == "translate" else ()
    words = (command, "--in", path, "--out", tmp_path / "out", *extra)
    assert "contradict each other" in cli(*words, "--dry-run").output
    assert "contradict each other" not in cli(*words, "--dry-run", "--affine-from", "qform").output
    refused = cli(*words)
    assert refused.exit_code == 1
    assert "contradictory-header" in refused.output
    done = cli(*words, "--affine-from", "qform")
    assert done.exit_code == 0, done.output
    assert "the qform was used" in (tmp_path / "out" / "qc.tsv").read_text()
    assert cli(*words, "--affine-from", "scanner").exit_code == 2
