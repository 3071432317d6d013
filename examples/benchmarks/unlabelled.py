"""What is found without a single lesion label: PatchCore with healthy people only, and a network that learnt synthetic anomalies.

``python -m examples.benchmarks.paper --part unlabelled --model t1-to-flair --data DATA --split test --every 4``

Bank, network and threshold come from healthy people alone. For the sake of comparison every score is cut alike: 2 % of the brain pixels of
the healthy ``val`` people exceed the cut. (On ``val`` itself the cut has therefore seen the healthy people judged.)
``python -m examples.benchmarks.unlabelled`` makes the network's weights again.
"""

from __future__ import annotations

import argparse
import functools
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, pad

from examples.benchmarks import harm, scorers
from examples.benchmarks.anomalies import CHANGED, CORRUPTIONS, LEAST_BRAIN, RADII, SPOTS, WHOLE, anomaly_loss
from examples.benchmarks.detectors import FIT, Found, Stored, detection_line, found_in, leading_number
from examples.benchmarks.scorers import Scorer
from examples.benchmarks.table import Table, decimal, percent
from examples.benchmarks.weights import Training, digest_of, fit, obtain
from localdiff_cli.batch.report import recorded_arguments
from localdiff_cli.bundle import load_detector, load_segmenter, open_bundle
from localdiff_cli.errors import UsageError
from localdiff_cli.evaluation.cohort.statistics import Bootstrap, bootstrap_mean, bootstrap_ratio
from localdiff_cli.ood.fit import fit_bank
from localdiff_cli.ood.threshold import calibrate, to_mask
from localdiff_cli.segmentation.coarse import MOST_OF_IT
from localdiff_cli.segmentation.network import LesionNetwork, LesionNetworkSettings, lesion_probability
from localdiff_cli.tasks.judged import ready_for
from localdiff_cli.tasks.translation import TranslateWork
from localdiff_cli.training.augment import AugmentSettings
from localdiff_cli.training.loop import LoopSettings
from localdiff_cli.training.people import Person, Slices, digest, people, slices_of, stamps

VERSION = 1
"""Of the corruptions, the scores and the figures: what was made or measured with another is made again."""
FACTOR = 2
"""The anomaly network sees pixels so many times as long as the bundle's, in either direction."""
FALSE_ALARM = 0.02
HEALTHY = "healthy"
OTHERS = (HEALTHY, "elderly", "multiple sclerosis")
"""Kinds of people without a tumour; everybody else with a mask counts as having one, as the patients of whom no disease is named."""
LOOP = LoopSettings(steps=4000, batch_size=12, rate=1e-3)
AUGMENT = AugmentSettings()
Cohort = list[tuple[Person, Slices]]


@dataclass(frozen=True, eq=False)
class Seen:
    """Every n-th slice of a person: ``condition`` and ``brain`` ``(N, 1, H, W)``, ``lesion`` ``(N, H, W)``, ml a pixel."""

    person: Person
    condition: Tensor
    brain: Tensor
    lesion: NDArray[np.bool_]
    ml: float


def cohort(work: TranslateWork, data: list[Path], split: str, folder: Path, wanted: Callable[[Person], bool]) -> Cohort:
    """People of a split and their slices, by name; who cannot be read is left out with a word."""
    found = people(data, work.bundle.condition.contrast, work.bundle.target.contrast, split)
    chosen = sorted((p for p in found if wanted(p)), key=lambda p: p.name)
    slices = [(p, slices_of(p, ready_for(work), folder / "cache" / "harm", print)) for p in chosen]
    return [(p, each) for p, each in slices if each is not None]


def is_healthy(person: Person) -> bool:
    """Whether somebody has neither a tumour nor any other disease, nor a mask of lesions."""
    return person.kind == HEALTHY and person.lesions is None


def is_judged(person: Person) -> bool:
    """Whether somebody has a tumour with a mask, or is known to have none. Says who is left out."""
    judged = person.kind in OTHERS or person.lesions is not None
    if not judged:
        print(f"left out {person.name}: {person.kind}, without a mask")
    return judged


def seen(person: Person, slices: Slices, every: int, spacing: float) -> Seen:
    """A person's every n-th slice."""
    condition = torch.from_numpy(slices.condition[::every] / np.float32(65535)).float()[:, None]
    brain = slices.brain[::every]
    lesion = (slices.lesions[::every] != 0) & brain
    return Seen(person, condition, torch.from_numpy(brain)[:, None], lesion, spacing**2 * slices.thickness * every / 1000)


