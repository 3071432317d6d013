"""What a file says it holds, by its name or its sidecar."""

import json
from pathlib import Path

import pytest

from localdiff_cli.batch.discover import discover
from localdiff_cli.volumes.contrast import beside, content_of, read_sidecar, renamed


@pytest.mark.parametrize(
    ("name", "contrast"),
    [
        ("sub-01_T1w.nii.gz", "T1w"),
        ("sub-01_ses-2_acq-mprage_T1w.nii", "T1w"),
        ("sub-01_T2w.nii.gz", "T2w"),
        ("sub-01_FLAIR.nii.gz", "FLAIR"),
        ("sub-01_PDw.nii", "PDw"),
        ("sub-T1w_T2w.nii", "T2w"),
        ("sub-01_desc-flair_mask.nii.gz", "mask"),
        ("sub-01_T1w_ood.nii.gz", "map"),
        ("sub-01_T1w_oodmask.nii.gz", "mask"),
        ("sub-01_dseg.nii", "mask"),
        ("BraTS-GLI-00001-000-t1n.nii.gz", "T1w"),
        ("BraTS-GLI-00001-000-t1c.nii.gz", "T1w"),
        ("BraTS-GLI-00001-000-t2w.nii.gz", "T2w"),
        ("BraTS-GLI-00001-000-t2f.nii.gz", "FLAIR"),
        ("BraTS-GLI-00001-000-seg.nii.gz", "mask"),
        ("BraTS19_2013_2_1_t1ce.nii.gz", "T1w"),
        ("BraTS20_Training_001_flair.nii.gz", "FLAIR"),
        ("IXI012-HH-1211-T1.nii.gz", "T1w"),
        ("patient MPRAGE.mha", "T1w"),
        ("scan.nii.gz", None),
        ("sub-01_bold.nii.gz", "bold"),
        ("t1weighted.nii", None),
    ],
)
def test_the_last_telling_word_of_the_name_says_the_contrast(tmp_path, name, contrast):
    content = content_of(tmp_path / name)
    assert content.contrast == contrast
    assert content.said_by == ("name" if contrast else "nothing")
    assert not content.synthetic


@pytest.mark.parametrize(
    ("name", "enhanced"),
    [
        ("BraTS-GLI-00001-000-t1c.nii.gz", True),
        ("BraTS19_2013_2_1_t1ce.nii.gz", True),
        ("sub-01_ce-gadolinium_T1w.nii.gz", True),
        ("sub-01_T1w.nii.gz", False),
        ("BraTS-GLI-00001-000-t1n.nii.gz", False),
    ],
)
def test_contrast_enhanced_images_are_flagged(tmp_path, name, enhanced):
    assert content_of(tmp_path / name).enhanced is enhanced


def test_a_contrast_agent_in_the_sidecar_is_flagged(tmp_path):
    (tmp_path / "sub-01_T1w.json").write_text(json.dumps({"ContrastBolusIngredient": "GADOLINIUM"}))
    content = content_of(tmp_path / "sub-01_T1w.nii.gz")
    assert content.enhanced
    assert content.contrast == "T1w"


def test_a_sidecar_says_the_contrast_and_whether_it_is_synthetic(tmp_path):
    (tmp_path / "sub-01_T1w.json").write_text(json.dumps({"Contrast": "T2w", "Synthetic": True}))
    content = content_of(tmp_path / "sub-01_T1w.nii.gz")
    assert (content.contrast, content.synthetic, content.said_by) == ("T2w", True, "sidecar")


def test_only_a_plain_yes_makes_a_volume_synthetic(tmp_path):
    (tmp_path / "a_T1w.json").write_text(json.dumps({"Contrast": "T2w", "Synthetic": "no"}))
    assert not content_of(tmp_path / "a_T1w.nii").synthetic


def test_a_huge_sidecar_is_not_read(tmp_path):
    with (tmp_path / "a_T1w.json").open("wb") as handle:
        handle.truncate(1 << 30)
    assert read_sidecar(tmp_path / "a_T1w.nii") == {}


@pytest.mark.parametrize(
    ("name", "suffix", "expected"),
    [
        ("s/sub-01_T1w.nii.gz", "T2w", "s/sub-01_T2w.nii.gz"),
        ("sub-01_T1w.mha", "T2w", "sub-01_T2w.mha"),
        ("scan.nii", "T2w", "scan_T2w.nii"),
        ("a_b.nii", "T2w", "a_b_T2w.nii"),
        ("sub-01_T1w.nii.gz", None, "sub-01_T1w.nii.gz"),
        ("sub-01_mask.nii", "T2w", "sub-01_mask_T2w.nii"),
        ("BraTS-GLI-00001-000-t1n.nii.gz", "FLAIR", "BraTS-GLI-00001-000-FLAIR.nii.gz"),
    ],
)
def test_a_suffix_replaces_the_contrast_word_only(name, suffix, expected):
    assert renamed(Path(name), suffix).as_posix() == expected


def test_companions_lie_beside_with_the_same_image_suffix():
    assert beside(Path("o/a.b_T2w.nii.gz"), "ood") == Path("o/a.b_T2w_ood.nii.gz")
    assert beside(Path("o/a.mha"), "std") == Path("o/a_std.mha")


def test_a_skull_stripped_name_is_an_image_unless_our_own_sidecar_lists_it(tmp_path):
    path = tmp_path / "sub-01_T1w_brain.nii.gz"
    path.touch()
    assert content_of(path).contrast == "T1w"
    (tmp_path / "sub-01_T1w.json").write_text('{"OutputSHA256": {"sub-01_T1w_brain.nii.gz": "x"}}')
    assert content_of(path).contrast == "mask"
    assert content_of(tmp_path / "sub-01_brain.nii.gz").contrast == "mask"


def test_an_output_whose_ending_nobody_knows_is_no_image_where_our_own_sidecar_lists_it(tmp_path):
    path = tmp_path / "sub-01_FLAIR_unheard.nii.gz"
    path.touch()
    assert content_of(path).contrast == "FLAIR"
    (tmp_path / "sub-01_FLAIR.json").write_text('{"OutputSHA256": {"sub-01_FLAIR.nii.gz": "x", "sub-01_FLAIR_unheard.nii.gz": "x"}}')
    assert content_of(path).contrast == "unheard"
    assert content_of(tmp_path / "sub-01_FLAIR.nii.gz").contrast == "FLAIR"
    (tmp_path / "sub-01_FLAIR.nii.gz").touch()
    assert [item.path.name for item in discover(str(tmp_path), "FLAIR").items] == ["sub-01_FLAIR.nii.gz"]
