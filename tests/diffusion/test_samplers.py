"""Samplers against a problem whose score is known exactly."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch

from localdiff_cli.diffusion.samplers import STEPS, State, ddim_step, ddpm_step, denoiser, sample, step_of
from localdiff_cli.diffusion.schedule import PREDICTIONS, GivenSchedule, Schedule, step_pairs

MEAN, SD = 0.3, 0.1


def exact_model(schedule: Schedule):
    """The perfect network for targets drawn from N(MEAN, SD²): its posterior mean, as ε, x_0 or v."""

    def model(x_t, condition, t):
        alpha_bar = schedule.alpha_bar(int(t[0]))
        signal, noise = math.sqrt(alpha_bar), 1 - alpha_bar
        x0 = MEAN + signal * SD**2 / (alpha_bar * SD**2 + noise) * (x_t - signal * MEAN)
        epsilon = (x_t - signal * x0) / math.sqrt(noise)
        return {"sample": x0, "epsilon": epsilon, "v_prediction": signal * epsilon - math.sqrt(noise) * x0}[schedule.prediction]

    return model


def draw(name: str, prediction: str, steps: int, n: int = 20_000) -> torch.Tensor:
    """Samples by one sampler, noise antithetic so that the mean has no Monte Carlo error."""
    schedule = Schedule(prediction=prediction)

    def noise_of(number: int) -> torch.Tensor:
        half = torch.randn(1, 1, 1, n // 2, generator=torch.Generator().manual_seed(number + 1), dtype=torch.float64)
        return torch.cat([half, -half], dim=-1)

    x_T = noise_of(-1)
    denoise = denoiser(exact_model(schedule), schedule, torch.zeros_like(x_T), clip=False)
    return sample(step_of(name), denoise, schedule, State(x_T), enumerate(step_pairs(1000, steps)), noise_of).x


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", STEPS)
def test_the_mean_is_within_a_tenth_of_a_percent_at_ten_steps(name, prediction):
    assert draw(name, prediction, 10).mean().item() == pytest.approx(MEAN, rel=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 5, 50, 1000])
@pytest.mark.parametrize("name", STEPS)
def test_the_mean_holds_for_any_number_of_steps(name, steps):
    assert draw(name, "sample", steps, 200).mean().item() == pytest.approx(MEAN, rel=2e-3)


@pytest.mark.parametrize("name", STEPS)
def test_the_spread_is_right_with_many_steps(name):
    assert draw(name, "epsilon", 1000, 4000).std().item() == pytest.approx(SD, rel=0.06)


@pytest.mark.parametrize("name", STEPS)
def test_a_schedule_that_ends_in_pure_noise_is_walked_like_one_that_almost_does(name):
    def run(last):
        bars = (*tuple(0.999 * (1 - k / 99) ** 2 for k in range(99)), last)
        schedule = GivenSchedule(num_train_timesteps=100, prediction="v_prediction", alpha_bars=bars)
        x_T = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        denoise = denoiser(exact_model(schedule), schedule, x_T)
        return sample(step_of(name), denoise, schedule, State(x_T), enumerate(step_pairs(100, 6)), lambda number: x_T).x

    torch.testing.assert_close(run(0.0), run(1e-14), rtol=1e-5, atol=1e-5)


def order_of_convergence(name: str) -> float:
    """How the error falls with the step: slope of log error over log step, between a log-SNR of −2 and 2, steps in the ratio 1 : 2.

    The problem's exact solution is x_t = √ᾱ m + √(ᾱ s² + 1 − ᾱ) z for a fixed z.
    """
    count = 3 * 256
    log_snr = torch.linspace(2, -2, count + 1, dtype=torch.float64)
    schedule = GivenSchedule(num_train_timesteps=count + 1, alpha_bars=tuple(torch.sigmoid(2 * log_snr).tolist()))

    def exact(t: int) -> torch.Tensor:
        alpha_bar = schedule.alpha_bar(t)
        return torch.full((1, 1, 1, 1), math.sqrt(alpha_bar) * MEAN + math.sqrt(alpha_bar * SD**2 + 1 - alpha_bar), dtype=torch.float64)

    denoise, errors = denoiser(exact_model(schedule), schedule, torch.zeros(1, 1, 1, 1), clip=False), []
    for stride in (8, 2):
        times = [t for start in range(count, 0, -3 * stride) for t in (start, start - stride)] + [0]
        end = sample(step_of(name), denoise, schedule, State(exact(count)), enumerate(pairwise(times)), lambda number: torch.zeros(1))
        errors.append(float((end.x - exact(0)).abs()))
    return math.log(errors[0] / errors[1]) / math.log(4)


def test_dpm_solver_is_of_second_order_where_ddim_is_of_first():
    assert order_of_convergence("ddim") == pytest.approx(1, abs=0.1)
    assert order_of_convergence("dpmpp") == pytest.approx(2, abs=0.2)


def test_ddim_with_eta_one_is_the_ancestral_step():
    schedule = Schedule()
    generator = torch.Generator().manual_seed(0)
    x, x0, noise = (torch.randn(1, 1, 4, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    for pair in step_pairs(1000, 7):
        state = State(x)
        ddim = ddim_step(schedule, state, x0, pair, lambda: noise, eta=1.0)
        torch.testing.assert_close(ddim, ddpm_step(schedule, state, x0, pair, lambda: noise))


def test_stopping_and_going_on_changes_nothing():
    schedule = Schedule()
    x_T = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    denoise = denoiser(exact_model(schedule), schedule, torch.zeros_like(x_T))
    pairs = list(enumerate(step_pairs(1000, 9)))
    for name in STEPS:
        run = partial(sample, step_of(name), denoise, schedule, noise_of=lambda number: x_T * (number + 1) / 10)
        whole = run(State(x_T), pairs)
        halves = run(run(State(x_T), pairs[:4]), pairs[4:])
        assert torch.equal(whole.x, halves.x)


def test_the_estimate_is_clipped_to_the_range_of_the_network():
    schedule = Schedule()
    denoise = denoiser(lambda x, c, t: x * 0 + 3, schedule, torch.zeros(1, 1, 2, 2))
    assert denoise(torch.zeros(1, 1, 2, 2), 500).max() == 1


def test_an_unknown_sampler_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="ddim, ddpm, dpmpp"):
        step_of("no-such-sampler")
