"""Detectors: one contract, results that do not depend on the batch, lesions above healthy tissue."""

from __future__ import annotations

import pytest
import torch

from localdiff_cli.errors import UsageError
from localdiff_cli.ood.detector import Detector, PatchCoreDetector, from_map
from localdiff_cli.ood.fit import calibrate_detector, fit_bank
from localdiff_cli.ood.threshold import Calibration


@pytest.fixture(scope="module")
def phantom_detector(backbone, phantom) -> Detector:
    bank = fit_bank(zip(*(part.flip(3) for part in phantom), strict=True), backbone, coreset_size=40, seed=0)
    return PatchCoreDetector(backbone, bank, calibrate_detector(zip(*phantom, strict=True), backbone, bank), false_alarm=0.1)


@pytest.fixture(scope="module")
def brain_detector(backbone, healthy_slices) -> PatchCoreDetector:
    """Fitted on all but the last nine slices and calibrated on five of these; the last four are left for the test."""
    bank = fit_bank(healthy_slices[:-9], backbone, coreset_size=600, seed=0)
    return PatchCoreDetector(backbone, bank, calibrate_detector(healthy_slices[-9:-4], backbone, bank), false_alarm=0.05)


def test_detection_has_the_contracts_shapes_and_ranges(phantom_detector, phantom):
    detection = phantom_detector(*phantom)
    assert detection.score.shape == detection.ood_map.shape == (3, 1, 96, 80)
    assert detection.slice_score.shape == (3,)
    assert (detection.score >= 0).all()
    assert (detection.ood_map >= 0).all()
    assert (detection.ood_map <= 1).all()


def test_results_are_bit_identical_whatever_the_batch(phantom_detector, phantom):
    condition, brain = phantom
    together = phantom_detector(condition, brain)
    turned = phantom_detector(condition.flip(0), brain.flip(0))
    for i in range(3):
        alone = phantom_detector(condition[i : i + 1], brain[i : i + 1])
        for name in ("score", "ood_map", "slice_score"):
            assert torch.equal(getattr(together, name)[i], getattr(alone, name)[0])
            assert torch.equal(getattr(turned, name)[2 - i], getattr(alone, name)[0])


def test_nothing_is_found_outside_the_brain_or_in_an_empty_slice(phantom_detector, phantom):
    detection = phantom_detector(*phantom)
    assert (detection.score[~phantom[1]] == 0).all()
    assert (detection.ood_map[~phantom[1]] == 0).all()
    assert detection.slice_score[2] == 0
    assert detection.slice_score[0] > 0


def test_map_is_zero_outside_the_brain_even_where_zero_distance_has_a_probability(backbone, phantom_detector, phantom):
    wide = Calibration((0.0, 1.0), (0.0, 1e-3), sigma_a=1.0)
    detection = PatchCoreDetector(backbone, phantom_detector.bank, wide, 0.5)(*phantom)
    assert (detection.ood_map[phantom[1]] > 0).all()
    assert (detection.ood_map[~phantom[1]] == 0).all()


def test_an_empty_batch_is_allowed(phantom_detector):
    detection = phantom_detector(torch.zeros(0, 1, 32, 32), torch.zeros(0, 1, 32, 32, dtype=torch.bool))
    assert detection.score.shape == detection.ood_map.shape == (0, 1, 32, 32)
    assert detection.slice_score.shape == (0,)


def test_held_out_alarms_are_the_asked_share(phantom_detector, phantom):
    detection = phantom_detector(*phantom)
    share = (detection.score[phantom[1]] > phantom_detector.tau_a).float().mean().item()
    assert share == pytest.approx(0.1, abs=0.005)


def test_misfits_are_refused(phantom_detector, phantom):
    condition, brain = phantom
    with pytest.raises(ValueError, match="bool brain"):
        phantom_detector(condition, brain.float())
    with pytest.raises(ValueError, match="bool brain"):
        phantom_detector(condition[:2], brain)
    with pytest.raises(ValueError, match="not finite"):
        phantom_detector(condition / 0, brain)


def test_an_impossible_false_alarm_rate_is_refused_at_construction(backbone, phantom_detector):
    with pytest.raises(UsageError):
        PatchCoreDetector(backbone, phantom_detector.bank, phantom_detector.calibration, false_alarm=1.5)


def test_a_users_map_is_its_own_score():
    ood_map = torch.rand(2, 1, 8, 8)
    detection = from_map(ood_map)
    assert torch.equal(detection.score, ood_map)
    assert torch.equal(detection.ood_map, ood_map)
    assert torch.equal(detection.slice_score, ood_map.amax(dim=(1, 2, 3)))
    assert from_map(ood_map > 0.5).ood_map.dtype == torch.float32


@pytest.mark.parametrize("value", [-0.1, 255.0, float("nan")])
def test_a_users_map_outside_0_1_is_refused(value):
    ood_map = torch.zeros(1, 1, 4, 4)
    ood_map[0, 0, 1, 2] = value
    with pytest.raises(UsageError, match=r"\[0, 1\]"):
        from_map(ood_map)


def _plant(condition, brain, radius=12, value=0.95):
    """A bright blob with a soft rim where the brain is deepest."""
    rows, columns = brain[0].nonzero(as_tuple=True)
    row, column = rows.float().mean() + 15, columns.float().mean() + 20
    grid = torch.meshgrid(*(torch.arange(float(n)) for n in brain.shape[1:]), indexing="ij")
    distance = ((grid[0] - row) ** 2 + (grid[1] - column) ** 2).sqrt()
    weight = torch.sigmoid((radius - distance) / 1.5)
    lesion = (distance < radius) & brain[0]
    return torch.where(brain, condition * (1 - weight) + value * weight, 0.0), lesion[None]


def test_a_lesion_planted_in_a_real_slice_ranks_above_healthy_tissue(brain_detector, healthy_slices):
    held_out = healthy_slices[-4:]
    healthy = brain_detector(*(torch.stack(part) for part in zip(*held_out, strict=True)))
    planted = [_plant(*pair) for pair in held_out]
    brain = torch.stack([pair[1] for pair in held_out])
    lesion = torch.stack([pair[1] for pair in planted])
    sick = brain_detector(torch.stack([pair[0] for pair in planted]), brain)
    assert (sick.slice_score > healthy.slice_score).all()
    for i in range(4):
        inside, around = sick.score[i][lesion[i]], sick.score[i][brain[i] & ~lesion[i]]
        # AUROC by a sample of pairs: a lesion pixel outranks a healthy one.
        generator = torch.Generator().manual_seed(i)
        pairs = [part[torch.randint(part.numel(), (4000,), generator=generator)] for part in (inside, around)]
        assert (pairs[0] > pairs[1]).float().mean() > 0.9
        assert sick.ood_map[i][lesion[i]].mean() > 3 * healthy.ood_map[i][lesion[i]].mean()
