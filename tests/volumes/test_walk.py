"""The one walk through folders: what is found, what is left alone and said."""

from pathlib import Path

import pytest

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.reader import open_volume
from localdiff_cli.volumes.walk import images_in


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def found(folder):
    return [relative.as_posix() for _, relative in images_in(folder).images]


def aside(folder):
    return {relative.as_posix(): reason for relative, reason in images_in(folder).aside}


def test_other_versions_of_the_images_are_left_alone_and_named(tmp_path):
    touch(tmp_path / "sub-01" / "a_T1w.nii", tmp_path / "derivatives" / "prep" / "a_T1w.nii", tmp_path / "x" / "sourcedata" / "a_T1w.nii")
    assert found(tmp_path) == ["sub-01/a_T1w.nii"]
    assert set(aside(tmp_path)) == {"derivatives", "x/sourcedata"}
    assert "name it to use" in aside(tmp_path)["derivatives"]
    assert found(tmp_path / "derivatives") == ["prep/a_T1w.nii"]


def test_a_glob_goes_into_derivatives_only_where_it_names_them(tmp_path):
    touch(tmp_path / "sub-01" / "a_T1w.nii", tmp_path / "derivatives" / "sub-01" / "a_T1w.nii")
    assert found(str(tmp_path / "**" / "*_T1w.nii")) == ["a_T1w.nii"]
    assert len(images_in(str(tmp_path / "derivatives" / "**" / "*_T1w.nii")).images) == 1


def test_subject_folders_that_are_links_are_followed_under_their_own_names(tmp_path):
    touch(tmp_path / "store" / "k1" / "sub-01_T1w.nii", tmp_path / "store" / "k2" / "anat" / "sub-02_T1w.nii")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "sub-01").symlink_to(tmp_path / "store" / "k1")
    (tmp_path / "study" / "sub-02").symlink_to(Path("..") / "store" / "k2")
    assert found(tmp_path / "study") == ["sub-01/sub-01_T1w.nii", "sub-02/anat/sub-02_T1w.nii"]


def test_a_link_to_a_folder_that_is_searched_anyway_counts_nobody_twice(tmp_path):
    touch(tmp_path / "sub-01" / "a_T1w.nii")
    (tmp_path / "latest").symlink_to(tmp_path / "sub-01")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "sub-01" / "up").symlink_to(tmp_path.parent)
    assert found(tmp_path) == ["sub-01/a_T1w.nii"]
    assert set(aside(tmp_path)) == {"latest", "loop", "sub-01/up"}


def test_a_subject_folder_that_leads_nowhere_is_named(tmp_path):
    touch(tmp_path / "sub-01" / "a_T1w.nii")
    (tmp_path / "sub-02").symlink_to(tmp_path / "gone")
    assert "which is not there" in aside(tmp_path)["sub-02"]


def test_what_is_left_alone_is_said_by_the_command(cli, folder, tmp_path):
    touch(folder / "derivatives" / "sub-01" / "sub-01_T1w.nii.gz")
    result = cli("translate", "--in", folder, "--out", tmp_path / "out", "--mode", "plain")
    assert result.exit_code == 0, result.output
    assert "derivatives: left alone" in result.output


@pytest.mark.parametrize(
    ("target", "word"),
    [(".git/annex/objects/aa/bb/MD5E-s1--x.nii.gz", "datalad get a_T1w.nii.gz"), ("elsewhere.nii.gz", "a link to elsewhere.nii.gz")],
)
def test_a_link_that_leads_nowhere_says_so_and_what_to_do(tmp_path, target, word):
    (tmp_path / "a_T1w.nii.gz").symlink_to(target)
    assert found(tmp_path) == ["a_T1w.nii.gz"]
    with pytest.raises(VolumeError, match=word) as caught:
        open_volume(tmp_path / "a_T1w.nii.gz")
    assert caught.value.code == "not-fetched"


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"/annex/objects/MD5E-s1--x.nii.gz\n", "datalad get"),
    ],
)
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_a_pointer_to_content_elsewhere_says_so_and_what_to_do(tmp_path, content, word, suffix):
    (tmp_path / f"a_T1w{suffix}").write_bytes(content)
    with pytest.raises(VolumeError, match=word):
        open_volume(tmp_path / f"a_T1w{suffix}")


@pytest.mark.parametrize("pattern", ["*/*_T1w.nii.gz", "**/*_T1w.nii.gz", "**"])
def test_a_glob_counts_every_image_once_whatever_links_lead_to_it_and_keeps_those_not_fetched(tmp_path, pattern):
    for name in ("sub-01", "sub-02"):
        touch(tmp_path / name / f"{name}_T1w.nii.gz")
    (tmp_path / "again").symlink_to("sub-01")
    (tmp_path / "sub-02" / "loop").symlink_to("..")
    (tmp_path / "sub-03").mkdir()
    (tmp_path / "sub-03" / "sub-03_T1w.nii.gz").symlink_to("../.git/annex/objects/x/sub-03_T1w.nii.gz")
    walk = images_in(str(tmp_path / pattern))
    assert sorted(path.name for path, _ in walk.images) == ["sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz", "sub-03_T1w.nii.gz"]
    assert any("again" in str(path) and "link" in reason for path, reason in walk.aside)
