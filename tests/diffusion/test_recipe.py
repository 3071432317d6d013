"""The recipe written out once more, step by step in NumPy, against ours: plain, local, copy and mean, with step noise.

Nothing of the package is used on NumPy's side: not its schedule, its steps or its masks. Method: arXiv 2404.05980, §3; DDPM: Ho et al.
2020, eq. 7; DDIM: Song et al. 2021, eq. 12; DPM-Solver++(2M): Lu et al. 2022, algorithm 2.
"""

import numpy as np
import pytest
import torch

from localdiff_cli.diffusion.branching import crop_around
from localdiff_cli.diffusion.fusion import LocalSettings, Process, Region, local, plain
from localdiff_cli.diffusion.samplers import step_of
from localdiff_cli.diffusion.schedule import GivenSchedule, step_pairs

SIDE, STEPS, LAMBDA, TIMESTEPS = 12, 8, 0.5, 50
RNG = np.random.default_rng(5)
CONDITION = RNG.uniform(0, 1, (1, 1, SIDE, SIDE))
X_T = RNG.standard_normal((1, 1, SIDE, SIDE))
NOISE = RNG.standard_normal((STEPS, 1, 1, SIDE, SIDE))
M = np.zeros((1, 1, SIDE, SIDE))
M[..., 3:9, 2:7] = RNG.uniform(0.5, 1, (6, 5))
B = M > 0.7
SIGMOID = 1 / (1 + np.exp(-np.linspace(3, -3, TIMESTEPS + 1)))
ALPHA_BAR = ((SIGMOID - SIGMOID[-1]) / (SIGMOID[0] - SIGMOID[-1]))[1:]
ALPHA_BAR[-1] = 1e-5


def network(x, c, t, np=np):
    """Any function of x_t, c and t that mixes pixels: it is not local, and no two inputs give the same."""
    mixed = 0.4 * x + 0.2 * np.roll(x, 1, -1) + 0.1 * np.roll(c, 2, -2)
    return np.tanh(mixed + 1.5 * c - 0.6 + 0.3 * (c * c).mean()) * (1 - 0.002 * t)


class Network:
    """The same function of torch tensors, slice by slice, as the package calls it."""

    def __call__(self, x_t, condition, t):
        made = [network(x[None].numpy(), c[None].numpy(), int(k)) for x, c, k in zip(x_t, condition, t, strict=True)]
        return torch.from_numpy(np.concatenate(made))


def pairs():
    times = [round(float(value)) for value in np.linspace(TIMESTEPS - 1, -1, STEPS + 1)]
    return [(times[k], times[k + 1]) for k in range(STEPS)]


def bar(t):
    return 1.0 if t < 0 else ALPHA_BAR[t]


def numpy_step(name, x, x0, now, then, noise, before):
    """One step from ``now`` to ``then``; ``before`` is the estimate of the step before and its timestep, or None."""
    a, b = bar(now), bar(then)
    if name == "ddpm":
        beta = 1 - a / b
        mean = np.sqrt(b) * beta / (1 - a) * x0 + np.sqrt(1 - beta) * (1 - b) / (1 - a) * x
        return mean + np.sqrt((1 - b) / (1 - a) * beta) * noise
    if name == "ddim":
        return np.sqrt(b) * x0 + np.sqrt(1 - b) * (x - np.sqrt(a) * x0) / np.sqrt(1 - a)
    if then < 0:
        return x0
    lam = {t: np.log(np.sqrt(bar(t) / (1 - bar(t)))) for t in (now, then)}
    h, d = lam[then] - lam[now], x0
    if before is not None:
        x0_before, t_before = before
        h_before = lam[now] - np.log(np.sqrt(bar(t_before) / (1 - bar(t_before))))
        d = (1 + h / h_before / 2) * x0 - h / h_before / 2 * x0_before
    return np.sqrt(1 - b) / np.sqrt(1 - a) * x + np.sqrt(b) * (1 - np.exp(-h)) * d


