"""Opening volumes, refusing what cannot be used, and reading canonical slices."""

from __future__ import annotations

import gzip
import os
import tracemalloc
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.files import file_hash, files_of, stem
from localdiff_cli.volumes.formats import suffix_of
from localdiff_cli.volumes.formats.nifti import read as nifti
from localdiff_cli.volumes.prepare import PrepareSettings, prepare
from localdiff_cli.volumes.reader import SliceReader, open_volume
from tests.volumes.canonical import to_canonical

from .synthetic import ORIENTATIONS, affine_of, brain_array, canonical, error_of, real, save_nifti

DTYPES = ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", ">i2", ">f4"]
SLICES_FIRST = np.array([[0, 0, 1.0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]).T
"""An affine whose first stored axis runs to Superior: its slices do not stream."""


def refused(path: Path) -> VolumeError:
    """The error that reading ``path`` to the end raises; its message names the file."""
    with pytest.raises(VolumeError) as caught:
        canonical(path)
    assert str(path) in str(caught.value)
    return caught.value


def nifti_bytes(dtype: str = "int16", affine: np.ndarray | None = None) -> bytearray:
    image = nib.Nifti1Image(brain_array((9, 10, 5)).astype(dtype), affine_of((1, 1, 3)) if affine is None else affine)
    return bytearray(image.to_bytes())


def patched(tmp_path: Path, offset: int, value: np.generic | np.ndarray, name: str = "patched.nii") -> Path:
    """A small NIfTI-1 with ``value`` written over its header at ``offset``."""
    raw = nifti_bytes()
    raw[offset : offset + value.nbytes] = value.tobytes()
    path = tmp_path / name
    path.write_bytes(gzip.compress(bytes(raw)) if name.endswith(".gz") else raw)
    return path


# --- what is read ---


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_slices_are_the_same_in_every_orientation(tmp_path, orientation):
    image = nib.Nifti1Image(brain_array((5, 6, 4)).astype(np.int16), affine_of((1, 1.2, 3), 12))
    original = save_nifti(tmp_path / "a.nii", np.asarray(image.dataobj), image.affine)
    image.as_reoriented(orientation).to_filename(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(canonical(tmp_path / "b.nii.gz"), canonical(original))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_data_type_is_read_as_float32(tmp_path, dtype):
    array = np.minimum(brain_array((6, 7, 3)) / 20, 120).astype(dtype)
    header = nib.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(dtype)
    nib.Nifti1Image(array, np.eye(4), header).to_filename(tmp_path / "a.nii")
    slices = canonical(tmp_path / "a.nii")
    assert slices.dtype == np.float32
    np.testing.assert_array_equal(slices, array.transpose(2, 1, 0)[:, ::-1, ::-1].astype(np.float32))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ", ".hdr", ".img"])
@pytest.mark.parametrize("version", [1, 2])
def test_every_nifti_container_gives_the_same_slices(tmp_path, suffix, version):
    pair = suffix in (".hdr", ".img")
    kinds = {(1, False): nib.Nifti1Image, (2, False): nib.Nifti2Image, (1, True): nib.Nifti1Pair, (2, True): nib.Nifti2Pair}
    array = brain_array().astype(np.int16)
    path = save_nifti(tmp_path / f"a{suffix}", array, kind=kinds[version, pair])
    np.testing.assert_array_equal(canonical(path), canonical(save_nifti(tmp_path / "plain.nii", array)))


@pytest.mark.parametrize("scale", [(0.5, 10.0), (0.1, 0.0), (1.0, -3.0), (1 / 3, 1e-3)])
@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32", "int32"])
def test_slope_and_intercept_count_alike_in_streaming_and_gathered_layouts(tmp_path, scale, dtype):
    stored = (brain_array((6, 7, 4)) / 10).astype(dtype)
    images = {}
    for name, orientation in {"streams": ORIENTATIONS[0], "gathered": ORIENTATIONS[-1]}.items():
        image = nib.Nifti1Image(stored, np.eye(4)).as_reoriented(orientation)
        image.header.set_slope_inter(*scale)
        raw = nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
        path = tmp_path / f"{name}.nii"
        raw.to_filename(path)
        data = bytearray(path.read_bytes())
        data[112:120] = np.array(scale, np.float32).tobytes()
        data[352:] = np.asarray(image.dataobj).tobytes(order="F")
        path.write_bytes(data)
        images[name] = canonical(path)
    slope, inter = np.array(scale, np.float32).astype(np.float64)
    np.testing.assert_array_equal(images["streams"], images["gathered"])
    np.testing.assert_array_equal(images["streams"], (stored.astype(float) * slope + inter).astype(np.float32).T[:, ::-1, ::-1])


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 1), (8, 9, 3, 1), (8, 9, 3, 1, 1)], ids=str)
@pytest.mark.parametrize("affine", [np.eye(4), SLICES_FIRST], ids=["streams", "gathered"])
def test_flat_single_slice_and_single_frame_volumes_are_read(tmp_path, shape, affine):
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    volume = open_volume(save_nifti(tmp_path / "a.nii.gz", array, affine))
    assert volume.stored_shape == shape
    expected = to_canonical(volume.frame, array.reshape((*shape[:3], 1)[:3])).astype(np.float32)
    np.testing.assert_array_equal(canonical(tmp_path / "a.nii.gz"), expected)


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nhdr"])
@pytest.mark.parametrize("compressed", [False, True])
def test_itk_files_give_the_slices_of_the_same_nifti(tmp_path, suffix, compressed):
    nifti = save_nifti(tmp_path / "a.nii.gz", brain_array().astype(np.int16))
    sitk.WriteImage(sitk.ReadImage(str(nifti)), str(tmp_path / f"b{suffix}"), useCompression=compressed)
    volume = open_volume(tmp_path / f"b{suffix}")
    assert volume.dtype == np.int16
    np.testing.assert_allclose(volume.affine, open_volume(nifti).affine, atol=1e-5)
    np.testing.assert_array_equal(canonical(volume.path), canonical(nifti))


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_itk_single_frame_and_flat_images_are_read(tmp_path, suffix):
    image = sitk.GetImageFromArray(brain_array((4, 6, 5)).astype(np.float32))
    sitk.WriteImage(sitk.JoinSeries([image]), str(tmp_path / f"frame{suffix}"))
    sitk.WriteImage(image[:, :, 2], str(tmp_path / f"flat{suffix}"))
    np.testing.assert_array_equal(canonical(tmp_path / f"frame{suffix}")[2], canonical(tmp_path / f"flat{suffix}")[0])


