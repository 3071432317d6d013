"""DICOM through the commands: in by ``--in``, out by ``--dicom-out``; the person goes from series to series and nowhere else."""

from __future__ import annotations

import json
import shutil
import subprocess

import nibabel as nib
import numpy as np
import pytest

from localdiff_cli.commands import dicom_out
from localdiff_cli.volumes.reader import open_volume
from localdiff_cli.volumes.written import scale_of, translation_sidecar
from tests.brains import brain, write_brain
from tests.volumes.dicom_series import PERSON, SECRETS, classic, enhanced

pydicom = pytest.importorskip("pydicom", reason="pip install 'localdiff[dicom]'")
highdicom = pytest.importorskip("highdicom")
DCM2NIIX, DCIODVFY = shutil.which("dcm2niix"), shutil.which("dciodvfy")
SIZE = {"spacing": (4, 4), "step": 20.0}


def head(seed=0):
    return brain(seed).transpose(2, 1, 0).astype(np.uint16)


@pytest.fixture(params=[classic, enhanced], ids=["classic", "enhanced"])
def source(request, tmp_path):
    """A T1w series in a folder that bears the patient's name."""
    options = {"order": [3, 0, 5, 1, 4, 2]}
    return request.param(tmp_path / "QUUXBOROUGH^ZEPHYRINE" / "t1", head(), description="Ax T1 MPRAGE Quuxborough", **SIZE, **options)


def files(folder, pattern="*"):
    return sorted(path for path in folder.rglob(pattern) if path.is_file())


def translated(cli, source, tmp_path, *more):
    places = ("--in", source, "--out", tmp_path / "out", "--dicom-out", tmp_path / "derived", "--json-log", tmp_path / "out" / "log.jsonl")
    return cli("translate", *places, "--model", "t1-to-t2", "--suffix", "T2w", *more)


def datasets(folder):
    return [pydicom.dcmread(path) for path in files(folder, "*.dcm")]


UNKNOWN = "Error - Attribute with an even group number is not a recognized standard attribute - (0x0008,0x001c)"
"""Synthetic Data is younger than the dictionary of Debian's dciodvfy."""


def complaints(path):
    ran = subprocess.run([DCIODVFY, path], capture_output=True, text=True, check=False)
    return [line for line in (ran.stdout + ran.stderr).splitlines() if line.startswith("Error") and not line.startswith(UNKNOWN)]


def test_a_translation_is_derived_as_a_series_of_the_same_patient_marked_synthetic(cli, source, tmp_path):
    ran = translated(cli, source, tmp_path)
    assert ran.exit_code == 0, ran.output
    made, originals = datasets(tmp_path / "derived"), {d.SOPInstanceUID: d for d in (pydicom.dcmread(p) for p in files(source))}
    assert [d.InstanceNumber for d in made] == [1, 2, 3, 4, 5, 6]
    original = next(iter(originals.values()))
    for d in made:
        assert (d.PatientName, d.PatientID, d.StudyInstanceUID) == (PERSON["PatientName"], PERSON["PatientID"], original.StudyInstanceUID)
        assert d.FrameOfReferenceUID == original.FrameOfReferenceUID
        assert (list(d.ImageType[:2]), d.SyntheticData, d.ContentQualification) == (["DERIVED", "SECONDARY"], "YES", "RESEARCH")
        assert d.SeriesDescription == "localdiff synthetic T2w (research only)"
        assert "model t1-to-t2" in d.DerivationDescription
        assert d.SourceImageSequence[0].ReferencedSOPInstanceUID in originals
        assert d.ReferencedSeriesSequence[0].SeriesInstanceUID == original.SeriesInstanceUID
    assert len({d.SOPInstanceUID for d in made}) == 6
    assert {d.SeriesInstanceUID for d in made}.isdisjoint({original.SeriesInstanceUID})


@pytest.mark.skipif(DCM2NIIX is None, reason="no dcm2niix on PATH: apt-get install dcm2niix")
def test_dcm2niix_reads_the_derived_series_back_to_the_voxels_of_the_nifti(cli, source, tmp_path):
    translated(cli, source, tmp_path)
    (tmp_path / "back").mkdir()
    subprocess.run([DCM2NIIX, "-z", "n", "-f", "back", "-o", tmp_path / "back", tmp_path / "derived"], check=True, capture_output=True)
    back, ours = nib.load(next((tmp_path / "back").glob("*.nii"))), nib.load(files(tmp_path / "out", "*.nii.gz")[0])
    index = np.argwhere(np.ones(ours.shape, dtype=bool))
    there = np.rint(nib.affines.apply_affine(np.linalg.inv(back.affine) @ ours.affine, index)).astype(int)
    np.testing.assert_allclose(nib.affines.apply_affine(back.affine, there), nib.affines.apply_affine(ours.affine, index), atol=0.01)
    np.testing.assert_allclose(back.get_fdata()[tuple(there.T)], ours.get_fdata()[tuple(index.T)], atol=1 / 32000)


