"""Volumes written whole or not at all, with the input's geometry to the bit."""

from __future__ import annotations

import errno
import os
import resource
import signal
import threading
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.reader import open_volume
from localdiff_cli.volumes.volume import Volume
from localdiff_cli.volumes.whole import PARTIAL, sweep, whole_file, write_text
from localdiff_cli.volumes.writer import SliceWriter, output_files

from .synthetic import (
    GEOMETRY_FIELDS,
    ORIENTATIONS,
    affine_of,
    brain_array,
    canonical,
    copy_through,
    error_of,
    real,
    save_nifti,
    write_like,
)

KINDS = [nib.Nifti1Image, nib.Nifti2Image]
PATIENT = b"DOE^JANE 1970"


def raw_header(path: Path) -> Any:
    """The header as it stands in the file, without nibabel's repairs."""
    image: Any = nib.load(path)
    holder = image.file_map.get("header", image.file_map["image"])
    with holder.get_prepare_fileobj("rb") as handle:
        return image.header_class(handle.read(image.header_class.sizeof_hdr), check=False)


def same_geometry(a: Path, b: Path) -> None:
    first, second = raw_header(a), raw_header(b)
    assert first.endianness == second.endianness
    for field in GEOMETRY_FIELDS:
        assert first[field].tobytes() == second[field].tobytes(), field


