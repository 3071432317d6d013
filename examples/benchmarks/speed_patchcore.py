"""PatchCore, ours against anomalib's, on the same embedded patches: the coreset's time, the search's time, and what each then finds.

Two lines are floors, not programs: the backbone's pass over the same slices, which every PatchCore pays before it searches, and the one
matrix product of patches and bank that a search cannot do without. What a search takes beyond that product is its own.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from examples.benchmarks.anomalib_process import VERSION, Anomalib, anomalib
from examples.benchmarks.table import Table
from examples.benchmarks.timing import Clocked, Timing, by_turns, clocked
from examples.benchmarks.translation import chunk_of
from localdiff_cli.bundle import Bundle, load_detector
from localdiff_cli.errors import UsageError
from localdiff_cli.evaluation.metrics.ood_maps import auroc
from localdiff_cli.ood.detector import PatchCoreDetector
from localdiff_cli.ood.fit import sample_rows
from localdiff_cli.ood.patchcore import MemoryBank, brain_patches, cells_in_brain, greedy_k_centre, patch_scores, slice_score
from localdiff_cli.threads import apart
from localdiff_cli.training.slices import PatientSlices

MAX_FIT_PATCHES = 20_000
RATIO = 0.1
"""anomalib's default: a tenth of the patches becomes the bank."""
SEED = 0
BACKBONE, PRODUCT = "predict's floor: the backbone, the same slices", "predict's floor: one matrix product a slice"


@dataclass(frozen=True, eq=False)
class Patches:
    """Embedded patches of the brain: ``fit`` ``(P, D)`` without a lesion; a slice each, ``query`` ``(Q, D)``, its ``lesion`` ``(Q,)``."""

    fit: Tensor
    query: list[Tensor]
    lesion: list[NDArray[np.bool_]]
    asked: tuple[tuple[Tensor, Tensor], ...] = ()
    """Condition and brain of each slice that was embedded into ``query``."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Bank entries, patch scores ``(Q,)`` and slice scores ``(S,)`` of all queries."""

    entries: int
    patches: NDArray
    slices: NDArray


def patches_of(detector: PatchCoreDetector, cases: list[PatientSlices]) -> Patches:
    """Every other slice's lesion-free patches to fit on, the patches of the slices between as queries."""
    embedded, slices = [], []
    for patient in cases:
        chunk, _, lesion = chunk_of(patient, 1)
        for condition, brain, marked in zip(chunk.condition, chunk.brain, torch.from_numpy(lesion), strict=True):
            cells, embeddings = brain_patches(detector.backbone, condition, brain)
            touched = cells_in_brain(marked[None, None], (cells.shape[0], cells.shape[1]))[0][cells]
            embedded.append((embeddings, touched))
            slices.append((condition, brain))
    healthy = (embeddings[~touched] for embeddings, touched in embedded[::2])
    fit = sample_rows(healthy, MAX_FIT_PATCHES, np.random.default_rng(SEED))
    return Patches(fit, [e for e, _ in embedded[1::2]], [t.numpy() for _, t in embedded[1::2]], tuple(slices[1::2]))


def our_fit(patches: Patches) -> Tensor:
    """The bank that our coreset keeps."""
    return patches.fit[greedy_k_centre(patches.fit, int(len(patches.fit) * RATIO), SEED)].clone()


def our_scores(bank: MemoryBank, query: list[Tensor]) -> Scored:
    """What :class:`PatchCoreDetector` does with a slice after its embedding, slices side by side as there."""

    def one(embeddings: Tensor) -> tuple[Tensor, Tensor]:
        scores, nearest = patch_scores(bank, embeddings)
        return scores, slice_score(bank, embeddings, scores, nearest)

    found = apart(one, query)
    return Scored(len(bank.embeddings), torch.cat([s for s, _ in found]).numpy(), torch.stack([s for _, s in found]).numpy())


def floors(detector: PatchCoreDetector, patches: Patches) -> dict[str, Clocked[Scored]]:
    """What predict cannot do without, slices side by side as there: the backbone, and the search's matrix product."""
    none = Scored(len(detector.bank.embeddings), np.empty(0), np.empty(0))

    def backbone() -> Scored:
        apart(lambda one: brain_patches(detector.backbone, *one), patches.asked)
        return none

    def product() -> Scored:
        apart(lambda embeddings: embeddings @ detector.bank.embeddings.T, patches.query)
        return none

    return {BACKBONE: clocked(backbone), PRODUCT: clocked(product)}


def _asked(other: Anomalib, work: Path, **request: Any) -> tuple[float, Scored]:
    """One turn of anomalib, with the seconds it took by its own clock."""
    path = work / f"anomalib-{request['do']}.npz"
    answer = other.ask(scores=str(path), seed=SEED, **request)
    with np.load(path) as arrays:
        return answer["seconds"], Scored(answer["entries"], arrays["patches"], arrays["slices"])


