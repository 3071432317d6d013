"""Worker processes: a crash or a hang costs one task, and nothing keeps running after the run."""

import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from localdiff_cli.batch.cores import THREAD_LIMITS, _group_quota, available_cores, limited_threads, threads_for
from localdiff_cli.batch.workers import (
    Queue,
    Terminated,
    run_here,
    run_in_workers,
)
from localdiff_cli.errors import ModelError

from .toys import ToyJob


class Ears:
    """A listener that remembers."""

    def __init__(self):
        self.lines, self.names, self.slices = [], [], []

    def line(self, text):
        self.lines.append(text)

    def started(self, name):
        self.names.append(name)

    def slice(self, done, total):
        self.slices.append((done, total))


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def outcome(results, task):
    found = [result for result in results if result[0] == task]
    assert len(found) == 1
    return found[0][1:]


@pytest.fixture
def work(tmp_path):
    def run(tasks, ears=None, load_how="", **options):
        return list(run_in_workers(ToyJob(tmp_path, load_how), list(tasks), ears or Ears(), **options))

    return run


def test_tasks_are_done_in_other_processes_that_are_gone_afterwards(work):
    ears = Ears()
    results = work(["a", "b", "c", "d"], ears, jobs=2)
    assert sorted(task for task, *_ in results) == ["a", "b", "c", "d"]
    pids = {pid for _, _, pid, _ in results}
    assert os.getpid() not in pids
    assert not any(alive(pid) for pid in pids)
    assert ears.lines == ["loaded"]
    assert sorted(ears.names) == ["a", "b", "c", "d"]


def test_one_worker_reports_slices(work):
    ears = Ears()
    work(["a"], ears)
    assert ears.slices == [(1, 2)]


@pytest.mark.parametrize(("how", "word"), [("segfault", "SIGSEGV"), ("kill", "SIGKILL"), ("exit", "status 7")])
def test_a_crash_costs_its_task_after_a_second_try_and_no_other(work, how, word):
    results = work(["a", f"{how} b", "c"])
    code, reason, attempt = outcome(results, f"{how} b")
    assert (code, attempt) == ("crash", 2)
    assert word in reason
    assert outcome(results, "a")[0] == outcome(results, "c")[0] == 1


def test_a_crash_that_passes_is_tried_again(work):
    assert outcome(work(["once-kill a", "b"]), "once-kill a")[0] == 2


def test_a_task_that_hangs_is_stopped(work):
    results = work(["once-hang a", "b"], timeout=1.5)
    assert outcome(results, "once-hang a")[0] == 2
    assert outcome(results, "b")[0] == 1


def test_a_task_that_always_hangs_fails_with_the_limit_named(work):
    code, reason, _ = outcome(work(["hang a"], timeout=0.5), "hang a")
    assert code == "timeout"
    assert "--timeout-per-volume 0.5 s" in reason


def test_an_error_of_the_model_ends_the_run_with_its_own_kind_and_code(work):
    with pytest.raises(ModelError, match="bank does not fit"):
        work(["a"], load_how="model")


def test_a_worker_that_cannot_start_ends_the_run(work):
    with pytest.raises(ModelError, match=r"could not load the model.*SIGKILL.*out of memory"):
        work(["a"], load_how="kill")


def test_leaving_the_loop_early_stops_the_workers(tmp_path):
    results = run_in_workers(ToyJob(tmp_path), ["a", "hang b", "hang c"], Ears(), jobs=2)
    _, _, pid, _ = next(results)
    results.close()
    assert not alive(pid)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Terminated])
def test_an_interruption_stops_hanging_workers(tmp_path, stop):
    class Interrupting(Ears):
        def slice(self, done, total):
            raise stop

    with pytest.raises(stop):
        list(run_in_workers(ToyJob(tmp_path), ["hang a"], Interrupting(), jobs=1))
    assert not multiprocessing.active_children()


def test_a_task_that_waits_for_another_comes_last_and_is_no_new_attempt(tmp_path):
    for results in (list(run_here(ToyJob(tmp_path), ["busy a", "b"], Ears())),):
        assert [result[0] for result in results] == ["b", "busy a"]
        assert results[1][1] == 1


def test_a_queue_keeps_order_and_pauses():
    queue = Queue(["a", "b"])
    assert queue.take() == ("a", 1)
    queue.put("a", 2, 0.05)
    assert queue.take() == ("b", 1)
    assert queue.take() is None
    time.sleep(0.06)
    assert queue.take() == ("a", 2)
    assert len(queue) == 0


def test_cores_are_divided_and_limits_honoured(monkeypatch, tmp_path):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.setattr("localdiff_cli.batch.cores._group_quota", lambda: 0)
    assert [threads_for(jobs) for jobs in (1, 2, 5, 99)] == [16, 8, 3, 1]
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4")
    assert (available_cores(), threads_for(2)) == (4, 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_for(2) == 3


@pytest.mark.parametrize(("text", "cores"), [("200000 100000", 2), ("max 100000", 0), ("50000 100000", 1), ("", 0), ("1 0", 0)])
def test_the_quota_of_the_control_group(tmp_path, text, cores):
    (tmp_path / "cpu.max").write_text(text)
    assert _group_quota(str(tmp_path / "cpu.max")) == cores
    assert _group_quota(str(tmp_path / "none")) == 0


def test_workers_inherit_their_share_of_threads_and_the_parent_keeps_its_own(work, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert outcome(work(["a"]), "a")[2] == "3"
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS" not in os.environ


def test_a_worker_leaves_with_its_killed_parent(tmp_path):
    code = (
        "from pathlib import Path\n"
        "from tests.batch.toys import ToyJob\n"
        "from tests.batch.test_workers import Ears\n"
        "from localdiff_cli.batch.workers import run_in_workers\n"
        "if __name__ == '__main__':\n"
        f"    for result in run_in_workers(ToyJob(Path({str(tmp_path)!r})), ['a', 'hang b'], Ears()):\n"
        "        print(result[2], flush=True)\n"
    )
    import subprocess
    import sys
    from pathlib import Path

    script = tmp_path / "run.py"
    script.write_text(code)
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen([sys.executable, str(script)], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.PIPE)
    pid = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.communicate()
    until = time.monotonic() + 10
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(pid)


def test_two_runs_at_once_leave_the_environment_as_it_was(monkeypatch):
    for name in THREAD_LIMITS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")

    def hire(threads):
        with limited_threads(threads):
            time.sleep(0.05)
            assert os.environ["OMP_NUM_THREADS"] == str(threads)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(hire, range(1, 9)))
    assert {name: os.environ.get(name) for name in THREAD_LIMITS} == dict.fromkeys(THREAD_LIMITS) | {"OMP_NUM_THREADS": "3"}
