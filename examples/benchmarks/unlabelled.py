"""What is found without a single lesion label: PatchCore with healthy people only, and a network that learnt synthetic anomalies.

``python -m examples.benchmarks.paper --part unlabelled --model t1-to-flair --data DATA --split test --every 4``

Bank, network and threshold come from healthy people alone. For the sake of comparison every score is cut alike: 2 % of the brain pixels of
the healthy ``val`` people exceed the cut. ``python -m examples.benchmarks.unlabelled`` makes the network's weights again.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad

from examples.benchmarks import harm, scorers
from examples.benchmarks.anomalies import CORRUPTIONS, LEAST_BRAIN, RADII, SPOTS, WHOLE, anomaly_loss
from examples.benchmarks.detectors import FIT, Found, Stored, detection_line
from examples.benchmarks.scorers import Scorer, highest
from examples.benchmarks.table import Table, decimal
from examples.benchmarks.weights import Training, digest_of, fit, obtain
from localdiff_cli.batch.report import recorded_arguments
from localdiff_cli.bundle import load_detector, load_segmenter, open_bundle
from localdiff_cli.errors import UsageError
from localdiff_cli.evaluation.cohort.statistics import Bootstrap, bootstrap_mean
from localdiff_cli.evaluation.metrics.ood_maps import ood_figures
from localdiff_cli.ood.fit import fit_bank
from localdiff_cli.ood.threshold import calibrate, to_mask
from localdiff_cli.segmentation.coarse import MOST_OF_IT, CoarseFinder
from localdiff_cli.segmentation.network import LesionNetwork, LesionNetworkSettings
from localdiff_cli.tasks.judged import ready_for
from localdiff_cli.tasks.translation import TranslateWork
from localdiff_cli.training.augment import AugmentSettings
from localdiff_cli.training.loop import LoopSettings
from localdiff_cli.training.people import Person, Slices, digest, people, slices_of, stamps

FACTOR = 2
"""The anomaly network sees pixels so many times as long as the bundle's, in either direction."""
FALSE_ALARM = 0.02
AUPRO_LIMIT = 0.3
HEALTHY = "healthy"
OTHERS = (HEALTHY, "elderly", "multiple sclerosis")
"""Kinds of people without a tumour; everybody else with a mask has one."""
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
    """People of a split and their slices; who cannot be read is left out with a word."""
    found = people(data, work.bundle.condition.contrast, work.bundle.target.contrast, split)
    slices = [(p, slices_of(p, ready_for(work), folder / "cache" / "harm", print)) for p in found if wanted(p)]
    return [(p, each) for p, each in slices if each is not None]


def is_healthy(person: Person) -> bool:
    """Whether somebody has neither a tumour nor any other disease."""
    return person.kind == HEALTHY


def seen(person: Person, slices: Slices, every: int, spacing: float) -> Seen:
    """A person's every n-th slice."""
    condition = torch.from_numpy(slices.condition[::every] / np.float32(65535)).float()[:, None]
    brain = slices.brain[::every]
    lesion = (slices.lesions[::every] != 0) & brain
    return Seen(person, condition, torch.from_numpy(brain)[:, None], lesion, spacing**2 * slices.thickness * every / 1000)


def coarse(slices: Slices, multiple: int) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Condition and brain on the anomaly network's grid, ``(S, h, w)``, rows and columns a ``multiple``."""
    condition, brain = (torch.from_numpy(np.float32(each))[:, None] for each in (slices.condition, slices.brain))
    condition, brain = (avg_pool2d(each, FACTOR) for each in (condition, brain))
    margins = (0, -condition.shape[-1] % multiple, 0, -condition.shape[-2] % multiple)
    condition, brain = pad(condition, margins)[:, 0], pad(brain, margins)[:, 0] > MOST_OF_IT
    kept = brain.flatten(1).any(dim=1)
    return (condition * brain)[kept].round().numpy().astype(np.uint16), brain[kept].numpy()


