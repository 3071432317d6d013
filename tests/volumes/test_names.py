"""What a file's name says: whom it belongs to, and what it shows."""

from pathlib import Path

import pytest

from localdiff_cli.volumes.names import parse, shown_by


def shown(name):
    return shown_by(parse(Path(name)))


@pytest.mark.parametrize(
    ("name", "contrast"),
    [
        ("sub-01_task-rest_space-T1w_boldref", "boldref"),
        ("sub-01_space-T1w_cbf", "cbf"),
        ("sub-01_T1map", "T1map"),
        ("sub-01_T2starw", "T2starw"),
        ("sub-01_T1rho", "T1rho"),
        ("sub-01_inplaneT1", "inplaneT1"),
        ("sub-01_UNIT1", "UNIT1"),
        ("sub-01_magnitude1", "magnitude1"),
        ("sub-01_run-1_phasediff", "phasediff"),
        ("sub-01_label-GM_probseg", "probseg"),
        ("sub-01_hemi-L_thickness", "thickness"),
        ("sub-01_preop", "preop"),
        ("sub-01_scan", None),
        ("sub-01", None),
        ("sub-01_part-mag_T1w", "T1w"),
        ("sub-01_T1w_space-MNI", "T1w"),
        ("sub-stroke0001_ses-02_lesion-msk", "mask"),
        ("sub-01_space-FLAIR_desc-brain_mask", "mask"),
    ],
)
def test_the_suffix_of_a_bids_name_says_what_it_shows_and_entities_do_not(name, contrast):
    assert shown(f"{name}.nii.gz") == contrast


@pytest.mark.parametrize(
    ("name", "contrast"),
    [
        ("FLAIR_to_T1", "FLAIR"),
        ("T2_reg_T1", "T2w"),
        ("FLAIR_in_T1_space", "FLAIR"),
        ("FLAIR_T1_space", "FLAIR"),
        ("flair2t1", "FLAIR"),
        ("t2tomni", "T2w"),
        ("T2_T1space", "T2w"),
        ("T1_to_MNI", "T1w"),
        ("DWI_to_T1", "dwi"),
        ("reg_T1", "T1w"),
        ("rFLAIR", "FLAIR"),
        ("wT1", "T1w"),
        ("T2_SPACE", "T2w"),
        ("FLAIR_in_T1_mask", "mask"),
    ],
)
def test_a_word_that_says_where_an_image_lies_is_not_what_it_shows(name, contrast):
    assert shown(f"{name}.nii.gz") == contrast


@pytest.mark.parametrize(
    ("name", "contrast"),
    [
        ("T1_map", "t1map"),
        ("T2_star", "t2starw"),
        ("patient1_dwi", "dwi"),
        ("patient1_t2_flair", "FLAIR"),
        ("P1_T1_FLAIR", "T1w or FLAIR"),
        ("P1_t2_space_dark-fluid_sag", "FLAIR"),
        ("P1_tumor_segmentation", "mask"),
        ("P1_wmh", "mask"),
        ("PD_T2", "PDw or T2w"),
        ("t1weighted", None),
    ],
)
def test_other_names_say_one_contrast_or_that_they_say_two(name, contrast):
    assert shown(f"{name}.nii.gz") == contrast


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("patient1_T1.nii", ("patient1",)),
        ("patient1_followup_mask.nii", ("patient1", "followup")),
        ("mask_patient1.nii", ("patient1",)),
        ("P1_FLAIR_to_T1.nii", ("p1",)),
        ("BraTS-GLI-00001-000-t1n.nii.gz", ("brats", "gli", "00001", "000")),
        ("BraTS2021_00001_flair.nii.gz", ("brats2021", "00001")),
        ("T1.nii", ()),
    ],
)
def test_whom_a_name_belongs_to_is_what_is_left_without_contrast_role_and_place(name, owner):
    assert parse(Path(name)).owner == owner


def test_entities_of_folders_count_and_numbers_lose_their_zeros():
    name = parse(Path("sub-01/ses-2/anat/sub-01_run-01_T1w.nii"))
    assert dict(name.entities) == {"sub": "01", "ses": "2", "run": "1"}
