"""Training in several processes: the loss curve of one, a stop by signal, a kill, and on from there to the same weights."""

import multiprocessing
import os
import signal
import socket
import warnings
from dataclasses import replace

import pytest
import torch
import torch._dynamo  # what DistributedDataParallel loads: once here, not in every forked process
from torch import nn

from localdiff_cli.batch.workers import Terminated
from localdiff_cli.errors import UsageError
from localdiff_cli.training.loop import LoopSettings, train
from localdiff_cli.training.processes import local_device, processes

pytest.importorskip("accelerate")

SETTINGS = LoopSettings(steps=12, batch_size=8, rate=1e-2, warmup=3, checkpoint_minutes=0, report_every=3)
KILLED = 9


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1))


def loss_of(net, generator):
    x = torch.randn(SETTINGS.batch_size, 5, generator=generator)
    return (net(x) - x.sum(1, keepdim=True)).square().mean()


def process(rank, size, port, folder, settings, happens):
    """What one process does; ``happens``: at a step, in one rank, a signal to itself or its sudden death."""
    torch.set_num_threads(1)
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    os.environ |= {name: str(value) for name, value in numbers.items()}
    calls = []

    def loss(net, generator):
        calls.append(1)
        if happens and (rank, len(calls)) == happens[:2]:
            os._exit(KILLED) if happens[2] == KILLED else os.kill(os.getpid(), happens[2])
        return loss_of(net, generator)

    try:
        average, curve = train(network(), loss, settings, folder / "c.pt", lambda p: None, team=processes(torch.device("cpu")))
    except Terminated:
        os._exit(143)
    except RuntimeError:
        os._exit(1)  # the other one is gone
    torch.save({"average": average.state_dict(), "curve": curve, "steps": len(calls)}, folder / f"made-{rank}.pt")
    torch.distributed.destroy_process_group()
    os._exit(0)


def together(folder, settings=SETTINGS, happens=None, size=2):
    """Exit codes of ``size`` forked processes that train together."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    team = [fork.Process(target=process, args=(rank, size, port, folder, settings, happens), daemon=True) for rank in range(size)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later warn of any fork beside threads
        for one in team:
            one.start()
    for one in team:
        one.join(300)
    return [one.exitcode for one in team]


def made(folder, rank=0):
    return torch.load(folder / f"made-{rank}.pt", weights_only=True)


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert together(folder) == [0, 0]
    return made(folder)


def test_two_processes_have_the_loss_curve_of_one_that_accumulates(undisturbed, tmp_path):
    average, curve = train(network(), loss_of, replace(SETTINGS, accumulate=2), tmp_path / "c.pt", lambda p: None)
    assert [step for step, _ in curve] == [step for step, _ in undisturbed["curve"]]
    assert [loss for _, loss in curve] == pytest.approx([loss for _, loss in undisturbed["curve"]], rel=1e-5)
    for key, value in average.state_dict().items():
        torch.testing.assert_close(value, undisturbed["average"][key], rtol=1e-4, atol=1e-6)
    _, half = train(network(), loss_of, SETTINGS, tmp_path / "half.pt", lambda p: None)
    assert [loss for _, loss in half] != pytest.approx([loss for _, loss in curve], rel=1e-3)


def test_a_signal_to_one_process_stops_all_with_a_checkpoint_and_they_go_on_to_the_same_weights(undisturbed, tmp_path):
    assert together(tmp_path, happens=(1, 8, signal.SIGTERM)) == [143, 143]
    assert torch.load(tmp_path / "c.pt", weights_only=True)["step"] == 8
    assert together(tmp_path) == [0, 0]
    assert made(tmp_path, 1)["steps"] == 4
    assert same(made(tmp_path)["average"], undisturbed["average"])
    assert made(tmp_path)["curve"] == undisturbed["curve"]


def test_a_killed_process_ends_the_other_and_both_go_on_to_the_same_weights(undisturbed, tmp_path):
    codes = together(tmp_path, happens=(1, 6, KILLED))
    assert codes[1] == KILLED
    assert codes[0] != 0
    assert torch.load(tmp_path / "c.pt", weights_only=True)["step"] == 5
    assert together(tmp_path) == [0, 0]
    assert same(made(tmp_path)["average"], undisturbed["average"])


def test_one_process_goes_on_from_two_where_it_does_the_work_of_two(undisturbed, tmp_path):
    assert together(tmp_path, happens=(0, 8, signal.SIGUSR1)) == [143, 143]
    with pytest.raises(UsageError, match="accumulate 2 then, 1 now"):
        train(network(), loss_of, SETTINGS, tmp_path / "c.pt", lambda p: None)
    _, curve = train(network(), loss_of, replace(SETTINGS, accumulate=2), tmp_path / "c.pt", lambda p: None)
    assert [loss for _, loss in curve] == pytest.approx([loss for _, loss in undisturbed["curve"]], rel=1e-5)


def test_a_signal_to_the_only_process_stops_it_after_its_step_and_its_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    stopped_at = []

    def loss(net, generator):
        if not stopped_at:
            stopped_at.append(1)
            os.kill(os.getpid(), signal.SIGTERM)
        return loss_of(net, generator)

    with pytest.raises(Terminated, match=r"after step 1 of 12; .* goes on from there"):
        train(network(), loss, SETTINGS, tmp_path / "c.pt", lambda p: None)
    assert signal.getsignal(signal.SIGTERM) == before
    expected, curve = train(network(), loss_of, SETTINGS, tmp_path / "whole.pt", lambda p: None)
    found, resumed = train(network(), loss_of, SETTINGS, tmp_path / "c.pt", lambda p: None)
    assert same(expected.state_dict(), found.state_dict())
    assert resumed == curve


def test_each_process_takes_the_gpu_of_its_own_number(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert local_device("auto") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [local_device(name) for name in ("auto", "cuda", "cuda:1", "cpu")] == ["cuda:3", "cuda:3", "cuda:1", "cpu"]
    monkeypatch.delenv("WORLD_SIZE")
    assert local_device("auto") == "auto"
