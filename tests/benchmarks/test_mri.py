"""The lesion experiment on tiny bundles: counts by hand, rows that differ as they should, a run that is not done twice."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from examples.benchmarks import mri
from localdiff_cli.errors import UsageError


class Threshold(torch.nn.Module):
    """A segmenter that marks bright pixels."""

    class settings:
        multiple = 1

    def forward(self, image):
        return 50 * (image - 0.8)


def flat(bench, value):
    """The bench with a polynomial of one value everywhere."""
    metadata = {**bench.bundle.metadata, "training": {"translator": {"polynomial": [value]}}}
    return replace(bench, bundle=replace(bench.bundle, metadata=metadata))


def test_counts_of_the_true_contrast_and_of_the_polynomial(bench, patient):
    target = patient.target.copy()
    target[patient.lesion] = 60000
    target[~patient.lesion] = np.minimum(target[~patient.lesion], 40000)
    patient = replace(patient, target=target)
    bench = replace(bench, segmenter=Threshold())
    true = mri.measure(bench, mri.Row("true", "true"), patient, 1)
    assert (true["found"], true["missed"], true["free"], true["invented"]) == (2, 0, 2, 0)
    assert true["dice"] == 1
    assert true["psnr_brain"] is None
    assert true["contrast"] > 0.2
    lost = mri.measure(flat(bench, 0.1), mri.Row("polynomial", "polynomial"), patient, 1)
    assert (lost["found"], lost["missed"], lost["invented"]) == (2, 2, 0)
    assert lost["contrast"] == pytest.approx(0, abs=1e-6)
    assert mri.measure(flat(bench, 0.9), mri.Row("polynomial", "polynomial"), patient, 1)["invented"] == 2


def test_rows_use_the_mask_the_expert_and_the_settings_they_name(bench, patient):
    def image(text):
        row = mri.parse_row(text)
        chunk, target, lesion = mri.chunk_of(patient, 1)
        return bench.image(row, patient, chunk, target, torch.from_numpy(lesion)[:, None])

    plain, local = image("none"), image("truth,fusion_step=0")
    outside = ~patient.lesion.any(axis=(1, 2))
    assert np.array_equal(plain[outside], local[outside])
    assert not np.array_equal(plain, local)
    expert = image("truth+expert,fusion_step=0")
    assert not np.array_equal(expert, local)
    assert np.array_equal(expert[~patient.lesion], local[~patient.lesion])
    assert not np.array_equal(image("truth+expert,fusion_step=2"), expert)
    assert not np.array_equal(image("patchcore"), plain)
    assert np.array_equal(image("patchcore,open_mm=50"), plain)
    assert not np.array_equal(image("none,steps=2"), plain)


def test_a_mask_redrawn_each_step_is_the_hard_mask_where_all_draws_agree(bench, patient):
    chunk, target, lesion = mri.chunk_of(patient, 1)
    hard = (("soft", False), ("steps", 3), ("fusion_step", 1))
    redrawn = mri.Row("redrawn", "truth", True, changes=hard, wrong=(mri.REDRAWN, 0.0))

    def image(row):
        return bench.image(row, patient, chunk, target, torch.from_numpy(lesion)[:, None])

    once = image(mri.Row("once", "truth", True, changes=hard, wrong=("noise", 0.0)))
    np.testing.assert_allclose(image(redrawn), once, atol=1e-6)
    stronger = image(replace(redrawn, wrong=(mri.REDRAWN, 1.0)))
    assert np.abs(stronger - image(mri.Row("", "truth", True, changes=hard, wrong=("noise", 1.0)))).max() > 0.01
    figures = mri.measure(bench, replace(redrawn, wrong=(mri.REDRAWN, 1.0)), patient, 1)
    assert 0 < figures["mask_dice"] < 1
    assert mri.measure(bench, redrawn, patient, 1)["mask_dice"] == 1


def test_a_run_is_not_measured_twice_and_its_table_has_intervals(bench, patient, tmp_path, monkeypatch):
    cases = [replace(patient, name=name) for name in "abcd"]
    rows = (mri.Row("plain", "none"), mri.Row("local", "truth"))
    first = mri.run(bench, rows, cases, 2, tmp_path / "cache")
    monkeypatch.setattr(mri, "measure", None)
    assert mri.run(bench, rows, cases, 2, tmp_path / "cache") == first
    table = list(csv.DictReader(io.StringIO(mri.to_tsv(mri.table(first))), delimiter="\t"))
    assert [line["row"] for line in table] == ["plain", "local"]
    assert all(line["patients"] == "4" for line in table)


def test_missed_and_the_reduction_are_pooled_over_slices():
    def case(missed, found=4, invented=1, free=10):
        return dict.fromkeys(mri.FIGURES, 1.0) | {"features": [[0.0]], "missed": missed, "found": found, "invented": invented, "free": free}

    line = mri.table({"plain": [case(4), case(2)], "local": [case(1), case(2)]})[1]
    assert line["missed %"].startswith("37.5")
    assert line["invented %"].startswith("10.0")
    assert line["fewer missed than plain %"].startswith("50.0")


@pytest.mark.parametrize("text", ["moon", "truth+moon"])
def test_an_unknown_row_is_refused(text):
    with pytest.raises(UsageError, match="--row"):
        mri.parse_row(text)


def test_ssim_psnr_and_mae_of_a_region_are_those_of_its_pixels(bench, patient):
    row = mri.Row("polynomial", "polynomial")
    found = mri.measure(flat(bench, 0.4), row, patient, 1)
    _, target, lesion = mri.chunk_of(patient, 1)
    error = np.abs(np.float32(0.4) - target)[lesion & patient.brain]
    assert found["mae_lesion"] == pytest.approx(error.mean(), rel=1e-5)
    assert found["psnr_lesion"] == pytest.approx(-10 * np.log10((error**2).mean()), rel=1e-5)
    free = np.abs(np.float32(0.4) - target)[:2][patient.brain[:2]]
    assert found["mae_healthy"] == pytest.approx(free.mean(), rel=1e-5)
    true = mri.measure(bench, mri.Row("true", "true"), patient, 1)["contrast"]
    assert found["ssim_brain"] < 1
    assert found["bias"] == pytest.approx(found["contrast"] - true)


def test_the_slope_is_one_where_contrast_is_kept_and_nought_where_it_is_lost():
    def case(true, made):
        counts = {"missed": 1, "found": 2, "invented": 0, "free": 3, "features": [[0.0]]}
        return dict.fromkeys(mri.FIGURES, 1.0) | counts | {"contrast": made, "bias": made - true}

    kept, lost = ([case(true, factor * true) for true in (0.1, 0.2, 0.3)] for factor in (1, 0))
    assert mri.table({"kept": kept})[0]["slope"] == "1.00"
    assert mri.table({"lost": lost})[0]["slope"] in ("0.00", "-0.00")


def test_a_pasted_region_has_a_seam_and_an_even_image_has_none():
    region, brain = np.zeros((1, 40, 40), bool), np.ones((1, 40, 40), bool)
    region[:, 14:26, 14:26] = True
    ramp = np.tile(np.linspace(0, 1, 40), (1, 40, 1))
    assert mri.seam(ramp, region, brain) == pytest.approx(1)
    assert mri.seam(ramp + 0.3 * region, region, brain) > 2
    assert mri.seam(ramp, region & False, brain) is None


def test_kid_is_least_for_the_true_contrast(bench, patient):
    rows = {"true target contrast": mri.Row("", "true"), "flat": mri.Row("", "polynomial")}
    results = {label: [mri.measure(flat(bench, 0.4), row, patient, 1)] * 2 for label, row in rows.items()}
    true, other = (float(line["kid"]) for line in mri.table(results))
    assert true < other
