"""Bright residues at the brain's rim are not looked at; all else is."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from localdiff_cli.bundle import open_bundle
from localdiff_cli.bundle.schema import Contrast
from localdiff_cli.bundle.store import with_defaults
from localdiff_cli.errors import UsageError
from localdiff_cli.ood.detector import from_map
from localdiff_cli.ood.residue import LEAST, RIM_PIXELS, without_residue
from localdiff_cli.options import DetectorOptions
from localdiff_cli.recipes.detector import bright_from, mask_settings
from localdiff_cli.tasks.detection import MaskSettings, Unseen, VolumeShare, detected, looked_at
from localdiff_cli.tasks.slices import Chunk
from tests.bundles import make_segmenter

BRIGHT = 0.79


def slice_with(*regions):
    """A brain of 40 × 40 pixels in a slice of 48 × 48, of 0.5, in which regions are bright."""
    brain = torch.zeros(1, 1, 48, 48, dtype=torch.bool)
    brain[..., 4:44, 4:44] = True
    condition = 0.5 * brain
    for rows, columns in regions:
        condition[..., rows, columns] = 0.9
    return condition, brain


AT_THE_RIM = (slice(4, 10), slice(10, 30))
DEEP = (slice(20, 26), slice(16, 30))


def test_what_shines_at_the_rim_is_left_out_and_what_shines_deep_inside_stays():
    condition, brain = slice_with(AT_THE_RIM, DEEP)
    kept = without_residue(condition, brain, BRIGHT)
    assert not kept[0, 0][AT_THE_RIM].any()
    assert kept[0, 0][DEEP].all()
    assert int(brain.sum() - kept.sum()) == 6 * 20


def test_a_residue_goes_on_where_it_is_connected_also_over_a_corner():
    inner = (slice(10, 14), slice(30, 33))  # touches the other at a corner
    kept = without_residue(*slice_with(AT_THE_RIM, inner), BRIGHT)
    assert not kept[0, 0][inner].any()


@pytest.mark.parametrize(("depth", "stays"), [(RIM_PIXELS - 1, False), (RIM_PIXELS, True)])
def test_near_the_rim_is_near_enough(depth, stays):
    region = (slice(4 + depth, 16), slice(10, 30))
    assert bool(without_residue(*slice_with(region), BRIGHT)[0, 0][region].all()) == stays


def test_a_few_bright_pixels_are_veins():
    few = int(LEAST * 40 * 40)
    for columns, changed in ((few, False), (few + 1, True)):
        condition, brain = slice_with((slice(4, 5), slice(10, 10 + columns)))
        assert torch.equal(without_residue(condition, brain, BRIGHT), brain) != changed


def test_each_slice_stands_alone_and_none_is_no_error():
    plain, shining = slice_with(), slice_with(AT_THE_RIM)
    both = without_residue(torch.cat([plain[0], shining[0]]), torch.cat([plain[1], shining[1]]), BRIGHT)
    assert torch.equal(both[:1], plain[1])
    assert torch.equal(both[1:], without_residue(*shining, BRIGHT))
    assert without_residue(plain[0][:0], plain[1][:0], BRIGHT).shape == (0, 1, 48, 48)


def spotted(condition, brain):
    """A detector that is sure of the whole brain that it is shown."""
    return from_map(0.9 * brain.float())


def chunk_of(*slices, first=0):
    """Slices as one chunk."""
    numbers = tuple(range(first, first + len(slices)))
    return Chunk(numbers, tuple(range(len(slices))), *(torch.cat(planes) for planes in zip(*slices, strict=True)))


def test_a_detector_sees_neither_the_residue_nor_a_brain_there():
    seen = []

    def detector(chunk):
        seen.append(chunk)
        return spotted(chunk.condition, chunk.brain)

    chunk = chunk_of(slice_with(AT_THE_RIM))
    ((given, found),) = detected([chunk], detector, MaskSettings(0.2, 0, 0, bright=BRIGHT), 1.0)
    kept = without_residue(chunk.condition, chunk.brain, BRIGHT)
    assert given is chunk
    assert torch.equal(seen[0].condition, chunk.condition * kept)
    assert torch.equal(found.ood_map > 0, kept)
    assert looked_at(chunk, MaskSettings(0.2, 0, 0)) is chunk


def through(*slices, bright):
    """M of slices of 5 mm, seen from the side, by a detector that finds what is dark."""
    masks = MaskSettings(0.2, 0, 0, peak=0.65, through_plane_mm=6.0, bright=bright)
    found = detected([chunk_of(*slices)], lambda c: from_map(((c.condition < 0.3) & c.brain).float()), masks, 5.0)
    return torch.cat([detection.ood_map for _, detection in found])


def test_neighbours_do_not_fill_in_what_was_not_looked_at_and_it_does_not_count_against_them():
    dark, shining = slice_with(), slice_with(AT_THE_RIM)
    dark[0][0, 0][AT_THE_RIM] = 0.1
    filled = through(dark, dark, shining, dark, dark, bright=BRIGHT)
    assert not filled[2, 0][AT_THE_RIM].any()
    between = through(shining, shining, shining, dark, dark, shining, shining, shining, bright=BRIGHT)
    assert (between[3:5, 0][:, AT_THE_RIM[0], AT_THE_RIM[1]] > 0.9).all()
    assert through(shining, shining, shining, dark, dark, shining, shining, shining, bright=None).max() <= 0.15 + 1e-6


def test_what_was_not_looked_at_is_counted_and_much_of_it_is_said():
    chunk = chunk_of(slice_with(), slice_with(AT_THE_RIM))
    unseen = Unseen(MaskSettings(0.2, 0, 0, bright=BRIGHT))
    unseen.count(chunk)
    assert unseen.share == pytest.approx(120 / 3200)
    assert Unseen(MaskSettings(0.2, 0, 0)).share is None
    told = VolumeShare(0.0, {}, unseen.share)
    assert told.facts["NotLookedAtShare"] == unseen.share
    assert ["3.8% of the brain, at its rim" in doubt for doubt in told.doubts] == [True]
    assert VolumeShare(0.0, {}, 0.004).doubts == []
    assert "NotLookedAtShare" not in VolumeShare(0.0, {}).facts


def test_a_bundles_residue_is_for_its_own_detector(models_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCALDIFF_MODELS", str(tmp_path))
    shutil.copytree(models_folder / "t1-to-t2", tmp_path / "own")
    make_segmenter(tmp_path / "finder", "T1w", (-6, 6))
    make_segmenter(tmp_path / "other", "T1w", (-6, 6))
    stored = {"detector": "segmenter", "detector_model": "finder", "residue": 3.5}
    bundle = with_defaults(open_bundle(str(tmp_path / "own")), stored)
    for options, z in (
        (DetectorOptions(), 3.5), (DetectorOptions(residue=0), None), (DetectorOptions(residue=2), 2),
        (DetectorOptions(detector_model="other"), None), (DetectorOptions(detector_model="other", residue=3), 3),
        (DetectorOptions(map=Path("map.nii.gz")), None), (DetectorOptions(detector="patchcore"), None),
    ):  # fmt: skip
        assert mask_settings(bundle, options).bright == (None if z is None else pytest.approx((z + 6) / 12))


@pytest.mark.parametrize(("contrast", "residue", "said"), [("FLAIR", 3, "lesions are bright on FLAIR"), ("T1w", 7, "nothing above 6 SDs")])
def test_a_residue_that_would_leave_lesions_out_or_nothing_is_refused(contrast, residue, said):
    with pytest.raises(UsageError, match=said):
        bright_from(residue, Contrast(contrast, (-6.0, 6.0)))
    assert bright_from(0, Contrast("FLAIR", (-6.0, 6.0))) is None


def test_a_map_that_is_brought_has_no_residue(cli, folder, tmp_path):
    image = folder / "sub-01" / "sub-01_T1w.nii.gz"
    result = cli("detect", "--in", image, "--out", tmp_path / "out", "--map", image, "--residue", 3)
    assert (result.exit_code, "--residue" in result.output) == (2, True)


def test_the_sidecar_and_another_residue(cli, folder, tmp_path, models_folder, monkeypatch):
    monkeypatch.setenv("LOCALDIFF_MODELS", str(tmp_path))
    make_segmenter(tmp_path / "lesion-t1", "T1w", (-6, 6))
    image = folder / "sub-01" / "sub-01_T1w.nii.gz"
    for residue, share in ((0, None), (1, 0.0)):
        result = cli("detect", "--in", image, "--out", tmp_path / "out", "--model", "lesion-t1", "--residue", residue, "--overwrite")
        assert result.exit_code == 0, result.output
        sidecar = json.loads((tmp_path / "out" / "sub-01_T1w_ood.json").read_text())
        assert (sidecar["Settings"]["Mask"]["bright"] is None) == (share is None)
        assert ("NotLookedAtShare" in sidecar) == (share is not None)
