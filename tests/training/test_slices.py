"""Training slices: prepared as translate prepares them, once, and only those that count."""

import os

import nibabel as nib
import numpy as np
import pytest

from localdiff_cli.training.pairs import Pair, read_pairs
from localdiff_cli.training.slices import fit_shape, load_slices
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


def test_a_brain_larger_than_the_grid_is_cropped_about_its_centre():
    stack = np.arange(2 * 6 * 8).reshape(2, 6, 8)
    assert np.array_equal(fit_shape(stack, (4, 4)), stack[:, 1:5, 2:6])
    assert np.array_equal(fit_shape(stack, (6, 8)), stack)
