"""Branching and fusion: what must be equal, what must not be read, what must cost nothing."""

from dataclasses import replace

import pytest
import torch

from localdiff_cli.diffusion.branching import crop_around, ind_condition, ood_condition
from localdiff_cli.diffusion.fusion import LocalSettings, Process, Region, fuse, local, plain
from localdiff_cli.diffusion.noise import INITIAL, NoiseKey
from localdiff_cli.diffusion.samplers import STEPS, State, step_of
from localdiff_cli.diffusion.schedule import Schedule, step_pairs

SHAPE = (1, 1, 32, 32)
KEY = NoiseKey(0, 0, "volume")


class Recorder:
    """A small non-local 'network' that mixes a pixel with its neighbours and the whole slice, and keeps what it was shown."""

    def __init__(self):
        self.calls = []

    def __call__(self, x_t, condition, t):
        self.calls.append((x_t.clone(), condition.clone(), int(t[0])))
        blurred = torch.nn.functional.avg_pool2d(x_t, 3, 1, 1)
        return torch.tanh(0.3 * blurred + 2 * condition - 1 + 0.1 * condition.mean(dim=(2, 3), keepdim=True))


def process(model, name="ddim", steps=6, expert=None, eta=0.0):
    return Process(model, Schedule(), step_of(name, eta), step_pairs(1000, steps), lambda n: KEY.batch(n, [0], SHAPE[2:]), expert)


def condition():
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(1))


def x_T():
    return KEY.batch(INITIAL, [0], SHAPE[2:])


def square(low=10, high=20):
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[..., low:high, low:high] = True
    return Region(mask, mask.float())


@pytest.mark.parametrize("name", STEPS)
def test_an_empty_mask_is_the_plain_sampler_at_its_cost(name):
    branched, ordinary = Recorder(), Recorder()
    nothing = torch.zeros(SHAPE, dtype=torch.bool)
    result = local(process(branched, name), condition(), x_T(), Region(nothing, nothing.float()), LocalSettings())
    assert torch.equal(result, plain(process(ordinary, name), condition(), x_T()))
    assert len(branched.calls) == len(ordinary.calls)
    assert all(len(call[0]) == 1 for call in branched.calls)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize(("fusion_step", "branch_step"), [(0, 0), (2, 0), (2, 3), (6, 0)])
def test_a_mask_of_every_pixel_is_the_plain_sampler(name, fusion_step, branch_step):
    everything = torch.ones(SHAPE, dtype=torch.bool)
    settings = LocalSettings(fusion_step=fusion_step, branch_step=branch_step)
    result = local(process(Recorder(), name), condition(), x_T(), Region(everything, everything.float()), settings)
    assert torch.equal(result, plain(process(Recorder(), name), condition(), x_T()))


def test_branching_through_the_whole_of_one_pixel_short_of_everything_still_follows_the_ood_branch():
    mask = torch.ones(SHAPE, dtype=torch.bool)
    mask[..., 0, 0] = False
    result = local(process(Recorder()), condition(), x_T(), Region(mask, mask.float()), LocalSettings(fusion_step=0))
    whole = plain(process(Recorder()), condition() * mask, x_T())
    torch.testing.assert_close(result[mask], whole[mask], atol=0.05, rtol=0)


def test_the_branches_see_their_own_condition_and_the_same_noise():
    model, c, region = Recorder(), condition(), square()
    local(process(model, "ddpm"), c, x_T(), region, LocalSettings(context=0.5))
    x_first, shown, _ = model.calls[0]
    assert torch.equal(x_first[:1], x_first[1:])
    assert torch.equal(shown[:1], c * region.mask)
    assert torch.equal(shown[1:], torch.where(region.mask, 0.5 * c, c))


def test_before_fusion_the_ind_branch_never_reads_the_ood_branch():
    """Another condition inside B, hidden from the IND branch by λ = 0, changes nothing that the IND branch computes."""
    region = square()
    settings = LocalSettings(context=0.0, fusion_step=0)
    first, second = Recorder(), Recorder()
    local(process(first), condition(), x_T(), region, settings)
    local(process(second), torch.where(region.mask, 1 - condition(), condition()), x_T(), region, settings)
    for (x, _, _), (y, _, _) in zip(first.calls, second.calls, strict=True):
        assert torch.equal(x[1:], y[1:])
    assert not torch.equal(first.calls[-1][0][:1], second.calls[-1][0][:1])


def test_fused_at_the_end_the_outside_is_the_ind_branch_and_the_inside_the_ood_branch():
    region, c = square(), condition()
    result = local(process(Recorder()), c, x_T(), region, LocalSettings(context=0.3, fusion_step=0))
    ind = plain(process(Recorder()), ind_condition(c, region.mask, 0.3), x_T())
    assert torch.equal(result[~region.mask], ind[~region.mask])
    assert not torch.equal(result[region.mask], ind[region.mask])


@pytest.mark.parametrize("fusion_step", [0, 1, 3])
def test_joint_steps_run_on_one_slice_with_the_full_condition(fusion_step):
    model, c = Recorder(), condition()
    local(process(model), c, x_T(), square(), LocalSettings(fusion_step=fusion_step))
    sizes = [len(call[0]) for call in model.calls]
    assert sizes == [2] * (6 - fusion_step) + [1] * fusion_step
    assert all(torch.equal(call[1], c) for call in model.calls[6 - fusion_step :])


def test_without_an_expert_nobody_is_told_the_map():
    model, c = Recorder(), condition()
    told = local(replace(process(model), told=True), c, x_T(), square(), LocalSettings())
    assert torch.equal(told, local(process(Recorder()), c, x_T(), square(), LocalSettings()))
    assert {call[1].shape[1] for call in model.calls} == {1}


