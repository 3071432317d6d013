"""Follow a recipe on a Dask cluster: one task per volume, the bundle loaded once per worker, the volumes of lost workers
done again.

Needs the extra ``localdiff[cluster]``.
"""

from __future__ import annotations

import os
import pickle
import socket
import threading
import time
from collections.abc import Generator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from localdiff_cli.batch.work import Recipe, Work
from localdiff_cli.batch.workers import Listener, next_attempt
from localdiff_cli.errors import DeviceError, LocaldiffError, UsageError

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 30
_ONE_AT_A_TIME = threading.Lock()


@lru_cache(maxsize=1)
def _loaded(recipe: bytes, folder: str, models: str | None) -> Work:
    """The work, made once a worker process, in the folder and with the models of the process that asked: both on a shared
    disk."""
    os.chdir(folder)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does: read when torch is loaded
    if models is not None:
        os.environ["LOCALDIFF_MODELS"] = models
    return pickle.loads(recipe).load(lambda text: None)


def perform(packed: tuple[bytes, str, str | None], task: Any, attempt: int) -> Any:
    """Do a worker's part; return a :class:`LocaldiffError` instead of raising it, since no other worker could do better."""
    with _ONE_AT_A_TIME:  # however many threads the worker has: one volume fills its cores
        try:
            return _loaded(*packed)(task, attempt, lambda done, total: None)
        except LocaldiffError as error:
            return error
        except OSError as error:
            return UsageError(
                f"the worker on {socket.gethostname()} cannot use {packed[1]}: {error}; expected a shared disk", code="no-cluster"
            )


def connect(cluster: str, jobs: int) -> Client:
    """Return the client of a running scheduler, or of one that asks Slurm for ``jobs`` workers as the user's Dask settings
    say.

    Raise :class:`UsageError` where Dask is not installed or nobody answers.
    """
    try:
        from distributed import Client

        if cluster == "slurm":
            from dask_jobqueue.slurm import SLURMCluster

            nodes = SLURMCluster()
            nodes.scale(jobs=max(1, jobs))
            return Client(nodes)
    except ImportError as error:
        raise UsageError(f"--cluster {cluster}: needs Dask: pip install 'localdiff[cluster]'", code="no-cluster") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"--cluster {cluster}: {error}; see dask-jobqueue's settings", code="no-cluster") from error
    if not cluster.startswith("dask://"):
        raise UsageError(f"--cluster {cluster}: expected dask://HOST:PORT or slurm", code="choice")
    try:
        return Client(f"tcp://{cluster.removeprefix('dask://')}", timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError, ValueError) as error:
        raise UsageError(f"--cluster {cluster}: no answer ({error}); start one with: dask scheduler", code="no-cluster") from error


def run_on_cluster(recipe: Recipe, tasks: list[Any], listener: Listener, cluster: str, *, jobs: int = 1) -> Generator[Any]:
    """Yield the results of ``tasks``, in the order in which they are ready. Raise the :class:`LocaldiffError` of an
    unusable model."""
    packed = (pickle.dumps(recipe), os.getcwd(), os.environ.get("LOCALDIFF_MODELS"))
    with connect(cluster, jobs) as client:
        from distributed import as_completed
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker

        if cluster != "slurm" and not client.nthreads():
            listener.line("the scheduler has no worker yet: waiting for one")
        waiting = {client.submit(perform, packed, task, 1, pure=False): (task, 1) for task in tasks}
        ready = as_completed(waiting)
        for future in ready:
            task, attempt = waiting.pop(future)
            listener.started(recipe.name(task))
            try:
                result = future.result()
            except KilledWorker as error:
                result = recipe.lost(task, attempt, "crash", f"its workers died one after another ({error})")
            except FutureCancelledError as error:
                raise DeviceError(f"--cluster {cluster}: the scheduler is gone; repeat the command to resume", code="no-cluster") from error
            if isinstance(result, LocaldiffError):
                raise result
            pause = recipe.pause(result, attempt)
            if pause is None:
                yield result
                continue
            time.sleep(pause)
            again = client.submit(perform, packed, task, next_attempt(pause, attempt), pure=False)
            waiting[again] = (task, next_attempt(pause, attempt))
            ready.add(again)
