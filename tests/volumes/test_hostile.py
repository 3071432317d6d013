"""Volumes made to do harm: refused with the reason, before they cost memory, time or the process."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes import limits
from localdiff_cli.volumes.files import files_of
from localdiff_cli.volumes.formats.nifti.read import MAX_EXTENSION_BYTES
from localdiff_cli.volumes.reader import open_volume

from .synthetic import brain_array, canonical, save_nifti

MEGABYTE = 1 << 20


def refused(path: Path) -> VolumeError:
    """The error that reading ``path`` raises, before Python allocates 20 MB."""
    tracemalloc.start()
    try:
        with pytest.raises(VolumeError) as caught:
            canonical(path)
        assert tracemalloc.get_traced_memory()[1] < 20 * MEGABYTE
    finally:
        tracemalloc.stop()
    str(caught.value).encode()
    return caught.value


def nifti(shape: tuple[int, ...] = (6, 7, 4), offset: float = 352, extension: bytes = b"") -> bytes:
    """A NIfTI-1 that promises ``shape`` and holds 168 voxels of int16."""
    raw = bytearray(nib.Nifti1Image(np.ones((6, 7, 4), np.int16), np.eye(4)).to_bytes())
    raw[40:56] = np.array([len(shape), *shape, *[1] * (7 - len(shape))], np.int16).tobytes()
    raw[108:112] = np.float32(offset).tobytes()
    raw[348:352] = b"\1\0\0\0" if extension else b"\0\0\0\0"
    return bytes(raw[:352]) + extension + bytes(raw[352:])


def packed_zeros(megabytes: int) -> bytes:
    """Zeros by the megabyte in gzip members of one each: they follow a stream as if they were its own."""
    return gzip.compress(bytes(MEGABYTE), 6) * megabytes


# --- gzip bombs ---


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> int:
    """A limit of 40 MB in place of 1 GiB, so that a bomb is quick to make."""
    monkeypatch.setattr(limits, "UNPACKED_BYTES", 40 * MEGABYTE)
    monkeypatch.setattr(limits, "UNPACKED_RATIO", 2)
    return 40 * MEGABYTE


def test_a_stream_that_goes_on_after_its_voxels_is_refused_at_the_limit(tmp_path: Path, small_limit: int) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(nifti()) + packed_zeros(39))
    assert len(canonical(path)) == 4
    path.write_bytes(gzip.compress(nifti()) + packed_zeros(40))
    error = refused(path)
    assert error.code == "absurd-size"
    assert f"{small_limit:,}" in str(error)
    assert "2 times" in str(error)


def test_a_header_that_promises_more_than_the_limit_is_refused_unread(tmp_path: Path, small_limit: int, monkeypatch) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(nifti((1024, 1024, 21))) + packed_zeros(50))
    monkeypatch.setattr("localdiff_cli.volumes.formats.nifti.read._unpacked", lambda *_: pytest.fail("the stream was read"))
    assert f"{small_limit:,}" in str(refused(path))


def test_a_file_that_hardly_compresses_may_unpack_beyond_the_limit(tmp_path: Path, small_limit: int) -> None:
    array = np.random.default_rng(0).integers(0, 30_000, (256, 256, 330)).astype(np.int16)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nib.Nifti1Image(array, np.eye(4)).to_bytes(), 1))
    assert (tmp_path / "a.nii.gz").stat().st_size * 2 > array.nbytes > small_limit
    assert open_volume(tmp_path / "a.nii.gz").shape == array.shape


def test_the_limit_is_one_gibibyte_or_a_hundred_times_the_file() -> None:
    assert limits.unpacked_limit(5000) == 2**30
    assert limits.unpacked_limit(2**30) == 100 * 2**30


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_a_bomb_in_an_itk_file_is_refused_at_the_limit(tmp_path: Path, small_limit: int, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(sitk.Image(1024, 1024, 19, sitk.sitkInt16), str(path), useCompression=True)
    assert canonical(path).shape == (19, 1024, 1024)
    sitk.WriteImage(sitk.Image(1024, 1024, 21, sitk.sitkInt16), str(path), useCompression=True)
    assert f"{small_limit:,}" in str(refused(path))
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"1024 1024 21", b"1024 1024 19"))
    assert f"{small_limit:,}" in str(refused(path))


# --- damaged NIfTI ---


def test_every_damaged_deflate_stream_is_a_truncated_volume(tmp_path: Path) -> None:
    raw, path = gzip.compress(nifti(), 9), tmp_path / "a.nii.gz"
    for at in range(10, len(raw)):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 0x55]) + raw[at + 1 :])
        assert refused(path).code in ("truncated", "not-an-image")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("claimed", [-(2**31), -8, 0, 7, MAX_EXTENSION_BYTES + 16, 2**31 - 16])
def test_a_header_extension_of_absurd_size_is_refused_unread(tmp_path: Path, name: str, claimed: int) -> None:
    raw = nifti(offset=2.0**31, extension=struct.pack("<ii", claimed, 6))
    (tmp_path / name).write_bytes(gzip.compress(raw) + packed_zeros(100) if name.endswith(".gz") else raw)
    error = refused(tmp_path / name)
    assert error.code == "not-an-image"
    assert "extension" in str(error)


def test_many_header_extensions_are_refused_where_they_grow_absurd(tmp_path: Path) -> None:
    extension = (struct.pack("<ii", MEGABYTE, 6) + bytes(MEGABYTE - 8)) * 17
    (tmp_path / "a.nii").write_bytes(nifti(offset=352 + len(extension), extension=extension))
    assert "extension" in str(refused(tmp_path / "a.nii"))


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.Nifti1Pair, nib.Nifti2Pair])
@pytest.mark.parametrize("endianness", "<>")
def test_honest_header_extensions_are_no_obstacle(tmp_path: Path, kind: type, endianness: str) -> None:
    image = kind(brain_array((6, 7, 4)).astype(np.int16), np.eye(4), kind.header_class(endianness=endianness))
    image.header.extensions.extend([nib.nifti1.Nifti1Extension(6, b"a remark"), nib.nifti1.Nifti1Extension(0, bytes(40_000))])
    path = tmp_path / ("a.hdr" if kind in (nib.Nifti1Pair, nib.Nifti2Pair) else "a.nii.gz")
    image.to_filename(path)
    np.testing.assert_array_equal(canonical(path), canonical(save_nifti(tmp_path / "b.nii", np.asarray(image.dataobj), np.eye(4))))


@pytest.mark.parametrize("value", [1e200, 1e300, np.inf])
def test_an_affine_that_overflows_is_refused_without_a_warning(tmp_path: Path, value: float) -> None:
    raw = bytearray(nib.Nifti2Image(np.ones((6, 7, 4), np.int16), np.eye(4)).to_bytes())
    offset = nib.Nifti2Header.template_dtype.fields["srow_x"][1]
    raw[offset : offset + 96] = np.diag([value] * 4)[:3].tobytes()
    (tmp_path / "a.nii").write_bytes(raw)
    assert refused(tmp_path / "a.nii").code == "singular-affine"


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0)])
def test_values_whose_slope_takes_them_past_every_number_are_infinite_without_a_warning(tmp_path: Path, axes: tuple[int, ...]) -> None:
    image = nib.Nifti1Image(np.full((6, 7, 4), 1e300), np.eye(4)[[*axes, 3]])
    image.header.set_slope_inter(1e30, 0)
    raw = bytearray(image.to_bytes())
    raw[352:] = np.full((6, 7, 4), 1e300).tobytes()
    raw[112:116] = np.float32(1e30).tobytes()
    (tmp_path / "a.nii").write_bytes(raw)
    assert np.isinf(canonical(tmp_path / "a.nii")).all()


# --- MetaImage and NRRD headers that take SimpleITK down ---


def itk_file(path: Path, *, drop: bytes = b"", add: bytes = b"", compressed: bool = False) -> Path:
    """A small image whose header lost the line that starts with ``drop`` and got ``add`` in its place (or near the end)."""
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((4, 5, 6), np.uint8)), str(path), useCompression=compressed)
    rows = path.read_bytes().split(b"\n")
    start = drop or (b"encoding" if path.suffix == ".nrrd" else b"ElementDataFile")
    at = next(i for i, row in enumerate(rows) if row.startswith(start))
    rows[at : at + bool(drop)] = [add]
    path.write_bytes(b"\n".join(rows))
    return path


@pytest.mark.parametrize("axes", ["-1", "0", "11", "999999", "4294967295", "1e30", "3.5", "", "x" * 5000])
def test_a_metaimage_of_an_absurd_number_of_axes_is_refused(tmp_path: Path, axes: str) -> None:
    assert refused(itk_file(tmp_path / "a.mha", drop=b"NDims", add=f"NDims = {axes}".encode())).code == "not-an-image"
    assert refused(itk_file(tmp_path / "b.mha", add=f"NDims = {axes}".encode())).code == "not-an-image"


@pytest.mark.parametrize("key", ["Name", "Comment", "Modality", "AnatomicalOrientation", "Remark"])
def test_a_metaimage_field_that_is_too_long_is_refused(tmp_path: Path, key: str) -> None:
    assert refused(itk_file(tmp_path / "a.mha", add=f"{key} = {'x' * 10_000}".encode())).code == "not-an-image"
    assert canonical(itk_file(tmp_path / "b.mha", add=f"Remark = {'x' * 2000}".encode())).all()


@pytest.mark.parametrize("size", ["99999999999", "-5", "1e9", "9" * 5000])
def test_a_metaimage_that_claims_more_compressed_bytes_than_are_there_is_refused(tmp_path: Path, size: str) -> None:
    path = itk_file(tmp_path / "a.mha", drop=b"CompressedDataSize", add=f"CompressedDataSize = {size}".encode(), compressed=True)
    assert refused(path).code in ("truncated", "absurd-size", "not-an-image")


@pytest.mark.parametrize("line", ["9" * 5000, "kinds: " + "x " * 600, "space origin: " + "(" * 2000, "data file: " + "x" * 5000, "\0"])
def test_an_nrrd_line_that_is_too_long_is_refused(tmp_path: Path, line: str) -> None:
    assert refused(itk_file(tmp_path / "a.nrrd", add=line.encode())).code == "not-an-image"


def test_long_notes_in_an_nrrd_are_no_obstacle(tmp_path: Path) -> None:
    assert canonical(itk_file(tmp_path / "a.nrrd", add=b"Segment_Tags:=" + b"x" * 5000 + b"\n# " + b"y" * 5000)).all()


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_a_header_without_an_end_is_refused(tmp_path: Path, suffix: str) -> None:
    path = itk_file(tmp_path / f"a{suffix}")
    end = b"ElementDataFile" if suffix == ".mha" else b"\n\n"
    raw = path.read_bytes()
    path.write_bytes(raw[: raw.index(end)] + b"\nkey:=value" * 20_000)
    assert refused(path).code == "not-an-image"


@pytest.mark.parametrize("encoding", ["gzip", "ascii", "hex"])
def test_an_nrrd_that_promises_more_than_its_encoding_can_hold_is_refused(tmp_path: Path, encoding: str) -> None:
    path = itk_file(tmp_path / "a.nrrd", drop=b"encoding", add=f"encoding: {encoding}".encode())
    path.write_bytes(path.read_bytes().replace(b"sizes: 6 5 4", b"sizes: 600 500 400"))
    assert refused(path).code in ("truncated", "absurd-size")


@pytest.mark.parametrize("skip", ["line skip: 5", "byte skip: -1", "byteskip: 16"])
def test_compressed_voxels_that_start_late_are_refused(tmp_path: Path, skip: str) -> None:
    assert "skip" in str(refused(itk_file(tmp_path / "a.nrrd", add=skip.encode(), compressed=True)))


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
@pytest.mark.parametrize("name", ["x" * 300, "\udcff.raw", "a\x1b[2J", "."])
def test_a_voxel_file_of_an_impossible_name_is_refused_in_words_that_can_be_printed(tmp_path: Path, suffix: str, name: str) -> None:
    key = "ElementDataFile =" if suffix == ".mha" else "data file:"
    add = f"{key} {name}".encode(errors="surrogateescape")
    path = itk_file(tmp_path / f"a{suffix}", drop=b"ElementDataFile" if suffix == ".mha" else b"", add=add)
    assert refused(path).code in ("not-found", "not-an-image")
    assert files_of(path) == (path,)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
@pytest.mark.parametrize("place", ["{other}/secret.raw", "../other/secret.raw", "sub/../../other/secret.raw"])
def test_a_header_does_not_lead_to_another_folder(tmp_path: Path, suffix: str, place: str) -> None:
    """Not to a file that is nobody's business, although it holds as many voxels as are promised."""
    (tmp_path / "other").mkdir()
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "other" / "secret.raw").write_bytes(bytes(6 * 5 * 4 * 2))
    key = "ElementDataFile =" if suffix == ".mha" else "data file:"
    add = f"{key} {place.format(other=tmp_path / 'other')}".encode()
    path = itk_file(tmp_path / "in" / f"a{suffix}", drop=b"ElementDataFile" if suffix == ".mha" else b"", add=add)
    assert "another folder" in str(refused(path))


def test_another_kind_of_image_under_an_itk_name_is_not_read_by_its_own_reader(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((5, 6), np.uint8)), str(tmp_path / "a.png"))
    for suffix in (".mha", ".nrrd"):
        path = (tmp_path / "a.png").rename(tmp_path / f"a{suffix}")
        assert refused(path).code == "not-an-image"
        path.rename(tmp_path / "a.png")
