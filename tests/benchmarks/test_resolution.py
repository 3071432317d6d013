"""The resolution part: grids, ratios, flicker by hand."""

import argparse
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from examples.benchmarks import neighbours, resolution
from examples.benchmarks.mri import Row
from examples.benchmarks.variants import Variant
from localdiff_cli.errors import UsageError
from tests.training.data import slices


def test_a_finer_grid_averages_back_to_the_slice():
    image = torch.rand(1, 1, 12, 12)
    smooth = torch.nn.functional.avg_pool2d(image, 3, 1, 1)
    fine = resolution.finer(smooth, 4)
    assert fine.shape == (1, 1, 48, 48)
    assert torch.nn.functional.avg_pool2d(fine, 4)[..., 2:-2, 2:-2].numpy() == pytest.approx(smooth[..., 2:-2, 2:-2].numpy(), abs=0.05)
    mask = image > 0.5
    fine_mask = resolution.finer_mask(mask, 4)
    assert torch.equal(fine_mask[..., ::4, ::4], mask)
    assert int(fine_mask.sum()) == 16 * int(mask.sum())


def test_a_slice_is_padded_all_around():
    stack = resolution.padded(torch.ones(1, 1, 4, 6), 10)
    assert stack.sum() == 24
    assert stack[0, 0, 3:7, 2:8].all()


@pytest.mark.parametrize(("largest", "first"), [(0, 0), (3, 2), (5, 4)])
def test_neighbouring_slices_lie_about_the_largest_lesion(patient, largest, first):
    lesion = np.zeros((6, 4, 4), bool)
    lesion[largest, :2] = True
    numbers = np.arange(6)[:, None, None] + np.zeros((1, 4, 4))
    made = replace(patient, condition=numbers, target=numbers, brain=numbers, lesion=lesion)
    assert resolution.around_largest(made, 2).condition[:, 0, 0].tolist() == [first, first + 1]


def test_flicker_is_taken_where_both_slices_are_brain():
    images = np.array([[[0.0, 0.5]], [[0.2, 0.1]], [[0.2, 0.0]]])
    brain = np.array([[[True, False]], [[True, True]], [[True, True]]])
    assert resolution.flicker(images, brain) == pytest.approx((0.2 + 0.0 + 0.1) / 3)
    assert resolution.flicker(images[:1], brain[:1]) is None


def test_noise_of_its_own_makes_equal_slices_flicker(bench, patient):
    same = {name: np.repeat(getattr(patient, name)[:1], 3, axis=0) for name in ("condition", "target", "brain", "lesion")}
    alike = replace(patient, **same)
    rows = (Row("", "none", changes=(("noise", kind),)) for kind in ("shared", "independent"))
    shared, own = (resolution.through_plane(bench, row, alike) for row in rows)
    assert shared["image"] == 0 < own["image"]
    assert shared["error"] == 0 < own["error"]


@pytest.fixture
def options(bench, patient, tmp_path, monkeypatch):
    monkeypatch.setattr(resolution, "patients", lambda *_: [replace(patient, name=name) for name in "dbca"])
    monkeypatch.setattr(resolution.mri, "load", lambda *_: bench)
    monkeypatch.setattr(resolution, "SIDE", 48)
    monkeypatch.setattr(resolution, "FACTORS", (1, 2))
    monkeypatch.setattr(resolution, "in_fresh_process", lambda job: resolution.measure_size(job) | {"seconds": 0.5 * job.factor**2})
    monkeypatch.setattr(neighbours, "patients", lambda *_: [slices("t", n=4)])
    monkeypatch.setattr(neighbours, "VARIANTS", {"further": Variant("further", 2, 1e-4)})
    return argparse.Namespace(model="t1-to-t2", data=[tmp_path], split="val", every=2, work=tmp_path / "work")


def test_both_tables_and_their_figures(options, monkeypatch):
    sizes, noise = resolution.measure(options)
    assert sizes.settings["patients"] == ["a", "b", "c"]
    assert [(line["size"], line["sampled"]) for line in sizes.rows] == [
        *(("48²", way) for way in resolution.WAYS),
        *(("96²", way + told) for way in resolution.WAYS for told in ("", ", at 1 mm, up-sampled")),
    ]
    own, enlarged = sizes.rows[3], sizes.rows[4]
    assert (sizes.rows[0]["times 256²"], own["times 256²"]) == ("1.0", "4.0")
    assert abs(float(enlarged["against 256²"].split(" ")[0])) < 3
    assert [line["row"] for line in noise.rows][:2] == ["true target contrast", "polynomial"]
    assert noise.rows[0]["flicker over true"] == "1.000"
    assert noise.rows[-1]["row"] == "2.5D, 400 steps more"
    assert float(noise.rows[-1]["PSNR in the brain"].split(" ")[0]) > 0
    for table in (sizes, noise):
        table.draw(Figure())
    monkeypatch.setattr(resolution, "in_fresh_process", None)
    monkeypatch.setattr(resolution, "through_plane", None)
    assert resolution.measure(options)[0].rows == sizes.rows


def test_without_lesions_there_is_nothing_to_show(options, monkeypatch):
    monkeypatch.setattr(resolution, "patients", lambda *_: [])
    with pytest.raises(UsageError, match="no val patient"):
        resolution.measure(options)


@pytest.mark.slow
def test_memory_is_that_of_the_fresh_process(bench, patient, tmp_path):
    held = np.ones(300_000_000, np.uint8)  # what the parent holds must not count
    arrays = resolution.size_slices([patient], bench)
    np.savez(tmp_path / "slices.npz", **arrays)
    found = resolution.in_fresh_process(resolution.Job(str(bench.bundle.path), "plain", 1, str(tmp_path / "slices.npz")))
    assert held.all()
    assert 100 < found["loaded"] <= found["peak"] < resolution.peak_memory()
    assert found["seconds"] > 0
