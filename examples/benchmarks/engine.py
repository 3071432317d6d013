"""What the engine itself costs: tiny volumes copied slice by slice, no network.

``python -m examples.benchmarks.engine --volumes 1000`` prints milliseconds a volume and the memory after each tenth of them;
``--volumes 100000 --light --runs 8`` is eight commands on one folder of a hundred thousand: planning, claims, records, resume, tables.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from localdiff_cli import __version__
from localdiff_cli.batch.discover import Item, discover
from localdiff_cli.batch.engine import Execution, run
from localdiff_cli.batch.report import Reporter
from localdiff_cli.batch.volume import peak_megabytes
from localdiff_cli.batch.work import Estimate, OnSlice, Outcome, Say
from localdiff_cli.volumes.reader import SliceReader, open_volume
from localdiff_cli.volumes.whole import write_text
from localdiff_cli.volumes.writer import SliceWriter

MOST_LINKS = 60_000
"""A file system lets one file have about so many names."""


@dataclass(frozen=True)
class Identity:
    """A work that writes what it reads, after ``seconds`` in which a network would work; recipe and work in one."""

    out: Path
    seconds: float = 0.0
    device: str = "cpu"

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the result: nothing."""
        return {"Command": "identity"}

    def outputs(self, item: Item) -> list[Path]:
        """The copy."""
        return [self.out / item.relative]

    def load(self, say: Say) -> Identity:
        """Nothing to load."""
        return self

    def companions(self, item: Item) -> list[Path]:
        """None."""
        return []

    def lacking(self, items: Sequence[Item]) -> dict[Path, str]:
        """Nothing."""
        return {}

    def smaller(self) -> None:
        """None: there is no batch."""

    def estimate(self, shape: tuple[int, int, int]) -> Estimate:
        """Next to nothing."""
        return Estimate(self.seconds, 100.0)

    def __call__(self, item: Item, on_slice: OnSlice) -> Outcome:
        """Copy a volume."""
        volume = open_volume(item.path)
        reader = SliceReader(volume)
        time.sleep(self.seconds)
        with SliceWriter(self.outputs(item)[0], volume, dtype="float32", description="copy") as writer:
            for k in reader.order():
                writer.write(k, reader.read(k))
        return Outcome({"Content": "copy"})


@dataclass(frozen=True)
class Light(Identity):
    """A work that only notes that it was done, in a file of a few bytes: what is left is the engine."""

    def __call__(self, item: Item, on_slice: OnSlice) -> Outcome:
        """Write the note."""
        time.sleep(self.seconds)
        write_text(self.outputs(item)[0], "done\n")
        return Outcome({"Content": "note"})


class Memory(Reporter):
    """A quiet reporter that notes the memory after every tenth of the volumes."""

    def __init__(self, volumes: int) -> None:
        super().__init__(quiet=True)
        self.every, self.done, self.noted = max(1, volumes // 10), 0, list[float]()

    def volume_done(self) -> None:
        """One more."""
        self.done += 1
        if self.done % self.every == 0:
            self.noted.append(peak_megabytes())


@dataclass(frozen=True)
class Spent:
    """What one run of a command found and cost: volumes done and skipped, seconds of planning and in all, MB after each tenth."""

    done: int
    skipped: int
    planning: float
    seconds: float
    memory: tuple[float, ...]


def one_run(source: Path, work: Identity, jobs: int, volumes: int) -> Spent:
    """Plan and carry out, as a command does."""
    started = time.perf_counter()
    found = discover(str(source), "T1w")
    planned = time.perf_counter() - started
    memory = Memory(volumes)
    with memory:
        tally = run(work, found, work.out, memory, Execution(jobs=jobs), version=__version__)
    return Spent(len(tally.done), len(tally.skipped), planned, time.perf_counter() - started, tuple(memory.noted))


def side_by_side(source: Path, work: Identity, runs: int, jobs: int, volumes: int) -> list[Spent]:
    """Several runs of the same command on one folder at the same time, each a process of its own."""
    if runs == 1:
        return [one_run(source, work, jobs, volumes)]
    with multiprocessing.get_context("spawn").Pool(runs) as pool:
        return pool.starmap(one_run, [(source, work, jobs, volumes)] * runs)


def make_volumes(source: Path, volumes: int, *, linked: bool) -> None:
    """Tiny volumes; ``linked``: all of them one file under many names."""
    source.mkdir()
    image, first = nib.Nifti1Image(np.arange(256, dtype=np.int16).reshape(16, 16, 1), np.eye(4)), source
    for number in range(volumes):
        path = source / f"sub-{number:06d}_T1w.nii.gz"
        if linked and number % MOST_LINKS:
            path.hardlink_to(first)
        else:
            nib.save(image, path)
            first = path


def report(title: str, spent: list[Spent], volumes: int) -> None:
    """One paragraph: whether every volume was done once, the cost of one, the memory."""
    done, skipped, seconds = sum(one.done for one in spent), spent[0].skipped, max(one.seconds for one in spent)
    print(f"{title}: {len(spent)} runs, together {done} of {volumes} done, the first skipped {skipped};")
    print(f"  {1000 * seconds / volumes:.2f} ms a volume,")
    print(f"  of which planning {1000 * max(one.planning for one in spent) / volumes:.2f} ms; MB after each tenth {spent[0].memory}")


def main() -> None:
    """Make the volumes, run twice (work, then nothing to do), print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--volumes", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--runs", type=int, default=1, help="the same command so many times at once, on one folder")
    parser.add_argument("--light", action="store_true", help="one volume under many names, and a note for an output: the engine alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        source, out, volumes = Path(name) / "in", Path(name) / "out", options.volumes
        make_volumes(source, volumes, linked=options.light)
        work = Light(out) if options.light else Identity(out)
        for title in ("work", "already done"):
            report(title, side_by_side(source, work, options.runs, options.jobs, volumes), volumes)
        print(f"runs.tsv: {sum(1 for _ in (out / 'runs.tsv').open()) - 1} volumes")


if __name__ == "__main__":
    main()
