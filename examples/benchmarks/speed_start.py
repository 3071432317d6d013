"""What a process costs before it does anything: python, torch, MONAI whole and as localdiff loads it, and ``translate`` on one slice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib

from examples.benchmarks.table import Table
from examples.benchmarks.timing import Timing, by_turns, clocked
from localdiff_cli.bundle import Bundle
from localdiff_cli.startup import OURS
from localdiff_cli.training.pairs import Pair

ONE_SLICE = "localdiff translate, one slice"
MONAI = "import torch; from localdiff_cli.startup import load_monai; load_monai(); import monai.networks.nets, monai.networks.schedulers"
PROGRAMS = {
    "python": "pass", "torch": "import torch", "torch and MONAI, all of it": MONAI, "torch and MONAI, as localdiff loads them": MONAI,
}  # fmt: skip


def one_slice(pair: Pair, folder: Path) -> tuple[Path, Path | None]:
    """The middle slice of a patient's condition as a volume of its own, and of the brain mask."""
    return _middle(pair.condition, folder), None if pair.brain is None else _middle(pair.brain, folder)


def _middle(path: Path, folder: Path) -> Path:
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    middle = image.shape[2] // 2
    nib.save(image.slicer[:, :, middle : middle + 1], folder / path.name)
    return folder / path.name


def _program(text: str, ours: bool) -> None:
    environment = {key: value for key, value in os.environ.items() if key != OURS} | ({OURS: "1"} if ours else {})
    subprocess.run([sys.executable, "-c", text], check=True, env=environment)


def _translate(bundle: Bundle, source: Path, brain: Path | None, folder: Path) -> float:
    """The seconds that ``translate`` says its stages took, from the sidecar."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        command = [sys.executable, "-m", "localdiff_cli.app", "translate", "--in", source, "--out", out, "--model", bundle.path]
        subprocess.run([*map(str, command), "--device", "cpu", "--quiet", *(["--brain", str(brain)] if brain else [])], check=True)
        told = json.loads(next(path for path in Path(out).glob("*.json") if path.name != "run.json").read_text())
        return float(sum(told["Seconds"].values()))


def table(bundle: Bundle, pair: Pair, repeats: int) -> Table:
    """Wall seconds of each, by turns; of ``translate`` also what is left when its own stages are taken away: the start-up."""
    with tempfile.TemporaryDirectory() as name:
        source, brain = one_slice(pair, Path(name))
        runs: dict[str, Callable[[], Any]] = {
            row: partial(_program, text, row.endswith("loads them")) for row, text in PROGRAMS.items()
        } | {ONE_SLICE: partial(_translate, bundle, source, brain, Path(name))}
        timings = by_turns({row: clocked(run) for row, run in runs.items()}, repeats)
    lines = [_line(row, timing) for row, timing in timings.items()]
    about = f"each a process of its own; least of {repeats} turns; start-up: what the stages of the volume do not explain"
    account = {"bundle": bundle.name, "hash": bundle.hash, "volume": pair.name}
    return Table(f"speed-start-{bundle.name}", lines, about, account, partial(_draw, lines))


def _line(row: str, timing: Timing[Any]) -> dict[str, str]:
    stages = timing.result or 0.0
    return {
        "row": row, "s": f"{timing.seconds:.2f}", "spread %": f"{100 * timing.spread:.0f}", "of which stages": f"{stages:.2f}",
        "start-up s": f"{max(timing.turns[0] - stages, 0):.2f}",
    }  # fmt: skip


def _draw(lines: list[dict[str, str]], canvas: Any) -> None:
    axes = canvas.subplots()
    axes.bar_label(axes.barh([line["row"] for line in lines], [float(line["s"]) for line in lines]), padding=3)
    axes.set(xlabel="s")
    axes.invert_yaxis()
