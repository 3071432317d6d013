"""What the translator is trained on, and that its loss leads somewhere."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from localdiff_cli.diffusion.network import NetworkSettings, TranslatorNetwork
from localdiff_cli.diffusion.schedule import Schedule
from localdiff_cli.errors import UsageError
from localdiff_cli.training.augment import AugmentSettings
from localdiff_cli.training.loop import LoopSettings, step_generator, train
from localdiff_cli.training.translator import (
    all_slices,
    draw,
    first_or_any,
    healthy_slices,
    mean_prediction,
    polynomial_map,
    stratified_times,
    translator_loss,
)

from .data import slices

TINY = NetworkSettings(space_to_depth=2, channels=(32, 32), num_res_blocks=1, attention_levels=(False, True), num_head_channels=16)
STILL = AugmentSettings(rotation=0, scale=0, shift=0, contrast=0, gamma=0, noise=0)


def test_slices_with_a_lesion_are_never_healthy_and_splits_stay_apart():
    found = healthy_slices([slices("a"), slices("b", "val"), slices("c", masked=False)], "train")
    assert [p.name for p in found.patients] == ["a", "c"]
    assert [rows.tolist() for rows in found.rows] == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5]]
    assert found.count == 11


def test_a_split_without_healthy_slices_is_refused():
    with pytest.raises(UsageError, match="test"):
        healthy_slices([slices("a")], "test")


def test_a_batch_holds_condition_target_and_brain_of_the_same_slices():
    used = healthy_slices([slices("a"), slices("b", seed=1)], "train")
    condition, target, brain, lesion = draw(used, 8, step_generator(0, 0))
    assert condition.shape == target.shape == brain.shape == lesion.shape == (8, 1, 32, 32)
    assert not lesion.any()
    assert torch.equal(condition, target)
    assert not condition[brain == 0].any()
    known = [
        torch.from_numpy(p.condition[r].astype(np.float32) / 65535) for p, rows in zip(used.patients, used.rows, strict=True) for r in rows
    ]
    assert all(any(torch.equal(c[0], k) for k in known) for c in condition)
    assert torch.equal(condition, draw(used, 8, step_generator(0, 0))[0])


def test_timesteps_cover_the_schedule_one_in_each_part():
    for n in (1, 4, 8):
        times = stratified_times(n, 1000, step_generator(0, n))
        assert sorted((times * n // 1000).tolist()) == list(range(n))
    many = torch.cat([stratified_times(8, 1000, step_generator(0, k)) for k in range(400)])
    assert many.min() < 5
    assert many.max() >= 995
    assert torch.histc(many.float(), 10, 0, 1000).std() < 30
    assert stratified_times(8, 8, step_generator(0, 0)).sort().values.tolist() == list(range(8))
    assert stratified_times(8, 1000, step_generator(0, 1)).tolist() != sorted(stratified_times(8, 1000, step_generator(0, 1)).tolist())


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction"])
def test_the_loss_falls_on_the_identity_map(tmp_path, prediction):
    used = healthy_slices([slices("a"), slices("b", seed=1)], "train")
    torch.manual_seed(0)
    settings = LoopSettings(steps=40, batch_size=4, rate=3e-3, warmup=5, report_every=10)
    loss = translator_loss(used, Schedule(prediction=prediction), STILL, 4)
    _, curve = train(TranslatorNetwork(TINY), loss, settings, tmp_path / "c.pt", lambda progress: None)
    assert curve[-1][1] < 0.5 * curve[0][1], curve


def test_a_trained_network_tells_the_mean_from_pure_noise(tmp_path):
    used = healthy_slices([slices("a")], "train")
    torch.manual_seed(0)
    schedule = Schedule()
    average, _ = train(
        TranslatorNetwork(TINY),
        translator_loss(used, schedule, STILL, 4),
        LoopSettings(steps=60, rate=3e-3, warmup=5, ema=0.9),
        tmp_path / "c.pt",
        lambda progress: None,
    )
    condition, target, brain, _ = draw(used, 4, step_generator(1, 0))
    mean = mean_prediction(average, schedule, condition)
    assert mean.shape == target.shape
    assert (mean - target)[brain > 0].square().mean() < 0.5 * target[brain > 0].var()


def test_the_loss_of_a_step_is_the_same_for_the_same_generator_and_counts_the_background_less():
    used = healthy_slices([slices("a")], "train")
    loss = translator_loss(used, Schedule(), STILL, 4)

    class Wrong(torch.nn.Module):
        """Right in the brain and 0.5 off outside it, or the other way round."""

        def __init__(self, outside):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.outside = outside

        def forward(self, x_t, condition, t):
            inside = (condition > 0).float()
            perfect = 2 * condition - 1
            return perfect + self.weight + (0.5 * (1 - inside) if self.outside else 0.5 * inside)

    outside, again, inside = (float(loss(Wrong(where), step_generator(0, 0)).detach()) for where in (True, True, False))
    assert outside == again
    brain = slices("a").brain[0].mean()
    weight = 0.1 * (1 - brain) + brain
    assert outside == pytest.approx(0.25 * 0.1 * (1 - brain) / weight, rel=0.1)
    assert inside == pytest.approx(0.25 * brain / weight, rel=0.1)


def test_a_known_polynomial_is_recovered():
    patient = slices("a", n=4)
    x = patient.condition / 65535
    target = np.rint((0.1 + 0.5 * x - 0.3 * x**2 + 0.4 * x**3) * 65535 * patient.brain).astype(np.uint16)
    made = type(patient)(patient.name, patient.split, patient.condition, target, patient.brain, patient.lesion, patient.masked)
    found = polynomial_map(healthy_slices([made], "train"), degree=3)
    assert found == pytest.approx([0.4, -0.3, 0.5, 0.1], abs=0.01)


def test_around_lesions_every_slice_is_used_and_what_the_target_shows_in_them_is_not_learnt():
    patient = slices("a")
    assert patient.lesion.any()
    used = all_slices([patient], "train")
    assert used.count == len(patient.condition) > healthy_slices([patient], "train").count
    other = patient.target.copy()
    other[patient.lesion] = 65535 - other[patient.lesion]

    class OfTheCondition(torch.nn.Module):
        """A network that does not look at x_t, which shows the target itself."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, x_t, condition, t):
            return self.weight * condition

    def loss(patient):
        used = all_slices([patient], "train")
        return float(translator_loss(used, Schedule(), STILL, 12)(OfTheCondition(), step_generator(0, 0)).detach())

    assert loss(patient) == pytest.approx(loss(replace(patient, target=other)), rel=1e-6)


def test_a_share_of_the_timesteps_is_the_last_one():
    times = torch.cat([first_or_any(8, 1000, 0.4, step_generator(0, k)) for k in range(400)])
    assert abs(float((times == 999).float().mean()) - 0.4) < 0.03
    assert torch.equal(first_or_any(8, 1000, 0.0, step_generator(0, 1)), stratified_times(8, 1000, step_generator(0, 1)))
