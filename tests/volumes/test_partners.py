"""Which mask, map or image belongs to a volume: one answer for every role."""

import json
from pathlib import Path

import numpy as np
import pytest

from localdiff_cli.errors import UsageError, VolumeError
from localdiff_cli.volumes.masks import read_mask
from localdiff_cli.volumes.partners import BRAIN, HIGH, IMAGE, LOW, MAP, MASK, SOURCE, Index, Source, find_companion
from localdiff_cli.volumes.reader import open_volume

from .synthetic import brain_array, save_nifti

MASK_VOXELS = (brain_array() > 0).astype(np.uint8)


def put(folder, *names):
    """Masks under names that say mask or nothing, images under the others."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        words = Path(name).name.split(".")[0].lower().split("_")
        voxels = brain_array().astype(np.int16) if words[-1] in ("t1w", "t2w", "flair", "t1n", "t2f", "t1c", "t1", "bold") else MASK_VOXELS
        save_nifti(folder / name, voxels)


def partner(folder, role, relative, contrast=None):
    found, why = Index(Source(str(folder), role, contrast, "--truth")).partner(Path(relative))
    return found.relative_to(folder).as_posix() if found else why


@pytest.mark.parametrize(
    ("volume", "names", "chosen"),
    [
        ("sub-01_T1w.nii.gz", ["sub-01_mask.nii.gz"], "sub-01_mask.nii.gz"),
        ("sub-01_T1w.nii.gz", ["sub-01_ses-2_mask.nii.gz"], "no partner"),
        ("sub-01_T1w.nii.gz", ["sub-01_run-2_mask.nii.gz"], "no partner"),
        ("sub-01_T1w.nii.gz", ["sub-01_acq-hires_mask.nii.gz"], "no partner"),
        ("sub-01_T1w.nii.gz", ["sub-01_space-MNI_mask.nii.gz"], "no partner"),
        ("sub-01_T1w.nii.gz", ["sub-01_space-T1w_mask.nii.gz"], "sub-01_space-T1w_mask.nii.gz"),
        ("sub-01_T1w.nii.gz", ["sub-01_space-orig_mask.nii.gz"], "sub-01_space-orig_mask.nii.gz"),
        ("sub-01_T1w.nii.gz", ["sub-01_space-FLAIR_mask.nii.gz"], "no partner"),
        ("sub-01_FLAIR.nii.gz", ["sub-01_space-T1w_mask.nii.gz"], "no partner"),
        ("sub-01_space-MNI_T1w.nii.gz", ["sub-01_space-T1w_mask.nii.gz"], "no partner"),
        ("sub-01_T1w.nii.gz", ["sub-01_mask.nii.gz", "sub-01_space-T1w_mask.nii.gz"], "sub-01_mask.nii.gz"),
        ("sub-01_ses-1_T1w.nii.gz", ["sub-01_ses-1_mask.nii.gz", "sub-01_ses-2_mask.nii.gz"], "sub-01_ses-1_mask.nii.gz"),
        ("sub-01_ses-1_acq-x_T1w.nii.gz", ["sub-01_ses-1_mask.nii.gz"], "sub-01_ses-1_mask.nii.gz"),
        ("sub-01_run-1_T1w.nii.gz", ["sub-01_run-01_mask.nii.gz"], "sub-01_run-01_mask.nii.gz"),
        ("sub-01/sub-01_T1w.nii.gz", ["sub-01/ses-2/sub-01_mask.nii.gz"], "no partner"),
        ("sub-01_T1w.nii.gz", ["sub-010_mask.nii.gz"], "no partner"),
        ("sub-01_preop_T1w.nii.gz", ["sub-01_postop_mask.nii.gz"], "no partner"),
        ("sub-01_T1w.nii.gz", ["sub-01_label-lesion_mask.nii.gz", "sub-01_desc-brain_mask.nii.gz"], "sub-01_label-lesion_mask.nii.gz"),
        ("patient1.nii.gz", ["patient1_followup_mask.nii.gz"], "no partner"),
        ("patient1.nii.gz", ["patient10_mask.nii.gz"], "no partner"),
        ("patient1_T1.nii.gz", ["patient1_seg.nii.gz", "patient1_followup_seg.nii.gz"], "patient1_seg.nii.gz"),
        ("patient1_T1.nii.gz", ["mask_patient1.nii.gz"], "mask_patient1.nii.gz"),
        ("p1/T1.nii.gz", ["p1/mask.nii.gz", "p2/mask.nii.gz"], "p1/mask.nii.gz"),
        ("a/001_T1.nii.gz", ["b/001_mask.nii.gz"], "no partner"),
        ("a/001_T1.nii.gz", ["001_mask.nii.gz"], "001_mask.nii.gz"),
        ("BraTS-GLI-00001-000/BraTS-GLI-00001-000-t1n.nii.gz", ["BraTS-GLI-00001-000-seg.nii.gz"], "BraTS-GLI-00001-000-seg.nii.gz"),
        ("BraTS-GLI-00001-000-t1n.nii.gz", ["BraTS-GLI-00001-001-seg.nii.gz"], "no partner"),
        ("UCSF-4_T1.nii.gz", ["UCSF-4_tumor_segmentation.nii.gz", "UCSF-4_brain_segmentation.nii.gz"], "UCSF-4_tumor_segmentation.nii.gz"),
        ("p1_T1.nii.gz", ["p1_wmh.nii.gz"], "p1_wmh.nii.gz"),
        ("p1_T1.nii.gz", ["p1_followup_tumor.nii.gz"], "no partner"),
        ("BraTS2021_00001_t1.nii.gz", ["BraTS2021_00001_seg.nii.gz", "BraTS2021_00001_flair.nii.gz"], "BraTS2021_00001_seg.nii.gz"),
    ],
)
def test_a_partner_agrees_in_every_entity_that_it_has(tmp_path, volume, names, chosen):
    put(tmp_path, *names)
    assert partner(tmp_path, MASK, volume) == chosen


@pytest.mark.parametrize(
    ("role", "names", "chosen"),
    [
        (MASK, ["sub-01_FLAIR.nii.gz", "sub-01_T2w.nii.gz"], "no partner"),
        (MASK, ["sub-01_FLAIR.nii.gz", "sub-01_mask.nii.gz"], "sub-01_mask.nii.gz"),
        (MASK, ["sub-01_brain.nii.gz"], "no partner"),
        (MASK, ["sub-01_bold.nii.gz"], "no partner"),
        (MASK, ["sub-01_label-GM_mask.nii.gz"], "no partner"),
        (BRAIN, ["sub-01_brain.nii.gz", "sub-01_mask.nii.gz"], "sub-01_brain.nii.gz"),
        (BRAIN, ["sub-01_T2w.nii.gz"], "no partner"),
        (BRAIN, ["sub-01_mask.nii.gz"], "sub-01_mask.nii.gz"),
        (BRAIN, ["sub-01_T1w.nii.gz", "sub-01_mask.nii.gz"], "no partner"),
        (BRAIN, ["sub-01_FLAIR.nii.gz", "sub-01_mask.nii.gz", "sub-01_desc-brain_mask.nii.gz"], "sub-01_desc-brain_mask.nii.gz"),
        (BRAIN, ["sub-01_label-lesion_mask.nii.gz", "sub-01_desc-brain_mask.nii.gz"], "sub-01_desc-brain_mask.nii.gz"),
        (BRAIN, ["sub-01_seg.nii.gz"], "no partner"),
        (BRAIN, ["sub-01_label-lesion_mask.nii.gz"], "no partner"),
        (MAP, ["sub-01_T1w_ood.nii.gz", "sub-01_T1w_oodmask.nii.gz", "sub-01_T1w_score.nii.gz"], "sub-01_T1w_ood.nii.gz"),
        (MAP, ["sub-01_FLAIR.nii.gz", "sub-01_lesion.nii.gz"], "sub-01_lesion.nii.gz"),
        (MAP, ["sub-01_FLAIR.nii.gz"], "no partner"),
    ],
)
def test_a_partner_is_of_the_kind_asked_for_by_its_name(tmp_path, role, names, chosen):
    put(tmp_path, *names)
    assert partner(tmp_path, role, "sub-01_T1w.nii.gz") == chosen


@pytest.mark.parametrize("role", [MASK, BRAIN, MAP])
def test_the_same_name_in_another_folder_is_taken_only_for_what_the_voxels_are(tmp_path, role):
    save_nifti(tmp_path / "masks_T1w.nii.gz", MASK_VOXELS)
    for name, voxels in (("mask", MASK_VOXELS), ("image", brain_array().astype(np.int16)), ("unit", brain_array() / 1000)):
        (tmp_path / name).mkdir()
        save_nifti(tmp_path / name / "sub-01_T1w.nii.gz", voxels.astype(np.float32))
    assert partner(tmp_path / "mask", role, "sub-01_T1w.nii.gz") == "sub-01_T1w.nii.gz"
    assert partner(tmp_path / "image", role, "sub-01_T1w.nii.gz") == "no partner"
    assert partner(tmp_path / "unit", role, "sub-01_T1w.nii.gz") == "no partner"


def test_another_tools_skull_stripped_image_is_no_brain_mask(tmp_path):
    save_nifti(tmp_path / "sub-01_T1w_brain.nii.gz", brain_array().astype(np.int16))
    assert partner(tmp_path, BRAIN, "sub-01_T1w.nii.gz") == "no partner"
    save_nifti(tmp_path / "sub-01_T1w_brain.nii.gz", MASK_VOXELS)
    assert partner(tmp_path, BRAIN, "sub-01_T1w.nii.gz") == "sub-01_T1w_brain.nii.gz"


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["sub-01_FLAIR.nii.gz", "sub-01_T1w.nii.gz", "sub-01_T2w.nii.gz"], "sub-01_FLAIR.nii.gz"),
        (["sub-01_T2w.nii.gz"], "no partner"),
        (["sub-01_space-FLAIR_bold.nii.gz"], "no partner"),
        (["sub-01_desc-preproc_FLAIR.nii.gz"], "no partner"),
        (["sub-01_desc-preproc_FLAIR.nii.gz", "sub-01_FLAIR.nii.gz"], "sub-01_FLAIR.nii.gz"),
    ],
)
def test_a_reference_is_of_the_contrast_asked_for(tmp_path, names, chosen):
    put(tmp_path, *names)
    assert partner(tmp_path, IMAGE, "sub-01_T1w.nii.gz", "FLAIR") == chosen


def test_a_plain_image_is_rather_the_reference_than_a_contrast_enhanced_one(tmp_path):
    put(tmp_path, "BraTS-GLI-00001-000-t1n.nii.gz", "BraTS-GLI-00001-000-t1c.nii.gz")
    assert partner(tmp_path, IMAGE, "BraTS-GLI-00001-000-t2f.nii.gz", "T1w") == "BraTS-GLI-00001-000-t1n.nii.gz"


@pytest.mark.parametrize("names", [["sub-01_mask.nii.gz", "sub-01_seg.nii.gz"], ["a/sub-01_mask.nii.gz", "b/sub-01_mask.nii.gz"]])
def test_two_that_fit_are_refused_and_both_are_named(tmp_path, names):
    put(tmp_path, *names)
    why = partner(tmp_path, MASK, "sub-01_T1w.nii.gz")
    assert "2 partners" in why
    assert all(name in why for name in names)
    with pytest.raises(VolumeError, match="2 partners") as caught:
        find_companion(Source(str(tmp_path), MASK, None, "--map"), tmp_path / "sub-01_T1w.nii.gz", Path("sub-01_T1w.nii.gz"))
    assert caught.value.code == "no-companion"


@pytest.mark.parametrize("role", [LOW, HIGH, SOURCE])
def test_limits_and_source_map_are_found_by_their_last_word_or_in_a_folder_of_their_own(tmp_path, role):
    put(tmp_path, "sub-01_T2w.nii.gz", "sub-01_T2w_lo.nii.gz", "sub-01_T2w_hi.nii.gz", "sub-01_T2w_source.nii.gz")
    beside = tmp_path / "sub-01_T2w.nii.gz"
    index = Index(Source(str(tmp_path), role, None, "--lo"))
    assert index.partner(Path("sub-01_T2w.nii.gz"), beside)[0].name == f"sub-01_T2w_{role}.nii.gz"
    (tmp_path / f"sub-01_T2w_{role}.nii.gz").unlink()
    index = Index(Source(str(tmp_path), role, None, "--lo"))
    assert index.partner(Path("sub-01_T2w.nii.gz"), beside) == (None, "no partner")
    other = Index(Source(str(tmp_path), role, None, "--lo"))
    assert other.partner(Path("sub-01_T2w.nii.gz"))[0].name == "sub-01_T2w.nii.gz"


def test_a_volume_is_never_its_own_companion(tmp_path):
    put(tmp_path, "sub-01_T1w.nii.gz", "sub-01_brain.nii.gz")
    found = find_companion(Source(str(tmp_path), BRAIN, None, "--brain"), tmp_path / "sub-01_T1w.nii.gz", Path("sub-01_T1w.nii.gz"))
    assert found.name == "sub-01_brain.nii.gz"


def test_a_sidecar_outranks_a_name_that_says_mask(tmp_path):
    put(tmp_path, "sub-01_mask.nii.gz")
    (tmp_path / "sub-01_mask.json").write_text(json.dumps({"Contrast": "FLAIR", "Synthetic": True}))
    assert partner(tmp_path, MASK, "sub-01_T1w.nii.gz") == "no partner"


@pytest.mark.parametrize(
    ("role", "contrast", "name", "word"),
    [
        (MASK, None, "sub-01_FLAIR.nii.gz", "says FLAIR; expected a lesion mask"),
        (BRAIN, None, "sub-01_T2w.nii.gz", "says T2w; expected a brain mask"),
        (IMAGE, "FLAIR", "sub-01_T2w.nii.gz", "says T2w; expected a FLAIR image"),
        (IMAGE, "FLAIR", "sub-01_mask.nii.gz", "says mask; expected a FLAIR image"),
    ],
)
def test_a_file_named_alone_is_asked_what_it_holds(tmp_path, role, contrast, name, word):
    put(tmp_path, name)
    with pytest.raises(UsageError, match=word):
        Index(Source(str(tmp_path / name), role, contrast, "--ref"))


def test_a_file_named_alone_that_says_nothing_is_judged_by_its_voxels(tmp_path):
    save_nifti(tmp_path / "drawn.nii.gz", MASK_VOXELS)
    assert Index(Source(str(tmp_path / "drawn.nii.gz"), MASK)).partner(Path("sub-01_T1w.nii.gz"))[0] == tmp_path / "drawn.nii.gz"
    save_nifti(tmp_path / "other.nii.gz", brain_array().astype(np.int16))
    assert Index(Source(str(tmp_path / "other.nii.gz"), MASK)).partner(Path("sub-01_T1w.nii.gz"))[0] == tmp_path / "other.nii.gz"
    with pytest.raises(VolumeError, match="no mask has"):
        read_mask(open_volume(tmp_path / "other.nii.gz"), "a lesion mask")