def numpy_plain(name):
    x, before = X_T, None
    for number, (now, then) in enumerate(pairs()):
        x0 = np.clip(network(x, CONDITION, now), -1, 1)
        x, before = numpy_step(name, x, x0, now, then, NOISE[number], before), (x0, now)
    return x


def numpy_local(name, kind, weight, branch_step, fusion_step, draw=network, emphasis=1.0):
    """Branches apart from ``branch_step`` to ``fusion_step`` steps before the end; both get the same noise."""
    inside, outside = CONDITION * B, CONDITION * np.maximum(1 - B, LAMBDA)
    x, before = X_T, None
    x_ood = x_ind = before_ood = before_ind = None
    for number, (now, then) in enumerate(pairs()):
        if number == branch_step:
            x_ood = x_ind = x
            before_ood = before_ind = before
        if number == STEPS - fusion_step:
            x = weight * x_ood + (1 - weight) * x_ind
            before = (weight * before_ood[0] + (1 - weight) * before_ind[0], before_ood[1])
        if branch_step <= number < STEPS - fusion_step:
            x0_ood, x0_ind = np.clip(draw(x_ood, inside, now), -1, 1), np.clip(network(x_ind, outside, now), -1, 1)
            copy = 2 * inside - 1
            x0_ood = {"network": x0_ood, "copy": copy, "mean": 0.5 * x0_ood + 0.5 * copy}[kind]
            if emphasis != 1:
                x0_ood = np.clip(emphasis * x0_ood - (emphasis - 1) * x0_ind, -1, 1)
            x0_ood = np.where(B, x0_ood, -1)
            x_ood = numpy_step(name, x_ood, x0_ood, now, then, NOISE[number], before_ood)
            x_ind = numpy_step(name, x_ind, x0_ind, now, then, NOISE[number], before_ind)
            before_ood, before_ind = (x0_ood, now), (x0_ind, now)
        else:
            x0 = np.clip(network(x, CONDITION, now), -1, 1)
            x, before = numpy_step(name, x, x0, now, then, NOISE[number], before), (x0, now)
    return weight * x_ood + (1 - weight) * x_ind if fusion_step == 0 else x


def ours(name, expert=None):
    schedule = GivenSchedule(num_train_timesteps=TIMESTEPS, alpha_bars=tuple(ALPHA_BAR.tolist()))
    noise_of = lambda number: torch.from_numpy(NOISE[number])  # noqa: E731
    return Process(Network(), schedule, step_of(name), step_pairs(TIMESTEPS, STEPS), noise_of, expert)


def region():
    return Region(torch.from_numpy(B), torch.from_numpy(M))


C, NOISY = torch.from_numpy(CONDITION), torch.from_numpy(X_T)


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpmpp"])
def test_plain_sampling_is_the_recipe(name):
    np.testing.assert_allclose(plain(ours(name), C, NOISY).numpy(), numpy_plain(name), atol=1e-11)


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpmpp"])
@pytest.mark.parametrize("kind", ["network", "copy", "mean"])
@pytest.mark.parametrize(("branch_step", "fusion_step", "soft"), [(0, 2, False), (0, 0, False), (3, 1, False), (0, 2, True), (2, 0, True)])
def test_local_diffusion_is_the_recipe(name, kind, branch_step, fusion_step, soft):
    settings = LocalSettings(LAMBDA, branch_step, fusion_step, soft, kind)
    made = local(ours(name), C, NOISY, region(), settings).numpy()
    weight = M * B if soft else B.astype(float)
    np.testing.assert_allclose(made, numpy_local(name, kind, weight, branch_step, fusion_step), atol=1e-11)


