"""Calibration, the mapping A → M and the cleaning M → B."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from localdiff_cli.errors import ModelError, NoInputError, UsageError
from localdiff_cli.ood.threshold import Calibration, calibrate, to_mask, to_probability


@pytest.fixture(scope="module")
def pixels():
    """Scores with a heavy upper tail, as distances have."""
    return torch.from_numpy(np.random.default_rng(0).gamma(4, 2, 400_000).astype(np.float32))


@pytest.fixture(scope="module")
def calibration(pixels):
    return calibrate(pixels)


@pytest.mark.parametrize("false_alarm", [0.5, 0.1, 0.05, 0.0137, 0.01, 0.001, 0.0002])
def test_the_share_of_healthy_pixels_above_the_threshold_is_the_false_alarm_rate(pixels, calibration, false_alarm):
    share = (pixels > calibration.tau_a(false_alarm)).double().mean().item()
    assert share == pytest.approx(false_alarm, rel=0.03)


def test_sigma_is_the_standard_deviation(pixels, calibration):
    assert calibration.sigma_a == pytest.approx(pixels.double().std().item(), rel=1e-5)


def test_chunks_calibrate_like_the_whole(pixels, calibration):
    assert calibrate(chunk for chunk in pixels.split(33_333)) == calibration
    assert calibrate(pixels.reshape(400, 1000)) == calibration


@given(st.floats(1e-6, 1 - 1e-6), st.floats(1e-6, 1 - 1e-6))
def test_fewer_false_alarms_never_lower_the_threshold(calibration, one, other):
    low, high = sorted((one, other))
    assert calibration.tau_a(high) <= calibration.tau_a(low)


@pytest.mark.parametrize("false_alarm", [0.0, 1.0, -0.1, 5.0, float("nan")])
def test_false_alarm_rates_outside_0_1_are_refused(calibration, false_alarm):
    with pytest.raises(UsageError, match="between 0 and 1"):
        calibration.tau_a(false_alarm)


def test_calibration_survives_json(calibration):
    assert Calibration.from_dict(json.loads(json.dumps(calibration.to_dict()))) == calibration


@pytest.mark.parametrize(
    "entries",
    [
        {},
        {"levels": [0, 1], "values": [0, 1]},
        {"levels": [0, 1], "values": [1, 0], "sigma_a": 1},
        {"levels": [0, 1], "values": [0], "sigma_a": 1},
        {"levels": [0, 1], "values": [0, float("nan")], "sigma_a": 1},
        {"levels": [0, 1], "values": [0, 1], "sigma_a": -1},
        {"levels": "ab", "values": [0, 1], "sigma_a": 1},
    ],
)
def test_damaged_calibrations_are_refused(entries):
    with pytest.raises(ModelError, match="fit the detector again"):
        Calibration.from_dict(entries)


def test_calibrating_on_nothing_is_refused():
    with pytest.raises(NoInputError):
        calibrate([])
    with pytest.raises(NoInputError):
        calibrate(torch.zeros(0))


def test_probability_is_the_squared_ramp_of_the_method():
    result = to_probability(torch.tensor([0.0, 6.0, 7.0, 8.0, 10.0, 99.0]), tau_a=10, sigma_a=4)
    torch.testing.assert_close(result, torch.tensor([0, 0, 1 / 16, 1 / 4, 1, 1]))


@given(
    scores=st.lists(st.floats(0, 1e6, width=32), min_size=2, max_size=20),
    tau_a=st.floats(0, 1e4, width=32),
    sigma_a=st.one_of(st.just(0.0), st.floats(2**-10, 1e4, width=32)),
)
def test_probability_is_monotone_and_in_range(scores, tau_a, sigma_a):
    result = to_probability(torch.tensor(sorted(scores)), tau_a, sigma_a)
    assert (result >= 0).all()
    assert (result <= 1).all()
    assert (result.diff() >= 0).all()


def test_probability_without_spread_is_a_step():
    assert to_probability(torch.tensor([0.9, 1.0, 1.1]), tau_a=1, sigma_a=0).tolist() == [0, 0, 1]


def _blank(rows=41, columns=41):
    return torch.zeros(1, 1, rows, columns), torch.ones(1, 1, rows, columns, dtype=torch.bool)


def test_dilation_is_a_disc_in_millimetres_on_an_anisotropic_grid():
    ood_map, brain = _blank()
    ood_map[0, 0, 20, 20] = 1
    mask = to_mask(ood_map, 0.5, brain, open_mm=0, dilate_mm=6, spacing=(3.0, 1.0))[0, 0].numpy()
    rows, columns = np.indices((41, 41))
    expected = np.hypot((rows - 20) * 3.0, (columns - 20) * 1.0) <= 6
    np.testing.assert_array_equal(mask, expected)
    assert mask[:, 20].sum() == 5
    assert mask[20].sum() == 13


def test_a_pixel_exactly_on_the_rim_of_the_disc_counts():
    """0.3 / 0.1 is 2.999… in floating point."""
    ood_map, brain = _blank()
    ood_map[0, 0, 20, 20] = 1
    assert to_mask(ood_map, 0.5, brain, 0, 0.3, (0.1, 0.1))[0, 0, 20].sum() == 7


def test_opening_removes_what_is_narrower_than_the_disc_in_millimetres():
    """A bar 5 px wide is 5 mm along columns of 1 mm: a disc of 2 mm passes, one of 3 mm does not; at 2 mm spacing both pass."""
    ood_map, brain = _blank()
    ood_map[..., 5:36, 18:23] = 1

    def left(open_mm, column_mm):
        return int(to_mask(ood_map, 0.5, brain, open_mm, 0, (1.0, column_mm)).sum())

    assert left(2, 1.0) > 0
    assert left(3, 1.0) == 0
    assert left(3, 2.0) > 0


def test_opening_removes_specks_and_keeps_blobs():
    ood_map, brain = _blank()
    ood_map[0, 0, 5, 5] = 1
    ood_map[0, 0, 18:27, 18:27] = 1
    mask = to_mask(ood_map, 0.5, brain, open_mm=2, dilate_mm=0, spacing=(1, 1))
    assert not mask[0, 0, 5, 5]
    assert mask[0, 0, 22, 22]
    assert not (mask & (ood_map == 0)).any()


def test_mask_never_leaves_the_brain():
    ood_map, brain = _blank()
    brain[..., 22:] = False
    ood_map[0, 0, 15:25, 15:30] = 1
    mask = to_mask(ood_map, 0.5, brain, open_mm=1, dilate_mm=5, spacing=(1, 1))
    assert mask.any()
    assert not (mask & ~brain).any()


def test_a_map_beside_the_brain_does_not_grow_into_it():
    ood_map, brain = _blank()
    brain[..., 22:] = False
    ood_map[0, 0, 10:30, 22:35] = 1
    assert not to_mask(ood_map, 0.5, brain, open_mm=1, dilate_mm=5, spacing=(1, 1)).any()


def test_threshold_is_inclusive_and_slices_do_not_mix():
    ood_map, brain = torch.zeros(2, 1, 9, 9), torch.ones(2, 1, 9, 9, dtype=torch.bool)
    ood_map[0, 0, 4, 4] = 0.5
    mask = to_mask(ood_map, 0.5, brain, 0, 2, (1, 1))
    assert mask[0].sum() == 13
    assert mask[1].sum() == 0


def test_a_region_stays_only_where_the_map_reaches_the_peak_in_the_same_slice():
    ood_map, brain = torch.zeros(2, 1, 12, 12), torch.ones(2, 1, 12, 12, dtype=torch.bool)
    ood_map[0, 0, 1:4, 1:4] = 0.3
    ood_map[0, 0, 4, 4] = 0.6  # touches the first region at a corner
    ood_map[0, 0, 7:10, 7:10] = 0.3
    ood_map[1, 0, 1:4, 1:4] = 0.4
    kept = to_mask(ood_map, 0.2, brain, 0, 0, (1, 1), peak=0.5)
    assert kept[0, 0, 1:5, 1:5].sum() == kept.sum() == 10
    assert to_mask(ood_map, 0.2, brain, 0, 0, (1, 1)).sum() == 28
    assert torch.equal(to_mask(ood_map, 0.35, brain, 0, 0, (1, 1), peak=0.3), ood_map >= 0.35)


def test_what_reaches_the_peak_outside_the_brain_keeps_nothing():
    ood_map, brain = _blank()
    ood_map[0, 0, 10:20, 10:20] = 0.3
    ood_map[0, 0, 20, 20] = ood_map[0, 0, 15, 15] = 0.9
    brain[0, 0, 20, 20] = brain[0, 0, 15, 15] = False
    assert not to_mask(ood_map, 0.2, brain, 0, 0, (1, 1), peak=0.5).any()


@pytest.mark.parametrize(("open_mm", "dilate_mm", "spacing"), [(-1, 0, (1, 1)), (0, -1, (1, 1)), (0, 0, (0, 1))])
def test_impossible_sizes_are_refused(open_mm, dilate_mm, spacing):
    with pytest.raises(UsageError, match="mm"):
        to_mask(*_blank()[:1], 0.5, _blank()[1], open_mm, dilate_mm, spacing)


@pytest.mark.parametrize("peak", [0.0, 0.8])
def test_a_mask_does_not_ask_how_much_of_the_slices_is_marked(peak):
    chance = torch.Generator().manual_seed(0)
    ood_map = torch.zeros(3, 1, 40, 30)
    ood_map[1, 0, 3:9, 20:30] = torch.rand(6, 10, generator=chance)
    ood_map[1, 0, 0:2, 0:2] = 0.9
    brain = torch.ones(ood_map.shape, dtype=torch.bool)
    alone = to_mask(ood_map, 0.4, brain, 1, 3, (1.0, 1.0), peak)
    ood_map[0], ood_map[2] = 0.6, 0.9
    assert torch.equal(to_mask(ood_map, 0.4, brain, 1, 3, (1.0, 1.0), peak)[1], alone[1])
    assert alone[1].any()
    assert not alone[[0, 2]].any()
