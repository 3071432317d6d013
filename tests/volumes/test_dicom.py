"""DICOM series as volumes: read as dcm2niix reads them, refused with the reason, and nothing of the person let out."""

from __future__ import annotations

import json
import locale
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from localdiff_cli.batch.discover import discover
from localdiff_cli.errors import NoInputError, UsageError, VolumeError
from localdiff_cli.volumes.contrast import content_of
from localdiff_cli.volumes.files import file_hash
from localdiff_cli.volumes.reader import SliceReader, open_volume
from localdiff_cli.volumes.walk import images_in
from tests.volumes.dicom_series import COLUMN, OBLIQUE, ROW, SECRETS, classic, enhanced, head
from tests.volumes.synthetic import canonical, write_like

pydicom = pytest.importorskip("pydicom", reason="pip install 'localdiff[dicom]'")
sitk = pytest.importorskip("SimpleITK")
PYDICOMS = Path(pydicom.__file__).parent / "data" / "test_files"
DCM2NIIX = shutil.which("dcm2niix")
PLANES = {"axial": (ROW, COLUMN), "sagittal": (COLUMN, (0.0, 0.0, -1.0)), "coronal": (ROW, (0.0, 0.0, -1.0)), "oblique": OBLIQUE}


def first(folder):
    return images_in(folder).images[0][0]


def refusal(folder):
    with pytest.raises(VolumeError) as caught:
        open_volume(first(folder))
    text = str(caught.value)
    assert text.startswith("study-"), text
    assert not any(secret in text for secret in SECRETS)
    assert str(folder) not in text
    return caught.value.code, text


def at_the_same_places(image: nib.Nifti1Image, other: nib.Nifti1Image) -> np.ndarray:
    """The values of ``other`` at every voxel of ``image``, which must be a voxel of it to 0.01 mm."""
    index = np.argwhere(np.ones(image.shape, dtype=bool))
    places = nib.affines.apply_affine(image.affine, index)
    theirs = np.rint(nib.affines.apply_affine(np.linalg.inv(other.affine), places)).astype(int)
    assert np.abs(nib.affines.apply_affine(other.affine, theirs) - places).max() < 0.01
    assert theirs.min() >= 0
    return np.asarray(other.dataobj)[tuple(theirs.T)].reshape(image.shape)


def as_nifti(folder, out):
    """What our reader gives, written by our writer."""
    volume = open_volume(first(folder))
    return nib.load(write_like(volume, out / "ours.nii.gz", canonical(first(folder))))


@pytest.mark.skipif(DCM2NIIX is None, reason="no dcm2niix on PATH: apt-get install dcm2niix")
@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("kind", [classic, enhanced])
def test_every_voxel_lies_where_dcm2niix_puts_it(tmp_path, plane, kind):
    folder = kind(tmp_path / "in", head(), directions=PLANES[plane], order=[*range(0, 12, 2), *range(1, 12, 2)])
    (tmp_path / "theirs").mkdir()
    subprocess.run([DCM2NIIX, "-z", "n", "-f", "theirs", "-o", tmp_path / "theirs", folder], check=True, capture_output=True)
    theirs = nib.load(next((tmp_path / "theirs").glob("*.nii")))
    ours = as_nifti(folder, tmp_path)
    np.testing.assert_array_equal(np.asarray(ours.dataobj), at_the_same_places(ours, theirs))
    np.testing.assert_allclose(sorted(ours.header.get_zooms()), sorted(theirs.header.get_zooms()), rtol=1e-6)


@pytest.mark.parametrize("plane", PLANES)
def test_every_voxel_lies_where_gdcm_puts_it(tmp_path, plane):
    folder = classic(tmp_path / "in", head(), directions=PLANES[plane], slope=0.5)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    volume = open_volume(first(folder))
    array = sitk.GetArrayFromImage(image).T
    for index in [(0, 0, 0), (3, 5, 7), (15, 19, 11)]:
        place = np.array([-1, -1, 1]) * image.TransformIndexToPhysicalPoint(index)
        ours = np.rint(np.linalg.solve(volume.affine, [*place, 1]))[:3].astype(int)
        np.testing.assert_allclose(volume.affine @ [*ours, 1], [*place, 1], atol=1e-4)
        stored = SliceReader(volume)._stored.plane(2, ours[2])[ours[0], ours[1]]
        assert stored == array[index]


