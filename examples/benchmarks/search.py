"""The nearest entries of a memory bank: one matrix product against faiss, exact and inverted lists, by processor time on one thread.

``python -m examples.benchmarks.search`` prints a table; banks are random vectors about as many centres as a bank has kinds of tissue.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from localdiff_cli.ood.patchcore import MemoryBank

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import faiss

FEATURES = 152
"""Features of a patch of the packaged backbone."""
PATCHES = 600
"""Patches of a slice that touch the brain, about."""


def clustered(count: int, seed: int, centres: int = 64) -> NDArray[np.float32]:
    """``(count, FEATURES)`` vectors about ``centres`` centres that depend on no seed."""
    middle = np.random.default_rng(7).normal(size=(centres, FEATURES)) * 3
    rng = np.random.default_rng(seed)
    return (middle[rng.integers(centres, size=count)] + rng.normal(size=(count, FEATURES))).astype(np.float32)


def milliseconds(action: Callable[[], Any], repeats: int = 3) -> tuple[float, Any]:
    """Processor milliseconds of ``action``, the least of ``repeats``, and what it gave."""
    used = []
    for _ in range(repeats):
        started = time.process_time()
        result = action()
        used.append(1000 * (time.process_time() - started))
    return min(used), result


def inverted(bank: NDArray[np.float32], probes: int) -> Any:
    """faiss's inverted lists over the bank, √M of them, ``probes`` visited by a query."""
    lists = max(1, int(len(bank) ** 0.5))
    index: Any = faiss.IndexIVFFlat(faiss.IndexFlatL2(FEATURES), FEATURES, lists)
    index.train(bank[: 64 * lists])
    index.add(bank)
    index.nprobe = probes
    return index


def row(size: int, probes: int) -> str:
    """The line of one size of bank."""
    values, asked = clustered(size, 1), clustered(PATCHES, 2)
    bank, queries = MemoryBank(torch.from_numpy(values)), torch.from_numpy(asked)
    exact: Any = faiss.IndexFlatL2(FEATURES)
    exact.add(values)
    lists = inverted(values, probes)
    product, nearest = milliseconds(lambda: bank.closest(queries))
    flat, _ = milliseconds(lambda: exact.search(asked, 1))
    listed, found = milliseconds(lambda: lists.search(asked, 1)[1])
    one, _ = milliseconds(lambda: bank.nearest(queries[:1], 9))
    recall = float((found[:, 0] == nearest.numpy()).mean())
    return f"| {size:,} | {product:.0f} | {flat:.0f} | {listed:.0f} | {recall:.2f} | {one:.2f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs="+", default=[5_000, 100_000, 1_000_000], help="entries of the bank")
    parser.add_argument("--probes", type=int, default=16, help="lists that a query of the inverted lists visits")
    options = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    print("| entries | matrix product, ms | faiss flat, ms | faiss inverted lists, ms | its recall | 9 neighbours of one entry, ms |")
    print("|---|---|---|---|---|---|")
    for size in options.size:
        print(row(size, options.probes), flush=True)


if __name__ == "__main__":
    main()
