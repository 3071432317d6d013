"""Worker processes, and one that is started ahead: it loads the libraries while the command looks for its volumes.

Importing torch and MONAI takes longer than all else that a command does before its first volume, and the command has enough
to do meanwhile. A worker that nobody needs after all, since an option was wrong or everything was done before, is ended.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from localdiff_cli.batch.cores import limited_threads, threads_for
from localdiff_cli.errors import EXIT_SIGTERM
from localdiff_cli.startup import OURS, load_libraries

Begun = tuple[BaseProcess, Connection]
"""A worker process, and this process's end of the connection to it."""


def start_worker(serve: Callable[..., None], jobs: int, *arguments: Any) -> Begun:
    """Start one of ``jobs`` processes, which runs ``serve`` with its end of a connection and the arguments.

    From its first moment on it ignores Ctrl-C, which reaches the whole group: the parent decides. It ends when the parent
    does.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_live, args=(serve, theirs, *arguments), daemon=True)
    with limited_threads(threads_for(jobs)), handling(signal.SIGINT, signal.SIG_IGN):
        process.start()
    theirs.close()
    return process, ours


def _live(serve: Callable[..., None], connection: Connection, *arguments: Any) -> None:
    """A worker process's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # one that was not started from a main thread has not inherited it
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    serve(connection, *arguments)


def _leave_with_parent() -> None:
    """A worker whose parent was killed has nobody to work for."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(EXIT_SIGTERM)


@contextmanager
def handling(number: signal.Signals, handler: Any) -> Iterator[None]:
    """Within the block a signal has this handler, and a process started in it inherits that it is ignored; outside the main
    thread the caller owns the signals."""
    try:
        before = signal.signal(number, handler)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(number, before)


class Ahead:
    """A worker that waits for its recipe, in a run of ``jobs`` processes."""

    def __init__(self, jobs: int) -> None:
        self._begun: Begun | None = start_worker(_load_and_serve, jobs)

    def give(self, recipe: Any) -> Begun | None:
        """Give the worker its recipe; return its process and the connection to it, None where it was given one before."""
        begun, self._begun = self._begun, None
        if begun is not None:
            with suppress(OSError):  # it died: the first look at its connection says so
                begun[1].send(recipe)
        return begun

    def dismiss(self) -> None:
        """End the worker, unless it was given a recipe."""
        if self._begun is not None:
            process, connection = self._begun
            process.terminate()
            process.join()
            connection.close()


@contextmanager
def started_ahead(jobs: int) -> Iterator[Ahead | None]:
    """A worker for the block, dismissed after it if nobody needed it; None in a process that does not run localdiff alone,
    and where no worker is asked for."""
    ahead = Ahead(jobs) if jobs > 0 and os.environ.get(OURS) else None
    try:
        yield ahead
    finally:
        if ahead is not None:
            ahead.dismiss()


def _load_and_serve(connection: Connection) -> None:
    with suppress(Exception):  # what is missing is said by the recipe, if it needs it
        load_libraries()
    from localdiff_cli.batch.workers import serve

    with suppress(EOFError):  # the command has ended
        serve(connection, connection.recv())