def test_our_own_reader_takes_the_derived_series_as_synthetic(cli, source, tmp_path):
    translated(cli, source, tmp_path)
    ran = cli("segment", "--in", tmp_path / "derived", "--out", tmp_path / "lesions", "--model", "lesion-t2")
    assert ran.exit_code == 0, ran.output
    sidecar = json.loads(files(tmp_path / "lesions", "series-*.json")[0].read_text())
    assert sidecar["SegmentedSynthetic"] is True
    assert sidecar["IntensityScale"] == "as its translation was written"
    original = nib.load(files(tmp_path / "out", "*.nii.gz")[0])
    np.testing.assert_allclose(open_volume(files(tmp_path / "derived", "*.dcm")[0]).affine, original.affine, atol=1e-4)


@pytest.mark.skipif(DCIODVFY is None, reason="no dciodvfy on PATH: apt-get install dicom3tools")
def test_dciodvfy_finds_no_error_in_what_is_derived(cli, source, tmp_path):
    translated(cli, source, tmp_path)
    ran = cli("segment", "--in", tmp_path / "derived", "--out", tmp_path / "seg", "--dicom-out", tmp_path / "lesions")
    assert ran.exit_code == 0, ran.output
    made = files(tmp_path / "derived") + files(tmp_path / "lesions")
    assert len(made) == 7
    for path in made:
        assert complaints(path) == []


def test_a_lesion_mask_is_derived_as_a_seg_on_the_source_slices(cli, tmp_path):
    for kind in (classic, enhanced):
        name = kind.__name__
        source = kind(tmp_path / name, head(), description="T2 tse", order=[3, 0, 5, 1, 4, 2], **SIZE)
        ran = cli("segment", "--in", source, "--out", tmp_path / f"{name}-out", "--dicom-out", tmp_path / f"{name}-seg")
        assert ran.exit_code == 0, ran.output
        mask = np.asarray(nib.load(files(tmp_path / f"{name}-out", "*.nii.gz")[0]).dataobj)
        assert mask.any()
        (path,) = files(tmp_path / f"{name}-seg")
        seg = highdicom.seg.segread(path)
        assert (seg.PatientID, seg.SegmentSequence[0].SegmentLabel, seg.ContentQualification) == (PERSON["PatientID"], "Lesion", "RESEARCH")
        lookup = open_volume(min(files(source))).stack
        if kind is classic:
            found = seg.get_pixels_by_source_instance([plane.instance for plane in lookup.planes], combine_segments=True)
        else:
            numbers = [plane.frame + 1 for plane in lookup.planes]
            found = seg.get_pixels_by_source_frame(lookup.planes[0].instance, numbers, combine_segments=True, ignore_spatial_locations=True,
                                                   assert_missing_frames_are_empty=True)  # fmt: skip
        np.testing.assert_array_equal(found.transpose(2, 1, 0), mask)


def test_an_empty_mask_is_derived_too(cli, tmp_path):
    source = classic(tmp_path / "in", head(), description="T2 tse", **SIZE)
    ran = cli("segment", "--in", source, "--out", tmp_path / "out", "--dicom-out", tmp_path / "seg", "--min-volume", "10000000")
    assert ran.exit_code == 0, ran.output
    assert highdicom.seg.segread(files(tmp_path / "seg")[0]).SegmentSequence[0].SegmentLabel == "Lesion"


