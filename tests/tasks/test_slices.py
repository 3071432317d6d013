"""From a volume to network slices in file order, and back to its own grid."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from localdiff_cli.batch.discover import Item
from localdiff_cli.errors import VolumeError
from localdiff_cli.tasks.outputs import Output, Outputs
from localdiff_cli.tasks.slices import chunks, image_to_native, mask_to_native, volume_doubts
from localdiff_cli.volumes.contrast import Content
from localdiff_cli.volumes.geometry import Grid
from localdiff_cli.volumes.likeness import Typical
from localdiff_cli.volumes.prepare import PrepareSettings, prepare
from localdiff_cli.volumes.reader import open_volume
from tests.brains import brain, write_brain

SETTINGS = PrepareSettings(bias="none", spacing=4.0, shape=(48, 40), window=(-6.0, 6.0))


def prepared_brain(path, *, empty=(), codes=None, lesion=True):
    """A small brain, ready, some of its stored slices emptied, turned to other axis codes."""
    write_brain(path, lesion=lesion)
    image = nib.load(path)
    voxels = np.asanyarray(image.dataobj).copy()
    voxels[..., list(empty)] = 0
    image = nib.Nifti1Image(voxels, image.affine)
    if codes:
        image = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(codes)))
    nib.save(image, path)
    return prepare(open_volume(path), SETTINGS)


@pytest.mark.parametrize("size", [1, 2, 4, 100])
def test_chunks_hold_every_slice_once_in_file_order_and_read_only_those_with_brain(tmp_path, size):
    prepared = prepared_brain(tmp_path / "a_T1w.nii.gz", empty=(0, 3))
    read = []
    original = type(prepared).network_slice
    type(prepared).network_slice = lambda self, k: (read.append(k), original(self, k))[1]
    try:
        found = list(chunks(prepared, size))
    finally:
        type(prepared).network_slice = original
    assert [k for chunk in found for k in chunk.numbers] == list(prepared.reader.order())
    filled = [k for k in prepared.reader.order() if prepared.native_brain(k).any()]
    assert [k for chunk in found for k in chunk.active_numbers] == filled
    assert read == filled
    assert len(filled) == 4
    for chunk in found:
        assert len(chunk.numbers) <= size
        assert chunk.condition.shape == chunk.brain.shape == (len(chunk.active), 1, *prepared.grid.shape)
        assert (chunk.condition.dtype, chunk.brain.dtype) == (torch.float32, torch.bool)
        assert bool(chunk.brain.flatten(1).any(dim=1).all())
        assert not chunk.condition[~chunk.brain].any()


def test_the_order_is_the_files_whichever_way_it_is_stored(tmp_path):
    straight = prepared_brain(tmp_path / "a_T1w.nii.gz", codes="LPS")
    turned = prepared_brain(tmp_path / "b_T1w.nii.gz", codes="LPI")
    numbers = [[k for chunk in chunks(p, 4) for k in chunk.numbers] for p in (straight, turned)]
    assert numbers[0] == list(reversed(numbers[1]))
    slices = [
        {k: c for chunk in chunks(p, 4) for k, c in zip(chunk.active_numbers, chunk.condition, strict=True)} for p in (straight, turned)
    ]
    assert all(torch.equal(slices[0][k], slices[1][k]) for k in range(6))


def test_a_brain_that_vanishes_on_the_networks_grid_makes_its_slice_empty(tmp_path):
    path = write_brain(tmp_path / "a_T1w.nii.gz", shape=(160, 192, 6), spacing=(1, 1, 20))
    image = nib.load(path)
    voxels = np.asanyarray(image.dataobj).copy()
    voxels[..., 2] = 0
    voxels[80, 96, 2] = 500
    nib.save(nib.Nifti1Image(voxels, image.affine), path)
    prepared = prepare(open_volume(path), SETTINGS)
    assert prepared.native_brain(2).any()
    assert 2 not in [k for chunk in chunks(prepared, 4) for k in chunk.active_numbers]


def wanted(folder):
    return {"image": Output(folder / "image.nii.gz", "float32", "a"), "map": Output(folder / "map.nii.gz", "float32", "b")}


def write_all(outputs, prepared):
    for k in prepared.reader.order():
        outputs.write(k, {"image": np.full(prepared.volume.frame.shape[1:], 0.5, np.float32)})


def test_outputs_appear_together_and_a_role_without_an_image_is_zero(tmp_path):
    prepared = prepared_brain(tmp_path / "a_T1w.nii.gz")
    with Outputs(prepared, wanted(tmp_path / "out")) as outputs:
        write_all(outputs, prepared)
        assert not list((tmp_path / "out").glob("*.nii.gz"))
    assert (np.asanyarray(nib.load(tmp_path / "out" / "image.nii.gz").dataobj) == 0.5).all()
    assert (np.asanyarray(nib.load(tmp_path / "out" / "map.nii.gz").dataobj) == 0).all()


@pytest.mark.parametrize("error", [VolumeError("bad"), KeyboardInterrupt()], ids=repr)
def test_an_error_on_the_way_leaves_no_output_at_all(tmp_path, error):
    prepared = prepared_brain(tmp_path / "a_T1w.nii.gz")

    def write_and_fail():
        with Outputs(prepared, wanted(tmp_path / "out")) as outputs:
            write_all(outputs, prepared)
            raise error

    with pytest.raises(type(error)):
        write_and_fail()
    assert list((tmp_path / "out").iterdir()) == []


def test_one_output_that_cannot_be_put_in_place_takes_the_others_with_it(tmp_path, monkeypatch):
    prepared = prepared_brain(tmp_path / "a_T1w.nii.gz")
    import localdiff_cli.volumes.whole as writer

    publish = writer._publish

    def fail_for_the_image(folder, path, **options):
        if path.name == "image.nii.gz":
            raise OSError(28, "No space left on device")
        publish(folder, path, **options)
        assert path.exists()

    monkeypatch.setattr(writer, "_publish", fail_for_the_image)
    with pytest.raises(VolumeError, match="No space left"), Outputs(prepared, wanted(tmp_path / "out")) as outputs:
        write_all(outputs, prepared)
    assert list((tmp_path / "out").iterdir()) == []


def test_outputs_that_were_there_before_survive_a_failure_before_the_end(tmp_path):
    prepared = prepared_brain(tmp_path / "a_T1w.nii.gz")
    with Outputs(prepared, wanted(tmp_path / "out")) as outputs:
        write_all(outputs, prepared)
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(VolumeError), Outputs(prepared, wanted(tmp_path / "out")):
        raise VolumeError("bad")
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}


def native_grid(spacing):
    """A head of 200 mm at ``spacing`` on a 1 mm network grid, and an elliptic brain with a thin spike."""
    n = round(200 / spacing)
    y, x = np.mgrid[:n, :n] * spacing
    brain = (y - 100) ** 2 / 80**2 + (x - 100) ** 2 / 60**2 < 1
    brain[round(100 / spacing)] |= np.abs(x[0] - 100) < 75
    origin = (float(np.round(-3.5 / spacing)), float(np.round(12.5 / spacing)))
    return Grid((208, 176), 1.0, origin, (n, n), (spacing, spacing)), brain, (y, x)


def test_at_equal_spacing_the_way_there_and_back_changes_nothing():
    grid, brain, _ = native_grid(1.0)
    image = np.random.default_rng(0).random(brain.shape, dtype=np.float32) * brain
    there, inside = grid.to_network(image), grid.to_network(brain, cubic=False) > 0.5
    assert np.array_equal(image_to_native(there, inside, grid, brain), image)


@pytest.mark.parametrize("spacing", [0.3, 0.5, 0.9, 0.98, 1.2, 2.0, 3.0])
def test_at_other_spacings_the_rim_is_neither_dark_nor_bright(spacing):
    grid, brain, _ = native_grid(spacing)
    inside = grid.to_network(brain, cubic=False) > 0.5
    flat = np.where(inside, np.float32(0.7), np.float32(0))
    native = image_to_native(flat, inside, grid, brain)
    assert np.abs(native[brain] - 0.7).max() < 1e-5
    assert (native[~brain] == 0).all()


@pytest.mark.parametrize("spacing", [0.5, 0.9, 1.5])
def test_a_smooth_image_comes_back_nearly_as_it_was(spacing):
    grid, brain, (y, x) = native_grid(spacing)
    image = np.where(brain, 0.5 + 0.3 * np.sin(y / 9) * np.cos(x / 11), 0).astype(np.float32)
    inside = grid.to_network(brain, cubic=False) > 0.5
    core = (y - 100) ** 2 / 72**2 + (x - 100) ** 2 / 52**2 < 1
    back = image_to_native(np.clip(grid.to_network(image), 0, 1) * inside, inside, grid, brain)
    assert np.abs(back - image)[core].max() < 0.02


@pytest.mark.parametrize("spacing", [0.5, 0.9, 1.5])
def test_a_mask_comes_back_as_large_as_it_was(spacing):
    grid, brain, (y, x) = native_grid(spacing)
    mask = (y - 100) ** 2 + (x - 100) ** 2 < 30**2
    back = mask_to_native(grid.to_network(mask, cubic=False) > 0.5, grid, brain)
    assert back.sum() == pytest.approx(mask.sum(), rel=0.02)
    assert (back & ~mask).sum() + (mask & ~back).sum() < 0.05 * mask.sum()


def item(path, **content):
    return Item(path, Path(path.name), Content("T1w", **content))


def test_reasons_to_review_are_those_a_person_can_check(tmp_path):
    prepared = prepared_brain(tmp_path / "a_T1w.nii.gz", lesion=False)
    path = tmp_path / "a_T1w.nii.gz"
    plain = volume_doubts(prepared, item(path))
    assert not any(doubt.startswith(("contrast", "input", "orientation", "intensity: ")) for doubt in plain)
    assert any("contrast-enhanced" in doubt for doubt in volume_doubts(prepared, item(path, enhanced=True)))
    assert any("synthetic" in doubt for doubt in volume_doubts(prepared, item(path, synthetic=True)))


def test_a_brain_beyond_the_models_window_and_an_unknown_orientation_are_reviewed(tmp_path):
    voxels = brain(0).astype(np.float32)
    voxels[(voxels > 0) & (np.random.default_rng(0).random(voxels.shape) < 0.2)] = 2000
    image = nib.Nifti1Image(voxels, None)
    image.header.set_zooms((4, 4, 20))
    nib.save(image, tmp_path / "a_T1w.nii.gz")
    prepared = prepare(open_volume(tmp_path / "a_T1w.nii.gz"), SETTINGS)
    doubts = " ".join(volume_doubts(prepared, item(tmp_path / "a_T1w.nii.gz")))
    assert "orientation" in doubts
    assert "clipped" in doubts


def test_an_input_unlike_those_of_training_is_said_before_anything_else(tmp_path):
    prepared = prepared_brain(tmp_path / "a_T1w.nii.gz")
    alike = Typical(prepared.quantiles, (0.1,) * 6, 6.0)
    unlike = Typical((*prepared.quantiles[:5], prepared.quantiles[5] - 1.0), (0.1,) * 6, 6.0)
    assert not any("likeness" in doubt for doubt in volume_doubts(prepared, item(tmp_path / "a_T1w.nii.gz"), alike))
    first = volume_doubts(prepared, item(tmp_path / "a_T1w.nii.gz", enhanced=True), unlike)[0]
    assert "99% quantile +10.0 robust SDs" in first
    assert "skull and dura that the brain mask left in" in first
    dark = Typical((prepared.quantiles[0] + 1.0, *prepared.quantiles[1:]), (0.1,) * 6, 6.0)
    told = volume_doubts(prepared, item(tmp_path / "a_T1w.nii.gz"), dark)[0]
    assert "1% quantile -10.0 robust SDs" in told
    assert "skull" not in told
    assert volume_doubts(prepared, item(tmp_path / "a_T1w.nii.gz")) == volume_doubts(prepared, item(tmp_path / "a_T1w.nii.gz"), alike)