def timings_of(
    patches: Patches, bank: MemoryBank, work: Path, repeats: int, beside: Mapping[str, Clocked[Scored]] | None = None
) -> tuple[dict[str, Timing[Scored]], str]:
    """Fit and predict of both, and what else is timed ``beside`` them, by turns; where anomalib does not run, the reason too."""
    work.mkdir(parents=True, exist_ok=True)
    arrays = work / "patches.npz"
    lengths = np.array([len(q) for q in patches.query])
    np.savez(arrays, fit=patches.fit.numpy(), bank=bank.embeddings.numpy(), query=torch.cat(patches.query).numpy(), lengths=lengths)
    our_scores(bank, patches.query[:1])  # the index is built when it is first asked
    runs: dict[str, Clocked[Scored]] = {"fit, localdiff": _fit_and_score(patches), "predict, localdiff": _predict(bank, patches.query)}
    runs |= beside or {}
    try:
        with anomalib(work, arrays, torch.get_num_threads()) as other:
            theirs: dict[str, Clocked[Scored]] = {
                f"fit, anomalib {VERSION}": partial(_asked, other, work, do="fit", ratio=RATIO),
                f"predict, anomalib {VERSION}": partial(_asked, other, work, do="predict"),
            }
            return by_turns(runs | theirs, repeats), ""
    except UsageError as error:
        return by_turns(runs, repeats), str(error)


def _fit_and_score(patches: Patches) -> Clocked[Scored]:
    """Only the coreset is timed; what its bank finds is asked afterwards."""
    fit: Callable[[], tuple[float, Tensor]] = clocked(partial(our_fit, patches))

    def run() -> tuple[float, Scored]:
        seconds, bank = fit()
        return seconds, our_scores(MemoryBank(bank), patches.query)

    return run


def _predict(bank: MemoryBank, query: list[Tensor]) -> Clocked[Scored]:
    return clocked(partial(our_scores, bank, query))


def table(bundle: Bundle, cases: list[PatientSlices], work: Path, repeats: int) -> Table:
    """The table ``speed-patchcore-…``; a row of anomalib that could not be measured says why."""
    detector = load_detector(bundle, bundle.defaults.false_alarm, torch.device("cpu"))
    patches = patches_of(detector, cases)
    timings, reason = timings_of(patches, detector.bank, work, repeats, floors(detector, patches))
    lines = lines_of(timings, patches, reason)
    count = sum(len(q) for q in patches.query)
    about = (
        f"{len(patches.fit)} patches to fit on, {count} of {len(patches.query)} other slices of the same {len(cases)} patients to score: "
        f"it compares programs, not detection; CPU, {torch.get_num_threads()} threads; least of {repeats} turns"
    )
    versions = {name: importlib.metadata.version(name) for name in ("torch", "faiss-cpu", "numpy")} | {"anomalib": VERSION}
    account = {"bundle": bundle.name, "hash": bundle.hash, "ratio": RATIO, "seed": SEED, "repeats": repeats, "versions": versions}
    return Table(f"speed-patchcore-{bundle.name}", lines, about, account, partial(_draw, lines))


def lines_of(timings: dict[str, Timing[Scored]], patches: Patches, reason: str) -> list[dict[str, str]]:
    """One line for fit and predict of each; ``reason`` stands where anomalib's would."""
    labels = np.concatenate(patches.lesion)
    lines = []
    for what in ("fit", "predict"):
        ours = timings[f"{what}, localdiff"]
        for name in (f"{what}, localdiff", f"{what}, anomalib {VERSION}"):
            one = timings.get(name)
            lines.append({"row": name} | (_figures(one, ours, labels) if one else _nothing(reason)))
    known = [name for name in (BACKBONE, PRODUCT) if name in timings]
    return lines + [{"row": name} | _nothing("") | _cost(timings[name], timings["predict, localdiff"]) for name in known]


def _cost(one: Timing[Scored], ours: Timing[Scored]) -> dict[str, str]:
    return {
        "bank entries": str(one.result.entries), "s": f"{one.seconds:.3f}", "spread %": f"{100 * one.spread:.0f}",
        "times ours": f"{one.seconds / ours.seconds:.2f}",
    }  # fmt: skip


def _figures(one: Timing[Scored], ours: Timing[Scored], labels: NDArray[np.bool_]) -> dict[str, str]:
    scores = one.result.patches
    ranked = f"{auroc(scores[labels], np.sort(scores[~labels])):.4f}" if 0 < labels.mean() < 1 else "n/a (no lesion)"
    difference = max(np.abs(scores - ours.result.patches).max(), np.abs(one.result.slices - ours.result.slices).max())
    return _cost(one, ours) | {"patch AUROC": ranked, "largest difference of scores": f"{difference:.2g}"}


def _nothing(reason: str) -> dict[str, str]:
    keys = ("bank entries", "s", "spread %", "times ours", "patch AUROC", "largest difference of scores")
    return dict.fromkeys(keys, "") | ({"s": f"n/a ({reason})"} if reason else {})


def _draw(lines: list[dict[str, str]], canvas: Any) -> None:
    known = [line for line in lines if line["times ours"]]
    axes = canvas.subplots()
    bars = axes.barh([line["row"] for line in known], [float(line["times ours"]) for line in known])
    axes.bar_label(bars, [f"{line['times ours']} ×" for line in known], padding=3)
    axes.set(xlabel="time, ours = 1")
    axes.invert_yaxis()
    axes.margins(x=0.15)