@pytest.mark.parametrize("code", [2, 1, 3], ids=["mm", "metre", "micron"])
def test_spacing_is_in_mm_whatever_the_files_unit(tmp_path, code):
    per_mm = {2: 1, 1: 1e-3, 3: 1e3}[code]
    image = nib.Nifti1Image(brain_array((6, 7, 4)).astype(np.int16), np.diag([per_mm, per_mm, 3 * per_mm, 1]))
    image.header["xyzt_units"] = code
    image.to_filename(tmp_path / "a.nii")
    np.testing.assert_allclose(open_volume(tmp_path / "a.nii").frame.spacing, (3, 1, 1), rtol=1e-6)


def test_header_is_kept_as_it_stands_in_the_file(tmp_path):
    path = patched(tmp_path, 76, np.float32(0))  # qfac 0, which nibabel would mend to 1
    assert open_volume(path).header["pixdim"][0] == 0


def test_reading_says_nothing_on_the_terminal(tmp_path, capfd, caplog):
    canonical(patched(tmp_path, 80, np.float32(-1)))  # a negative spacing, on which nibabel remarks
    refused(patched(tmp_path, 108, np.float32(np.nan)))
    sitk.WriteImage(sitk.GetImageFromArray(brain_array()), str(tmp_path / "a.mha"), useCompression=True)
    (tmp_path / "cut.mha").write_bytes((tmp_path / "a.mha").read_bytes()[:-400])
    refused(tmp_path / "cut.mha")
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


@pytest.mark.parametrize("name", ["with space", "ünïcode 脳", "new\nline", "quote'\"$", "x" * 247])
@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".mhd"])
def test_awkward_names_are_read(tmp_path, name, suffix):
    path = tmp_path / f"{name}{suffix}"
    if suffix == ".mhd" and "\n" in name:
        pytest.skip("a MetaImage header cannot name a file with a line break")
    if suffix != ".nii.gz":
        sitk.WriteImage(sitk.GetImageFromArray(brain_array()), str(path))
    else:
        save_nifti(path, brain_array().astype(np.int16))
    assert open_volume(path).name == name
    assert canonical(path).any()


