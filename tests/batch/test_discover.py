"""Which files are worked on, under which names, and why others are not."""

import json
import os

import nibabel as nib
import numpy as np
import pytest

from localdiff_cli.batch.discover import check_folders, contrasts_in, discover
from localdiff_cli.errors import NoInputError, UsageError, VolumeError


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def names(found):
    return [item.relative.as_posix() for item in found.items]


def test_a_named_file_keeps_its_name(tmp_path):
    touch(tmp_path / "a" / "sub-01_T1w.nii.gz")
    found = discover(str(tmp_path / "a" / "sub-01_T1w.nii.gz"), "T1w")
    assert names(found) == ["sub-01_T1w.nii.gz"]
    assert found.skipped == ()


def test_a_folder_is_searched_through_in_a_stable_order_and_mirrored(tmp_path):
    wanted = ["b_T1w.nii", "sub-01/anat/x_T1w.nii.gz", "sub-02/x_T1w.mha", "sub-02/y.NRRD", "z_T1w.mhd"]
    touch(*(tmp_path / name for name in reversed(wanted)), tmp_path / "notes.txt", tmp_path / "sub-01" / "x_T1w.json")
    assert sorted(names(discover(str(tmp_path), "T1w"))) == sorted(wanted)
    assert names(discover(str(tmp_path), "T1w")) == names(discover(str(tmp_path) + "/", "T1w"))


def test_a_glob_is_mirrored_below_what_its_matches_share(tmp_path):
    touch(
        tmp_path / "d" / "sub-01" / "a_T1w.nii",
        tmp_path / "d" / "sub-02" / "a_T1w.nii",
        tmp_path / "d" / "sub-02" / "a_T1w.txt",
        tmp_path / "other.txt",
    )
    assert names(discover(str(tmp_path / "d" / "**" / "*_T1w*"), "T1w")) == ["sub-01/a_T1w.nii", "sub-02/a_T1w.nii"]
    assert names(discover(str(tmp_path / "d" / "sub-01" / "*"), "T1w")) == ["a_T1w.nii"]
    assert names(discover(str(tmp_path / "**" / "*"), "T1w")) == ["sub-01/a_T1w.nii", "sub-02/a_T1w.nii"]


def test_a_relative_glob_works_from_the_folder_it_is_in(tmp_path, monkeypatch):
    touch(tmp_path / "a_T1w.nii", tmp_path / "s" / "b_T1w.nii")
    monkeypatch.chdir(tmp_path)
    assert names(discover("**/*_T1w.nii", "T1w")) == ["a_T1w.nii", "s/b_T1w.nii"]


def test_a_file_whose_name_looks_like_a_glob_is_taken_literally(tmp_path):
    touch(tmp_path / "a[1]_T1w.nii", tmp_path / "a1_T1w.nii")
    assert names(discover(str(tmp_path / "a[1]_T1w.nii"), "T1w")) == ["a[1]_T1w.nii"]


@pytest.mark.parametrize("how", ["folder", "glob"])
def test_hidden_and_unfinished_files_are_left_alone(tmp_path, how):
    touch(
        tmp_path / "a_T1w.nii", tmp_path / ".b_T1w.nii", tmp_path / ".c_T1w.img", tmp_path / ".git" / "d_T1w.nii",
        tmp_path / ".localdiff-x.partial" / "e_T1w.nii", tmp_path / "old.partial" / "f_T1w.nii",
    )  # fmt: skip
    found = discover(str(tmp_path) if how == "folder" else str(tmp_path / "*"), "T1w")
    assert names(found) == ["a_T1w.nii"]


@pytest.mark.parametrize("how", ["folder", "glob"])
def test_a_pair_of_header_and_image_counts_once(tmp_path, how):
    touch(tmp_path / "a_T1w.hdr", tmp_path / "a_T1w.img", tmp_path / "B_T1w.HDR", tmp_path / "B_T1w.IMG")
    found = discover(str(tmp_path) if how == "folder" else str(tmp_path / "*"), "T1w")
    assert sorted(names(found)) == ["B_T1w.HDR", "a_T1w.hdr"]