@pytest.mark.parametrize("name", sorted(path.name for path in PYDICOMS.glob("MR_small*.dcm")))
def test_an_image_of_pydicoms_is_read_to_its_values_however_it_is_encoded(tmp_path, name):
    (tmp_path / "s").mkdir()
    shutil.copy(PYDICOMS / name, tmp_path / "s")
    truth = pydicom.dcmread(PYDICOMS / "MR_small.dcm")
    image = as_nifti(tmp_path / "s", tmp_path)
    i, j = np.meshgrid(*map(np.arange, image.shape[:2]), indexing="ij")
    places = nib.affines.apply_affine(image.affine, np.stack([i, j, np.zeros_like(i)], axis=-1)) * (-1, -1, 1)  # to DICOM's axes
    along, down = np.array(truth.ImageOrientationPatient, dtype=float).reshape(2, 3)
    from_corner = (places - np.array(truth.ImagePositionPatient, dtype=float)) / float(truth.PixelSpacing[0])
    rows, columns = np.rint(from_corner @ down).astype(int), np.rint(from_corner @ along).astype(int)
    assert np.array_equal(np.asarray(image.dataobj)[:, :, 0], truth.pixel_array[rows, columns])


def test_pydicoms_localizers_and_projections_are_refused_and_its_broken_image_too(tmp_path):
    person = PYDICOMS / "dicomdirtests" / "98892003"
    series = [path for folder in ("MR2", "MR700") for path, _ in images_in(person / folder).images]
    found = []
    for path in series:
        try:
            open_volume(path)
        except VolumeError as error:
            found.append(error.code)
    assert (len(series), found) == (4, ["dicom-mixed"] * 3)  # two pilots of three planes, projections round the head; one single image
    shutil.copy(PYDICOMS / "MR_truncated.dcm", tmp_path)
    with pytest.raises(VolumeError, match="cannot be decoded"):
        SliceReader(open_volume(first(tmp_path)))


def test_slope_and_intercept_count_frame_by_frame(tmp_path):
    array = head()
    slopes = [1 + k / 4 for k in range(len(array))]
    by_frame = SliceReader(open_volume(first(enhanced(tmp_path / "e", array, slopes=slopes, order=range(11, -1, -1)))))
    np.testing.assert_array_equal(by_frame._stored.array, (array * np.array(slopes)[:, None, None]).transpose(2, 1, 0).astype(np.float32))
    plain = SliceReader(open_volume(first(classic(tmp_path / "c", array, slope=0.25))))
    np.testing.assert_array_equal(plain._stored.array, (array * 0.25 - 8).transpose(2, 1, 0).astype(np.float32))


@pytest.fixture
def same_locale():
    """GDCM leaves the process with the locale of C, in which text files are ASCII."""
    before = locale.setlocale(locale.LC_ALL)
    yield before
    locale.setlocale(locale.LC_ALL, before)


@pytest.mark.parametrize("codec", ["JPEG", "JPEG2000", "RLE"])
def test_compressed_pixels_are_decoded_by_gdcm(tmp_path, codec, same_locale):
    array = head(shape=(4, 20, 16))

    def packed(k, data):
        """Let GDCM compress the pixels without loss."""
        data.save_as(tmp_path / "plain.dcm", enforce_file_format=True)
        if codec == "RLE":
            data.compress(pydicom.uid.RLELossless)
            return
        image = sitk.ReadImage(str(tmp_path / "plain.dcm"))
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.SetFileName(str(tmp_path / "packed.dcm"))
        writer.SetUseCompression(True)
        writer.SetCompressor(codec)
        writer.KeepOriginalImageUIDOn()
        writer.Execute(image)
        other = pydicom.dcmread(tmp_path / "packed.dcm")
        assert other.file_meta.TransferSyntaxUID.is_compressed
        data.PixelData, data.file_meta.TransferSyntaxUID = other.PixelData, other.file_meta.TransferSyntaxUID
        data["PixelData"].VR = "OB"

    folder = classic(tmp_path / "in", array, change=packed)
    locale.setlocale(locale.LC_ALL, same_locale)
    np.testing.assert_array_equal(SliceReader(open_volume(first(folder)))._stored.array, array.transpose(2, 1, 0).astype(np.float32))
    assert locale.setlocale(locale.LC_ALL) == same_locale