def test_name_that_is_not_utf8_is_refused_for_itk_which_would_abort(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mha"))
    path.write_bytes(b"ObjectType = Image\n")
    with pytest.raises(VolumeError) as caught:
        open_volume(path)
    assert caught.value.code == "bad-name"
    str(caught.value).encode()


def test_symlink_is_followed_and_keeps_its_own_name(tmp_path, brain_file):
    link = tmp_path / "link.nii.gz"
    link.symlink_to(brain_file)
    assert open_volume(link).name == "link"
    np.testing.assert_array_equal(canonical(link), canonical(brain_file))


@pytest.mark.parametrize("suffix", [".hdr", ".HDR"])
def test_pair_has_the_same_files_and_hash_by_either_name(tmp_path, suffix):
    header = save_nifti(tmp_path / f"a.b{suffix}", brain_array().astype(np.int16), kind=nib.Nifti1Pair)
    image = header.with_suffix(".IMG" if suffix.isupper() else ".img")
    assert files_of(header) == files_of(image) == (header, image)
    assert file_hash(header) == file_hash(image)


def test_hash_covers_the_voxels_of_a_detached_header(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(brain_array()), str(tmp_path / "a.mhd"))
    data = (tmp_path / "a.raw").rename(tmp_path / "other.bin")
    header = tmp_path / "a.mhd"
    header.write_text(header.read_text().replace("a.raw", "other.bin"))
    before = file_hash(header)
    assert files_of(header) == (header, data)
    data.write_bytes(data.read_bytes()[:-1] + b"\x01")
    assert file_hash(header) != before


def test_suffixes_and_stems():
    assert suffix_of(Path("a.b.NII.gz")) == ".nii.gz"
    assert stem(Path("a.b.nii")) == "a.b"
    assert suffix_of(Path(".nii")) is None
    assert suffix_of(Path("a.png")) is None


def test_gathered_layout_reads_slices_in_any_order(tmp_path):
    path = save_nifti(tmp_path / "a.nii", brain_array().astype(np.int16), SLICES_FIRST)
    reader, whole = SliceReader(open_volume(path)), canonical(path)
    for k in (3, 0, 2, 3):
        np.testing.assert_array_equal(reader.read(k), whole[k])


@pytest.mark.parametrize("affine", [np.eye(4), SLICES_FIRST], ids=["slices last", "slices first"])
def test_a_compressed_volume_is_unpacked_once_to_be_prepared_and_read(tmp_path, monkeypatch, affine):
    path = save_nifti(tmp_path / "a.nii.gz", brain_array((20, 22, 12)).astype(np.int16), affine)
    whole, opened = canonical(path), []
    monkeypatch.setattr(nifti.igzip, "open", lambda *given, real=nifti.igzip.open: opened.append(given) or real(*given))
    prepared = prepare(open_volume(path), PrepareSettings(brain="none", bias="none"))
    for k in prepared.reader.order():
        np.testing.assert_array_equal(prepared.reader.read(k), whole[k])
    # Twice its header alone, to know which NIfTI it is.
    assert len(opened) == 3


@pytest.mark.parametrize("scale", [(1.0, 0.0), (0.5, 10.0)], ids=str)
def test_a_compressed_volume_too_large_to_hold_is_checked_by_the_first_pass(tmp_path, monkeypatch, scale):
    image = nib.Nifti1Image(brain_array((20, 22, 12)).astype(np.int16), np.eye(4))
    image.header.set_slope_inter(*scale)
    nib.save(image, tmp_path / "a.nii.gz")
    whole = canonical(tmp_path / "a.nii.gz")
    monkeypatch.setattr(nifti, "HELD_BYTES", 0)
    monkeypatch.setattr(nifti, "_check_gzip", lambda *_: pytest.fail("unpacked once more"))
    reader = SliceReader(open_volume(tmp_path / "a.nii.gz"))
    for _ in range(2):
        np.testing.assert_array_equal(np.stack([image for _, image in sorted(dict(reader).items())]), whole)


@pytest.mark.parametrize("ordered", [True, False])
def test_a_damaged_volume_too_large_to_hold_is_refused(tmp_path, monkeypatch, ordered):
    noise = np.random.default_rng(0).integers(0, 30_000, (200, 200, 80)).astype(np.int16)
    raw = bytearray(gzip.compress(nib.Nifti1Image(noise, np.eye(4)).to_bytes()))
    raw[-6] ^= 255  # of the checksum
    (tmp_path / "a.nii.gz").write_bytes(raw)
    monkeypatch.setattr(nifti, "HELD_BYTES", 0)
    reader = SliceReader(open_volume(tmp_path / "a.nii.gz"))
    error = error_of(lambda: list(reader) if ordered else reader.read(reader.order()[-1]))
    assert error is not None
    assert error.code == "truncated"


def test_nifti_without_any_form_says_that_its_orientation_is_unknown(tmp_path):
    assert open_volume(save_nifti(tmp_path / "a.nii", brain_array().astype(np.int16))).orientation_known
    assert not open_volume(patched(tmp_path, 252, np.zeros(2, np.int16))).orientation_known


# --- what is refused ---


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".nrrd"])
@pytest.mark.parametrize("content", [b"", b"Dear colleague, " * 100], ids=["empty", "text"])
def test_other_kinds_of_file_are_not_an_image(tmp_path, suffix, content):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    error = refused(path)
    assert error.code == "not-an-image"
    assert "expected" in str(error)