def test_an_image_that_lost_its_header_is_still_found_so_that_it_is_reported(tmp_path):
    touch(tmp_path / "a_T1w.img")
    assert names(discover(str(tmp_path), "T1w")) == ["a_T1w.img"]


def test_a_loop_of_links_does_not_trap_the_search(tmp_path):
    touch(tmp_path / "a_T1w.nii")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self_T1w.nii").symlink_to(tmp_path / "self_T1w.nii")
    assert "a_T1w.nii" in names(discover(str(tmp_path), "T1w"))
    assert len(names(discover(str(tmp_path), "T1w"))) == 2


@pytest.mark.parametrize("name", ["with space_T1w.nii", "größe_T1w.nii", "脳_T1w.nii", "line\nbreak_T1w.nii", "tab\there_T1w.nii"])
def test_names_of_every_kind_are_found(tmp_path, name):
    touch(tmp_path / "deep er" / name)
    assert names(discover(str(tmp_path), "T1w")) == [f"deep er/{name}"]


def test_a_folder_that_cannot_be_listed_is_an_error_not_a_gap(tmp_path, monkeypatch):
    touch(tmp_path / "a_T1w.nii", tmp_path / "locked" / "b_T1w.nii")
    scandir = os.scandir

    def deny(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", deny)
    with pytest.raises(UsageError, match="locked: cannot be listed"):
        discover(str(tmp_path), "T1w")


def test_other_contrasts_in_a_folder_are_skipped_each_with_its_reason(tmp_path):
    touch(tmp_path / "a_T1w.nii", tmp_path / "a_T2w.nii", tmp_path / "a_mask.nii", tmp_path / "a_FLAIR.nii", tmp_path / "b.nii")
    found = discover(str(tmp_path), "T1w")
    assert names(found) == ["a_T1w.nii", "b.nii"]
    assert {str(path): reason for path, reason in found.skipped} == {
        "a_FLAIR.nii": "its name says FLAIR; expected T1w",
        "a_T2w.nii": "its name says T2w; expected T1w",
        "a_mask.nii": "its name says mask; expected T1w",
    }


def test_a_named_file_of_another_contrast_is_refused(tmp_path):
    touch(tmp_path / "a_T2w.nii")
    with pytest.raises(VolumeError, match=r"its name says T2w; expected T1w.*--model"):
        discover(str(tmp_path / "a_T2w.nii"), "T1w")


def test_a_sidecar_outranks_the_name(tmp_path):
    touch(tmp_path / "a_T1w.nii", tmp_path / "b_T2w.nii")
    (tmp_path / "a_T1w.json").write_text(json.dumps({"Synthetic": True, "Contrast": "T2w"}))
    (tmp_path / "b_T2w.json").write_text(json.dumps({"Contrast": "T1w"}))
    found = discover(str(tmp_path), "T1w")
    assert names(found) == ["b_T2w.nii"]
    assert found.skipped[0][1] == "its sidecar says synthetic T2w; expected T1w"


@pytest.mark.parametrize("content", ["not json", "[1]", '{"Contrast": 3}', "[" * 100_000])
def test_a_sidecar_that_says_nothing_leaves_the_name_to_speak(tmp_path, content):
    touch(tmp_path / "a_T1w.nii")
    (tmp_path / "a_T1w.json").write_text(content)
    assert discover(str(tmp_path), "T1w").items[0].content.said_by == "name"


@pytest.mark.parametrize("given", ["none", "*.nii", "empty"])
def test_no_input_is_an_error_with_its_own_exit_code(tmp_path, given):
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoInputError) as error:
        discover(str(tmp_path / given), "T1w")
    assert error.value.exit_code == 3
    assert str(tmp_path / given) in str(error.value)