def left_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture
def small_file_limit():
    """Files cannot grow beyond 20 kB, as on a full disk."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


# --- geometry and values ---


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_every_orientation_comes_back_to_the_bit(tmp_path, orientation):
    image = nib.Nifti1Image(brain_array((5, 6, 4)).astype(np.float32), affine_of((1, 1.2, 3), 9)).as_reoriented(orientation)
    image.to_filename(tmp_path / "a.nii")
    out = copy_through(tmp_path / "a.nii", tmp_path / "b.nii")
    same_geometry(tmp_path / "a.nii", out)
    assert np.asarray(nib.load(out).dataobj).tobytes() == np.asarray(image.dataobj).tobytes()


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ", ".hdr", ".img", ".HDR"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("affine", [affine_of((1, 1.2, 3), 15), np.array([[0, 0, 2.0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]).T])
def test_every_nifti_kind_is_written_as_it_was_read(tmp_path, suffix, version, affine):
    pair = suffix.lower() in (".hdr", ".img")
    kind = {(1, False): KINDS[0], (2, False): KINDS[1], (1, True): nib.Nifti1Pair, (2, True): nib.Nifti2Pair}[version, pair]
    path = save_nifti(tmp_path / f"a{suffix}", brain_array().astype(np.int16), affine, kind)
    out = copy_through(path, tmp_path / f"b{suffix}")
    same_geometry(path, out)
    assert len(output_files(out)) == (2 if pair else 1)
    assert type(nib.load(out)) is kind
    np.testing.assert_array_equal(canonical(out), canonical(path))


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 1), (8, 9, 3, 1), (8, 9, 3, 1, 1)], ids=str)
def test_shape_is_kept_in_full(tmp_path, shape):
    path = save_nifti(tmp_path / "a.nii.gz", np.arange(np.prod(shape), dtype=np.int16).reshape(shape))
    out = copy_through(path, tmp_path / "b.nii.gz")
    assert nib.load(out).shape == shape
    same_geometry(path, out)


@pytest.mark.parametrize("endianness", ["<", ">"])
def test_byte_order_and_odd_geometry_fields_are_kept_to_the_bit(tmp_path, endianness):
    header = nib.Nifti1Header(endianness=endianness)
    header.set_data_dtype("i2")
    nib.Nifti1Image(brain_array().astype(np.int16), affine_of((1, 1.1, 3), 25), header).to_filename(tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[76:80] = np.zeros(1, "f4").tobytes()  # qfac 0
    raw[92:108] = np.array([7.5, 0.25, 3, 1], f"{endianness}f4").tobytes()
    raw[252:256] = np.array([3, 4], f"{endianness}i2").tobytes()
    raw[123] = 10
    (tmp_path / "a.nii").write_bytes(raw)
    out = copy_through(tmp_path / "a.nii", tmp_path / "b.nii")
    same_geometry(tmp_path / "a.nii", out)
    np.testing.assert_array_equal(canonical(out), canonical(tmp_path / "a.nii"))


@pytest.mark.parametrize("kind", KINDS)
def test_stale_fields_are_reset_and_no_patient_text_survives(tmp_path, kind):
    image = kind(brain_array().astype(np.int16), affine_of((1, 1, 3)))
    header = image.header
    for field in {"descrip", "aux_file", "intent_name", "data_type", "db_name", "unused_str"} & set(header.structarr.dtype.names):
        header[field] = PATIENT[: header.structarr.dtype[field].itemsize]
    header["cal_min"], header["cal_max"], header["intent_code"], header["intent_p1"] = 3, 900, 2, 5
    header.extensions.append(nib.nifti1.Nifti1Extension(6, PATIENT))
    header.set_slope_inter(2, 5)
    image.to_filename(tmp_path / "a.nii")
    assert (tmp_path / "a.nii").read_bytes().count(PATIENT[:9]) >= 2
    out = copy_through(tmp_path / "a.nii", tmp_path / "b.nii")
    assert PATIENT[:4] not in out.read_bytes()
    written = raw_header(out)
    assert written["descrip"].item().rstrip(b"\0") == b"localdiff synthetic T2w"
    assert [float(written[f]) for f in ("cal_min", "cal_max", "intent_code", "intent_p1", "scl_slope", "scl_inter")] == [0, 0, 0, 0, 1, 0]
    assert written.get_data_dtype() == np.float32
    assert not nib.load(out).header.extensions


@pytest.mark.parametrize("affine", [np.eye(4), np.array([[0, 0, 1.0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]).T])
def test_stored_scale_gives_real_units_back(tmp_path, affine):
    volume = open_volume(save_nifti(tmp_path / "a.nii.gz", brain_array().astype(np.int16), affine))
    slices = np.linspace(-0.4, 0.6, np.prod(volume.shape), dtype=np.float32).reshape(volume.frame.shape)
    out = write_like(volume, tmp_path / "b.nii.gz", slices, "uint8", (1 / 250, -0.4))
    np.testing.assert_allclose(canonical(out), slices, atol=0.5 / 250 + 1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_integers_are_rounded_and_never_wrap_around(tmp_path, dtype):
    volume = open_volume(save_nifti(tmp_path / "a.nii", np.zeros((4, 5, 2), np.int16)))
    slices = np.full(volume.frame.shape, 1.6, np.float32)
    slices[0, 0, :2] = -1e6, 1e6
    written = canonical(write_like(volume, tmp_path / "b.nii", slices, dtype))
    assert written[1, 0, 0] == 2
    assert tuple(written[0, 0, :2]) == (np.iinfo(dtype).min, np.iinfo(dtype).max)


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nhdr"])
def test_itk_kinds_keep_their_geometry_exactly(tmp_path, suffix):
    image = sitk.GetImageFromArray(brain_array((5, 7, 6)).astype(np.int16))
    angle = 0.3
    image.SetDirection([np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0, 0, 0, 1])
    image.SetSpacing([0.9375123456789, 1 / 3, 1.1])
    image.SetOrigin([-100.1234567890123, 1 / 7, 3e-7])
    image.SetMetaData("PatientName", PATIENT.decode())
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(image, str(path))
    out = copy_through(path, tmp_path / f"b{suffix}")
    read, written = (sitk.ReadImage(str(p)) for p in (path, out))
    for geometry in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(written, geometry)() == getattr(read, geometry)(), geometry
    assert written.GetMetaData("descrip") == "localdiff synthetic T2w"
    assert PATIENT not in b"".join(p.read_bytes() for p in output_files(out))
    np.testing.assert_array_equal(canonical(out), canonical(path))


def test_nrrd_in_ras_space_stays_in_it(tmp_path):
    array = brain_array((6, 5, 4)).astype(np.float32)
    header = (
        "NRRD0004\ntype: float\ndimension: 3\nspace: right-anterior-superior\nsizes: 6 5 4\n"
        "space directions: (0.9,0.1,0) (-0.1,0.9,0) (0,0,3.3)\nkinds: domain domain domain\nendian: little\nencoding: raw\n"
        "space origin: (-7.1,5.3,0.1)\n\n"
    )
    (tmp_path / "a.nrrd").write_bytes(header.encode() + array.tobytes(order="F"))
    out = copy_through(tmp_path / "a.nrrd", tmp_path / "b.nrrd")
    text = out.read_bytes().split(b"\n\n")[0].decode()
    for line in ("space: right-anterior-superior", "space directions: (0.9,0.1,0) (-0.1,0.9,0) (0,0,3.3)", "space origin: (-7.1,5.3,0.1)"):
        assert line in text.splitlines()
    np.testing.assert_array_equal(open_volume(out).affine, open_volume(tmp_path / "a.nrrd").affine)
    np.testing.assert_array_equal(canonical(out), canonical(tmp_path / "a.nrrd"))


def test_itk_files_hold_real_units_since_they_have_no_scale(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(brain_array((4, 5, 6)).astype(np.int16)), str(tmp_path / "a.mha"))
    volume = open_volume(tmp_path / "a.mha")
    out = write_like(volume, tmp_path / "b.mha", canonical(volume.path), "int16", (0.5, 10))
    np.testing.assert_array_equal(canonical(out), canonical(volume.path))


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_itk_single_frame_and_flat_images_keep_their_axes(tmp_path, suffix):
    image = sitk.GetImageFromArray(brain_array((4, 6, 5)).astype(np.float32))
    for name, each in {"frame": sitk.JoinSeries([image]), "flat": image[:, :, 2]}.items():
        path = tmp_path / f"{name}{suffix}"
        sitk.WriteImage(each, str(path))
        assert sitk.ReadImage(str(copy_through(path, tmp_path / f"out{suffix}"))).GetSize() == each.GetSize()


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".hdr", ".mha", ".nrrd"])
def test_same_values_give_the_same_bytes(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(brain_array().astype(np.int16)), str(path))
    bytes_of = []
    for folder in ("one", "two"):
        out = copy_through(path, tmp_path / folder / f"b{suffix}")
        bytes_of.append([p.read_bytes() for p in output_files(out)])
        time.sleep(1.1 if suffix == ".nii.gz" and folder == "one" else 0)  # a stored time would differ
    assert bytes_of[0] == bytes_of[1]


# --- whole or not at all ---


def test_nothing_stands_under_the_final_name_until_the_end(tmp_path, brain_file):
    out, volume = tmp_path / "out" / "b.nii.gz", open_volume(brain_file)
    with SliceWriter(out, volume, dtype="float32", description="x") as writer:
        for k, image in enumerate(canonical(brain_file)):
            assert not out.exists()
            writer.write(k, image)
    assert left_in(out.parent) == ["b.nii.gz"]


def write_one_slice_and_fail(volume: Volume, out: Path, failure: BaseException) -> None:
    with SliceWriter(out, volume, dtype="float32", description="x") as writer:
        writer.write(0, np.ones(volume.frame.shape[1:], np.float32))
        raise failure


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".hdr", ".mha"])
@pytest.mark.parametrize("failure", [RuntimeError("network"), KeyboardInterrupt(), OSError(errno.EIO, "I/O error")], ids=repr)
def test_failure_midway_leaves_the_old_file_and_nothing_else(tmp_path, suffix, failure):
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(brain_array().astype(np.int16)), str(path))
    out = tmp_path / "out" / f"b{suffix}"
    copy_through(path, out)
    before = {p: p.read_bytes() for p in out.parent.iterdir()}
    expected = VolumeError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(expected):
        write_one_slice_and_fail(open_volume(path), out, failure)
    assert {p: p.read_bytes() for p in out.parent.iterdir()} == before


@pytest.mark.parametrize("affine", [np.eye(4), np.array([[0, 0, 1.0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]).T])
def test_volume_that_lacks_slices_is_not_published(tmp_path, affine):
    volume = open_volume(save_nifti(tmp_path / "a.nii.gz", brain_array().astype(np.int16), affine))
    out = tmp_path / "out" / "b.nii.gz"
    with pytest.raises(ValueError, match="1 slices were written"), SliceWriter(out, volume, dtype="float32", description="x") as writer:
        writer.write(0, np.zeros(volume.frame.shape[1:], np.float32))
    assert left_in(out.parent) == []


def test_slice_out_of_order_is_an_error(tmp_path, brain_file):
    writer = SliceWriter(tmp_path / "b.nii.gz", open_volume(brain_file), dtype="float32", description="x")
    with pytest.raises(ValueError, match="out of order"), writer:
        writer.write(3, np.zeros((26, 22), np.float32))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".hdr", ".mha", ".mhd", ".nrrd"])
def test_full_disk_names_the_output_and_leaves_nothing(tmp_path, suffix, request):
    path = tmp_path / f"a{suffix}"
    noise = np.random.default_rng(0).normal(100, 10, (20, 40, 40)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(path))
    slices, out = canonical(path), tmp_path / "out" / f"b{suffix}"
    volume = open_volume(path)
    request.getfixturevalue("small_file_limit")
    with pytest.raises(VolumeError) as caught:
        write_like(volume, out, slices)
    assert caught.value.code == "unwritable"
    assert str(out) in str(caught.value)
    assert PARTIAL not in str(caught.value)
    assert left_in(out.parent) == []


def test_full_disk_at_the_last_byte_is_noticed(tmp_path, brain_file, monkeypatch):
    def no_space(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(VolumeError, match="No space left") as caught:
        copy_through(brain_file, tmp_path / "out" / "b.nii.gz")
    assert str(tmp_path / "out" / "b.nii.gz") in str(caught.value)
    assert left_in(tmp_path / "out") == []


def test_folder_that_cannot_be_made_is_unwritable(tmp_path, brain_file):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(VolumeError) as caught:
        copy_through(brain_file, tmp_path / "file" / "b.nii.gz")
    assert caught.value.code == "unwritable"
    assert str(tmp_path / "file" / "b.nii.gz") in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into a read-only folder")
def test_read_only_folder_is_unwritable(tmp_path, brain_file):
    folder = tmp_path / "out"
    folder.mkdir(mode=0o500)
    with pytest.raises(VolumeError, match="Permission denied"):
        copy_through(brain_file, folder / "b.nii.gz")


def test_output_that_is_a_folder_is_unwritable(tmp_path, brain_file):
    (tmp_path / "b.nii.gz").mkdir()
    with pytest.raises(VolumeError) as caught:
        copy_through(brain_file, tmp_path / "b.nii.gz")
    assert caught.value.code == "unwritable"
    assert left_in(tmp_path) == ["b.nii.gz", brain_file.name]


@pytest.mark.parametrize("name", ["with space", "ünïcode 脳", "new\nline", "x" * 248])
def test_awkward_names_are_written(tmp_path, name, brain_file):
    out = tmp_path / "out" / f"{name}.nii.gz"
    np.testing.assert_array_equal(canonical(copy_through(brain_file, out)), canonical(brain_file))
    assert left_in(out.parent) == [out.name]


def test_two_writers_of_the_same_file_do_not_meet(tmp_path):
    path, both_inside = tmp_path / "a.txt", threading.Barrier(2)

    def write(text: str) -> None:
        with whole_file(path) as partial:
            partial.write_text(text)
            both_inside.wait(10)

    threads = [threading.Thread(target=write, args=(text * 1000,)) for text in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in ("a" * 1000, "b" * 1000)
    assert left_in(tmp_path) == ["a.txt"]


def test_many_writers_in_one_folder_do_not_disturb_each_other(tmp_path):
    failures = []

    def write(name: str) -> None:
        for _ in range(30):
            failures.append(error_of(lambda: write_text(tmp_path / name, name)))

    threads = [threading.Thread(target=write, args=(f"{n}.txt",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [None] * 120
    assert left_in(tmp_path) == ["0.txt", "1.txt", "2.txt", "3.txt"]


def test_others_may_read_what_was_written_as_the_umask_says(tmp_path):
    before = os.umask(0o022)
    try:
        write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644


def test_leftovers_of_a_killed_writer_are_swept_and_those_of_other_files_left_alone(tmp_path, monkeypatch):
    for name in ("a.txt", "b.txt"):
        with monkeypatch.context() as patch:
            patch.setattr("localdiff_cli.volumes.whole.shutil.rmtree", lambda *a, **k: None)  # as if killed before it
            write_text(tmp_path / name, "x")
    assert len(left_in(tmp_path)) == 4
    sweep(tmp_path / "a.txt")
    assert len(left_in(tmp_path)) == 3
    sweep(tmp_path / "b.txt")
    assert left_in(tmp_path) == ["a.txt", "b.txt"]


def test_output_link_is_replaced_and_its_target_left_alone(tmp_path):
    (tmp_path / "target").write_text("precious")
    (tmp_path / "a.txt").symlink_to(tmp_path / "target")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "target").read_text() == "precious"
    assert (tmp_path / "a.txt").read_text() == "new"


def test_real_volumes_come_back_to_the_bit(tmp_path):
    for path in [real("t1t2", "sub-openms19", "sub-openms19_T1w.nii.gz"), *sorted(real("brats2013_2d").rglob("*.nii*"))[:4]]:
        out = copy_through(path, tmp_path / path.name)
        same_geometry(path, out)
        np.testing.assert_array_equal(np.asarray(nib.load(out).dataobj), np.asarray(nib.load(path).dataobj, dtype=np.float32))