def test_wrongly_named_compression_is_not_an_image(tmp_path):
    (tmp_path / "plain.nii.gz").write_bytes(nifti_bytes())
    (tmp_path / "packed.nii").write_bytes(gzip.compress(nifti_bytes()))
    assert refused(tmp_path / "plain.nii.gz").code == "not-an-image"
    assert refused(tmp_path / "packed.nii").code == "not-an-image"


def test_unknown_suffix_names_the_known_ones(tmp_path):
    error = refused(tmp_path / "a.png")
    assert error.code == "not-an-image"
    assert ".nii.gz" in str(error)


def test_missing_file_and_missing_partner_are_not_found(tmp_path):
    assert refused(tmp_path / "a.nii").code == "not-found"
    header = save_nifti(tmp_path / "b.hdr", brain_array().astype(np.int16), kind=nib.Nifti1Pair)
    (tmp_path / "b.img").unlink()
    error = refused(header)
    assert error.code == "not-found"
    assert "b.img" in str(error)


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
def test_header_without_its_voxel_file_is_not_found(tmp_path, suffix):
    sitk.WriteImage(sitk.GetImageFromArray(brain_array()), str(tmp_path / f"a{suffix}"))
    (tmp_path / "a.raw").unlink()
    error = refused(tmp_path / f"a{suffix}")
    assert error.code == "not-found"
    assert "a.raw" in str(error)


