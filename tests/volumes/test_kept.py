"""Brains and bias fields that are kept from one command to the next: the same result, found once."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes import brain as brain_module
from localdiff_cli.volumes import prepare as prepare_module
from localdiff_cli.volumes.kept import Kept
from localdiff_cli.volumes.prepare import PrepareSettings, prepare
from localdiff_cli.volumes.reader import open_volume

from .synthetic import affine_of, brain_array, ellipsoid, save_nifti

SETTINGS = PrepareSettings(shape=(64, 64), spacing=4.0)


@pytest.fixture
def searches(monkeypatch):
    """What was searched for: brains by a stand-in for the extraction, bias fields by N4 itself."""
    found = []
    fit = prepare_module.fit_bias

    def extract(head):
        found.append("brain")
        return ellipsoid(head.shape, 0.7) < 1

    def fitted(*arguments):
        found.append("bias")
        return fit(*arguments)

    monkeypatch.setattr(brain_module, "extract_brain", extract)
    monkeypatch.setattr(prepare_module, "fit_bias", fitted)
    return found


def head(path, brightness=900, across=4.0):
    """A head with skull."""
    tissue = np.where(ellipsoid((40, 48, 40), 0.95) < 1, brightness, 0) + brain_array((40, 48, 40)) / 10
    return save_nifti(path, tissue.astype(np.int16), affine_of((across, 4.0, 5.0)))


def slices(path, settings):
    prepared = prepare(open_volume(path), settings)
    return np.stack([prepared.network_slice(k)[0] for k in range(12, 30)])


def test_the_second_command_finds_what_the_first_one_kept(tmp_path, searches):
    path, kept = head(tmp_path / "a.nii.gz"), replace(SETTINGS, kept=Kept(tmp_path / "cache"))
    without, first, second = slices(path, SETTINGS), slices(path, kept), slices(path, kept)
    assert searches == ["brain", "bias"] * 2
    assert np.array_equal(without, first)
    assert np.array_equal(without, second)


def test_it_goes_by_the_voxels_not_by_name_format_or_orientation(tmp_path, searches):
    path, kept = head(tmp_path / "a.nii.gz"), replace(SETTINGS, kept=Kept(tmp_path / "cache"))
    first = slices(path, kept)
    turned = nib.as_closest_canonical(nib.load(path))
    nib.save(turned, tmp_path / "another name.nii")
    assert np.array_equal(slices(tmp_path / "another name.nii", kept), first)
    assert searches == ["brain", "bias"]


@pytest.mark.parametrize(
    ("change", "again"),
    [({"brightness": 901}, ["brain", "bias"]), ({"across": 3.9}, ["brain", "bias"])],
    ids=["other voxels", "other voxel size"],
)
def test_another_volume_is_searched_for_itself(tmp_path, searches, change, again):
    kept = replace(SETTINGS, kept=Kept(tmp_path / "cache"))
    slices(head(tmp_path / "a.nii.gz"), kept)
    slices(head(tmp_path / "b.nii.gz", **change), kept)
    assert searches == ["brain", "bias", *again]


def test_another_brain_has_a_bias_field_of_its_own(tmp_path, searches):
    path, kept = head(tmp_path / "a.nii.gz"), replace(SETTINGS, kept=Kept(tmp_path / "cache"))
    slices(path, kept)
    assert np.array_equal(slices(path, replace(kept, brain="none")), slices(path, replace(SETTINGS, brain="none")))
    assert searches == ["brain", "bias", "bias", "bias"]


@pytest.mark.parametrize("content", [b"", b"not a zip file", None], ids=["empty", "foreign", "cut"])
def test_a_damaged_file_is_found_anew_and_replaced(tmp_path, searches, content):
    path, kept = head(tmp_path / "a.nii.gz"), replace(SETTINGS, kept=Kept(tmp_path / "cache"))
    whole = slices(path, kept)
    files = sorted((tmp_path / "cache").rglob("*.npz"))
    assert len(files) == 2
    for file in files:
        file.write_bytes(file.read_bytes()[:-40] if content is None else content)
    assert np.array_equal(slices(path, kept), whole)
    assert np.array_equal(slices(path, kept), whole)
    assert searches == ["brain", "bias"] * 2


def test_a_file_that_holds_python_objects_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the file's code ran",))

    kept = Kept(tmp_path)
    kept.array("brain", [1], lambda: np.zeros(3))
    (file,) = tmp_path.rglob("*.npz")
    np.savez(file, found=np.array([Trap()], dtype=object))
    assert kept.array("brain", [1], lambda: np.ones(3)).tolist() == [1, 1, 1]


def test_the_files_say_nothing_of_the_patient(tmp_path, searches):
    slices(head(tmp_path / "sub-secret.nii.gz"), replace(SETTINGS, kept=Kept(tmp_path / "cache")))
    for file in (tmp_path / "cache").rglob("*.npz"):
        assert "secret" not in str(file.relative_to(tmp_path))
        with np.load(file) as arrays:
            assert arrays.files == ["found"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path, searches):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(VolumeError, match="cannot be written") as caught:
        slices(head(tmp_path / "a.nii.gz"), replace(SETTINGS, kept=Kept(tmp_path / "cache")))
    assert caught.value.code == "unwritable"


def test_what_is_kept_decides_nothing_and_is_in_no_account():
    assert replace(SETTINGS, kept=Kept("anywhere")).account() == SETTINGS.account()
