"""A training's start and memory against the number of slices: ``python -m examples.benchmarks.many_slices [--slices 1000 1000000]``.

Every patient is a cache file as ``fit`` writes it, but a sparse one: it has the size and takes no room on the disk. Patients, index,
identity, choice of slices, network and loop are those of ``fit translator``; each size runs in a process of its own. Printed: seconds from
the patients' table to the end of the first step, MONAI's import among them, waited and computed, and the memory that is the process's own
(what it reads of the cache files the system can take back at will).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from localdiff_cli.startup import prepare_process

PER_PATIENT = 130
SHAPE = (208, 176)
CONTRASTS = ("T1w", "T2w")


def own_memory() -> float:
    """MiB of this process that no file stands behind."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) / 1024


def lay_out(folder: Path, slices: int) -> None:
    """A patients' table and a sparse cache of ``slices`` slices."""
    from localdiff_cli.training.pairs import Pair
    from localdiff_cli.training.slices import beside, cache_stem, record_type
    from localdiff_cli.volumes.prepare import PrepareSettings

    kind = record_type({**dict.fromkeys(CACHED, np.empty((1, *SHAPE), np.uint16)), **dict.fromkeys(MASKS, np.empty((1, *SHAPE), bool))})
    cache = folder / "cache"
    cache.mkdir(parents=True)
    settings = PrepareSettings(shape=SHAPE)
    for number in range(-(-slices // PER_PATIENT)):
        pair = Pair(f"sub-{number:05d}", folder / f"{number}_T1w", folder / f"{number}_T2w", folder / f"{number}_mask", None, "train")
        for path in (pair.condition, pair.target, pair.mask):
            assert path is not None
            path.touch()
        stem, count = cache / cache_stem(pair, CONTRASTS, settings), min(PER_PATIENT, slices - number * PER_PATIENT)
        with beside(stem, ".npy").open("wb") as handle:
            header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (count,)}
            np.lib.format.write_array_header_1_0(handle, header)
            handle.truncate(handle.tell() + count * kind.itemsize)
        beside(stem, ".json").write_text(json.dumps({"digest": f"{number:064x}", "lesion_pixels": [0] * count}))


CACHED, MASKS = ("condition", "target"), ("brain", "lesion")


def first_steps(folder: Path, slices: int, steps: int) -> dict[str, float]:
    """Seconds to the end of the first step, own memory after it and after ``steps`` steps."""

    from localdiff_cli.diffusion.network import NetworkSettings, TranslatorNetwork
    from localdiff_cli.diffusion.schedule import Schedule
    from localdiff_cli.training.augment import AugmentSettings
    from localdiff_cli.training.job import identity
    from localdiff_cli.training.loop import LoopSettings, Progress, train
    from localdiff_cli.training.pairs import Pair
    from localdiff_cli.training.slices import load_slices
    from localdiff_cli.training.translator import healthy_slices, translator_loss
    from localdiff_cli.volumes.prepare import PrepareSettings

    started, computed, seen = time.monotonic(), time.process_time(), []
    names = [(f"sub-{n:05d}", str(n)) for n in range(-(-slices // PER_PATIENT))]
    pairs = [Pair(name, folder / f"{n}_T1w", folder / f"{n}_T2w", folder / f"{n}_mask", None, "train") for name, n in names]
    patients = load_slices(pairs, CONTRASTS, PrepareSettings(shape=SHAPE), folder / "cache", print)
    used = healthy_slices(patients, "train")
    assert used.count == slices
    network = TranslatorNetwork(NetworkSettings(space_to_depth=8, channels=(32, 32), num_res_blocks=1, attention_levels=(False, False)))
    loss = translator_loss(used, Schedule(), AugmentSettings(), 2)
    settings = LoopSettings(steps=steps, batch_size=2, report_every=1)

    def note(_: Progress) -> None:
        seen.append((time.monotonic() - started, time.process_time() - computed, own_memory()))

    train(network, loss, settings, folder / "c.pt", note, None, identity(patients))
    (wall, processor, memory), last = seen[0], seen[-1]
    told = {"slices": slices, "first step, s": wall, "of a processor, s": processor, "own memory then, MiB": memory}
    return told | {f"after {steps} steps": last[2]}


def main() -> None:
    """Each size in a process of its own; a line a size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, nargs="+", default=[1000, 1_000_000])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--folder", type=Path, help="internal: the folder of the sparse files")
    options = parser.parse_args()
    if options.folder:
        prepare_process()
        print(json.dumps(first_steps(options.folder, options.slices[0], options.steps)))
        return
    for slices in options.slices:
        with tempfile.TemporaryDirectory() as name:
            lay_out(Path(name), slices)
            command = [sys.executable, "-m", __spec__.name, "--slices", str(slices), "--steps", str(options.steps), "--folder", name]
            print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
