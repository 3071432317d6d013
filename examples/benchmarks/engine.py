"""What the engine itself costs: tiny volumes copied slice by slice, no network.

``python -m examples.benchmarks.engine --volumes 1000`` prints milliseconds a volume and the memory after each tenth of them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
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
from localdiff_cli.volumes.writer import SliceWriter


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


def main() -> None:
    """Make the volumes, run twice (work, then nothing to do), print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--volumes", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        source, out = Path(name) / "in", Path(name) / "out"
        source.mkdir()
        image = nib.Nifti1Image(np.arange(256, dtype=np.int16).reshape(16, 16, 1), np.eye(4))
        for number in range(options.volumes):
            nib.save(image, source / f"sub-{number:05d}_T1w.nii.gz")
        for title in ("work", "already done"):
            started = time.perf_counter()
            found = discover(str(source), "T1w")
            planned = time.perf_counter() - started
            memory = Memory(options.volumes)
            with memory:
                tally = run(Identity(out), found, out, memory, Execution(jobs=options.jobs), version=__version__)
            spent = time.perf_counter() - started
            print(f"{title}: {len(tally.done)} done, {len(tally.skipped)} already done; {1000 * spent / options.volumes:.1f} ms a volume,")
            print(f"  of which planning {1000 * planned / options.volumes:.2f} ms; peak MB after each tenth {memory.noted}")


if __name__ == "__main__":
    main()
