"""How many threads a process may have: the cores that are there, divided among the processes of a run."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
_ENVIRONMENT = threading.Lock()
"""The environment belongs to the whole process: two runs in it change and restore it one after the other."""


def available_cores() -> int:
    """Return the cores this process may use: its affinity, the control group's quota, Slurm's share."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [affinity, _group_quota()]
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if slurm.isdecimal() and int(slurm):
        limits.append(int(slurm))
    return max(1, min(limit for limit in limits if limit))


def _group_quota(path: str = "/sys/fs/cgroup/cpu.max") -> int:
    """Whole cores of the control group's quota; 0 where there is none."""
    try:
        with open(path, encoding="ascii") as handle:
            quota, period = handle.read().split()[:2]
        return max(1, round(int(quota) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return 0


def threads_for(jobs: int) -> int:
    """Return the threads of each of ``jobs`` processes: ``OMP_NUM_THREADS`` where it is set, otherwise the cores divided
    among them."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() and int(asked) else max(1, available_cores() // max(1, jobs))


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Libraries read their thread limits when they are loaded: a process started within the block inherits them."""
    with _ENVIRONMENT:
        before = {name: os.environ.get(name) for name in THREAD_LIMITS}
        os.environ.update(dict.fromkeys(THREAD_LIMITS, str(threads)))
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