def change(name, value, where=lambda k: True):
    def act(k, data):
        if where(k):
            setattr(data, name, value)

    return act


def test_a_missing_slice_is_named(tmp_path):
    code, text = refusal(classic(tmp_path, head(), order=[k for k in range(12) if k != 5]))
    assert code == "dicom-missing"
    assert "1 missing slices between images 5 and 7" in text


def test_doubled_slices_are_refused_with_what_tells_them_apart(tmp_path):
    classic(tmp_path, head())
    classic(tmp_path, head(seed=1), first=500, change=change("EchoTime", 98.0))
    code, text = refusal(tmp_path)
    assert code == "dicom-doubled"
    assert "12 of 24 images" in text
    assert "EchoTime" in text


def test_a_file_that_lies_there_twice_is_refused(tmp_path):
    classic(tmp_path, head())
    shutil.copy(tmp_path / "IM0007", tmp_path / "IM0007.dcm")
    code, text = refusal(tmp_path)
    assert code == "dicom-doubled"
    assert "the same image lies in two files" in text


def test_a_tilted_gantry_is_refused_with_its_angle(tmp_path):
    code, text = refusal(classic(tmp_path, head(), shear=(0.0, 0.8, 0.0)))
    assert code == "dicom-tilt"
    assert "14.9°" in text


def test_uneven_gaps_are_refused(tmp_path):
    code, text = refusal(classic(tmp_path, head(), change=lambda k, data: data.ImagePositionPatient.__setitem__(2, -60 + 3 * k + (k > 6))))
    assert code == "dicom-gaps"
    assert "4.00 mm between images 7 and 8" in text


@pytest.mark.parametrize(
    ("changed", "code", "words"),
    [
        (change("ImageOrientationPatient", [*COLUMN, 0, 0, -1], lambda k: k == 3), "dicom-mixed", "several directions"),
        (change("PixelSpacing", [1.0, 1.5], lambda k: k == 3), "dicom-mixed", "several pixel spacings"),
        (change("PhotometricInterpretation", "MONOCHROME1"), "dicom-kind", "MONOCHROME1"),
        (change("ImageType", ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), "dicom-kind", "mosaic"),
        (change("ImageType", ["ORIGINAL", "PRIMARY", "P"], lambda k: k == 2), "dicom-kind", "phase"),
        (change("SamplesPerPixel", 3), "dicom-kind", "colour"),
        (lambda k, data: k == 4 and delattr(data, "ImagePositionPatient"), "dicom-geometry", "without position"),
        (change("PixelSpacing", [0.0, 1.5]), "dicom-geometry", "impossible"),
    ],
)  # fmt: skip
def test_what_is_no_volume_is_refused_with_the_reason(tmp_path, changed, code, words):
    found, text = refusal(classic(tmp_path, head(), change=changed))
    assert found == code
    assert words in text


def test_a_damaged_file_is_a_fault_of_the_series_beside_it_only(tmp_path):
    classic(tmp_path / "a", head())
    (tmp_path / "a" / "IM9999").write_bytes(b"\0" * 128 + b"DICM" + b"Quuxborough" * 9)
    classic(tmp_path / "b", head(), uid="1.2.3.4.5.8", number=6)
    found = discover(str(tmp_path), "T1w").items
    assert len(found) == 2
    code, text = refusal(tmp_path / "a")
    assert code == "dicom-kind"
    assert "1 DICOM files in its folder that cannot be read, the first is number 13 by name" in text
    assert open_volume(next(item.path for item in found if item.path.parent.name == "b")).shape == (16, 20, 12)


