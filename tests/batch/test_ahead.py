"""A worker started ahead: it is the first of its crew, nobody misses it where it died, and it is gone where nobody needs it."""

import os
import signal

import pytest

from localdiff_cli.batch.ahead import Ahead, started_ahead
from localdiff_cli.batch.workers import run_in_workers
from localdiff_cli.declared import check_range
from localdiff_cli.errors import UsageError
from localdiff_cli.startup import OURS

from .test_workers import Ears, alive
from .toys import ToyJob


@pytest.fixture
def ours(monkeypatch):
    monkeypatch.setenv(OURS, "1")


def pid_of(ahead):
    assert ahead._begun is not None
    return ahead._begun[0].pid


def test_it_does_the_first_task_with_the_threads_of_its_crew(tmp_path, ours, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with started_ahead(1) as ahead:
        pid = pid_of(ahead)
        results = list(run_in_workers(ToyJob(tmp_path), ["a", "b"], Ears(), jobs=1, ahead=ahead))
    assert sorted(results) == [("a", 1, pid, "3"), ("b", 1, pid, "3")]
    assert not alive(pid)


def test_one_that_died_is_replaced(tmp_path, ours):
    with started_ahead(1) as ahead:
        pid = pid_of(ahead)
        os.kill(pid, signal.SIGKILL)
        (result,) = run_in_workers(ToyJob(tmp_path), ["a"], Ears(), jobs=1, ahead=ahead)
    assert result[0] == "a"
    assert result[2] != pid


def test_one_that_nobody_needs_is_gone_at_once(tmp_path, ours):
    with started_ahead(2) as ahead:
        pid = pid_of(ahead)
        assert list(run_in_workers(ToyJob(tmp_path), [], Ears(), jobs=2, ahead=ahead)) == []
    assert not alive(pid)
    with pytest.raises(UsageError), started_ahead(1) as ahead:
        check_range("--tau", 2, 0, 1)
    assert not alive(pid_of(ahead))


def test_it_is_given_one_recipe_only(ours, tmp_path):
    ahead = Ahead(1)
    process, connection = ahead.give(ToyJob(tmp_path))
    assert ahead.give(ToyJob(tmp_path)) is None
    ahead.dismiss()
    assert process.is_alive()
    connection.close()
    process.join(60)
    assert not process.is_alive()


def test_in_a_process_that_does_other_things_too_and_where_no_worker_is_asked_for_there_is_none(monkeypatch, ours):
    with started_ahead(0) as ahead:
        assert ahead is None
    monkeypatch.delenv(OURS)
    with started_ahead(1) as ahead:
        assert ahead is None