@pytest.mark.parametrize("branch_step", [1, 3])
def test_plain_steps_come_before_branching(branch_step):
    model, c = Recorder(), condition()
    local(process(model), c, x_T(), square(), LocalSettings(branch_step=branch_step))
    assert [len(call[0]) for call in model.calls] == [1] * branch_step + [2] * (5 - branch_step) + [1]
    assert all(torch.equal(call[1], c) for call in model.calls[:branch_step])


def test_more_steps_asked_for_than_there_are_is_refused():
    with pytest.raises(ValueError, match="exceed 6 steps"):
        local(process(Recorder()), condition(), x_T(), square(), LocalSettings(branch_step=4, fusion_step=3))


def test_soft_fusion_with_a_map_of_ones_is_hard_fusion_and_half_is_between():
    region = square()
    hard = local(process(Recorder()), condition(), x_T(), region, LocalSettings(fusion_step=0))
    ones = local(process(Recorder()), condition(), x_T(), region, LocalSettings(fusion_step=0, soft=True))
    assert torch.equal(hard, ones)
    half = local(process(Recorder()), condition(), x_T(), Region(region.mask, region.map / 2), LocalSettings(fusion_step=0, soft=True))
    ind = plain(process(Recorder()), ind_condition(condition(), region.mask, 0.95), x_T())
    torch.testing.assert_close(half, torch.where(region.mask, (hard + ind) / 2, ind))


def test_the_map_outside_the_mask_is_not_blended():
    region = square()
    leaking = Region(region.mask, torch.full(SHAPE, 0.4).masked_fill(region.mask, 1.0))
    soft = LocalSettings(fusion_step=0, soft=True)
    assert torch.equal(
        local(process(Recorder()), condition(), x_T(), leaking, soft), local(process(Recorder()), condition(), x_T(), region, soft)
    )


def test_the_expert_runs_inside_only_and_keeps_the_rest():
    region, expert = square(), Recorder()
    settings = LocalSettings(fusion_step=0)
    with_expert = local(process(Recorder(), expert=lambda x, c, t: expert(x, c, t) * 0 + 0.7), condition(), x_T(), region, settings)
    without = local(process(Recorder()), condition(), x_T(), region, settings)
    torch.testing.assert_close(with_expert[region.mask], torch.full_like(with_expert[region.mask], 0.7))
    assert torch.equal(with_expert[~region.mask], without[~region.mask])
    assert len(expert.calls) == 6


def test_with_an_expert_a_mask_of_every_pixel_is_not_the_plain_sampler():
    everything = torch.ones(SHAPE, dtype=torch.bool)
    result = local(
        process(Recorder(), expert=lambda x, c, t: x * 0 + 0.7),
        condition(),
        x_T(),
        Region(everything, everything.float()),
        LocalSettings(fusion_step=0),
    )
    torch.testing.assert_close(result, torch.full(SHAPE, 0.7))


def test_a_crop_shows_the_ood_branch_its_window_only_and_changes_nothing_outside():
    region, model = square(), Recorder()
    crop = crop_around(region.mask, margin=2, multiple=4)
    result = local(process(model), condition(), x_T(), Region(region.mask, region.map, crop), LocalSettings(fusion_step=0))
    assert {call[0].shape[-2:] for call in model.calls} == {(16, 16), (32, 32)}
    whole = local(process(Recorder()), condition(), x_T(), region, LocalSettings(fusion_step=0))
    assert torch.equal(result[~region.mask], whole[~region.mask])


@pytest.mark.parametrize(
    ("low", "high", "rows"), [(0, 3, (0, 8)), (10, 20, (8, 24)), (12, 18, (8, 20)), (30, 32, (28, 32)), (0, 32, (0, 32))]
)
def test_the_crop_holds_the_mask_with_its_margin_on_multiples(low, high, rows):
    crop = crop_around(square(low, high).mask, margin=2, multiple=4)
    assert (crop.rows.start, crop.rows.stop) == rows


def test_guided_timing_fuses_at_once_when_the_anomaly_shows_and_never_when_it_does_not():
    settings = LocalSettings(fusion_step=3)
    always, never, fixed = Recorder(), Recorder(), Recorder()
    at_once = local(process(always), condition(), x_T(), square(), settings, shows=lambda x0: True)
    assert torch.equal(at_once, local(process(fixed), condition(), x_T(), square(), settings))
    late = local(process(never), condition(), x_T(), square(), settings, shows=lambda x0: False)
    assert torch.equal(late, local(process(Recorder()), condition(), x_T(), square(), LocalSettings(fusion_step=0)))


def test_guided_timing_waits_as_long_as_the_classifier_says():
    answers = iter([False, True])
    model = Recorder()
    waited = local(process(model), condition(), x_T(), square(), LocalSettings(fusion_step=3), shows=lambda x0: next(answers))
    assert torch.equal(waited, local(process(Recorder()), condition(), x_T(), square(), LocalSettings(fusion_step=2)))


def test_fusing_blends_both_the_image_and_its_estimate():
    weight = torch.full(SHAPE, 0.25)
    state = State(torch.cat([torch.ones(SHAPE), torch.zeros(SHAPE)]), torch.cat([torch.full(SHAPE, 2.0), torch.full(SHAPE, 1.0)]), 5)
    fused = fuse(state, weight)
    assert torch.equal(fused.x, torch.full(SHAPE, 0.25))
    assert torch.equal(fused.x0, torch.full(SHAPE, 1.25))


def test_conditions_add_up_to_the_whole_when_no_context_is_left():
    c, mask = condition(), square().mask
    assert torch.equal(ood_condition(c, mask) + ind_condition(c, mask, 0.0), c)
    assert torch.equal(ind_condition(c, mask, 1.0), c)
