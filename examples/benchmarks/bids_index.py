"""How long the index of a large BIDS dataset takes: a tree of empty files, indexed by ``localdiff-bids`` and by bids2table.

``python -m examples.benchmarks.bids_index --people 10000`` prints seconds of wall and processor time and the peak memory of each.
Each has two sessions with two runs of T1w and a FLAIR, every image with its sidecar. bids2table is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from localdiff_cli.batch.volume import peak_megabytes
from localdiff_cli.bids.participant import Selection, choices_of

IMAGES = ("run-1_T1w", "run-2_T1w", "FLAIR")


def make_tree(root: Path, people: int) -> None:
    """A dataset of ``people`` in ``root``, all files empty."""
    root.mkdir(parents=True)
    (root / "dataset_description.json").write_text('{"Name": "Empty", "BIDSVersion": "1.10.0"}')
    for person in range(people):
        for session in ("a", "b"):
            folder = root / f"sub-{person:05d}" / f"ses-{session}" / "anat"
            folder.mkdir(parents=True)
            for image in IMAGES:
                for extension in (".nii.gz", ".json"):
                    (folder / f"sub-{person:05d}_ses-{session}_{image}{extension}").touch()


def localdiff_index(root: Path) -> int:
    """The visits of which an image is chosen."""
    return len(choices_of(root, "T1w", Selection()))


def one_person(root: Path) -> int:
    """The visits of one person, as a job of one person finds them."""
    return len(choices_of(root, "T1w", Selection(("00001",))))


def bids2table_index(root: Path) -> int:
    """The files that bids2table lists."""
    import bids2table

    return len(bids2table.index_dataset(str(root)))


def measured(name: str, index: Callable[[Path], int], root: Path) -> None:
    """Print one row: what was found, seconds, processor seconds, MB."""
    wall, processor = time.perf_counter(), time.process_time()
    try:
        found = index(root)
    except ImportError:
        print(f"{name}\tnot installed")
        return
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    print(f"{name}\t{found}\t{wall:.1f}\t{processor:.1f}\t{peak_megabytes():.0f}", flush=True)


def main() -> None:
    """Make the tree and time each index in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=10_000, help="people in the dataset (default: 10000)")
    parser.add_argument("--data", type=Path, help="a dataset to index instead (default: one of empty files)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = given.data or Path(folder) / "study"
        if given.data is None:
            make_tree(root, given.people)
        print("index\tfound\tseconds\tprocessor_seconds\tpeak_mb")
        for index in (localdiff_index, one_person, bids2table_index):
            process = multiprocessing.get_context("spawn").Process(target=measured, args=(index.__name__, index, root))
            process.start()
            process.join()


if __name__ == "__main__":
    main()
