"""The steps part: its last estimate is what the sampler draws, its losses are those of the conditions it names."""

import argparse

import numpy as np
import pytest
import torch

from examples.benchmarks import mri, steps


@pytest.fixture
def lesions(patient):
    patient.lesion[2:, 6:22, 6:22] = True
    return steps.lesion_slices(patient, 1)


def test_only_slices_with_enough_lesion_are_taken(patient, lesions):
    assert len(lesions.condition) == 2
    patient.lesion[:] = False
    assert steps.lesion_slices(patient, 1) is None


@pytest.mark.parametrize(("way", "row"), [("plain", "none"), ("local", "truth,fusion_step=0"), ("expert", "truth+expert,fusion_step=0")])
def test_the_last_estimate_is_the_image_that_the_sampler_draws(bench, lesions, way, row):
    chunk, target, lesion = mri.chunk_of(lesions, 1)
    truth = torch.from_numpy(lesion)[:, None]
    *_, last = steps.estimates(bench, chunk, truth & chunk.brain, lesions.name, way)
    image = bench.image(mri.parse_row(row), lesions, chunk, target, truth & chunk.brain)
    assert np.allclose(last[:, 0].numpy(), image, atol=1e-5)


def test_a_perfect_network_has_no_loss_and_a_blind_one_does(bench, lesions):
    from dataclasses import replace

    _, target, _ = mri.chunk_of(lesions, 1)
    truth = 2 * torch.from_numpy(target)[:, None] - 1
    perfect = replace(bench.networks, model=lambda x_t, condition, t: truth, expert=lambda x_t, condition, t: truth - 0.5)
    lines = steps.losses(replace(bench, networks=perfect), lesions, "")
    assert len(lines) == len(steps.TIMES)
    assert all(line["c, inside"] == pytest.approx(0, abs=1e-9) for line in lines)
    assert all(line["c · B, expert, inside"] > 0.1 for line in lines)


def test_both_tables_are_made_and_not_measured_twice(bench, patient, lesions, tmp_path, monkeypatch):
    monkeypatch.setattr(steps.mri, "load", lambda *_: bench)
    monkeypatch.setattr(steps, "patients", lambda *_: [patient])
    options = argparse.Namespace(model="", data=[], split="val", every=1, work=tmp_path)
    tables = steps.measure(options)
    assert [table.stem for table in tables] == ["steps-t1-to-t2-val", "steps-loss-t1-to-t2-val"]
    assert len(tables[0].rows) == 3 * steps.STEPS
    monkeypatch.setattr(steps, "_judge", None)
    assert steps.measure(options)[0].rows == tables[0].rows
    from matplotlib.figure import Figure

    for table in tables:
        canvas = Figure()
        table.draw(canvas)
        assert canvas.axes
