"""The training loop: a run that was killed and resumed makes the same weights to the bit."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from localdiff_cli.errors import UsageError
from localdiff_cli.training.loop import LoopSettings, learning_rate, step_generator, train, trained_seconds

SETTINGS = LoopSettings(steps=12, batch_size=4, rate=1e-2, warmup=3, checkpoint_minutes=0, report_every=4)


class Killed(BaseException):
    """The process died."""


def network(seed=0, width=8):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, width), nn.Tanh(), nn.Dropout(0.3), nn.BatchNorm1d(width), nn.Linear(width, 1))


def loss_of(net, generator):
    x = torch.randn(16, 5, generator=generator)
    return (net(x) - x.sum(1, keepdim=True)).square().mean()


def kill_at(step):
    def report(progress):
        if progress.step >= step:
            raise Killed

    return report


def go(path, report=lambda progress: None, settings=SETTINGS, net=None, **more):
    return train(net or network(), loss_of, settings, path, report, **more)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("kills", [(4,), (8,), (4, 8)])
def test_a_killed_and_resumed_training_makes_the_same_weights_to_the_bit(tmp_path, kills):
    undisturbed = network()
    expected, curve = go(tmp_path / "whole.pt", net=undisturbed)
    for step in kills:
        with pytest.raises(Killed):
            go(tmp_path / "killed.pt", kill_at(step))
        assert torch.load(tmp_path / "killed.pt", weights_only=True)["step"] == step - 1
    resumed = network()
    torch.manual_seed(12345)
    found, resumed_curve = go(tmp_path / "killed.pt", net=resumed)
    assert same(expected, found)
    assert same(undisturbed, resumed)
    assert [step for step, _ in resumed_curve] == [step for step, _ in curve] == [4, 8, 12]


def test_a_resumed_training_does_only_the_steps_that_are_left(tmp_path):
    with pytest.raises(Killed):
        go(tmp_path / "c.pt", kill_at(8))
    calls = []
    train(
        network(), lambda net, generator: (calls.append(1), loss_of(net, generator))[1], SETTINGS, tmp_path / "c.pt", lambda progress: None
    )
    assert len(calls) == 5


def test_a_finished_training_is_given_back_without_a_step(tmp_path):
    expected, curve = go(tmp_path / "c.pt")
    again, same_curve = train(
        network(seed=9), lambda *a: pytest.fail("a step was made"), SETTINGS, tmp_path / "c.pt", lambda progress: None
    )
    assert same(expected, again)
    assert curve == same_curve


@pytest.mark.parametrize("change", [{"steps": 13}, {"rate": 2e-2}, {"seed": 1}, {"batch_size": 5}], ids=str)
def test_a_checkpoint_of_other_settings_is_refused(tmp_path, change):
    go(tmp_path / "c.pt")
    with pytest.raises(UsageError, match=next(iter(change))) as error:
        go(tmp_path / "c.pt", settings=LoopSettings(**{**vars(SETTINGS), **change}))
    assert str(tmp_path / "c.pt") in str(error.value)
    assert "--work" in str(error.value)


def test_a_checkpoint_of_another_identity_or_network_is_refused(tmp_path):
    identity = {"schedule": {"prediction": "sample"}, "data": "abc"}
    go(tmp_path / "c.pt", identity=identity)
    go(tmp_path / "c.pt", identity=dict(identity))
    for changed in ({"data": "abd"}, {"schedule": {"prediction": "epsilon"}}):
        with pytest.raises(UsageError, match=next(iter(changed))):
            go(tmp_path / "c.pt", identity=identity | changed)
    with pytest.raises(UsageError, match="another network"):
        go(tmp_path / "c.pt", identity=identity, net=network(width=9))


def test_a_checkpoint_from_before_identities_is_taken(tmp_path):
    go(tmp_path / "c.pt")
    go(tmp_path / "c.pt", identity={"data": "abc"})


@pytest.mark.parametrize("raw", [b"", b"nonsense", b"\x80\x02."])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, raw):
    (tmp_path / "c.pt").write_bytes(raw)
    with pytest.raises(UsageError, match="not a checkpoint"):
        go(tmp_path / "c.pt")


def test_a_training_that_diverges_stops_and_says_so(tmp_path):
    with pytest.raises(UsageError, match="--rate"):
        train(network(), lambda net, generator: loss_of(net, generator) * float("nan"), SETTINGS, tmp_path / "c.pt", lambda progress: None)
    assert not (tmp_path / "c.pt").exists()


def test_the_rate_warms_up_in_a_line_and_falls_on_a_cosine():
    settings = LoopSettings(steps=110, rate=1.0, warmup=10)
    rates = [learning_rate(settings, step) for step in range(110)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10:] == pytest.approx([0.5 * (1 + math.cos(math.pi * i / 100)) for i in range(100)])
    assert max(rates) == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert 0 < rates[-1] < 0.001


def test_the_batch_of_a_step_depends_on_seed_and_step_alone():
    def draw(seed, step):
        return torch.rand(3, generator=step_generator(seed, step)).tolist()

    first = draw(1, 5)
    torch.rand(10)
    assert draw(1, 5) == first
    assert draw(1, 6) != first
    assert draw(2, 5) != first


def test_reports_tell_step_loss_rate_and_time_left(tmp_path):
    reports = []
    _, curve = go(tmp_path / "c.pt", reports.append, settings=LoopSettings(steps=10, rate=1e-2, warmup=3, report_every=4))
    assert [r.step for r in reports] == [4, 8, 10]
    assert [(r.step, r.loss) for r in reports] == curve
    assert all(r.steps == 10 and r.seconds_left >= 0 for r in reports)
    assert reports[-1].seconds_left == 0


def test_checkpoints_are_kept_by_time_and_at_the_end_and_count_all_sessions(tmp_path):
    steps = []
    go(tmp_path / "c.pt", settings=LoopSettings(steps=5, checkpoint_minutes=60), on_checkpoint=lambda average, step: steps.append(step))
    assert steps == [5]
    first = trained_seconds(tmp_path / "c.pt")
    assert first > 0
    with pytest.raises(Killed):
        go(tmp_path / "d.pt", kill_at(8))
    before = trained_seconds(tmp_path / "d.pt")
    go(tmp_path / "d.pt")
    assert trained_seconds(tmp_path / "d.pt") > before


def test_the_average_follows_the_weights_and_is_not_the_weights(tmp_path):
    net = network()
    average, _ = go(tmp_path / "c.pt", net=net)
    assert not average.training
    assert not same(average, net)
    difference = (average[0].weight - net[0].weight).abs().max()
    assert difference < 0.1


def test_reduced_precision_trains_alike_and_answers_in_single_precision(tmp_path):
    from localdiff_cli.training.loop import ReducedPrecision

    inputs = torch.rand(4, 3)
    layer = torch.nn.Linear(3, 2)
    answer = ReducedPrecision(layer)(inputs)
    assert answer.dtype == torch.float32
    assert torch.allclose(answer, layer(inputs), atol=0.02)
    assert not torch.equal(answer, layer(inputs))
    full, _ = go(tmp_path / "fp32.pt")
    half, _ = go(tmp_path / "bf16.pt", settings=replace(SETTINGS, precision="bf16"))
    for a, b in zip(full.parameters(), half.parameters(), strict=True):
        assert b.dtype == torch.float32
        assert torch.allclose(a, b, atol=0.05)