def test_unreadable_file_says_so(brain_file, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert refused(brain_file).code == "unreadable"


@pytest.mark.parametrize("affine", [np.eye(4), SLICES_FIRST], ids=["streams", "gathered"])
@pytest.mark.parametrize("keep", [-1, -200, 380, 360])
def test_truncated_plain_nifti(tmp_path, affine, keep):
    (tmp_path / "a.nii").write_bytes(nifti_bytes(affine=affine)[:keep])
    error = refused(tmp_path / "a.nii")
    assert error.code in ("truncated", "absurd-size")
    assert "truncated" in str(error)


@lru_cache
def random_gzip(streams: bool) -> bytes:
    """A compressed NIfTI so large that indexed_gzip gives all of its slices without looking at its checksum."""
    array = np.random.default_rng(0).integers(0, 3000, (160, 160, 120)).astype(np.int16)
    affine = np.eye(4) if streams else SLICES_FIRST
    return gzip.compress(nib.Nifti1Image(array, affine).to_bytes(), 1)


DAMAGES = {
    "half": lambda z: z[: len(z) // 2],
    "without trailer": lambda z: z[:-8],
    "one byte short": lambda z: z[:-1],
    "wrong CRC": lambda z: z[:-8] + bytes([z[-8] ^ 255]) + z[-7:],
    "flipped bit": lambda z: z[: len(z) // 2] + bytes([z[len(z) // 2] ^ 1]) + z[len(z) // 2 + 1 :],
    "data shorter than promised": lambda z: gzip.compress(gzip.decompress(z)[:-1000], 1),
}


@pytest.mark.parametrize("streams", [True, False], ids=["streams", "gathered"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_gzip_is_truncated_even_where_every_slice_could_be_read(tmp_path, streams, damage):
    (tmp_path / "a.nii.gz").write_bytes(DAMAGES[damage](random_gzip(streams)))
    error = refused(tmp_path / "a.nii.gz")
    assert error.code == "truncated"
    assert "copy it again" in str(error)


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "data shorter than promised"])
def test_small_damaged_gzip_is_truncated_too(tmp_path, damage):
    (tmp_path / "a.nii.gz").write_bytes(DAMAGES[damage](gzip.compress(bytes(nifti_bytes()))))
    assert refused(tmp_path / "a.nii.gz").code == "truncated"


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
@pytest.mark.parametrize("compressed", [False, True])
def test_truncated_itk_files(tmp_path, suffix, compressed):
    sitk.WriteImage(sitk.GetImageFromArray(brain_array()), str(tmp_path / f"a{suffix}"), useCompression=compressed)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes((tmp_path / f"a{suffix}").read_bytes()[:-700])
    assert refused(path).code == "truncated"


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_flipped_bits_in_a_compressed_itk_file_are_not_passed_over(tmp_path, suffix):
    sitk.WriteImage(sitk.GetImageFromArray(np.random.default_rng(0).random((9, 9, 9))), str(tmp_path / f"a{suffix}"), useCompression=True)
    raw = bytearray((tmp_path / f"a{suffix}").read_bytes())
    raw[-900] ^= 255
    (tmp_path / f"b{suffix}").write_bytes(raw)
    error = refused(tmp_path / f"b{suffix}")
    assert error.code == "truncated"
    assert "SimpleITK-build" not in str(error)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dims", [(32767, 32767, 32767), (30000, 30000, 2)], ids=str)
def test_absurd_size_is_refused_before_anything_is_allocated(tmp_path, name, dims):
    path = patched(tmp_path, 40, np.array([3, *dims], np.int16), name)
    tracemalloc.start()
    error = refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.code == "absurd-size"
    assert peak < 5e6


@pytest.mark.parametrize(("suffix", "sizes"), [(".mha", b"DimSize = 6 6 6"), (".nrrd", b"sizes: 6 6 6")])
def test_absurd_itk_size_is_refused(tmp_path, suffix, sizes):
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((6, 6, 6), np.uint8)), str(tmp_path / f"a{suffix}"))
    raw = (tmp_path / f"a{suffix}").read_bytes()
    assert sizes in raw
    (tmp_path / f"b{suffix}").write_bytes(raw.replace(sizes, sizes.replace(b"6 6 6", b"1000 1000 1000")))
    assert refused(tmp_path / f"b{suffix}").code == "absurd-size"


@pytest.mark.parametrize("dims", [(-5, 10, 5), (0, 10, 5)], ids=str)
def test_axes_without_voxels_are_refused(tmp_path, dims):
    assert refused(patched(tmp_path, 42, np.array(dims, np.int16))).code == "not-an-image"


@pytest.mark.parametrize("frames", [2, 3])
def test_more_than_one_frame_is_refused(tmp_path, frames):
    path = save_nifti(tmp_path / "a.nii.gz", np.ones((5, 6, 4, frames), np.int16))
    image = sitk.GetImageFromArray(np.ones((4, 5, 6), np.float32))
    sitk.WriteImage(sitk.JoinSeries([image] * frames), str(tmp_path / "a.mha"))
    for each in (path, tmp_path / "a.mha"):
        error = refused(each)
        assert error.code == "more-than-one-frame"
        assert str(frames) in str(error)


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_colour_is_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".nii.gz":
        save_nifti(path, np.zeros((5, 6, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]))
    else:
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True), str(path))
    assert refused(path).code == "colour"


def test_complex_is_refused(tmp_path):
    assert refused(save_nifti(tmp_path / "a.nii", np.ones((5, 6, 4), np.complex64))).code == "complex"
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((4, 5, 6), np.complex64)), str(tmp_path / "a.nrrd"))
    assert refused(tmp_path / "a.nrrd").code == "complex"


@pytest.mark.parametrize("row", [np.zeros(4), np.array([np.nan, 0, 0, 0]), np.array([np.inf, 0, 0, 0])], ids=["zero", "NaN", "infinite"])
def test_singular_affine_is_refused(tmp_path, row):
    error = refused(patched(tmp_path, 280, row.astype(np.float32)))
    assert error.code == "singular-affine"
    assert "Repair" in str(error)