def test_cut_pixels_are_an_error_that_quotes_nothing(tmp_path):
    folder = classic(tmp_path, head())
    whole = (folder / "IM0000").read_bytes()
    (folder / "IM0000").write_bytes(whole[:-100])
    with pytest.raises(VolumeError) as caught:
        SliceReader(open_volume(first(folder)))
    assert "cannot be decoded" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_every_series_of_a_folder_is_one_volume_with_a_name_that_tells_nothing(tmp_path):
    person = tmp_path / "QUUXBOROUGH_ZEPHYRINE"
    classic(person, head(), description="Sag MPRAGE Quuxborough")
    enhanced(person / "flair", head())
    (person / "report.txt").write_text("Quuxborough")
    (person / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    walk = images_in(tmp_path)
    found, named = walk.images, walk.named
    assert not named
    assert [relative.as_posix() for _, relative in found] == sorted(relative.as_posix() for _, relative in found)
    assert [relative.name.split("-")[1] + relative.name[-11:] for _, relative in found] == ["004_T1w.nii.gz", "005LAIR.nii.gz"]
    assert not any(secret.lower() in str(relative).lower() for _, relative in found for secret in SECRETS)


def test_contrast_is_what_the_description_says_and_other_series_are_skipped(tmp_path):
    classic(tmp_path / "a", head())
    enhanced(tmp_path / "b", head())
    found = discover(str(tmp_path), "FLAIR")
    assert [item.content.said_by for item in found.items] == ["series description"]
    assert [reason for _, reason in found.skipped] == ["its series description says T1w; expected FLAIR"]


def test_gadolinium_and_synthetic_data_are_known(tmp_path):
    classic(tmp_path / "a", head(), change=change("ContrastBolusAgent", "Gadovist"))
    assert content_of(first(tmp_path / "a")).enhanced
    classic(tmp_path / "b", head(), change=change("SyntheticData", "YES"))
    assert content_of(first(tmp_path / "b")).synthetic


def test_a_folder_with_other_images_is_worked_on_as_before(tmp_path):
    classic(tmp_path / "dicom", head())
    nib.Nifti1Image(np.zeros((2, 2, 2)), np.eye(4)).to_filename(tmp_path / "a_T1w.nii.gz")
    assert [relative.name for _, relative in images_in(tmp_path).images] == ["a_T1w.nii.gz"]


def test_a_series_spread_over_folders_is_refused(tmp_path):
    classic(tmp_path / "a", head(), order=range(6))
    classic(tmp_path / "b", head(), order=range(6, 12))
    with pytest.raises(UsageError, match="lie in 2 folders"):
        images_in(tmp_path)


def test_other_dicom_objects_are_no_input(tmp_path):
    classic(tmp_path, head(), change=change("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2"))
    with pytest.raises(NoInputError, match="no MR image"):
        images_in(tmp_path)


def test_one_series_is_named_by_its_folder_or_any_of_its_files(tmp_path):
    folder = classic(tmp_path / "s", head())
    by_folder, by_file = images_in(folder), images_in(folder / "IM0021")
    assert by_folder.named
    assert by_folder == by_file


def test_the_hash_is_of_the_content_whatever_the_files_are_called(tmp_path):
    a = classic(tmp_path / "a", head())
    before = file_hash(first(a))
    for number, path in enumerate(sorted(a.iterdir(), reverse=True)):
        path.rename(a / f"{number}.dcm")
    assert file_hash(first(a)) == before
    classic(tmp_path / "b", head(seed=2))
    assert file_hash(first(tmp_path / "b")) != before


def test_without_pydicom_the_error_says_how_to_install_it(tmp_path):
    folder = classic(tmp_path, head())
    code = "import sys; sys.modules['pydicom'] = None\nfrom localdiff_cli.app import main\nmain()"
    command = [sys.executable, "-c", code, "detect", "--in", str(folder), "--out", str(tmp_path / "out")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "pip install 'localdiff[dicom]'" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_reading_says_nothing_on_the_terminal(tmp_path, capfd, caplog):
    def odd(k, data):
        with pydicom.config.disable_value_validation():
            data.PatientID = "x" * 80 + "Quuxborough"
            data.EchoTime = "2.90000000000000000000000"

    with pytest.warns(UserWarning, match="exceeds the maximum length"):
        folder = classic(tmp_path, head(), change=odd)
    capfd.readouterr()
    caplog.clear()
    canonical(first(folder))
    assert caplog.records == []
    said = capfd.readouterr()
    assert said.out + said.err == ""


def test_what_is_written_for_a_series_is_a_nifti_of_its_geometry_without_its_texts(tmp_path):
    folder = classic(tmp_path / "in", head(), directions=OBLIQUE)
    ours = as_nifti(folder, tmp_path)
    volume = open_volume(first(folder))
    np.testing.assert_allclose(ours.affine, volume.affine, atol=1e-4)
    np.testing.assert_allclose(ours.get_qform(), volume.affine, atol=1e-3)
    assert int(ours.header["sform_code"]) == int(ours.header["qform_code"]) == 1
    text = (tmp_path / "ours.nii.gz").read_bytes() + json.dumps(str(ours.header)).encode()
    assert not any(secret.encode() in text for secret in SECRETS)


@pytest.mark.parametrize(("name", "value"), [("PatientID", "MRN-1"), ("PatientName", "Grumblesnatch^Olga"), ("StudyInstanceUID", "1.2.9")])
def test_images_of_two_patients_or_studies_are_no_series(tmp_path, name, value):
    code, text = refusal(classic(tmp_path, head(), change=change(name, value, lambda k: k % 2)))
    assert code == "dicom-mixed"
    assert f"of 2 {'studies' if name == 'StudyInstanceUID' else 'patients'}" in text
    assert value not in text


def test_two_patients_at_the_same_places_are_told_as_such(tmp_path):
    classic(tmp_path, head())
    classic(tmp_path, head(seed=1), first=500, change=change("PatientID", "MRN-1"))
    assert refusal(tmp_path)[0] == "dicom-mixed"


@pytest.mark.parametrize("name", ["StudyInstanceUID", "SeriesInstanceUID", "Rows"])
def test_a_series_that_lacks_what_it_must_have_fails_alone(tmp_path, name):
    classic(tmp_path / "a", head(), change=lambda k, data: delattr(data, name))
    classic(tmp_path / "b", head(), uid="1.2.3.4.5.8", number=6)
    found = [path for path, _ in images_in(tmp_path).images]
    assert len(found) == 2
    bad, good = (next(path for path in found if path.parent.name == folder) for folder in "ab")
    assert open_volume(good).shape == (16, 20, 12)
    with pytest.raises(VolumeError, match=r"^study-") as caught:
        open_volume(bad)
    assert caught.value.code == "dicom-kind"
    assert str(tmp_path) not in str(caught.value)


def test_dicom_beside_other_images_is_named_as_left_alone(tmp_path):
    classic(tmp_path / "QUUXBOROUGH", head())
    nib.Nifti1Image(np.zeros((2, 2, 2)), np.eye(4)).to_filename(tmp_path / "a_T1w.nii.gz")
    ((what, why),) = images_in(tmp_path).aside
    assert (str(what), why.partition(",")[0]) == ("DICOM", "12 files left alone")


def test_files_that_are_called_dicom_and_bear_no_mark_are_counted(tmp_path):
    classic(tmp_path / "a", head())
    (tmp_path / "a" / "quuxborough.dcm").write_bytes(b"no mark")
    ((what, why),) = images_in(tmp_path).aside
    assert str(what) == "*.dcm"
    assert why.startswith("1 files without the mark")