def test_the_person_is_in_no_file_name_or_line_but_the_derived_series(cli, source, tmp_path):
    classic(source.parent / "broken", head(), uid="1.2.3.4.5.9", number=9, description="T1 Quuxborough", order=[0, 1, 3, 4, 5], **SIZE)
    ran = translated(cli, source.parent, tmp_path, "--verbose", "--save-map", "--save-brain")
    assert ran.exit_code == 1
    seen = {"output": ran.output.replace(str(source.parent), "").encode()}
    for path in files(tmp_path / "out"):
        data = path.read_bytes()
        seen[str(path.relative_to(tmp_path))] = data + (nib.load(path).header.binaryblock if path.name.endswith(".gz") else b"")
    assert any(name.endswith("failures.tsv") for name in seen)
    assert any(name.endswith("log.jsonl") for name in seen)
    seen |= {str(path.relative_to(tmp_path)): b"" for path in tmp_path.glob("derived/**/*")}
    for name, data in seen.items():
        text = (name.encode() + data).lower()
        assert not [secret for secret in SECRETS if secret.lower().encode() in text], name
    assert {str(d.PatientName) for d in datasets(tmp_path / "derived")} == {PERSON["PatientName"]}


def test_the_same_command_again_derives_nothing_twice_and_makes_up_for_what_is_missing(cli, source, tmp_path):
    translated(cli, source, tmp_path)
    before = {path: path.read_bytes() for path in files(tmp_path / "derived")}
    assert "0 DICOM series written" in translated(cli, source, tmp_path).output
    shutil.rmtree(tmp_path / "derived")
    assert "1 DICOM series written" in translated(cli, source, tmp_path).output
    assert {path: path.read_bytes() for path in files(tmp_path / "derived")} == before


def test_another_series_is_replaced_only_when_asked(cli, source, tmp_path):
    translated(cli, source, tmp_path)
    again = translated(cli, source, tmp_path, "--seed", "1", "--overwrite")
    assert "1 DICOM series written" in again.output
    shutil.rmtree(tmp_path / "out")
    ran = translated(cli, source, tmp_path)
    assert ran.exit_code == 1
    assert "is another series; replace it with --overwrite" in ran.output.replace("\n", " ")


def test_a_nifti_has_no_series_to_derive_from(cli, tmp_path):
    write_brain(tmp_path / "in" / "a_T1w.nii.gz")
    ran = translated(cli, tmp_path / "in", tmp_path)
    assert ran.exit_code == 2
    assert "expected DICOM" in ran.output
    assert not (tmp_path / "out").exists() or not files(tmp_path / "out", "*.nii.gz")


def test_matched_units_survive_the_sixteen_bits(cli, source, tmp_path):
    write_brain(tmp_path / "reference_T2w.nii.gz", seed=5)
    ran = translated(cli, source, tmp_path, "--match", tmp_path / "reference_T2w.nii.gz")
    assert ran.exit_code == 0, ran.output
    ours = nib.load(files(tmp_path / "out", "*.nii.gz")[0]).get_fdata()
    made = np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in datasets(tmp_path / "derived")])
    assert ours.max() > 50
    np.testing.assert_allclose(made.transpose(2, 1, 0), ours, atol=np.ptp(ours) / 32000)


@pytest.mark.parametrize("matched", [False, True])
def test_a_derived_series_names_the_scale_of_its_translation(cli, source, tmp_path, matched):
    """So that its lesions are those of the NIfTI; a reader of another make finds z where DICOM has such mappings."""
    write_brain(tmp_path / "reference_T2w.nii.gz", seed=5)
    translated(cli, source, tmp_path, *(("--match", tmp_path / "reference_T2w.nii.gz") if matched else ()))
    image, first = files(tmp_path / "out", "*_T2w.nii.gz")[0], files(tmp_path / "derived", "*.dcm")[0]
    own, told = scale_of(image, (-4.0, 6.0)), scale_of(first, (-4.0, 6.0))
    assert (told.median, told.sd) == (pytest.approx(own.median, rel=1e-4), pytest.approx(own.sd, rel=1e-4))
    (mapping,) = pydicom.dcmread(first).RealWorldValueMappingSequence
    stored = pydicom.dcmread(first).pixel_array
    assert mapping.RealWorldValueFirstValueMapped <= stored[stored > 0].min()
    assert mapping.RealWorldValueLastValueMapped >= stored.max()
    named = translation_sidecar(first)
    assert ("OutputScale" in named, "OutputWindow" in named) == (matched, not matched)
    if not matched:
        assert told.window == own.window
    for name, path in (("nifti", image), ("dicom", tmp_path / "derived")):
        assert cli("segment", "--in", path, "--out", tmp_path / name, "--model", "lesion-t2", "--save-prob").exit_code == 0
    nifti, dicom = (nib.load(files(tmp_path / name, "*_prob.nii.gz")[0]).get_fdata() for name in ("nifti", "dicom"))
    np.testing.assert_allclose(dicom, nifti, atol=2e-3)