def coarse(condition: Tensor, brain: Tensor, multiple: int) -> tuple[Tensor, Tensor]:
    """Condition and brain ``(N, 1, H, W)`` on the anomaly network's grid, rows and columns a ``multiple``; 0 outside the brain."""
    condition, share = (avg_pool2d(each.float(), FACTOR) for each in (condition, brain))
    margins = (0, -condition.shape[-1] % multiple, 0, -condition.shape[-2] % multiple)
    inside = pad(share, margins) > MOST_OF_IT
    return pad(condition, margins) * inside, inside


def learnt_images(slices: Slices, multiple: int) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """One person's slices as the anomaly network learns from them, ``(S, h, w)``, 65535 = 1.0."""
    condition, inside = coarse(torch.from_numpy(np.float32(slices.condition))[:, None], torch.from_numpy(slices.brain)[:, None], multiple)
    kept = inside.flatten(1).any(dim=1)
    return condition[kept, 0].round().numpy().astype(np.uint16), inside[kept, 0].numpy()


def training_of(work: TranslateWork, healthy: Cohort) -> Training:
    """How the anomaly network is made from healthy people."""
    settings = LesionNetworkSettings()
    images = [learnt_images(slices, settings.multiple) for _, slices in healthy]
    identity = {
        "version": VERSION, "network": asdict(settings), "augment": asdict(AUGMENT), "factor": FACTOR, "radii": RADII, "spots": SPOTS,
        "whole": WHOLE, "least_brain": LEAST_BRAIN, "changed": CHANGED, "kinds": [each.__name__ for each in CORRUPTIONS],
        "people": [[digest_of(condition), digest_of(brain)] for condition, brain in images],
    }  # fmt: skip
    names = ", ".join(person.name for person, _ in healthy)
    about = f"{sum(len(condition) for condition, _ in images)} slices of {len(images)} healthy people and averages of such: {names}"
    make = functools.partial(LesionNetwork, settings)
    loss = anomaly_loss(images, AUGMENT, LOOP.batch_size)
    return Training(f"anomalies-{work.bundle.condition.contrast}", make, loss, LOOP, identity, about)


