"""A volume's OOD map, from a detector or from the user's own map, and the units lent by a reference."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from localdiff_cli.batch.discover import Item
from localdiff_cli.bundle import open_bundle
from localdiff_cli.bundle.store import with_defaults
from localdiff_cli.errors import VolumeError
from localdiff_cli.ood.detector import from_map
from localdiff_cli.ood.through_plane import SUSPECTED
from localdiff_cli.options import DetectorOptions
from localdiff_cli.recipes.detector import mask_settings
from localdiff_cli.tasks.detection import MaskSettings, VolumeShare, bind_map, detected, mask_of, slice_shares, volume_share
from localdiff_cli.tasks.matching import reference_scale
from localdiff_cli.tasks.slices import Chunk, chunks, prepare_settings
from localdiff_cli.volumes.contrast import Content
from localdiff_cli.volumes.partners import IMAGE, Source
from localdiff_cli.volumes.prepare import PrepareSettings, prepare
from localdiff_cli.volumes.reader import open_volume
from tests.brains import write_brain
from tests.bundles import make_segmenter

SETTINGS = PrepareSettings(bias="none", spacing=4.0, shape=(48, 48), window=(-6.0, 6.0))


@pytest.fixture
def prepared(tmp_path):
    return prepare(open_volume(write_brain(tmp_path / "in" / "sub-01_T1w.nii.gz")), SETTINGS)


def lesion(prepared, value=1, dtype=np.uint8):
    image = nib.load(prepared.volume.path)
    voxels = np.zeros(image.shape, dtype)
    voxels[18:26, 20:28, 3] = value
    return nib.Nifti1Image(voxels, image.affine)


def maps_of(prepared, source):
    detect = bind_map(source)(prepared, Path("sub-01_T1w.nii.gz"))
    return {k: m for chunk in chunks(prepared, 3) for k, m in zip(chunk.active_numbers, detect(chunk).ood_map, strict=True)}


def test_a_label_mask_counts_wherever_it_is_above_zero(prepared, tmp_path):
    nib.save(lesion(prepared, value=4), tmp_path / "mask.nii.gz")
    maps = maps_of(prepared, tmp_path / "mask.nii.gz")
    assert sorted(k for k, m in maps.items() if m.any()) == [3]
    assert set(maps[3].unique().tolist()) == {0.0, 1.0}


def test_a_map_stored_as_scaled_integers_is_a_map_not_labels(prepared, tmp_path):
    nib.save(lesion(prepared, value=0.5, dtype=np.float32), tmp_path / "map.nii.gz")
    path = tmp_path / "scaled.nii"
    nib.save(lesion(prepared, value=16000, dtype=np.int16), path)
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([1 / 32000, 0], "<f4").tobytes()  # scl_slope and scl_inter
    path.write_bytes(raw)
    expected = maps_of(prepared, tmp_path / "map.nii.gz")
    found = maps_of(prepared, path)
    assert expected[3].max() == 0.5
    assert torch.allclose(found[3], expected[3], atol=1e-4)


def test_a_label_mask_may_be_metaimage_or_nrrd(prepared, tmp_path):
    nib.save(lesion(prepared, value=4), tmp_path / "mask.nii.gz")
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "mask.nii.gz")), str(tmp_path / "mask.nrrd"))
    nifti, nrrd = maps_of(prepared, tmp_path / "mask.nii.gz"), maps_of(prepared, tmp_path / "mask.nrrd")
    assert all(torch.equal(nifti[k], nrrd[k]) for k in nifti)


def test_a_folder_gives_each_volume_its_own_map(prepared, tmp_path):
    (tmp_path / "maps").mkdir()
    nib.save(lesion(prepared), tmp_path / "maps" / "sub-01_lesion.nii.gz")
    nib.save(lesion(prepared, value=0), tmp_path / "maps" / "sub-02_lesion.nii.gz")
    assert maps_of(prepared, tmp_path / "maps")[3].any()
    (tmp_path / "maps" / "sub-01_lesion.nii.gz").unlink()
    with pytest.raises(VolumeError) as error:
        maps_of(prepared, tmp_path / "maps")
    assert error.value.code == "no-companion"


def chunk_with(areas):
    brain = torch.zeros(len(areas), 1, 8, 8, dtype=torch.bool)
    brain[:, :, :4] = True
    mask = torch.zeros_like(brain)
    for i, area in enumerate(areas):
        mask[i].view(-1)[:area] = True
    return Chunk(tuple(range(len(areas))), tuple(range(len(areas))), torch.zeros(brain.shape), brain), mask


def test_each_slice_has_its_share_of_the_brain_and_its_decision():
    chunk, mask = chunk_with([0, 8])
    rows = slice_shares(chunk, from_map(mask.float()), mask)
    assert [(row.slice, row.score, row.share, row.decision) for row in rows] == [(0, 0.0, 0.0, "IND"), (1, 1.0, 0.25, "OOD")]


def test_the_share_of_a_volume_weighs_slices_by_their_brain(prepared):
    chunk = next(chunks(prepared, 100))
    mask = chunk.brain.clone()
    mask[1:] = False
    rows = slice_shares(chunk, from_map(mask.float()), mask)
    facts = volume_share(rows, prepared).facts
    area = prepared.brain.mask.sum(axis=(1, 2)).astype(float)
    assert facts["OODShare"] == pytest.approx(area[chunk.active_numbers[0]] / area.sum(), abs=1e-6)
    assert facts["OODSlices"] == 1
    assert facts["OODSharePerSlice"] == {str(chunk.active_numbers[0]): 1.0}


def test_a_largely_foreign_brain_is_reviewed_and_a_small_lesion_is_not():
    assert VolumeShare(0.24, {}).doubts == []
    assert "26%" in VolumeShare(0.26, {}).doubts[0]


def test_the_mask_is_cut_opened_dilated_in_millimetres_and_stays_in_the_brain():
    brain = torch.ones(1, 1, 20, 20, dtype=torch.bool)
    brain[..., 12:] = False
    ood_map = torch.zeros(1, 1, 20, 20)
    ood_map[..., 8:12, 8:12] = 0.6
    ood_map[..., 2, 2] = 0.9
    detection = from_map(ood_map)
    assert mask_of(detection, brain, MaskSettings(0.7, 0, 0), 2.0).sum() == 1
    assert mask_of(detection, brain, MaskSettings(0.5, 0, 0), 2.0).sum() == 17
    assert mask_of(detection, brain, MaskSettings(0.5, 2.0, 0), 2.0).sum() == 12
    dilated = mask_of(detection, brain, MaskSettings(0.5, 0, 2.0), 2.0)
    assert dilated.sum() == 17 + 4 + 4 * 3
    assert not dilated[..., 12:].any()
    assert mask_of(from_map(torch.zeros(0, 1, 20, 20)), brain[:0], MaskSettings(0.5, 2.0, 2.0), 2.0).shape == (0, 1, 20, 20)


class Marks:
    """A detector that marks the inner pixels of some slices, and remembers what it was asked."""

    def __init__(self, marked):
        self.marked, self.asked = marked, []

    def __call__(self, chunk):
        self.asked.append(chunk.numbers)
        ood_map = torch.zeros(chunk.condition.shape)
        for i, k in enumerate(chunk.active_numbers):
            ood_map[i, 0, 20:28, 20:28] = float(k in self.marked)
        return from_map(ood_map * chunk.brain)


IN_CONTEXT = MaskSettings(0.2, 0, 0, peak=0.5, through_plane_mm=20.0)


def found_in(prepared, size, masks, detect):
    found = {}
    for chunk, detection in detected(chunks(prepared, size), detect, masks, 20.0):
        mask = mask_of(detection, chunk.brain, masks, 4.0)
        found |= dict(zip(chunk.active_numbers, zip(detection.ood_map, mask, strict=True), strict=True))
    return found


def test_a_slice_is_seen_in_the_light_of_its_neighbours_whatever_the_chunks(prepared):
    whole = found_in(prepared, 100, IN_CONTEXT, Marks({0, 1, 3, 4}))
    assert whole[2][0].any()
    assert whole[2][1].any()
    for size in (1, 2, 3):
        parts = found_in(prepared, size, IN_CONTEXT, Marks({0, 1, 3, 4}))
        assert parts.keys() == whole.keys()
        assert all(torch.equal(a, b) for k in whole for a, b in zip(parts[k], whole[k], strict=True))


def test_a_slice_that_stands_alone_is_a_suspicion_and_not_in_the_mask(prepared):
    found = found_in(prepared, 2, IN_CONTEXT, Marks({3}))
    assert found[3][0].max() == pytest.approx(SUSPECTED)
    assert not any(mask.any() for _, mask in found.values())
    alone = found_in(prepared, 2, MaskSettings(0.2, 0, 0, peak=0.5), Marks({3}))
    assert alone[3][1].any()


def test_slices_that_are_seen_alone_are_given_as_they_are_read(prepared):
    detect = Marks({1})
    next(iter(detected(chunks(prepared, 2), detect, MaskSettings(0.2, 0, 0), 20.0)))
    assert len(detect.asked) == 1


def test_nothing_is_detected_before_the_first_chunk_is_asked_for(prepared):
    detect = Marks({1})
    parts = detected(chunks(prepared, 2), detect, IN_CONTEXT, 20.0)
    assert detect.asked == []
    next(parts)
    assert len(detect.asked) == 3


def slices_numbered(*numbers):
    shape = (len(numbers), 1, 48, 40)
    return Chunk(numbers, tuple(range(len(numbers))), torch.zeros(shape), torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4, 5), (5, 4, 3, 2, 1, 0)])
def test_slices_may_be_stored_from_the_top_and_lie_any_distance_apart(order):
    """Two marked slices of 5 mm are 10 mm of lesion, too little; of 20 mm they are enough."""
    for step, sure in ((5.0, False), (20.0, True)):
        masks = MaskSettings(0.2, 0, 0, peak=0.65, through_plane_mm=6.0)
        parts = [slices_numbered(*order[:4]), slices_numbered(*order[4:])]
        maps = {k: m for c, d in detected(parts, Marks({2, 3}), masks, step) for k, m in zip(c.numbers, d.ood_map, strict=True)}
        assert [k for k in range(6) if (maps[k] >= 0.2).any()] == ([2, 3] if sure else [])
        assert maps[2].max() == pytest.approx(1 if sure else SUSPECTED)


def test_slices_without_brain_between_others_separate_them():
    masks = MaskSettings(0.2, 0, 0, peak=0.65, through_plane_mm=5.0)
    marked = {0, 1, 2, 9, 10}
    found = {
        k: float(m.max())
        for c, d in detected([slices_numbered(0, 1, 2), slices_numbered(9, 10)], Marks(marked), masks, 5.0)
        for k, m in zip(c.numbers, d.ood_map, strict=True)
    }
    assert found == dict.fromkeys(marked, 1.0)


def test_average_and_peak_of_a_bundle_are_for_its_own_detector_alone(models_folder, tmp_path):
    shutil.copytree(models_folder / "t1-to-t2", tmp_path / "own")
    bundle = with_defaults(open_bundle(str(tmp_path / "own")), {"through_plane_mm": 6.0, "peak": 0.65})
    own = bundle.defaults.detector
    another = {"patchcore": "segmenter"}.get(own, "patchcore")
    for options, used in (
        (DetectorOptions(), True), (DetectorOptions(detector=own), True), (DetectorOptions(map=Path("map.nii.gz")), False),
        (DetectorOptions(detector_model="lesion-flair"), False), (DetectorOptions(detector=another), False),
    ):  # fmt: skip
        masks = mask_settings(bundle, options)
        assert (masks.through_plane_mm, masks.peak) == ((6.0, 0.65) if used else (0.0, 0.0))
    assert mask_settings(bundle, DetectorOptions(map=Path("map.nii.gz"), through_plane_mm=3.0)).through_plane_mm == 3.0


def test_average_and_peak_stay_where_the_bundles_own_finder_is_named(models_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCALDIFF_MODELS", str(tmp_path))
    shutil.copytree(models_folder / "t1-to-t2", tmp_path / "own")
    finder = make_segmenter(tmp_path / "a-tumour-finder", "T1w", (-6, 6))
    (tmp_path / "linked").symlink_to(finder.path)
    stored = {"peak": 0.65, "detector": "segmenter", "detector_model": "a-tumour-finder"}
    bundle = with_defaults(open_bundle(str(tmp_path / "own")), stored)

    def peak(name):
        return mask_settings(bundle, DetectorOptions(detector_model=name)).peak

    for same in (None, "a-tumour-finder", str(finder.path), str(tmp_path / "linked"), "linked"):
        assert peak(same) == 0.65
    assert peak("lesion-t1") == 0
    shutil.rmtree(finder.path)
    assert peak("lesion-t1") == 0  # another finder may be named although the bundle's own is gone


def test_average_and_peak_stay_where_a_bundle_with_a_bank_of_its_own_is_named(models_folder, tmp_path):
    shutil.copytree(models_folder / "t1-to-t2", tmp_path / "own")
    bundle = with_defaults(open_bundle(str(tmp_path / "own")), {"peak": 0.65, "detector": "patchcore"})
    for name, expected in ((str(bundle.path), 0.65), (str(models_folder / "t1-to-t2"), 0.0)):
        assert mask_settings(bundle, DetectorOptions(detector_model=name)).peak == expected


def test_a_bundle_names_the_segmenter_that_makes_its_map(cli, folder, tmp_path, models_folder):
    shutil.copytree(models_folder / "t1-to-t2", tmp_path / "own")
    finders = {name: make_segmenter(tmp_path / name, "T1w", (-6, 6)) for name in ("named", "asked")}
    bundle = with_defaults(open_bundle(str(tmp_path / "own")), {"detector": "segmenter", "detector_model": str(finders["named"].path)})
    assert bundle.hash != open_bundle(str(models_folder / "t1-to-t2")).hash
    for options, used in (((), "named"), (("--detector-model", finders["asked"].path), "asked")):
        out = tmp_path / f"by-{used}"
        assert cli("translate", "--model", bundle.path, "--in", folder / "sub-01/sub-01_T1w.nii.gz", "--out", out, *options).exit_code == 0
        account = json.loads((out / "sub-01_T1w.json").read_text())["Settings"]["Detector"]
        assert account == {"Name": "segmenter", "Bundle": used, "BundleHash": finders[used].hash}


def test_a_bundle_that_names_no_segmenter_takes_that_of_its_contrast(models_folder):
    bundle = open_bundle(str(models_folder / "t1-to-t2"))
    assert (bundle.defaults.detector_model, bundle.finder) == (None, "lesion-t1")


def test_a_volume_without_brain_has_nothing_to_be_seen_from_the_side():
    nothing = torch.zeros(0, 1, 8, 8)
    chunk = Chunk((0, 1), (), nothing, nothing.bool())
    (found,) = detected([chunk], lambda _: from_map(nothing), IN_CONTEXT, 1.0)
    assert found[1].ood_map.shape == (0, 1, 8, 8)
    assert list(detected([], Marks({1}), IN_CONTEXT, 1.0)) == []


def item_of(path):
    return Item(path, Path(path.name), Content("T1w"))


def matched(reference):
    return Source(str(reference), IMAGE, "T2w", "--match")


def settings_of(models_folder, **choices):
    bundle = open_bundle(str(models_folder / "t1-to-t2"))
    prepare = prepare_settings(bundle, **{"brain": "auto", "bias": None, "nan": "refuse", "multiple": 16} | choices)
    return replace(prepare, window=bundle.target.window)


@pytest.mark.parametrize("grid", ["same", "another"])
def test_a_brain_mask_serves_for_a_reference_on_its_grid(models_folder, tmp_path, grid):
    source, reference = write_brain(tmp_path / "sub-01_T1w.nii.gz"), write_brain(tmp_path / "sub-01_T2w.nii.gz", seed=3)
    voxels = np.asanyarray(nib.load(reference).dataobj)
    half = voxels > 0
    half[: half.shape[0] // 2] = False
    shape = half.shape if grid == "same" else (half.shape[0] + 2, *half.shape[1:])
    mask = np.zeros(shape, np.uint8)
    mask[: half.shape[0]] = half
    nib.save(nib.Nifti1Image(mask, nib.load(reference).affine), tmp_path / "mask.nii.gz")
    settings = settings_of(models_folder, brain=str(tmp_path / "mask.nii.gz"), bias="none")
    scale, _ = reference_scale(matched(reference), settings)(item_of(source))
    inside = voxels[half] if grid == "same" else voxels[voxels > 0]
    assert scale.median == pytest.approx(np.median(inside), abs=1e-3)


def test_a_reference_lends_the_scale_of_its_own_brain(models_folder, tmp_path):
    source, reference = write_brain(tmp_path / "in" / "sub-01_T1w.nii.gz"), write_brain(tmp_path / "sub-01_T2w.nii.gz", seed=3)
    scale, used = reference_scale(matched(reference), settings_of(models_folder))(item_of(source))
    assert used == reference
    voxels = np.asanyarray(nib.load(reference).dataobj)
    inside = voxels[voxels > 0].astype(float)
    assert scale.median == pytest.approx(np.median(inside), rel=0.02)
    assert scale.sd == pytest.approx(1.4826 * np.median(abs(inside - np.median(inside))), rel=0.05)
    assert scale.window == (-4, 12)


def test_a_folder_of_references_is_read_once_a_file_and_paired_by_subject(models_folder, tmp_path, monkeypatch):
    sources = [write_brain(tmp_path / "in" / f"sub-0{i}_T1w.nii.gz", seed=i) for i in (1, 2)]
    for i in (1, 2):
        write_brain(tmp_path / "ref" / f"sub-0{i}_T2w.nii.gz", seed=10 * i)
    calls = []
    monkeypatch.setattr("localdiff_cli.tasks.matching.prepare", lambda *a, **k: (calls.append(a), prepare(*a, **k))[1])
    scale_of = reference_scale(matched(tmp_path / "ref"), settings_of(models_folder))
    scales = [scale_of(item_of(source)) for source in (*sources, *sources)]
    assert scales[0] != scales[1]
    assert scales[:2] == scales[2:]
    assert len(calls) == 2


def test_a_volume_without_a_reference_of_its_own_is_refused(models_folder, tmp_path):
    source = write_brain(tmp_path / "in" / "sub-01_T1w.nii.gz")
    write_brain(tmp_path / "ref" / "sub-02_T2w.nii.gz")
    with pytest.raises(VolumeError):
        reference_scale(matched(tmp_path / "ref"), settings_of(models_folder))(item_of(source))


def test_a_patchcore_of_another_contrast_is_refused(cli, folder, tmp_path, models_folder):
    shutil.copytree(models_folder / "t1-to-t2", tmp_path / "other")
    path = tmp_path / "other" / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    for change, word in (({"contrast": "FLAIR"}, "works on FLAIR"), ({"window": [-5, 6]}, "fitted alike")):
        path.write_text(json.dumps(metadata | {"condition": metadata["condition"] | change}))
        result = cli("translate", "--in", folder, "--out", tmp_path / "out", "--detector-model", tmp_path / "other")
        assert result.exit_code == 2
        assert word in result.output
