"""Training slices: prepared as translate prepares them, once, and only those that count."""

import os
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from localdiff_cli.training.pairs import Pair, read_pairs
from localdiff_cli.training.slices import digest_of, fit_shape, load_slices
from localdiff_cli.volumes.prepare import PrepareSettings, prepare
from localdiff_cli.volumes.reader import open_volume

from .data import write_patient

SETTINGS = PrepareSettings(bias="none", spacing=4.0, shape=(48, 48))
CONTRASTS = ("T1w", "T2w")


@pytest.fixture
def data(tmp_path):
    for i in (1, 2):
        write_patient(tmp_path / "data", f"sub-0{i}", i)
    return tmp_path / "data"


@pytest.fixture
def load(data, tmp_path):
    said = []

    def run(pairs=None, settings=SETTINGS):
        return load_slices(pairs or read_pairs([data], *CONTRASTS), CONTRASTS, settings, tmp_path / "cache", said.append)

    run.said = said
    return run


def test_slices_are_those_that_translate_sees(load, data):
    patient = load()[0]
    assert (patient.name, patient.split, patient.masked) == ("sub-01", "train", True)
    assert patient.condition.dtype == patient.target.dtype == np.uint16
    assert patient.condition.shape == patient.target.shape == patient.brain.shape == patient.lesion.shape == (6, 48, 48)
    prepared = prepare(
        open_volume(data / "sub-01_T1w.nii.gz"), PrepareSettings(bias="none", spacing=4.0, shape=(48, 48), window=(-6.0, 6.0))
    )
    for k in range(6):
        condition, brain = prepared.network_slice(k)
        assert np.array_equal(patient.brain[k], brain)
        assert np.abs(patient.condition[k] / 65535 - condition).max() < 1 / 65535
    assert not patient.condition[~patient.brain].any()


def test_condition_target_and_lesion_are_of_the_same_slices(load):
    patient = load()[0]
    inside = patient.brain
    assert np.corrcoef(patient.condition[inside].astype(float), patient.target[inside].astype(float))[0, 1] < -0.9
    assert patient.lesion_free.tolist() == [True] * 3 + [False] * 3
    dark = patient.condition < 0.5 * np.median(patient.condition[inside])
    assert dark[patient.lesion].mean() > 0.9


def test_slices_with_hardly_any_brain_are_left_out(load, data):
    image = nib.load(data / "sub-01_T1w.nii.gz")
    voxels = np.asanyarray(image.dataobj).copy()
    voxels[..., 0] = 0
    voxels[18:22, 20:24, 0] = 500
    for name in ("T1w", "T2w"):
        nib.save(nib.Nifti1Image(voxels, image.affine), data / f"sub-01_{name}.nii.gz")
    assert len(load()[0].condition) == 5


