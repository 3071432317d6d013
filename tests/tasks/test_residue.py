"""Bright residues at the brain's rim are not looked at; all else is."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from localdiff_cli.bundle import open_bundle
from localdiff_cli.bundle.store import with_defaults
from localdiff_cli.ood.detector import from_map
from localdiff_cli.ood.residue import LEAST, RIM_PIXELS, without_residue
from localdiff_cli.options import DetectorOptions
from localdiff_cli.recipes.detector import choose_detector
from localdiff_cli.tasks.detection import DetectorBinding
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


def test_a_detector_sees_neither_the_residue_nor_a_brain_there():
    seen = []

    def detector(condition, brain):
        seen.append((condition, brain))
        return from_map(0.9 * brain.float())

    condition, brain = slice_with(AT_THE_RIM)
    chunk = Chunk((0,), (0,), condition, brain)
    everything = DetectorBinding(detector, torch.device("cpu"))
    assert torch.equal(everything.detect(chunk).ood_map > 0, brain)
    found = replace(everything, bright=BRIGHT).detect(chunk)
    kept = without_residue(condition, brain, BRIGHT)
    assert torch.equal(seen[-1][0], condition * kept)
    assert torch.equal(found.ood_map > 0, kept)


def test_a_bundles_residue_is_for_its_own_detector_and_said_in_the_sidecar(models_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCALDIFF_MODELS", str(tmp_path))
    shutil.copytree(models_folder / "t1-to-t2", tmp_path / "own")
    make_segmenter(tmp_path / "finder", "T1w", (-6, 6))
    make_segmenter(tmp_path / "other", "T1w", (-6, 6))
    stored = {"detector": "segmenter", "detector_model": "finder", "residue": 3.5}
    bundle = with_defaults(open_bundle(str(tmp_path / "own")), stored)
    for options, z in (
        (DetectorOptions(), 3.5), (DetectorOptions(residue=0), None), (DetectorOptions(residue=2), 2),
        (DetectorOptions(detector_model="other"), None), (DetectorOptions(detector_model="other", residue=3), 3),
    ):  # fmt: skip
        binding, account = choose_detector(options, bundle, torch.device("cpu"))
        assert binding.bright == (None if z is None else pytest.approx((z + 6) / 12))
        assert account.get("Residue") == z


def test_a_map_that_is_brought_is_taken_as_it_is(models_folder, tmp_path):
    bundle = with_defaults(open_bundle(str(shutil.copytree(models_folder / "t1-to-t2", tmp_path / "own"))), {"residue": 3.5})
    given = tmp_path / "map.nii.gz"
    given.write_bytes(b"any")
    _, account = choose_detector(DetectorOptions(map=Path(given)), bundle, torch.device("cpu"))
    assert "Residue" not in account
