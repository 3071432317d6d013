"""Fitting: which patches go in, how many, and that the same data give the same bank."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from localdiff_cli.errors import NoInputError, UsageError
from localdiff_cli.ood.fit import calibrate_detector, fit_bank, sample_rows
from localdiff_cli.ood.patchcore import brain_patches, score_slice


def _pairs(phantom):
    return list(zip(*phantom, strict=True))


def test_the_bank_holds_patches_of_the_brain_only(backbone, phantom):
    pool = torch.cat([brain_patches(backbone, *pair)[1] for pair in _pairs(phantom)[:2]])
    everything = fit_bank(_pairs(phantom), backbone, coreset_size=10_000, seed=0)
    assert everything.embeddings.shape == pool.shape
    assert {row.tobytes() for row in everything.embeddings.numpy()} == {row.tobytes() for row in pool.numpy()}


def test_the_same_seed_gives_the_same_bank_and_another_seed_another(backbone, phantom):
    one, again, other = (fit_bank(iter(_pairs(phantom)), backbone, 20, seed, max_patches=60).embeddings for seed in (0, 0, 1))
    assert one.shape == (20, 152)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_calibration_sees_every_brain_pixel_of_the_held_out_slices(backbone, phantom):
    bank = fit_bank(_pairs(phantom)[:1], backbone, 20, seed=0)
    calibration = calibrate_detector(_pairs(phantom), backbone, bank)
    pixels = torch.cat([score_slice(backbone, bank, *pair)[0][pair[1]] for pair in _pairs(phantom)])
    assert calibration.values[-1] == pixels.max().item()
    assert calibration.sigma_a == pytest.approx(pixels.double().std(correction=0).item(), rel=1e-6)


def test_progress_counts_slices_and_coreset(backbone, phantom):
    told = []
    bank = fit_bank(_pairs(phantom), backbone, 5, seed=0, progress=lambda *news: told.append(news))
    calibrate_detector(_pairs(phantom), backbone, bank, progress=lambda *news: told.append(news))
    stages = {stage: [done for name, done in told if name == stage] for stage, _ in told}
    assert stages == {"embed": [1, 2, 3], "coreset": [1, 2, 3, 4, 5], "calibrate": [1, 2, 3]}


def test_nothing_to_fit_on_is_refused(backbone, phantom):
    empty = _pairs(phantom)[2:]
    with pytest.raises(NoInputError, match="no brain"):
        fit_bank(empty, backbone, 5, seed=0)
    with pytest.raises(NoInputError):
        calibrate_detector(empty, backbone, fit_bank(_pairs(phantom), backbone, 5, seed=0))
    with pytest.raises(UsageError, match="at least 2"):
        fit_bank(_pairs(phantom), backbone, 1, seed=0)


def _chunks(*sizes):
    rows = torch.arange(sum(sizes), dtype=torch.float32)[:, None].repeat(1, 2)
    return list(rows.split(list(sizes)))


def test_sampling_keeps_everything_in_order_when_it_fits():
    kept = sample_rows(_chunks(3, 0, 5), 8, np.random.default_rng(0))
    assert kept[:, 0].tolist() == list(range(8))
    assert sample_rows(_chunks(3, 0, 5), 100, np.random.default_rng(0)).shape == (8, 2)
    assert sample_rows([], 8, np.random.default_rng(0)).shape == (0, 0)


def test_sampling_is_uniform_over_all_chunks():
    """Each of 60 rows must be kept in a quarter of the draws, early, late, and where a chunk straddles the limit."""
    generator = np.random.default_rng(3)
    counts = np.zeros(60)
    for _ in range(4000):
        kept = sample_rows(_chunks(4, 20, 1, 35), 15, generator)[:, 0].long().numpy()
        assert len(set(kept.tolist())) == 15
        counts[kept] += 1
    # Five standard deviations of a binomial share.
    assert np.abs(counts / 4000 - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 4000)