@pytest.mark.parametrize("kind", ["network", "mean"])
def test_with_an_expert_the_ood_branch_is_the_experts(kind):
    def other(x, c, t):
        return -network(x, c, t)

    class Expert:
        def __call__(self, x_t, condition, t):
            return -Network()(x_t, condition, t)

    made = local(ours("ddpm", Expert()), C, NOISY, region(), LocalSettings(LAMBDA, 0, 1, False, kind)).numpy()
    np.testing.assert_allclose(made, numpy_local("ddpm", kind, B.astype(float), 0, 1, other), atol=1e-11)


def test_an_emphasised_branch_is_the_recipe():
    settings = LocalSettings(LAMBDA, 0, 2, emphasis=1.7)
    made = local(ours("ddpm"), C, NOISY, region(), settings).numpy()
    np.testing.assert_allclose(made, numpy_local("ddpm", "network", B.astype(float), 0, 2, emphasis=1.7), atol=1e-11)


def test_a_copy_asks_the_network_for_the_other_branch_alone_and_no_expert():
    class Counting(Network):
        sizes = ()

        def __call__(self, x_t, condition, t):
            self.sizes += (len(x_t),)
            return super().__call__(x_t, condition, t)

    model, expert = Counting(), Counting()
    process = ours("ddpm", expert)
    process = Process(model, process.schedule, process.step, process.pairs, process.noise_of, expert)
    local(process, C, NOISY, region(), LocalSettings(LAMBDA, 0, 2, False, "copy"))
    assert (model.sizes, expert.sizes) == ((1,) * STEPS, ())


def test_fused_at_the_end_a_copy_is_the_condition_inside_and_no_other_pixel():
    made = local(ours("ddim"), C, NOISY, region(), LocalSettings(LAMBDA, 0, 0, False, "copy")).numpy()
    np.testing.assert_allclose(made[B], (2 * CONDITION - 1)[B], atol=1e-12)
    drawn = local(ours("ddim"), C, NOISY, region(), LocalSettings(LAMBDA, 0, 0)).numpy()
    np.testing.assert_array_equal(made[~B], drawn[~B])


def test_a_copy_of_every_pixel_is_not_the_plain_sampler():
    everything = torch.ones_like(region().mask)
    made = local(ours("ddim"), C, NOISY, Region(everything, everything.double()), LocalSettings(LAMBDA, 0, 0, False, "copy"))
    np.testing.assert_allclose(made.numpy(), 2 * CONDITION - 1, atol=1e-12)


def test_a_copy_costs_the_same_with_a_crop_and_gives_the_same():
    settings = LocalSettings(LAMBDA, 0, 2, False, "copy")
    whole, window = region(), Region(region().mask, region().map, crop_around(region().mask, 1, 4))
    assert torch.equal(local(ours("ddpm"), C, NOISY, whole, settings), local(ours("ddpm"), C, NOISY, window, settings))


def test_another_ood_branch_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="network, copy, mean"):
        local(ours("ddim"), C, NOISY, region(), LocalSettings(ood_branch="paste"))


def test_colour_is_three_channels_under_one_mask():
    """Three channels that the network treats alike give what each gives alone."""
    colours = np.concatenate([CONDITION, 1 - CONDITION, 0.5 * CONDITION], axis=1)
    start = np.concatenate([X_T, X_T[..., ::-1], -X_T], axis=1).copy()
    process, settings = ours("ddim"), LocalSettings(LAMBDA, 0, 1, False, "mean")

    class Channels:
        def __call__(self, x_t, condition, t):
            return torch.cat([Network()(x_t[:, [k]], condition[:, [k]], t) for k in range(3)], dim=1)

    every = Process(Channels(), process.schedule, process.step, process.pairs, process.noise_of)
    made = local(every, torch.from_numpy(colours), torch.from_numpy(start), region(), settings)
    for k in range(3):
        alone = local(process, torch.from_numpy(colours[:, [k]]), torch.from_numpy(start[:, [k]]), region(), settings)
        np.testing.assert_allclose(made[:, [k]].numpy(), alone.numpy(), atol=1e-12)
