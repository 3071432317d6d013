"""Slices side by side on the cores, each on one thread: then no sum depends on how many threads there are.

The last bits of a convolution depend on the number of threads that share it. Slices are independent, so they are what is
shared out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
S = TypeVar("S")


def apart(function: Callable[[S], T], slices: Iterable[S]) -> list[T]:
    """Return ``function`` of every slice, in order; torch computes each on one thread, as many at a time as it has threads
    here."""
    import torch

    # The number of threads belongs to the calling thread: that of this one stays as it is.
    with ThreadPoolExecutor(torch.get_num_threads(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(torch.no_grad()(function), slices))
