"""What the segmenter learns from: sick patients' slices, and a share of patients who bear no lesion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from localdiff_cli.training.augment import AugmentSettings
from localdiff_cli.training.hard_negatives import HardNegatives
from localdiff_cli.training.loop import step_generator
from localdiff_cli.training.segmenter import LesionDraw, LesionLoss, draw_lesions, flagged_share, lesion_loss, segmenter_loss
from tests.training.data import slices


def marked(name, value, *, lesion=True):
    """A patient whose condition is one value everywhere, to be told from others in a batch."""
    patient = slices(name)
    condition = patient.condition * 0 + value
    return replace(patient, condition=condition, lesion=patient.lesion if lesion else patient.lesion & False)


def drawn(patients, n=400):
    image, _, lesion, _ = draw_lesions(patients, n, LesionDraw(), None, torch.Generator().manual_seed(1)).split(1, dim=1)
    return (image[:, 0, 0, 0] * 65535).round().int(), lesion.flatten(1).any(dim=1)


def test_healthy_patients_are_their_share_however_few_they_are():
    who, with_lesion = drawn([*(marked(f"s{i}", i + 1) for i in range(5)), marked("h", 100, lesion=False)])
    assert abs(float((who == 100).float().mean()) - LesionDraw().healthy_share) < 0.06
    assert not with_lesion[who == 100].any()


def test_two_thirds_of_the_sick_patients_slices_bear_a_lesion():
    _, with_lesion = drawn([marked("a", 1), marked("b", 2)])
    assert abs(float(with_lesion.float().mean()) - 2 / 3) < 0.08


def test_without_sick_patients_healthy_ones_are_drawn():
    who, with_lesion = drawn([marked("h", 7, lesion=False)], 5)
    assert (who == 7).all()
    assert not with_lesion.any()


def test_what_is_bright_on_the_target_and_not_masked_is_in_doubt():
    patient = slices("a")
    target = np.zeros_like(patient.target)
    target[-1, 10:14, 10:14] = 65535  # the lesion of the mask
    target[:, 20, 20] = 65535  # nobody marked this
    drawn = draw_lesions([replace(patient, target=target)], 8, LesionDraw(doubt=1.8), 0.5, torch.Generator().manual_seed(1))
    doubt = drawn[:, 3]
    assert (doubt[:, 20, 20] == 1).all()
    assert (doubt.flatten(1).sum(dim=1) >= 13).all()  # the pixel and those within two of it
    assert not (doubt * drawn[:, 2]).any()


def test_pixels_in_doubt_do_not_move_the_loss():
    generator = torch.Generator().manual_seed(0)
    logits, lesion = torch.randn(2, 1, 8, 8, generator=generator), torch.zeros(2, 1, 8, 8)
    lesion[:, :, 2:4, 2:4] = 1
    kept = torch.ones_like(lesion)
    kept[:, :, 6:] = 0
    other = logits.clone()
    other[:, :, 6:] = 9.0
    assert torch.equal(lesion_loss(logits, lesion, kept, LesionLoss()), lesion_loss(other, lesion, kept, LesionLoss()))
    assert lesion_loss(logits, lesion, torch.ones_like(kept), LesionLoss()) != lesion_loss(
        other, lesion, torch.ones_like(kept), LesionLoss()
    )
    assert lesion_loss(40 * (lesion - 0.5), lesion, kept, LesionLoss()) < 1e-3


def test_more_weight_on_what_is_missed_prefers_too_much_to_too_little():
    lesion = torch.zeros(1, 1, 16, 16)
    lesion[:, :, 4:12, 4:12] = 1
    kept, little, much = torch.ones_like(lesion), lesion.clone(), lesion.clone()
    little[:, :, 4:6] = 0
    much[:, :, 12:14, 4:12] = 1

    def difference(aim):
        return float(lesion_loss(20 * (little - 0.5), lesion, kept, aim) - lesion_loss(20 * (much - 0.5), lesion, kept, aim))

    assert difference(LesionLoss(missed=0.8)) > difference(LesionLoss()) + 0.05


def test_slice_by_slice_a_small_lesion_counts_as_much_as_a_large_one():
    lesion = torch.zeros(3, 1, 32, 32)
    lesion[0, :, 2:30, 2:30] = 1
    lesion[1, :, 2:5, 2:5] = 1
    found = lesion.clone()
    found[1] = 0  # the small one is lost; the third slice has none
    kept = torch.ones_like(lesion)
    whole, each = (float(lesion_loss(20 * (found - 0.5), lesion, kept, LesionLoss(by_slice=share))) for share in (0.0, 1.0))
    assert whole < 0.1
    assert each == pytest.approx(0.5, abs=0.1)
    assert torch.isfinite(lesion_loss(found, torch.zeros_like(lesion), kept, LesionLoss(by_slice=1.0)))


@pytest.mark.parametrize("hard", [None, HardNegatives(widen=1, flat=1, blurred=1, soft=1, bright=1)])
def test_a_step_with_and_without_hard_negatives_is_finite_and_repeats(hard):
    loss_of = segmenter_loss(
        [slices("a"), slices("h", masked=False)], AugmentSettings(), 4, LesionDraw(hard_negatives=hard), None, LesionLoss()
    )
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 1, 3, padding=1)
    first = loss_of(network, step_generator(0, 1))
    assert torch.isfinite(first)
    assert torch.equal(first, loss_of(network, step_generator(0, 1)))


def test_the_flagged_share_is_of_the_brain():
    class All(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.settings = type("S", (), {"multiple": 1})()

        def forward(self, image):
            return torch.full_like(image, 4.0)

    assert flagged_share(All(), slices("a"), 0.5) == 1.0
    assert flagged_share(All(), slices("a"), 0.999) == 0.0