def training_of(work: TranslateWork, healthy: Cohort) -> Training:
    """How the anomaly network is made from healthy people."""
    settings = LesionNetworkSettings()
    images = [coarse(slices, settings.multiple) for _, slices in healthy]
    identity = {
        "network": asdict(settings), "augment": asdict(AUGMENT), "factor": FACTOR, "radii": RADII, "spots": SPOTS, "whole": WHOLE,
        "least_brain": LEAST_BRAIN,
        "kinds": [each.__name__ for each in CORRUPTIONS], "slices": digest_of(np.concatenate([condition for condition, _ in images])),
    }  # fmt: skip
    names = ", ".join(person.name for person, _ in healthy)
    about = f"{sum(len(condition) for condition, _ in images)} slices of {len(images)} healthy people: {names}"
    make = functools.partial(LesionNetwork, settings)
    loss = anomaly_loss(images, AUGMENT, LOOP.batch_size)
    return Training(f"anomalies-{work.bundle.condition.contrast}", make, loss, LOOP, identity, about)


def anomaly_scorer(network: nn.Module) -> Scorer:
    """The probability of an anomaly; a slice scores its largest."""
    assert isinstance(network, LesionNetwork)
    finder = CoarseFinder(network, FACTOR)

    def scorer(condition: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
        found = finder(condition, brain)
        return found, found.flatten(1).amax(dim=1)

    return scorer


def candidates(work: TranslateWork, healthy: Cohort, folder: Path, command: str) -> dict[str, Scorer]:
    """Every score by name; the last two have seen lesions."""
    bundle, device = work.bundle, torch.device("cpu")
    own = load_detector(bundle, bundle.defaults.false_alarm, device)
    slices = [seen(person, each, FIT["every"], bundle.grid.spacing) for person, each in healthy]
    pairs = [pair for each in slices for pair in zip(each.condition, each.brain, strict=True)]
    bank = fit_bank(pairs, own.backbone, FIT["coreset_size"], FIT["seed"], FIT["max_patches"])
    network = obtain(training_of(work, healthy), folder, command)
    finder = load_segmenter(open_bundle(bundle.condition.segmenter), device)
    return {
        "darkness" if bundle.condition.contrast == "T1w" else "brightness": scorers.brightness(
            -1 if bundle.condition.contrast == "T1w" else 1
        ),
        "patchcore, healthy people": scorers.patchcore(own.backbone, bank),
        "synthetic anomalies": anomaly_scorer(network),
        "patchcore of the bundle (its patients' masks chose the slices)": scorers.patchcore(own.backbone, own.bank),
        f"{bundle.condition.segmenter} (learnt from masks)": scorers.segmenter(finder),
    }


def mask_of(work: TranslateWork, score: Tensor, cut: float, brain: Tensor) -> NDArray[np.bool_]:
    """B of a score, opened and dilated as the bundle does it, ``(N, H, W)``."""
    d = work.bundle.defaults
    found = to_mask((score > cut).float(), 0.5, brain, d.open_mm, d.dilate_mm, (work.bundle.grid.spacing,) * 2)
    return found[:, 0].numpy()


def found_in(each: Seen, score: Tensor, slices: Tensor, mask: NDArray[np.bool_]) -> Found:
    """One patient's figures as ``detectors`` has them."""
    a, brain, truth = score[:, 0].numpy(), each.brain[:, 0].numpy(), each.lesion
    rest, bears, top = brain & ~truth, truth.any(axis=(1, 2)), highest(score, each.brain).numpy()
    judged = ood_figures(a, mask, truth, brain, AUPRO_LIMIT)
    counts = {"lesion": int(truth.sum()), "covered": int((mask & truth).sum())}
    counts |= {"healthy": int(rest.sum()), "flagged": int((mask & rest).sum())}
    figures = {"AUPRO": judged.aupro.value, "average precision": judged.average_precision.value, "Dice": judged.dice.value}
    own = slices.numpy()
    return Found((a[truth], a[rest]), (own[bears], own[~bears]), (top[bears], top[~bears]), figures, counts, 0.0)


def line_of(work: TranslateWork, stored: Stored, cut: float, everybody: list[Seen]) -> dict[str, str]:
    """One score's row: how it finds tumours, and the millilitres that it flags in people who have none."""
    sick, flagged = [], {kind: [] for kind in OTHERS}  # type: tuple[list[Found], dict[str, list[float]]]
    for each in everybody:
        scores = stored(each.condition, each.brain)
        mask = mask_of(work, scores.score, cut, each.brain)
        if each.person.kind in OTHERS:
            flagged[each.person.kind].append(float(mask.sum()) * each.ml)
        else:
            sick.append(found_in(each, scores.score, scores.slices, mask))
    line = detection_line(sick)
    line.pop("slice AUROC, 60 highest")
    return line | {f"ml flagged, {kind}": decimal(bootstrap_mean(values, Bootstrap()), 1) for kind, values in flagged.items()}


def measure(options: argparse.Namespace) -> list[Table]:
    """Every score on every n-th slice: tumours of the people with masks, and what is flagged in the others."""
    work = harm.load(options.model)
    spacing = work.bundle.grid.spacing
    learnt, held_out = (cohort(work, options.data, split, options.work, is_healthy) for split in ("train", "val"))
    judged = cohort(work, options.data, options.split, options.work, lambda p: p.kind in OTHERS or p.lesions is not None)
    if not learnt or not held_out or not any(p.kind not in OTHERS for p, _ in judged):
        found = f"{len(learnt)} healthy people to learn from, {len(held_out)} to cut by, {len(judged)} to judge"
        raise UsageError(f"--data: {found}; expected some of each, and a patient with a mask of a tumour among the last")
    command = f"python -m examples.benchmarks.unlabelled --model {options.model} --data {' '.join(map(str, options.data))}"
    made = candidates(work, learnt, options.work, command)
    account: dict[str, Any] = {
        "bundle": work.bundle.hash, "fit": FIT, "every": options.every, "false_alarm": FALSE_ALARM,
        "learnt from": [p.name for p, _ in learnt], "cut by": [p.name for p, _ in held_out], "people": [p.name for p, _ in judged],
        "network": training_of(work, learnt).recipe,
    }  # fmt: skip
    key = digest([account, [stamps(p) for p, _ in [*learnt, *held_out, *judged]]])
    everybody = [seen(p, slices, options.every, spacing) for p, slices in judged]
    rows, cuts = [], {}
    for place, (name, scorer) in enumerate(made.items()):
        stored = Stored(scorer, options.work / "unlabelled" / key / str(place))
        healthy = [seen(p, slices, options.every, spacing) for p, slices in held_out]
        cuts[name] = calibrate([stored(h.condition, h.brain).score[h.brain] for h in healthy]).tau_a(FALSE_ALARM)
        rows.append({"score": name} | line_of(work, stored, cuts[name], everybody))
        print(f"unlabelled: {name}", flush=True)
    tumours = sum(p.kind not in OTHERS for p, _ in judged)
    about = f"{tumours} {options.split} patients with tumours, {len(judged) - tumours} people without, every {options.every}. slice; "
    about += f"learnt from {len(learnt)} healthy people, cut by {len(held_out)}"
    return [Table(f"unlabelled-{work.bundle.name}-{options.split}", rows, about, account | {"tau_a": cuts}, lambda c: _draw(c, rows))]


def _draw(canvas: Any, rows: list[dict[str, str]]) -> None:
    """Tumours covered against what is flagged in the elderly, and the pixel AUROC."""

    def number(row: dict[str, str], key: str) -> float:
        return np.nan if row[key].startswith("n/a") else float(row[key].split(" ")[0])

    left, right = canvas.subplots(1, 2)
    left.barh([row["score"] for row in rows], [number(row, "pixel AUROC") for row in rows])
    left.set(xlabel="pixel AUROC, tumours", xlim=(0.5, 1))
    left.invert_yaxis()
    for row in rows:
        right.scatter([number(row, "ml flagged, elderly")], [number(row, "lesion covered %")], label=row["score"])
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
