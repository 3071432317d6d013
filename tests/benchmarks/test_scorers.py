"""Anomaly scores beside PatchCore: each finds what it is made to find, slice by slice."""

import numpy as np
import pytest
import torch

from examples.benchmarks import scorers
from localdiff_cli.ood.fit import fit_bank


@pytest.fixture
def head():
    """A symmetric brain about column 22.5 with two dark ventricles, and a dark lesion on one side; window −5 to 5."""
    y, x = np.mgrid[:64, :48]
    brain = ((y - 32) / 28) ** 2 + ((x - 22.5) / 19) ** 2 < 1
    image = np.where(brain, 0.5, 0)
    image[28:36, 14:19] = image[28:36, 27:32] = 0.2
    lesion = np.zeros_like(brain)
    lesion[44:52, 26:34] = True
    image[lesion] = 0.3
    return torch.from_numpy(image.astype(np.float32))[None, None], torch.from_numpy(brain)[None, None], lesion


def test_the_line_of_symmetry_is_found_although_the_brain_is_not_in_the_middle(head):
    condition, brain, _ = head
    assert scorers.mirror_line(condition[0, 0].numpy(), brain[0, 0].numpy()) == 45
    image = np.arange(12.0).reshape(2, 6)
    assert scorers.mirrored(image, 4)[0].tolist() == [4, 3, 2, 1, 0, 5]


def test_asymmetry_marks_the_lesion_and_not_the_ventricles(head):
    condition, brain, lesion = head
    score, slices = scorers.asymmetry((-5, 5))(condition, brain)
    a = score[0, 0].numpy()
    assert a[48, 30] > 2 * max(a[48, 15], a[32, 16], a[32, 29])
    assert a[lesion].mean() > 4 * a[brain[0, 0].numpy() & ~lesion].mean()
    assert not a[~brain[0, 0].numpy()].any()
    assert slices[0] == pytest.approx(np.sort(a[brain[0, 0].numpy()])[-60:].mean(), rel=1e-5)
    assert scorers.brightness(-1)(condition, brain)[0][0, 0, 32, 16] > scorers.brightness(1)(condition, brain)[0][0, 0, 32, 16]


def test_the_gaussian_of_chunks_is_that_of_all_rows():
    rows = torch.from_numpy(np.random.default_rng(0).normal(2, [1, 3, 0.5], (4000, 3)).astype(np.float32))
    gaussian = scorers.fit_gaussian(rows.split(700))
    covariance = np.cov(rows.T.numpy(), bias=True) + 0.01 * rows.numpy().var(axis=0).mean() * np.eye(3)
    away = rows[:5].numpy() - rows.numpy().mean(axis=0)
    expected = np.sqrt(np.einsum("pi,ij,pj->p", away, np.linalg.inv(covariance), away))
    assert gaussian.distance(rows[:5]).numpy() == pytest.approx(expected, rel=1e-3)


def test_the_translators_encoder_serves_patchcore(bench, head):
    from localdiff_cli.bundle import load_translator

    condition, brain, lesion = head
    encoder = scorers.TranslatorEncoder(load_translator(bench.bundle, torch.device("cpu")), 999)
    fine, coarse = encoder(condition)
    assert fine.shape[-2] == 2 * coarse.shape[-2]
    healthy = torch.where(torch.from_numpy(lesion), 0.5, condition)
    bank = fit_bank([(healthy[0], brain[0])], encoder, 500)
    scorer = scorers.patchcore(encoder, bank)
    assert scorer(healthy, brain)[0].max() < 1e-3
    marked = scorer(condition, brain)[0][0, 0].numpy()
    assert lesion[np.unravel_index(marked.argmax(), marked.shape)]


def test_disagreement_of_a_slice_does_not_depend_on_its_neighbours(bench, head):
    from dataclasses import replace

    from localdiff_cli.tasks.sampling import SliceSampler

    condition, brain, _ = head
    sampler = SliceSampler(bench.networks, replace(bench.settings, mode="plain", samples=2, steps=2), "x")
    scorer = scorers.disagreement(sampler)
    alone, among = scorer(condition, brain)[0], scorer(torch.cat([condition.flip(-1), condition]), torch.cat([brain.flip(-1), brain]))[0]
    assert torch.equal(alone[0], among[1])
    assert alone[brain].min() > 0
    assert not alone[~brain].any()
