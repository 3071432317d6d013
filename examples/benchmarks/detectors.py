"""Which detector: what each finds of the lesions, what it costs, and what its map does to the lesions of the translation.

Every score is cut alike: τ_A is the value that the bundle's ``false_alarm`` share of the brain pixels of healthy ``val`` slices exceeds,
and B is A > τ_A, opened and dilated as the bundle does it. (On ``val`` itself the cut has therefore seen the healthy slices judged.)
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from examples.benchmarks import mri, scorers
from examples.benchmarks.mri import Bench, Row
from examples.benchmarks.scorers import Scorer
from examples.benchmarks.table import Table, decimal, percent
from examples.benchmarks.translation import chunk_of, patients
from localdiff_cli.bundle import load_detector, load_segmenter, load_translator, open_bundle
from localdiff_cli.diffusion.network import TranslatorNetwork
from localdiff_cli.errors import UsageError
from localdiff_cli.evaluation.cohort.statistics import Bootstrap, Interval, bootstrap_mean, bootstrap_ratio, bootstrap_sums
from localdiff_cli.evaluation.metrics.ood_maps import auroc, ood_figures
from localdiff_cli.ood.backbone import Backbone, load_backbone
from localdiff_cli.ood.detector import Detection
from localdiff_cli.ood.fit import Slices, fit_bank
from localdiff_cli.ood.patchcore import MemoryBank, brain_patches
from localdiff_cli.ood.threshold import calibrate
from localdiff_cli.tasks.sampling import SliceSampler
from localdiff_cli.training.pairs import read_pairs
from localdiff_cli.training.slices import PatientSlices
from localdiff_cli.volumes.whole import whole_file

FIT = {"every": 4, "coreset_size": 5000, "max_patches": 60_000, "seed": 0}
"""Of the healthy training slices, every n-th; a bank's entries and the patches they are chosen from."""
DISAGREEMENT = {"samples": 5, "steps": 4}
AUPRO_LIMIT = 0.3
YARDSTICK = "patchcore"
TRUE, PLAIN = Row("true target contrast", "true"), Row("plain", "none")
LESION_FIGURES = ("missed %", "invented %", "fewer missed than plain %", "psnr_brain", "psnr_lesion", "contrast")
COLUMNS = (
    "detector", "pixel AUROC", "slice AUROC", "slice AUROC, 60 highest", "AUPRO", "average precision", "Dice", "lesion covered %",
    "healthy flagged %", "CPU ms a slice", "times PatchCore", "MB", *LESION_FIGURES,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Candidate:
    """A scorer and the ``megabytes`` of weights and healthy patches that it holds."""

    scorer: Scorer
    megabytes: float


@dataclass(frozen=True, eq=False)
class Scores:
    """A ``(N, 1, H, W)``, the slices' scores ``(N,)`` and the CPU ``seconds`` they took."""

    score: Tensor
    slices: Tensor
    seconds: float


@dataclass(frozen=True, eq=False)
class Stored:
    """A scorer whose answers are kept in ``folder``: measured once, used for detection, calibration and translation."""

    scorer: Scorer
    folder: Path

    def __call__(self, condition: Tensor, brain: Tensor) -> Scores:
        """The scores of slices; shapes as in scorers.py."""
        path = self.folder / f"{hashlib.sha256(condition.numpy().tobytes() + brain.numpy().tobytes()).hexdigest()[:24]}.npz"
        if not path.is_file():
            # Seconds of the CPU, not of the clock: other work on the machine does not count.
            started = time.process_time()
            score, slices = self.scorer(condition, brain)
            seconds = time.process_time() - started
            with whole_file(path) as partial, partial.open("wb") as handle:
                np.savez_compressed(handle, score=score.numpy(), slices=slices.numpy(), seconds=seconds)
        with np.load(path) as kept:
            return Scores(torch.from_numpy(kept["score"]), torch.from_numpy(kept["slices"]), float(kept["seconds"]))


@dataclass(frozen=True, eq=False)
class CutDetector:
    """A :class:`localdiff_cli.ood.detector.Detector` whose M is 1 where A exceeds ``tau_a``, else 0.

    A step, unlike the bundle's ramp (ood/threshold.py): on a score with a heavy tail σ_A exceeds τ_A, and a ramp would flag all.
    """

    stored: Stored
    tau_a: float

    def __call__(self, condition: Tensor, brain: Tensor) -> Detection:
        """Detect; shapes as in the protocol."""
        found = self.stored(condition, brain)
        return Detection(found.score, ((found.score > self.tau_a) & brain).float(), found.slices)


def healthy(cases: list[PatientSlices], every: int) -> Slices:
    """Every n-th lesion-free slice of each patient with a mask: condition and brain, ``(1, H, W)``."""
    rows = [(p, row) for p in cases if p.masked for row in np.flatnonzero(p.lesion_free)[::every]]
    return [(torch.from_numpy(p.condition[r].astype(np.float32) / 65535)[None], torch.from_numpy(p.brain[r])[None]) for p, r in rows]


def candidates(bench: Bench, training: Callable[[], Slices], folder: Path) -> dict[str, Candidate]:
    """Every detector by name; what must be fitted is fitted on ``training`` and kept in ``folder``."""
    bundle, device = bench.bundle, torch.device("cpu")
    own = load_detector(bundle, bundle.defaults.false_alarm, device)
    finder = load_segmenter(open_bundle(bundle.finder), device)
    network, fine = load_translator(bundle, device), load_backbone(input_scale=2.0)
    if not isinstance(network, TranslatorNetwork):
        raise UsageError(f"--model {bundle.name}: an adapted network; expected one of localdiff's own, whose encoder is a row of the table")
    encoder = scorers.TranslatorEncoder(network, bench.networks.schedule.num_train_timesteps - 1)
    sign = -1 if bundle.condition.contrast == "T1w" else 1

    def gaussian() -> dict[str, Tensor]:
        return vars(scorers.fit_gaussian(brain_patches(own.backbone, *pair)[1] for pair in training()))

    fine_bank = _bank(folder / "fine.safetensors", fine, training)
    encoder_bank = _bank(folder / "encoder.safetensors", encoder, training)
    normal = scorers.Gaussian(**_fitted(folder / "gaussian.safetensors", gaussian))
    return {
        YARDSTICK: Candidate(scorers.patchcore(own.backbone, own.bank), _megabytes(own.backbone, own.bank.embeddings)),
        "patchcore, twice as fine": Candidate(scorers.patchcore(fine, fine_bank), _megabytes(fine, fine_bank.embeddings)),
        "patchcore, translator's encoder": Candidate(
            scorers.patchcore(encoder, encoder_bank), _megabytes(encoder, encoder_bank.embeddings)
        ),
        "mahalanobis": Candidate(scorers.mahalanobis(own.backbone, normal), _megabytes(own.backbone, normal.precision)),
        "asymmetry": Candidate(scorers.asymmetry(bundle.condition.window), 0.0),
        "brightness" if sign > 0 else "darkness": Candidate(scorers.brightness(sign), 0.0),
        "disagreement": Candidate(scorers.disagreement(_sampler(bench)), _megabytes(network)),
        "segmenter": Candidate(scorers.segmenter(finder), _megabytes(finder)),
    }


def _sampler(bench: Bench) -> SliceSampler:
    settings = replace(bench.settings, mode="plain", samples=DISAGREEMENT["samples"], steps=DISAGREEMENT["steps"])
    return SliceSampler(bench.networks, settings, "disagreement")


def _bank(path: Path, backbone: Backbone, training: Callable[[], Slices]) -> MemoryBank:
    def fit() -> dict[str, Tensor]:
        return fit_bank(training(), backbone, FIT["coreset_size"], FIT["seed"], FIT["max_patches"]).to_tensors()

    return MemoryBank.from_tensors(_fitted(path, fit))


def _fitted(path: Path, fit: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    if not path.is_file():
        tensors = fit()
        with whole_file(path) as partial:
            save_file(tensors, partial)
    return load_file(path)


def _megabytes(*parts: nn.Module | Tensor) -> float:
    tensors = [t for part in parts for t in ([part] if isinstance(part, Tensor) else [*part.parameters(), *part.buffers()])]
    return sum(t.numel() * t.element_size() for t in tensors) / 1e6


@dataclass(frozen=True, eq=False)
class Found:
    """What a detector found in one patient: scores of lesion and other pixels and slices (``own`` and the 60 ``highest``), and counts."""

    pixels: tuple[NDArray, NDArray]
    own: tuple[NDArray, NDArray]
    highest: tuple[NDArray, NDArray]
    figures: dict[str, float | None]
    counts: dict[str, int]
    seconds: float


def find(bench: Bench, row: Row, stored: Stored, patient: PatientSlices, every: int) -> Found:
    """Judge a row's region on one patient against the expert's mask, inside the brain."""
    chunk, _, lesion = chunk_of(patient, every)
    mask = bench.region(row, chunk, torch.from_numpy(lesion)[:, None])[1][:, 0].numpy()
    return found_in(stored(chunk.condition, chunk.brain), chunk.brain, mask, lesion)


def found_in(scores: Scores, brain: Tensor, mask: NDArray[np.bool_], lesion: NDArray[np.bool_]) -> Found:
    """Judge scores and B, ``mask``, against the ``lesion``, ``(N, H, W)``, inside the ``brain`` ``(N, 1, H, W)``."""
    a, inside = scores.score[:, 0].numpy(), brain[:, 0].numpy()
    truth, rest = lesion & inside, inside & ~lesion
    own, top, bears = scores.slices.numpy(), scorers.highest(scores.score, brain).numpy(), truth.any(axis=(1, 2))
    judged = ood_figures(a, mask, truth, inside, AUPRO_LIMIT)
    return Found(
        (a[truth], a[rest]),
        (own[bears], own[~bears]),
        (top[bears], top[~bears]),
        {"AUPRO": judged.aupro.value, "average precision": judged.average_precision.value, "Dice": judged.dice.value},
        {"lesion": int(truth.sum()), "covered": int((mask & truth).sum()), "healthy": int(rest.sum()), "flagged": int((mask & rest).sum())},
        scores.seconds / len(lesion),
    )


def pooled_auroc(positives: list[NDArray], negatives: list[NDArray]) -> Interval:
    """AUROC of all patients' scores together, one array a patient, with an interval over resampled patients.

    The chance that a positive scores above a negative is summed for each pair of patients, so that resampling costs no sorting.
    """
    ranked = [np.sort(n) for n in negatives]
    wins = np.array([[auroc(p, n) * p.size * n.size if p.size and n.size else 0.0 for n in ranked] for p in positives])
    sizes, others = (np.array([len(each) for each in group], np.float64) for group in (positives, negatives))

    def share(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.einsum("ri,ij,rj->r", drawn, wins, drawn) / ((drawn @ sizes) * (drawn @ others))

    return bootstrap_sums(np.eye(len(positives)), share, Bootstrap(), "lesion or healthy tissue is missing")


def detection_line(found: list[Found]) -> dict[str, str]:
    """The detection columns of one detector over all patients."""
    line = {
        name: decimal(pooled_auroc([p[0] for p in pairs], [p[1] for p in pairs]), 3)
        for name, pairs in (
            ("pixel AUROC", [f.pixels for f in found]),
            ("slice AUROC", [f.own for f in found]),
            ("slice AUROC, 60 highest", [f.highest for f in found]),
        )
    }
    for name in found[0].figures:
        values = [value for f in found if f.counts["lesion"] and (value := f.figures[name]) is not None]
        line[name] = decimal(bootstrap_mean(values, Bootstrap()), 3)
    for name, part, whole in (("lesion covered %", "covered", "lesion"), ("healthy flagged %", "flagged", "healthy")):
        line[name] = percent(bootstrap_ratio([f.counts[part] for f in found], [f.counts[whole] for f in found], Bootstrap(), "no lesion"))
    return line


def measure(options: argparse.Namespace) -> list[Table]:
    """Every detector on every n-th slice of the patients with masks, and the translation by each one's map."""
    bench = mri.load(options.model, None, None)
    contrasts = (bench.bundle.condition.contrast, bench.bundle.target.contrast)
    fitted_on = [pair.name for pair in read_pairs(options.data, *contrasts) if pair.split == "train" and pair.mask]
    training = functools.cache(lambda: healthy(patients(bench.bundle, options.data, "train", options.work), FIT["every"]))
    held_out, cases = (
        [p for p in patients(bench.bundle, options.data, split, options.work) if p.masked] for split in ("val", options.split)
    )
    if not held_out or not cases:
        found = f"{len(held_out)} val and {len(cases)} {options.split} patients with lesion masks"
        raise UsageError(f"{found}; expected some of each. Name their folders with --data")
    account: dict[str, Any] = {
        "bundle": bench.bundle.name, "hashes": bench.hashes, "fit": FIT, "disagreement": DISAGREEMENT, "every": options.every,
        "false_alarm": bench.bundle.defaults.false_alarm, "calibrated on": [p.name for p in held_out], "fitted on": fitted_on,
    }  # fmt: skip
    folder = options.work / "detectors" / hashlib.sha256(json.dumps(account).encode()).hexdigest()[:16]
    made = candidates(bench, training, folder)
    stored = {name: Stored(each.scorer, folder / "scores" / name.replace(" ", "-")) for name, each in made.items()}
    cuts = {name: cut_of(bench, each, held_out, options.every) for name, each in stored.items()}
    lines = compare(bench, made, stored, cuts, cases, options.every, folder)
    stem = f"detectors-{bench.bundle.name}-{options.split}"
    about = f"{len(cases)} {options.split} patients, every {options.every}. slice; thresholds from {len(held_out)} val patients"
    account |= {"patients": [p.name for p in cases], "tau_a": cuts, "sampling": asdict(bench.settings)}
    return [Table(stem, lines, about, account, lambda canvas: _draw(canvas, lines))]


def cut_of(bench: Bench, stored: Stored, held_out: list[PatientSlices], every: int) -> float:
    """τ_A: what the bundle's ``false_alarm`` share of held-out healthy brain pixels exceeds."""
    parts = []
    for patient in held_out:
        chunk, _, lesion = chunk_of(patient, every)
        free = torch.from_numpy(~lesion.any(axis=(1, 2)))
        parts.append(stored(chunk.condition, chunk.brain).score[free][chunk.brain[free]])
    return calibrate(parts).tau_a(bench.bundle.defaults.false_alarm)


def compare(
    bench: Bench, made: dict[str, Candidate], stored: dict[str, Stored], cuts: dict[str, float], cases: list[PatientSlices], every: int,
    folder: Path,
) -> list[dict[str, str]]:  # fmt: skip
    """One line a detector, after the true contrast and plain sampling: detection, cost, and the lesions of the translation by its map.

    The last one is the segmenter cut where the bundle cuts it.
    """
    default = f"segmenter, cut at {bench.bundle.defaults.threshold:g}"
    stored, made = stored | {default: stored["segmenter"]}, made | {default: made["segmenter"]}
    cuts = cuts | {default: bench.bundle.defaults.threshold}
    with_cuts = replace(bench, detector=lambda name, _: CutDetector(stored[name], cuts[name]))
    rows = {name: Row(name, name, bench.networks.expert is not None, mask_changes=(("threshold", 0.5),)) for name in stored}
    found = {name: [find(with_cuts, row, stored[name], patient, every) for patient in cases] for name, row in rows.items()}
    drawn = mri.table(mri.run(with_cuts, (TRUE, PLAIN, *rows.values()), cases, every, folder / "figures"))
    usual = np.mean([f.seconds for f in found[YARDSTICK]])
    lines = []
    for after in drawn:
        name = after["row"]
        line = {"detector": name}
        if name in found:
            seconds = np.mean([f.seconds for f in found[name]])
            line |= detection_line(found[name])
            line |= {"CPU ms a slice": f"{1000 * seconds:.0f}", "times PatchCore": f"{seconds / usual:.2f}"}
            line |= {"MB": f"{made[name].megabytes:.0f}"}
        lines.append(line | {key: after[key] for key in LESION_FIGURES})
    return [{key: line.get(key, "") for key in COLUMNS} for line in lines]


def leading_number(text: str) -> float:
    """The number that a table's cell begins with; NaN where there is none."""
    return np.nan if text.startswith("n/a") else float(text.split(" ")[0])


def _draw(canvas: Any, lines: list[dict[str, str]]) -> None:
    """How well lesions are found, and what it does to the translation: one number a detector."""
    left, right = canvas.subplots(1, 2)
    judged = [line for line in lines if line["pixel AUROC"]]
    places = np.arange(len(judged))
    for key, marker in (("pixel AUROC", "o"), ("slice AUROC", "s"), ("AUPRO", "^")):
        left.plot([leading_number(line[key]) for line in judged], places, marker, label=key)
    left.set_yticks(places, [line["detector"] for line in judged], fontsize=8)
    left.invert_yaxis()
    left.axvline(0.5, color="grey", linewidth=0.5)
    left.legend(fontsize=7)
    for place, line in enumerate(lines, start=1):
        x, y = leading_number(line["invented %"]), leading_number(line["missed %"])
        right.scatter([x], [y], s=30, label=f"{place} {line['detector']}")
        right.annotate(str(place), (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
    right.set(xlabel="invented, % of lesion-free slices", ylabel="missed, % of found lesions", ylim=(-3, 103))
    right.legend(fontsize=6, loc="upper left", bbox_to_anchor=(1.01, 1))
