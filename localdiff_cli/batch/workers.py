"""Follow a recipe for one task after another: here, or in worker processes that may crash or hang without taking the run
down.

Networks are loaded once per process. Results come in the order in which they are ready.
"""

from __future__ import annotations

import heapq
import itertools
import os
import signal
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, Protocol

from localdiff_cli.batch.ahead import Ahead, handling, start_worker
from localdiff_cli.batch.work import Recipe
from localdiff_cli.errors import EXIT_SIGTERM, LocaldiffError, ModelError

STOP_SECONDS = 3.0
"""How long a worker has to finish its network step and to clean up before it is killed."""
SLICE_SECONDS = 0.2
MAX_STARTS = 2


class Listener(Protocol):
    """Who is told of the progress."""

    def line(self, text: str) -> None: ...
    def started(self, name: str) -> None: ...
    def slice(self, done: int, total: int) -> None: ...


class Terminated(BaseException):
    """SIGTERM: the scheduler wants the node back."""

    exit_code = EXIT_SIGTERM


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Within the block SIGTERM raises :class:`Terminated`; outside the main thread the caller owns the signals."""

    def stop(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not cut the clearing up
        raise Terminated

    with handling(signal.SIGTERM, stop):
        yield


class Queue:
    """Tasks to do: those tried again come after a pause, behind the others."""

    def __init__(self, tasks: list[Any]) -> None:
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Any, int]] = [(0.0, next(self._order), task, 1) for task in tasks]

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, task: Any, attempt: int, pause: float) -> None:
        """Try a task again, no sooner than ``pause`` seconds from now."""
        heapq.heappush(self._heap, (time.monotonic() + pause, next(self._order), task, attempt))

    def take(self) -> tuple[Any, int] | None:
        """Return the next task and its attempt; None while all that are left pause."""
        if not self._heap or self._heap[0][0] > time.monotonic():
            return None
        _, _, task, attempt = heapq.heappop(self._heap)
        return task, attempt


def run_here(recipe: Recipe, tasks: list[Any], listener: Listener) -> Generator[Any]:
    """Work in this process: no isolation from crashes and hangs, and nothing to start."""
    work = recipe.load(listener.line)
    queue = Queue(tasks)
    while len(queue):
        taken = queue.take()
        if taken is None:
            time.sleep(0.05)
            continue
        task, attempt = taken
        listener.started(recipe.name(task))
        result = work(task, attempt, listener.slice)
        pause = recipe.pause(result, attempt)
        if pause is None:
            yield result
        else:
            queue.put(task, next_attempt(pause, attempt), pause)


def next_attempt(pause: float, attempt: int) -> int:
    """Return the number of the next attempt: a pause waits for somebody else, so only an immediate try counts as another
    one.

    >>> next_attempt(0.0, 1), next_attempt(2.0, 1)
    (2, 1)
    """
    return attempt if pause else attempt + 1


@dataclass
class _Worker:
    """A worker process and the task it has."""

    process: BaseProcess
    connection: Connection
    ready: bool = False
    task: Any = None
    attempt: int = 0
    since: float = 0.0


@dataclass
class _Crew:
    """The worker processes of one run."""

    recipe: Recipe
    listener: Listener
    size: int
    timeout: float | None
    queue: Queue
    ahead: Ahead | None = None
    workers: list[_Worker] = field(default_factory=list)
    failed_starts: int = 0
    said: set[str] = field(default_factory=set)

    def hire(self) -> None:
        """Start workers while there are tasks for them."""
        busy = sum(worker.task is not None for worker in self.workers)
        while len(self.workers) < min(self.size, busy + len(self.queue)):
            begun = self.ahead.give(self.recipe) if self.ahead is not None else None
            self.workers.append(_Worker(*(begun or start_worker(serve, self.size, self.recipe))))

    def assign(self) -> None:
        """Give every idle worker a task."""
        for worker in self.workers:
            if worker.ready and worker.task is None and (taken := self.queue.take()):
                worker.task, worker.attempt = taken
                worker.since = time.monotonic()
                self.listener.started(self.recipe.name(worker.task))
                with suppress(OSError):  # it died: the next look at its connection says so
                    worker.connection.send(taken)

    def listen(self) -> Iterator[Any]:
        """Yield the final results that the workers have reported since the last time."""
        wait([worker.connection for worker in self.workers], timeout=SLICE_SECONDS)
        for worker in list(self.workers):
            try:
                while worker.connection.poll():
                    yield from self._heard(worker, *worker.connection.recv())
            except (EOFError, OSError):
                yield from self._died(worker, "crash", _cause(worker.process))
        for worker in list(self.workers):
            if self.timeout and worker.task is not None and time.monotonic() - worker.since > self.timeout:
                worker.process.kill()
                yield from self._died(worker, "timeout", f"took longer than --timeout-per-volume {self.timeout:g} s and was stopped")

    def _heard(self, worker: _Worker, kind: str, *values: Any) -> Iterator[Any]:
        if kind == "ready":
            worker.ready, self.failed_starts = True, 0
        elif kind == "line" and values[0] not in self.said:  # every worker says which model it loaded
            self.said.add(values[0])
            self.listener.line(*values)
        elif kind == "slice":
            if self.size == 1:
                self.listener.slice(*values)
        elif kind == "refused":
            raise values[0]
        elif kind == "done":
            task, attempt, worker.task = worker.task, worker.attempt, None
            yield from self._settled(task, attempt, values[0])

    def _settled(self, task: Any, attempt: int, result: Any) -> Iterator[Any]:
        pause = self.recipe.pause(result, attempt)
        if pause is None:
            yield result
        else:
            self.queue.put(task, next_attempt(pause, attempt), pause)

    def _died(self, worker: _Worker, code: str, reason: str) -> Iterator[Any]:
        worker.process.join(STOP_SECONDS)
        worker.connection.close()
        self.workers.remove(worker)
        if worker.task is not None:
            yield from self._settled(worker.task, worker.attempt, self.recipe.lost(worker.task, worker.attempt, code, reason))
            return
        self.failed_starts += 1
        if self.failed_starts >= MAX_STARTS:
            raise ModelError(f"a worker process could not load the model: {reason}; --jobs 0 shows why", code="worker")

    def dismiss(self) -> None:
        """End all workers: idle ones leave by themselves, others are asked, then killed; what they left half-made goes."""
        for worker in self.workers:
            with suppress(OSError):
                worker.connection.send(None)
            if worker.task is not None or not worker.ready:
                worker.process.terminate()
        until = time.monotonic() + STOP_SECONDS
        for worker in self.workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
                if worker.task is not None:
                    self.recipe.lost(worker.task, worker.attempt, "interrupted", "the run was interrupted")
            worker.connection.close()


def _cause(process: BaseProcess) -> str:
    process.join(STOP_SECONDS)
    code = process.exitcode
    if code is None or code >= 0:
        return f"its worker process ended with status {code}"
    with suppress(ValueError):
        return f"its worker process was killed by {signal.Signals(-code).name}" + (" (out of memory?)" if -code == signal.SIGKILL else "")
    return f"its worker process was killed by signal {-code}"


def run_in_workers(
    recipe: Recipe, tasks: list[Any], listener: Listener, *, jobs: int = 1, timeout: float | None = None, ahead: Ahead | None = None
) -> Generator[Any]:
    """Work in ``jobs`` processes, the cores divided among them; the first is the one that was started ``ahead``. A task whose
    process dies, or takes ``timeout`` seconds, is lost alone.

    Raise the :class:`LocaldiffError` that keeps a worker from starting.
    """
    crew = _Crew(recipe, listener, jobs, timeout, Queue(tasks), ahead)
    try:
        while len(crew.queue) or any(worker.task is not None for worker in crew.workers):
            crew.hire()
            crew.assign()
            yield from crew.listen()
    finally:
        crew.dismiss()


def serve(connection: Connection, recipe: Recipe) -> None:
    """What a worker process does: the recipe's tasks, as they come."""
    said = [0.0]

    def on_slice(done: int, total: int) -> None:
        if done == total or time.monotonic() - said[0] > SLICE_SECONDS:
            said[0] = time.monotonic()
            connection.send(("slice", done, total))

    try:
        with sigterm_raises():
            work = recipe.load(lambda text: connection.send(("line", text)))
            connection.send(("ready",))
            while (taken := connection.recv()) is not None:
                task, attempt = taken
                connection.send(("done", work(task, attempt, on_slice)))
    except LocaldiffError as error:
        connection.send(("refused", error))
    except (EOFError, BrokenPipeError, Terminated):
        os._exit(EXIT_SIGTERM)
    except Exception as error:
        connection.send(("refused", ModelError(f"{type(error).__name__}: {error}", code="worker")))
