"""Two training processes against one: slices a second of ``fit``'s own loop, each process on one thread.

``python -m examples.benchmarks.speed_training`` runs both by turns under ``torchrun`` (gloo) on made-up slices and prints the ratio.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from examples.benchmarks.timing import by_turns, clocked
from localdiff_cli.diffusion.network import NetworkSettings, TranslatorNetwork
from localdiff_cli.diffusion.schedule import Schedule
from localdiff_cli.training.augment import AugmentSettings
from localdiff_cli.training.loop import LoopSettings, train
from localdiff_cli.training.processes import processes, world_size
from localdiff_cli.training.slices import PatientSlices
from localdiff_cli.training.translator import healthy_slices, translator_loss

SHAPE, WARM = (208, 176), 2


def patient() -> PatientSlices:
    """Made-up slices: the cost of a step does not depend on what they show."""
    images = np.random.default_rng(0).integers(0, 65535, (16, *SHAPE), dtype=np.uint16)
    return PatientSlices("made-up", "train", images, images, np.ones(images.shape, bool), np.zeros(images.shape, bool), True)


def steps_a_second(steps: int, batch: int, folder: Path) -> float:
    """Steps a second of the translator's network after the first two, in this process and those that train with it."""
    torch.manual_seed(0)
    network = TranslatorNetwork(NetworkSettings(channels=(64, 96, 128), num_res_blocks=1))
    loss = translator_loss(healthy_slices([patient()], "train"), Schedule(), AugmentSettings(), batch)
    settings, times = LoopSettings(steps=steps + WARM, batch_size=batch, report_every=1, checkpoint_minutes=1e6), []
    team = processes(torch.device("cpu"))
    train(network, loss, settings, folder / "c.pt", lambda p: times.append(time.perf_counter()), team=team)
    return steps / (times[-1] - times[WARM - 1]) if team.rank == 0 else 0.0


def _launched(count: int, steps: int, batch: int) -> float:
    """Slices a second of ``count`` processes together."""
    with tempfile.TemporaryDirectory() as folder:
        own = ["-m", "examples.benchmarks.speed_training", "--steps", str(steps), "--batch", str(batch), "--folder", folder]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", *own]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        said = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout
    return count * batch * float(next(line.split()[1] for line in said.splitlines() if line.startswith("STEPS")))


def main() -> None:
    """Both by turns, or under torchrun this process's share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8, help="slices a step in each process")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="internal: the folder of the checkpoint")
    options = parser.parse_args()
    if options.folder:
        found = steps_a_second(options.steps, options.batch, options.folder)
        if found:
            print(f"STEPS {found} in {world_size()} processes", flush=True)
        return
    runs = {f"{count} processes": clocked(partial(_launched, count, options.steps, options.batch)) for count in (1, 2)}
    timings = by_turns(runs, options.repeats)
    one, two = (timings[f"{count} processes"].result for count in (1, 2))
    print(f"one process {one:.2f} slices a second, two {two:.2f}: {two / one:.2f} times")


if __name__ == "__main__":
    main()
