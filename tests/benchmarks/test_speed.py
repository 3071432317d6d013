"""The tables of speed on a tiny bundle and small patients: their rows and figures, never their times."""

import argparse
from dataclasses import replace
from functools import partial

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from examples.benchmarks import speed, speed_passes, speed_patchcore, speed_start
from examples.benchmarks.other_samplers import Published
from localdiff_cli.errors import NoInputError, UsageError
from localdiff_cli.threads import apart
from tests.training.data import write_patient


@pytest.fixture
def options(bench, tmp_path, monkeypatch):
    def refused(*_):
        raise UsageError("anomalib is not asked in tests", code="anomalib")

    monkeypatch.setattr(speed_patchcore, "anomalib", refused)
    monkeypatch.setattr(speed, "REPEATS", 1)
    monkeypatch.setattr(speed_start, "_program", lambda text, ours: None)  # processes of their own have no place in this test
    monkeypatch.setattr(speed_start, "_translate", lambda bundle, source, brain, folder: nib.load(source).shape[2] / 1000)
    monkeypatch.setattr(speed, "Published", partial(Published, steps=3, fusion_step=1))
    (tmp_path / "data").mkdir()
    for number in (1, 2):
        write_patient(tmp_path / "data", f"sub-0{number}", seed=number)
    return argparse.Namespace(model=str(bench.bundle.path), data=[tmp_path / "data"], split="train", every=3, work=tmp_path / "work")


def test_five_tables_with_a_row_for_every_way(options):
    translate, stages, start, passes, patchcore = speed.measure(options)
    rows = {line["row"]: line for line in translate.rows}
    assert len(rows) == len(translate.rows) == 7
    assert rows[speed.OURS]["times ours"] == "1.00"
    assert rows["published scheme, same weights"]["slices at a time"] == "1"
    assert rows["localdiff, --mode plain"]["of which detector"] == "0.000"
    assert all(np.isfinite(float(line["PSNR brain"])) for line in translate.rows)
    assert [line["row"] for line in stages.rows] == [speed.OURS, "crop around the region", "--mode plain"]
    for line in stages.rows:
        shares = [float(line[f"{stage} %"]) for stage in speed.STAGES]
        assert 50 < sum(shares) < 101
        assert float(line["outside the networks %"]) == pytest.approx(100 - shares[2] - shares[3], abs=0.2)
    assert [line["row"].split(",")[0] for line in patchcore.rows] == [
        *["fit"] * 2,
        *["predict"] * 2,
        *["predict's floor: the backbone", "predict's floor: one matrix product a slice"],
    ]
    assert [line["row"] for line in start.rows] == [*speed_start.PROGRAMS, speed_start.ONE_SLICE]
    assert start.rows[-1]["of which stages"] == "0.00"
    assert [line["row"] for line in passes.rows] == [speed.OURS, "--mode plain"]
    assert all(int(line["calls"]) > 0 and float(line["ratio"]) > 0 for line in passes.rows)
    for table in (translate, stages, start, passes, patchcore):
        table.draw(Figure())
        assert table.settings["hash"]


def test_every_way_draws_the_slices_it_is_given(bench, patient):
    found = speed.slices_of(bench, patient, 1)
    mask = torch.zeros_like(found.ood_mask)
    mask[2:, :, 8:12, 8:12] = True
    work = [replace(found, ood_mask=mask, ood_map=mask.float())]
    images = {name: way.images(work)[0] for name, way in speed.ways(bench).items() if "published" not in name}
    assert {image.shape for image in images.values()} == {(4, 32, 32)}
    ours, plain = images[speed.OURS], images["localdiff, --mode plain"]
    assert np.array_equal(ours[:2], plain[:2])
    assert not np.array_equal(ours[2:], plain[2:])
    assert not np.array_equal(images["localdiff, training-free (--expert none)"], ours)
    assert not np.array_equal(images["localdiff, crop around the region"], ours)
    without = replace(bench, networks=replace(bench.networks, expert=None))
    assert "localdiff, training-free (--expert none)" not in speed.ways(without)


def test_slices_are_split_without_loss(bench, patient):
    whole = speed.slices_of(bench, patient, 1)
    parts = whole.parts(3)
    assert [len(part.target) for part in parts] == [3, 1]
    assert torch.equal(torch.cat([part.chunk.condition for part in parts]), whole.chunk.condition)
    assert [k for part in parts for k in part.chunk.active_numbers] == whole.chunk.active_numbers


def test_a_split_without_patients_is_refused(options):
    with pytest.raises(NoInputError, match="split test"):
        speed.measure(argparse.Namespace(**{**vars(options), "split": "test"}))


def test_calls_of_networks_are_noted_without_those_of_their_layers_and_can_be_made_again():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU())
    images = [torch.rand(1, 1, 8, 8), torch.rand(2, 1, 8, 8)]
    with speed_passes.noted_calls() as calls:
        for image in images:
            network(image)
        apart(network, [images[0]] * 40)
    assert len(calls) == 42
    calls = calls[:2]
    assert [(call.network is network, call.arguments[0] is image) for call, image in zip(calls, images, strict=True)] == [(True, True)] * 2
    with speed_passes.noted_calls() as again:
        speed_passes.made_again(calls)
    assert sorted(len(call.arguments[0]) for call in again) == [1, 2]


def test_a_short_volume_is_repeated_to_a_whole_head(tmp_path):
    (tmp_path / "whole").mkdir()
    write_patient(tmp_path, "sub-01", seed=1)
    (pair,) = speed.read_pairs([tmp_path], "T1w", "T2w")
    whole = speed_passes.whole_volume(pair, tmp_path / "whole")
    short, repeated = (nib.load(path).get_fdata() for path in (pair.condition, whole.condition))
    assert repeated.shape[2] == speed_passes.SLICES
    assert np.array_equal(repeated[:, :, : short.shape[2]], short)
    assert np.array_equal(repeated[:, :, short.shape[2]], short[:, :, -1])