def without_mapping(data):
    del data.RealWorldValueMappingSequence


def without_slope(data):
    del data.RealWorldValueMappingSequence[0].RealWorldValueSlope


def without_steepness(data):
    data.RealWorldValueMappingSequence[0].RealWorldValueSlope = 0.0


def of_another_label(data):
    data.RealWorldValueMappingSequence[0].LUTLabel = "ADC"


@pytest.mark.parametrize("spoil", [without_mapping, without_slope, without_steepness, of_another_label])
def test_a_derived_series_whose_mapping_was_spoilt_is_to_be_reviewed(cli, source, tmp_path, spoil):
    translated(cli, source, tmp_path)
    for path in files(tmp_path / "derived", "*.dcm"):
        data = pydicom.dcmread(path)
        spoil(data)
        data.save_as(path)
    assert cli("segment", "--in", tmp_path / "derived", "--out", tmp_path / "lesions", "--model", "lesion-t2").exit_code == 0
    assert "by its own spread" in (tmp_path / "lesions" / "qc.tsv").read_text()


def test_a_series_without_its_mapping_is_another_one_that_may_be_replaced(cli, source, tmp_path, monkeypatch):
    """As one that was derived before there were mappings."""
    with monkeypatch.context() as before:
        before.setattr(dicom_out, "scale_of", lambda *_: None)
        translated(cli, source, tmp_path)
    again = translated(cli, source, tmp_path)
    assert "another series" in again.output
    assert translated(cli, source, tmp_path, "--overwrite").exit_code == 0
    assert all("RealWorldValueMappingSequence" in data for data in datasets(tmp_path / "derived"))


def test_a_series_that_is_no_longer_marked_synthetic_is_known_by_its_mapping(cli, source, tmp_path):
    translated(cli, source, tmp_path)
    for path in files(tmp_path / "derived", "*.dcm"):
        data = pydicom.dcmread(path)
        del data.SyntheticData
        data.save_as(path)
    assert cli("segment", "--in", tmp_path / "derived", "--out", tmp_path / "lesions", "--model", "lesion-t2").exit_code == 0
    sidecar = json.loads(files(tmp_path / "lesions", "series-*.json")[0].read_text())
    assert (sidecar["SegmentedSynthetic"], sidecar["IntensityScale"]) == (True, "as its translation was written")


def test_a_seg_is_derived_of_directions_that_differ_in_their_last_digits(cli, tmp_path):
    def shaken(k, data):
        data.ImageOrientationPatient = [1, k * 1e-7, 0, -k * 1e-7, 1, 0]

    source = classic(tmp_path / "in", head(), description="T2 tse", change=shaken, **SIZE)
    ran = cli("segment", "--in", source, "--out", tmp_path / "out", "--dicom-out", tmp_path / "seg")
    assert ran.exit_code == 0, ran.output
    assert len(files(tmp_path / "seg")) == 1


def test_a_series_without_a_frame_of_reference_gets_one_for_all_that_is_derived(cli, tmp_path):
    def without(k, data):
        del data.FrameOfReferenceUID

    source = classic(tmp_path / "in", head(), description="T2 tse", change=without, **SIZE)
    ran = cli("segment", "--in", source, "--out", tmp_path / "out", "--dicom-out", tmp_path / "seg")
    assert ran.exit_code == 0, ran.output
    t1 = classic(tmp_path / "t1", head(), change=without, **SIZE)
    assert translated(cli, t1, tmp_path / "b").exit_code == 0
    for folder in (tmp_path / "seg", tmp_path / "b" / "derived"):
        found = {str(data.FrameOfReferenceUID) for data in datasets(folder)}
        assert len(found) == 1
        assert "" not in found


def test_nothing_of_highdicom_reaches_the_terminal(cli, tmp_path, capfd):
    source = classic(tmp_path / "in", head(), description="T2 tse", **SIZE)
    assert (
        cli("segment", "--in", source, "--out", tmp_path / "out", "--dicom-out", tmp_path / "seg", "--min-volume", "10000000").exit_code
        == 0
    )
    assert "Encoding" not in capfd.readouterr().err


def test_outputs_below_the_series_are_refused(cli, source, tmp_path):
    ran = cli("translate", "--in", source, "--out", source / "out")
    assert ran.exit_code == 2
    assert "lies in the folder of DICOM series" in ran.output
    assert cli("translate", "--in", source, "--out", tmp_path / "o", "--dicom-out", source / "derived").exit_code == 2