def test_the_cache_is_used_and_made_anew_when_a_file_or_setting_changes(load, data, tmp_path, monkeypatch):
    import localdiff_cli.training.slices as module

    extracted = []
    original = module._extract
    monkeypatch.setattr(module, "_extract", lambda pair, *a: (extracted.append(pair.name), original(pair, *a))[1])
    first = load()
    assert extracted == ["sub-01", "sub-02"]
    again = load()
    assert extracted == ["sub-01", "sub-02"]
    for a, b in zip(first, again, strict=True):
        assert all(np.array_equal(getattr(a, key), getattr(b, key)) for key in ("condition", "target", "brain", "lesion"))
    status = (data / "sub-02_mask.nii.gz").stat()
    os.utime(data / "sub-02_mask.nii.gz", ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    load()
    assert extracted[2:] == ["sub-02"]
    load(settings=PrepareSettings(bias="none", spacing=4.0, shape=(48, 32)))
    assert extracted[3:] == ["sub-01", "sub-02"]


def test_slices_are_views_of_a_memory_map_that_holds_no_open_file(load, tmp_path):
    patient = load()[0]
    cache, open_files = str(tmp_path / "cache"), [path for path in Path("/proc/self/fd").iterdir() if path.exists()]
    assert sum(cache in line for line in Path("/proc/self/maps").read_text().splitlines()) == 1
    assert not [path for path in open_files if cache in str(path.readlink())]
    for name in ("condition", "target", "brain", "lesion"):
        assert getattr(patient, name).base is not None
    stored = next((tmp_path / "cache").glob("sub-01-*.npy"))
    before = stored.read_bytes()
    patient.condition[0] = 1
    assert stored.read_bytes() == before


def test_the_index_tells_lesions_and_voxels_without_reading_slices(load, monkeypatch):
    patient = load()[0]
    counted = patient.lesion.sum(axis=(1, 2))
    assert patient.lesion_pixels.tolist() == counted.tolist()
    assert patient.digest == digest_of((patient.condition, patient.target, patient.brain, patient.lesion))
    assert patient.known_healthy().kept is patient.kept
    assert patient.known_healthy().masked
    half = replace(patient, lesion=patient.lesion[:3], condition=patient.condition[:3], target=patient.target[:3], brain=patient.brain[:3])
    assert half.lesion_pixels.tolist() == counted[:3].tolist()
    assert half.digest != patient.digest


def test_a_cache_file_of_before_is_taken_over(load, tmp_path, monkeypatch):
    import localdiff_cli.training.slices as module

    first = load()[0]
    for path in (tmp_path / "cache").glob("sub-01-*.json"):
        arrays = {name: np.array(getattr(first, name)) for name in module.PLANES}
        np.savez_compressed(path.with_suffix(".npz"), **arrays)
        path.with_suffix(".npy").unlink()
        path.unlink()
    monkeypatch.setattr(module, "_extract", lambda *a: pytest.fail("prepared again"))
    assert load()[0].digest == first.digest


def test_the_processes_of_a_team_prepare_a_share_each(load, data, tmp_path, monkeypatch):
    import localdiff_cli.training.slices as module

    class Second:
        rank, size = 1, 2

        def wait(self):
            assert sorted(path.name[:6] for path in (tmp_path / "cache").glob("*.json")) == ["sub-02"]

    patients = module.load_slices(read_pairs([data], *CONTRASTS), CONTRASTS, SETTINGS, tmp_path / "cache", print, Second())
    assert [p.name for p in patients] == ["sub-01", "sub-02"]


def test_a_patient_that_cannot_be_used_is_left_out_and_reported(load, data, tmp_path):
    (data / "sub-01_T2w.nii.gz").write_text("not an image")
    pairs = [*read_pairs([data], *CONTRASTS), Pair("sub-09", data / "sub-09_T1w.nii.gz", data / "sub-02_T2w.nii.gz")]
    assert [p.name for p in load(pairs)] == ["sub-02"]
    assert len(load.said) == 2
    assert load.said[0].startswith("left out sub-01: ")
    assert "sub-09_T1w.nii.gz: no such file" in load.said[1]
    assert not [path for path in (tmp_path / "cache").rglob("*") if "sub-01" in path.name]


def test_a_target_on_another_grid_leaves_its_patient_out(load, data):
    image = nib.load(data / "sub-01_T2w.nii.gz")
    nib.save(image.slicer[:, :, :5], data / "sub-01_T2w.nii.gz")
    assert [p.name for p in load()] == ["sub-02"]


def test_without_a_mask_no_slice_is_known_to_be_healthy(load, data):
    (data / "sub-01_mask.nii.gz").unlink()
    patient = load()[0]
    assert not patient.masked
    assert patient.lesion_free.all()


def test_the_part_of_a_brain_that_the_grid_has_no_room_for_is_reported_from_the_cache_too(load):
    whole = load()[0]
    assert load.said == []
    narrow = replace(SETTINGS, shape=(32, 32), multiple=1)
    for _ in ("prepared", "from the cache"):
        cut = load(settings=narrow)[0]
        share = 1 - cut.brain.sum() / whole.brain.sum()
        assert 0 < share < 0.5
        assert load.said[-2] == f"sub-01: {100 * share:.2g} % of the brain lies beyond --shape 32,32 and is left out"
    assert len(load.said) == 4


def test_a_brain_larger_than_the_grid_is_cropped_about_its_centre():
    stack = np.arange(2 * 6 * 8).reshape(2, 6, 8)
    assert np.array_equal(fit_shape(stack, (4, 4)), stack[:, 1:5, 2:6])
    assert np.array_equal(fit_shape(stack, (6, 8)), stack)
