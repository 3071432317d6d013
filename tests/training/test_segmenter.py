"""What the segmenter learns from: sick patients' slices, and a share of patients who bear no lesion."""

from __future__ import annotations

from dataclasses import replace

import torch

from localdiff_cli.training.segmenter import HEALTHY_SHARE, draw_lesions
from tests.training.data import slices


def marked(name, value, *, lesion=True):
    """A patient whose condition is one value everywhere, to be told from others in a batch."""
    patient = slices(name)
    condition = patient.condition * 0 + value
    return replace(patient, condition=condition, lesion=patient.lesion if lesion else patient.lesion & False)


def drawn(patients, n=400):
    image, _, lesion = draw_lesions(patients, n, torch.Generator().manual_seed(1))
    return (image[:, 0, 0, 0] * 65535).round().int(), lesion.flatten(1).any(dim=1)


def test_healthy_patients_are_their_share_however_few_they_are():
    who, with_lesion = drawn([*(marked(f"s{i}", i + 1) for i in range(5)), marked("h", 100, lesion=False)])
    assert abs(float((who == 100).float().mean()) - HEALTHY_SHARE) < 0.06
    assert not with_lesion[who == 100].any()


def test_two_thirds_of_the_sick_patients_slices_bear_a_lesion():
    _, with_lesion = drawn([marked("a", 1), marked("b", 2)])
    assert abs(float(with_lesion.float().mean()) - 2 / 3) < 0.08


def test_without_sick_patients_healthy_ones_are_drawn():
    who, with_lesion = drawn([marked("h", 7, lesion=False)], 5)
    assert (who == 7).all()
    assert not with_lesion.any()