def anomaly_scorer(network: nn.Module) -> Scorer:
    """The probability of an anomaly; a slice scores its largest."""
    assert isinstance(network, LesionNetwork)
    multiple = network.settings.multiple

    def scorer(condition: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
        found = lesion_probability(network, *coarse(condition, brain, multiple))
        fine = interpolate(found, scale_factor=FACTOR, mode="bilinear", align_corners=False)
        score = fine[..., : condition.shape[-2], : condition.shape[-1]] * brain
        return score, score.flatten(1).amax(dim=1)

    return scorer


def candidates(work: TranslateWork, healthy: Cohort, network: nn.Module) -> dict[str, Scorer]:
    """Every score by name. The masks of patients chose the slices of the bundle's bank; only the last one has seen lesions."""
    bundle, device = work.bundle, torch.device("cpu")
    own = load_detector(bundle, bundle.defaults.false_alarm, device)
    slices = [seen(person, each, FIT["every"], bundle.grid.spacing) for person, each in healthy]
    pairs = [pair for each in slices for pair in zip(each.condition, each.brain, strict=True)]
    bank = fit_bank(pairs, own.backbone, FIT["coreset_size"], FIT["seed"], FIT["max_patches"])
    finder = load_segmenter(open_bundle(bundle.finder), device)
    dark = bundle.condition.contrast == "T1w"
    return {
        "darkness" if dark else "brightness": scorers.brightness(-1 if dark else 1),
        "patchcore, healthy people": scorers.patchcore(own.backbone, bank),
        "synthetic anomalies": anomaly_scorer(network),
        "patchcore of the bundle (patients' masks chose its slices)": scorers.patchcore(own.backbone, own.bank),
        f"{bundle.finder} (learnt from masks)": scorers.segmenter(finder),
    }


def mask_of(work: TranslateWork, score: Tensor, cut: float, brain: Tensor) -> NDArray[np.bool_]:
    """B of a score, opened and dilated as the bundle does it, ``(N, H, W)``."""
    d = work.bundle.defaults
    found = to_mask((score > cut).float(), 0.5, brain, d.open_mm, d.dilate_mm, (work.bundle.grid.spacing,) * 2)
    return found[:, 0].numpy()


def line_of(work: TranslateWork, stored: Stored, held_out: list[Seen], everybody: list[Seen]) -> tuple[dict[str, str], float]:
    """One score's row, and its cut: how it finds tumours, and what it flags in healthy val people and in others without a tumour."""
    cut = calibrate([stored(each.condition, each.brain).score[each.brain] for each in held_out]).tau_a(FALSE_ALARM)
    sick: list[Found] = []
    flagged: dict[str, list[float]] = {kind: [] for kind in OTHERS}
    for each in everybody:
        scores = stored(each.condition, each.brain)
        mask = mask_of(work, scores.score, cut, each.brain)
        if each.person.kind in OTHERS:
            flagged[each.person.kind].append(float(mask.sum()) * each.ml)
        else:
            sick.append(found_in(scores, each.brain, mask, each.lesion))
    line = detection_line(sick)
    line.pop("slice AUROC, 60 highest")
    masks = [mask_of(work, stored(each.condition, each.brain).score, cut, each.brain) for each in held_out]
    share = bootstrap_ratio([float(mask.sum()) for mask in masks], [float(each.brain.sum()) for each in held_out], Bootstrap(), "no brain")
    line |= {"healthy val people flagged %": percent(share)}
    return line | {f"ml flagged, {kind}": decimal(bootstrap_mean(values, Bootstrap()), 1) for kind, values in flagged.items()}, cut


def measure(options: argparse.Namespace) -> list[Table]:
    """Every score on every n-th slice: tumours of the people with masks, and what is flagged in the others."""
    work = harm.load(options.model)
    learnt, held_out = (cohort(work, options.data, split, options.work, is_healthy) for split in ("train", "val"))
    judged = cohort(work, options.data, options.split, options.work, is_judged)
    tumours = sum(p.kind not in OTHERS for p, _ in judged)
    if not learnt or not held_out or not tumours:
        found = f"{len(learnt)} healthy people of the train split, {len(held_out)} of the val split, {tumours} people with a tumour's mask"
        raise UsageError(f"--data: {found}; expected some of each. Who is healthy stands in participants.tsv, column disease")
    command = f"python -m examples.benchmarks.unlabelled --model {options.model} --data {shlex.join(map(str, options.data))}"
    training = training_of(work, learnt)
    account: dict[str, Any] = {
        "version": VERSION, "bundle": work.bundle.hash, "segmenter": open_bundle(work.bundle.finder).hash, "fit": FIT,
        "every": options.every, "false_alarm": FALSE_ALARM, "learnt from": [p.name for p, _ in learnt],
        "cut by": [p.name for p, _ in held_out], "people": [p.name for p, _ in judged], "network": training.recipe,
    }  # fmt: skip
    folder = options.work / "unlabelled" / digest([account, [stamps(p) for p, _ in [*learnt, *held_out, *judged]]])
    spacing = work.bundle.grid.spacing
    others, everybody = ([seen(p, slices, options.every, spacing) for p, slices in group] for group in (held_out, judged))
    rows, cuts = [], {}
    for name, scorer in candidates(work, learnt, obtain(training, options.work, command)).items():
        line, cuts[name] = line_of(work, Stored(scorer, folder / name.replace(" ", "-")), others, everybody)
        rows.append({"score": name} | line)
        print(f"unlabelled: {name}", flush=True)
    about = f"{tumours} {options.split} patients with tumours, {len(judged) - tumours} people without, every {options.every}. slice; "
    about += f"learnt from {len(learnt)} healthy people and averages of such, cut by {len(held_out)}"
    return [Table(f"unlabelled-{work.bundle.name}-{options.split}", rows, about, account | {"tau_a": cuts}, lambda c: _draw(c, rows))]


def _draw(canvas: Any, rows: list[dict[str, str]]) -> None:
    """Tumours covered against what is flagged in the elderly, and the pixel AUROC."""
    left, right = canvas.subplots(1, 2)
    left.barh([row["score"] for row in rows], [leading_number(row["pixel AUROC"]) for row in rows])
    left.set(xlabel="pixel AUROC, tumours", xlim=(0.5, 1))
    left.invert_yaxis()
    for row in rows:
        right.scatter([leading_number(row["ml flagged, elderly"])], [leading_number(row["lesion covered %"])], label=row["score"])
    right.set(xlabel="ml flagged in elderly people", ylabel="tumour covered, %", ylim=(0, 100))
    right.legend(fontsize=6)


def main() -> None:
    """Make the weights again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="translator bundle")
    parser.add_argument("--data", required=True, nargs="+", type=Path, help="folders with healthy people")
    parser.add_argument("--work", type=Path, default=Path("bench.work"), help="checkpoints; an interrupted training goes on from there")
    parser.add_argument("--out", type=Path, default=Path("models/bench"))
    options = parser.parse_args()
    work = harm.load(options.model)
    command = f"python -m examples.benchmarks.unlabelled {recorded_arguments(sys.argv[1:])}"
    healthy = cohort(work, options.data, "train", options.work, is_healthy)
    if not healthy:
        raise UsageError("--data: found no healthy people of the train split; expected some, named in participants.tsv")
    fit(training_of(work, healthy), options.out, options.work, command)


if __name__ == "__main__":
    main()
