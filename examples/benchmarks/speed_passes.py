"""What a whole volume costs beyond the networks' forward passes: ``translate`` from file to file against the same passes alone.

While a volume is translated every call of a network is noted with what it was given. Afterwards these calls are made again, by turns
with the whole translation, and nothing else is: that is the floor of any program that asks the same networks.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import get_ident
from typing import Any

import nibabel as nib
import numpy as np
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from examples.benchmarks.table import Table
from examples.benchmarks.timing import Timing, by_turns, clocked
from localdiff_cli.bundle import Bundle
from localdiff_cli.threads import apart
from localdiff_cli.training.pairs import Pair

SLICES = 155
"""A volume with fewer is repeated along the slice axis, in thinner slices."""


@dataclass(frozen=True, eq=False)
class Call:
    """A network, and what it was given."""

    network: nn.Module
    arguments: tuple[Any, ...]


@contextmanager
def noted_calls() -> Iterator[list[Call]]:
    """All calls of networks within the block, each network's own layers apart; the arguments are kept, not copied."""
    calls: list[Call] = []
    depth = Counter[int]()  # of each thread: slices run side by side

    def before(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if depth[get_ident()] == 0:
            calls.append(Call(module, arguments))
        depth[get_ident()] += 1

    def after(module: nn.Module, arguments: tuple[Any, ...], result: Any) -> None:
        depth[get_ident()] -= 1

    hooks = (register_module_forward_pre_hook(before), register_module_forward_hook(after))
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def made_again(calls: list[Call]) -> None:
    """Every call once more, side by side on the cores as a translation makes them."""
    apart(lambda k: _again(calls[k]), range(len(calls)))


@torch.inference_mode()
def _again(call: Call) -> None:
    call.network(*call.arguments)


def whole_volume(pair: Pair, folder: Path) -> Pair:
    """The patient with at least SLICES slices: condition and brain are repeated along the slice axis where they have fewer.

    The slices become so much thinner that the head stays as large as it was.
    """
    return replace(pair, condition=_repeated(pair.condition, folder), brain=None if pair.brain is None else _repeated(pair.brain, folder))


def _slices_of(path: Path) -> int:
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return int(image.shape[2])


def _repeated(path: Path, folder: Path) -> Path:
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    voxels = np.asanyarray(image.dataobj)
    if voxels.shape[2] >= SLICES:
        return path
    times = -(-SLICES // voxels.shape[2])
    longer = np.concatenate([voxels if k % 2 == 0 else voxels[:, :, ::-1] for k in range(times)], axis=2)[:, :, :SLICES]
    thinner = np.diag([1, 1, voxels.shape[2] / SLICES, 1])
    nib.save(nib.Nifti1Image(longer, image.affine @ thinner), folder / path.name)
    return folder / path.name


Ready = Callable[[Pair, Path, Mapping[str, Any]], Callable[[], Any]]
"""From a patient, a folder and options to the translation into that folder, ready to run."""


def table(bundle: Bundle, pair: Pair, modes: Mapping[str, Mapping[str, Any]], volume: Ready, repeats: int) -> Table:
    """Wall seconds of a volume from file to file, of its forward passes alone, and the ratio, in each of ``modes`` (options by name)."""
    runs: dict[str, Callable[[], tuple[float, Any]]] = {}
    made: dict[str, list[Call]] = {}
    with tempfile.TemporaryDirectory() as name:
        whole = whole_volume(pair, Path(name))
        for number, (row, changes) in enumerate(modes.items()):
            translate = volume(whole, Path(name) / str(number), changes)
            with noted_calls() as made[row]:
                translate()
            runs |= {row: clocked(translate), _alone(row): clocked(partial(made_again, made[row]))}
        timings = by_turns(runs, repeats)
        slices = _slices_of(whole.condition)
    lines = [_line(row, timings[row], timings[_alone(row)], made[row]) for row in modes]
    about = (
        f"{pair.name}, {slices} slices, file to file, models loaded; CPU, {torch.get_num_threads()} threads; the same calls of the "
        f"networks with the same arguments, and nothing else; least of {repeats} turns"
    )
    account = {"bundle": bundle.name, "hash": bundle.hash, "volume": pair.name, "slices": slices, "repeats": repeats}
    return Table(f"speed-passes-{bundle.name}", lines, about, account, partial(_draw, lines))


def _alone(row: str) -> str:
    return f"{row}: the forward passes"


def _line(row: str, whole: Timing[Any], passes: Timing[Any], calls: list[Call]) -> dict[str, str]:
    return {
        "row": row, "s a volume": f"{whole.seconds:.2f}", "s of forward passes": f"{passes.seconds:.2f}", "calls": str(len(calls)),
        "ratio": f"{whole.seconds / passes.seconds:.2f}", "spread %": f"{100 * max(whole.spread, passes.spread):.0f}",
    }  # fmt: skip


def _draw(lines: list[dict[str, str]], canvas: Any) -> None:
    axes = canvas.subplots()
    for label in ("s a volume", "s of forward passes"):
        axes.barh([f"{line['row']}, {label[2:]}" for line in lines], [float(line[label]) for line in lines])
    axes.set(xlabel="seconds")
    axes.invert_yaxis()
