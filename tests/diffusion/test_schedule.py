from itertools import pairwise

import pytest
import torch

from localdiff_cli.diffusion.schedule import CLEAN, PREDICTIONS, GivenSchedule, Schedule, step_pairs


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 50, 999, 1000])
def test_pairs_start_at_pure_noise_end_clean_and_join_up(steps):
    pairs = step_pairs(1000, steps)
    assert len(pairs) == steps
    assert pairs[0][0] == 999
    assert pairs[-1][1] == CLEAN
    assert all(a[1] == b[0] for a, b in pairwise(pairs))
    assert all(t > t_prev for t, t_prev in pairs)


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_an_impossible_number_of_steps_is_refused(steps):
    with pytest.raises(ValueError, match="expected 1 to 1000"):
        step_pairs(1000, steps)


def test_alpha_bar_falls_from_one_to_almost_nothing():
    schedule = Schedule()
    values = schedule.alphas_cumprod
    assert schedule.alpha_bar(CLEAN) == 1
    assert bool((values[1:] < values[:-1]).all())
    assert values[-1] < 1e-4


@pytest.mark.parametrize("name", ["linear_beta", "scaled_linear_beta", "cosine", "sigmoid_beta"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_training_target_gives_back_x0(name, prediction):
    schedule = Schedule(name=name, prediction=prediction)
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(2, 1, 3, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    for t in (0, 300, 900):
        times = torch.full((2,), t)
        x_t = schedule.add_noise(x0, noise, times)
        torch.testing.assert_close(schedule.to_x0(schedule.training_target(x0, noise, times), x_t, t), x0, rtol=1e-6, atol=1e-6)


def test_a_given_schedule_is_its_values_and_equals_the_named_one_they_came_from():
    named = Schedule(prediction="epsilon")
    given = GivenSchedule(prediction="epsilon", alpha_bars=tuple(named.alphas_cumprod.tolist()))
    assert torch.equal(given.alphas_cumprod, named.alphas_cumprod)
    assert given.alpha_bar(CLEAN) == 1


@pytest.mark.parametrize("values", [(), (0.9,), (0.9, 0.9), (0.8, 0.9), (1.0, 0.5), (0.5, -0.1), (0.5, 0.0), (float("nan"), 0.5)], ids=str)
def test_values_that_are_no_schedule_are_refused(values):
    with pytest.raises(ValueError, match="alpha_bars"):
        GivenSchedule(num_train_timesteps=2, prediction="epsilon", alpha_bars=values)
