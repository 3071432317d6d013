"""The index of a dataset: which images it finds, which of a visit's it takes, and that filters are as in other BIDS Apps."""

import json
import warnings

import pytest

from localdiff_cli.bids.choose import choose
from localdiff_cli.bids.filters import fits, read_filters
from localdiff_cli.bids.index import read_description, scan_dataset
from localdiff_cli.errors import NoInputError, UsageError
from tests.bids.dataset import make_dataset


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("index") / "study")


def names(scans):
    return [scan.relative.name for scan in scans]


def chosen(root, rules=None, **which):
    return {choice.scan.relative.name: choice for choice in choose(scan_dataset(root, **which), "T1w", rules or {})}


def test_every_image_of_the_dataset_is_found_and_nothing_of_derivatives(root):
    found = names(scan_dataset(root))
    assert len(found) == 8
    assert not any("desc-" in name for name in found)


def test_it_finds_what_bids2table_finds(root):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bids2table = pytest.importorskip("bids2table")
        rows = bids2table.index_dataset(str(root)).to_pylist()
    keys = ("sub", "ses", "acq", "ce", "run", "suffix")
    theirs = sorted(tuple(str(row[key] or "") for key in keys) for row in rows if row["datatype"] == "anat" and row["ext"] == ".nii.gz")
    scans = list(scan_dataset(root))
    ours = sorted(tuple((scan.name.suffix if key == "suffix" else scan.name.get(key)) or "" for key in keys) for scan in scans)
    assert ours == theirs
    assert sorted(row["path"] for row in rows if row["ext"] == ".nii.gz") == sorted(scan.relative.as_posix() for scan in scans)


def test_a_link_whose_content_is_missing_is_listed(root, tmp_path):
    anat = tmp_path / "sub-9" / "anat"
    anat.mkdir(parents=True)
    (anat / "sub-9_T1w.nii.gz").symlink_to("../../.git/annex/objects/gone")
    assert names(scan_dataset(tmp_path)) == ["sub-9_T1w.nii.gz"]


@pytest.mark.parametrize("label", ["02", "sub-02"])
def test_people_are_named_with_or_without_their_prefix(root, label):
    assert names(scan_dataset(root, subjects=[label])) == ["sub-02_FLAIR.nii.gz", "sub-02_T1w.nii.gz"]


def test_a_session_leaves_out_the_others_and_people_without_sessions(root):
    assert names(scan_dataset(root, sessions=["ses-post"])) == ["sub-01_ses-post_acq-mprage_T1w.nii.gz"]


def test_a_person_who_is_not_there_is_said(root):
    with pytest.raises(NoInputError, match="sub-77"):
        list(scan_dataset(root, subjects=["02", "77"]))


def test_a_folder_without_description_is_no_dataset(tmp_path):
    with pytest.raises(UsageError, match="found no dataset_description"):
        read_description(tmp_path)


def test_one_image_of_every_visit_is_taken_and_the_reason_said(root):
    found = chosen(root)
    assert list(found) == ["sub-01_ses-post_acq-mprage_T1w.nii.gz", "sub-01_ses-pre_run-1_T1w.nii.gz", "sub-02_T1w.nii.gz"]
    choice = found["sub-01_ses-pre_run-1_T1w.nii.gz"]
    assert names(choice.others) == ["sub-01_ses-pre_run-2_T1w.nii.gz", "sub-01_ses-pre_ce-gd_run-1_T1w.nii.gz"]
    assert choice.reason == "the first run, of 3 images of this visit"
    assert found["sub-02_T1w.nii.gz"].reason == ""


def test_an_image_with_contrast_agent_is_the_last_to_be_taken(root):
    (choice,) = chosen(root, {"run": 1}, sessions=["pre"]).values()
    assert choice.scan.relative.name == "sub-01_ses-pre_run-1_T1w.nii.gz"
    assert choice.reason.startswith("no contrast agent")


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"run": 2}, ["sub-01_ses-pre_run-2_T1w.nii.gz"]),
        ({"run": "02"}, ["sub-01_ses-pre_run-2_T1w.nii.gz"]),
        ({"acquisition": "mprage"}, ["sub-01_ses-post_acq-mprage_T1w.nii.gz"]),
        ({"acq": ["mprage", "spgr"]}, ["sub-01_ses-post_acq-mprage_T1w.nii.gz"]),
        ({"session": None}, ["sub-02_T1w.nii.gz"]),
        ({"session": "*", "ceagent": "Query.NONE", "run": "Query.ANY"}, ["sub-01_ses-pre_run-1_T1w.nii.gz"]),
        ({"ceagent": "gd", "datatype": "anat", "suffix": "T1w"}, ["sub-01_ses-pre_ce-gd_run-1_T1w.nii.gz"]),
        ({"datatype": "func"}, []),
    ],
)
def test_filters_are_those_of_other_bids_apps(root, rules, expected):
    assert list(chosen(root, rules)) == expected


def test_a_filter_for_an_entity_that_does_not_exist_is_refused(tmp_path):
    file = tmp_path / "filter.json"
    file.write_text(json.dumps({"t1w": {"sesion": "01"}}))
    with pytest.raises(UsageError, match="t1w: found sesion"):
        read_filters(file)


@pytest.mark.parametrize("text", ["not json", "[]", '{"t1w": "01"}'])
def test_a_filter_file_of_another_form_is_refused(tmp_path, text):
    file = tmp_path / "filter.json"
    file.write_text(text)
    with pytest.raises(UsageError, match="bids-filter-file"):
        read_filters(file)


def test_a_filter_does_not_take_a_word_for_a_number(root):
    assert not any(fits(scan, {"run": "1x"}) for scan in scan_dataset(root))