def test_a_folder_of_other_kinds_only_says_how_many_it_skipped(tmp_path):
    touch(tmp_path / "a_T2w.nii", tmp_path / "b_T2w.nii")
    with pytest.raises(NoInputError, match="2 files of other kinds skipped"):
        discover(str(tmp_path), "T1w")


def test_contrasts_in_a_folder_are_those_of_images(tmp_path):
    touch(tmp_path / "a_T1w.nii", tmp_path / "b_flair.nii", tmp_path / "c_mask.nii", tmp_path / "d.nii")
    assert contrasts_in(str(tmp_path)) == {"T1w", "FLAIR"}


def test_outputs_on_top_of_inputs_are_refused(tmp_path):
    touch(tmp_path / "in" / "a_T1w.nii", tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for given, out in (("in", "in"), ("in", "link"), ("in/a_T1w.nii", "in"), ("in", "in/../in"), ("in", "file")):
        with pytest.raises(UsageError):
            check_folders(str(tmp_path / given), tmp_path / out)
    check_folders(str(tmp_path / "in"), tmp_path / "out")
    check_folders(str(tmp_path / "in"), tmp_path / "in" / "out")


def test_a_glob_cannot_be_overwritten_by_its_own_outputs(cli, folder):
    before = {path: path.read_bytes() for path in folder.rglob("*.nii.gz")}
    result = cli("translate", "--in", folder / "sub-01" / "*_T1w.nii.gz", "--out", folder / "sub-01", "--overwrite")
    assert result.exit_code == 2
    assert "replace an input" in result.output
    assert before == {path: path.read_bytes() for path in folder.rglob("*.nii.gz")}


def test_a_link_to_the_input_is_not_overwritten_either(cli, folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub-01_T1w.nii.gz").symlink_to(folder / "sub-01" / "sub-01_T1w.nii.gz")
    result = cli("translate", "--in", folder / "sub-01" / "sub-01_T1w.nii.gz", "--out", tmp_path / "out", "--overwrite")
    assert result.exit_code == 2
    assert (tmp_path / "out" / "sub-01_T1w.nii.gz").is_symlink()


@pytest.mark.parametrize("name", ["line\nbreak_T1w.nii.gz", "größe [1]_T1w.nii.gz"])
def test_volumes_with_awkward_names_are_translated_and_listed(cli, folder, tmp_path, name):
    (folder / "sub-01" / "sub-01_T1w.nii.gz").rename(folder / name)
    result = cli("translate", "--in", folder, "--out", tmp_path / "out", "--mode", "plain", "--verbose")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / name).exists()
    assert len((tmp_path / "out" / "qc.tsv").read_text(encoding="utf-8").splitlines()) == 3


def test_a_name_that_is_not_utf8_fails_alone_and_is_listed(cli, folder, tmp_path):
    os.rename(folder / "sub-01" / "sub-01_T1w.nii.gz", os.path.join(os.fsencode(folder), b"latin-\xe9_T1w.nii.gz"))
    result = cli("translate", "--in", folder, "--out", tmp_path / "out", "--mode", "plain")
    assert result.exit_code == 1, result.output
    rows = [line.split("\t") for line in (tmp_path / "out" / "failures.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    assert [row[:2] for row in rows] == [["latin-\ufffd_T1w.nii.gz", "name"]]
    assert (tmp_path / "out" / "sub-02" / "sub-02_T1w.nii.gz").exists()


def test_a_pair_of_header_and_image_is_translated_as_a_pair(cli, folder, tmp_path):
    image = nib.load(folder / "sub-01" / "sub-01_T1w.nii.gz")
    (tmp_path / "pairs").mkdir()
    nib.save(nib.Nifti1Pair(np.asanyarray(image.dataobj), image.affine), tmp_path / "pairs" / "a_T1w.img")
    result = cli("translate", "--in", tmp_path / "pairs" / "*", "--out", tmp_path / "out", "--mode", "plain")
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "out").glob("a_*")} == {"a_T1w.hdr", "a_T1w.img", "a_T1w.json"}
