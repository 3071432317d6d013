"""A real Dask scheduler with worker processes: the same outputs, also when one of them is killed midway."""

import os
import signal
import threading
import time

import pytest

from localdiff_cli.batch.cluster import connect
from localdiff_cli.batch.discover import discover
from localdiff_cli.batch.engine import Execution, run
from localdiff_cli.batch.report import Reporter
from localdiff_cli.errors import ModelError, UsageError

from .test_execution import outputs
from .toys import CopyRecipe

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None, host="127.0.0.1") as made:
        yield made


def address(cluster):
    return cluster.scheduler_address.replace("tcp://", "dask://")


@pytest.fixture
def go(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(10):
        (tmp_path / "in" / f"sub-{number}_T1w.nii").write_bytes(bytes([number]) * 100)

    def run_it(how, out, reporter=None, **recipe):
        made = CopyRecipe(tmp_path / out, tmp_path, **recipe)
        with reporter or Reporter(quiet=True) as reporting:
            return run(made, discover(str(tmp_path / "in"), "T1w"), tmp_path / out, reporting, how, version="1")

    return run_it


def test_a_cluster_with_a_worker_killed_midway_makes_the_same_as_one_process(go, cluster, tmp_path):
    go(Execution(jobs=0), "here")
    with distributed.Client(cluster) as client:
        pids = client.run(os.getpid)

    def kill():
        time.sleep(1.0)
        os.kill(next(iter(pids.values())), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    tally = go(Execution(cluster=address(cluster)), "there", seconds=0.3)
    killer.join()
    assert (len(tally.done) + len(tally.skipped), tally.failures) == (10, [])
    assert outputs(tmp_path / "here") == outputs(tmp_path / "there")
    assert not [path for path in (tmp_path / "there").rglob("*") if "partial" in path.name]
    again = go(Execution(cluster=address(cluster)), "there")
    assert len(again.skipped) == 10


def test_a_bad_volume_fails_alone_and_a_bad_model_ends_the_run(go, cluster):
    tally = go(Execution(cluster=address(cluster)), "a", trouble={"sub-3_T1w.nii": "volume"})
    assert [(name, code) for name, code, _ in tally.failures] == [("sub-3_T1w.nii", "truncated")]
    with pytest.raises(ModelError, match="bank does not fit"):
        go(Execution(cluster=address(cluster)), "b", trouble={"sub-3_T1w.nii": "model"})


@pytest.mark.parametrize("name", ["nonsense", "dask:/x", "tcp://127.0.0.1:1"])
def test_a_cluster_that_is_no_address_is_wrong_usage(name):
    with pytest.raises(UsageError, match="expected dask://HOST:PORT or slurm"):
        connect(name, 1)


def test_nobody_at_the_address_is_wrong_usage(monkeypatch):
    monkeypatch.setattr("localdiff_cli.batch.cluster.CONNECT_SECONDS", 1)
    with pytest.raises(UsageError, match="no answer"):
        connect("dask://127.0.0.1:9", 1)