def test_analyze_without_orientation_is_refused(tmp_path):
    nib.AnalyzeImage(brain_array().astype(np.int16), np.eye(4)).to_filename(tmp_path / "a.img")
    assert refused(tmp_path / "a.img").code == "not-an-image"


def test_file_that_vanishes_between_opening_and_reading_is_not_found(brain_file):
    volume = open_volume(brain_file)
    brain_file.unlink()
    with pytest.raises(VolumeError, match="vanished") as caught:
        SliceReader(volume)
    assert caught.value.code == "not-found"


@pytest.mark.parametrize("affine", [np.eye(4), SLICES_FIRST], ids=["streams", "gathered"])
def test_plain_file_cut_while_it_is_read_is_an_error_and_no_crash(tmp_path, affine):
    path = save_nifti(tmp_path / "a.nii", np.ones((64, 64, 64), np.int16), affine)
    reader = SliceReader(open_volume(path))
    reader.read(0)
    os.truncate(path, 1000)
    error = error_of(lambda: list(reader))
    if reader.volume.frame.slice_axis == 2:
        assert error is not None
        assert error.code == "truncated"
    else:
        assert error is None  # gathered: the whole was in memory already


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=6), packed=st.booleans())
def test_any_damaged_header_is_read_or_refused_and_nothing_else(tmp_path, changes, packed):
    raw = nifti_bytes()
    for offset, value in changes:
        raw[offset] = value
    path = tmp_path / ("fuzz.nii.gz" if packed else "fuzz.nii")
    path.write_bytes(gzip.compress(bytes(raw), 1) if packed else raw)
    error = error_of(lambda: prepare(open_volume(path), PrepareSettings(brain="none", bias="none")).network_slice(0))
    assert error is None or str(path) in str(error)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(32, 126)), min_size=1, max_size=4),
    suffix=st.sampled_from([".mha", ".nrrd"]),
)
def test_any_damaged_itk_header_is_read_or_refused_and_nothing_else(tmp_path, changes, suffix):
    path = tmp_path / f"fuzz{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(brain_array((4, 6, 5))), str(path), useCompression=True)
    raw = bytearray(path.read_bytes())
    for offset, value in changes:
        raw[offset % len(raw)] = value
    path.write_bytes(raw)
    error = error_of(lambda: canonical(path))
    assert error is None or str(path) in str(error)


def test_real_volumes_of_every_geometry_open():
    for path in sorted(real("t1t2").glob("*/*_T1w.nii.gz")):
        volume = open_volume(path)
        assert volume.frame.slice_axis == 2
        assert np.isfinite(SliceReader(volume).read(volume.frame.shape[0] // 2)).all()


def test_a_name_that_is_not_utf8_is_refused_before_any_library_sees_it(tmp_path: Path):
    name = os.fsdecode(bytes(tmp_path) + b"/bad-\xff_T1w.nii.gz")
    with pytest.raises(VolumeError, match="not valid UTF-8") as caught:
        open_volume(Path(name))
    assert caught.value.code == "bad-name"


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("a.nii", gzip.compress(bytes(nifti_bytes())), "compressed, under a name that says it is not.*Rename it to .nii.gz"),
        ("a.nii.gz", bytes(nifti_bytes()), "not compressed, under a name that says it is.*Rename it to .nii$"),
        ("a.nii", bytes(128) + b"DICM" + bytes(300), "a DICOM file.*Convert"),
        ("a.nii.gz", b"PK\x03\x04" + bytes(400), "a zip archive"),
        ("a.nii", b"<html>" + bytes(400), "damaged or another kind of file$"),
    ],
)
def test_a_file_under_a_wrong_name_is_called_what_it_is(tmp_path, name, content, word):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VolumeError, match=word) as caught:
        open_volume(tmp_path / name)
    assert "Analyze" not in str(caught.value)


def test_an_analyze_header_is_called_one(tmp_path):
    raw = nifti_bytes()
    raw[344:348] = bytes(4)
    (tmp_path / "a.hdr").write_bytes(raw[:348])
    (tmp_path / "a.img").write_bytes(bytes(1000))
    with pytest.raises(VolumeError, match=r"an Analyze header.*no reliable orientation"):
        open_volume(tmp_path / "a.hdr")
