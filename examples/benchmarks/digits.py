"""Digits: super-resolution trained on one class, tested on others. Does Local Diffusion keep a 3 from becoming an 8?

``python -m examples.benchmarks.paper --part digits --data MNIST --split test`` measures;
``python -m examples.benchmarks.digits --data MNIST --out models/bench`` makes the weights again.

The t10k file is split by each digit's place in it: places ending in 0 to 5 train, 6 and 7 validate, 8 and 9 test. The same writer may
have digits on both sides. The super-resolution networks see the 8s of the train split, the classifier all ten classes of it.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from examples.benchmarks import super_resolution as sr
from examples.benchmarks.super_resolution import Row
from examples.benchmarks.table import Table, decimal, percent
from examples.benchmarks.weights import Training, digest_of, fit, obtain
from localdiff_cli.batch.report import recorded_arguments
from localdiff_cli.diffusion.fusion import LocalSettings
from localdiff_cli.diffusion.network import NetworkSettings
from localdiff_cli.errors import UsageError
from localdiff_cli.evaluation.cohort.realism import fid
from localdiff_cli.evaluation.cohort.statistics import Bootstrap
from localdiff_cli.ood.backbone import load_backbone
from localdiff_cli.ood.detector import PatchCoreDetector
from localdiff_cli.ood.threshold import to_mask
from localdiff_cli.threads import apart
from localdiff_cli.training.loop import LoopSettings

TRAINED, UNSEEN = 8, (3, 5)
ENDINGS = {"train": (0, 1, 2, 3, 4, 5), "val": (6, 7), "test": (8, 9)}
ORIGIN = "MNIST t10k (LeCun, Cortes and Burges; CC BY-SA 3.0)"
TRAIN_SPLIT = "train split: places in the file that end in 0 to 5"
FACTORS = (2, 4)
PER_CLASS = 100
MARGIN = 2
"""28 × 28 digits lie on a canvas of 32 × 32, which the networks can halve; they are judged without the margin."""
NETWORK = NetworkSettings(4, (64, 64), 1, (False, True), 32)
LOOP = LoopSettings(steps=800, batch_size=24, rate=1e-3, warmup=30, ema=0.99, precision="bf16")
CLASSIFIER_LOOP = LoopSettings(steps=1200, batch_size=64, rate=1e-3, warmup=50, ema=0.99)
BATCH = 25


@dataclass(frozen=True)
class Detecting:
    """PatchCore on conditions: enlargement before the backbone, bank size, share of held-out 8s' pixels flagged, cut on M, dilation."""

    scale: float = 4.0
    bank: int = 1000
    false_alarm: float = 0.02
    threshold: float = 0.5
    dilate: float = 1.0


def _rows(source: str) -> tuple[Row, ...]:
    """What an OOD region is used for: when the branches fuse, and who draws inside."""
    fused = (Row(f"local, {source}, fusion_step {k}", source, LocalSettings(context=0.5, fusion_step=k)) for k in (0, 2, 5, 10))
    return (*fused, *sr.drawn_inside(source, source, ("copy", "mean")))


ROWS = (
    *sr.yardsticks("digit"),
    *_rows("patchcore"),
    *_rows("oracle"),
    Row("local, oracle, fusion_step 2, context 0.95", "oracle", LocalSettings(context=0.95, fusion_step=2)),
)
"""The oracle's OOD region is where the plain sample differs from the true digit by more than 0.3: only an experiment can know it."""


@dataclass(frozen=True, eq=False)
class Digits:
    """``images`` ``(N, 1, 32, 32)`` in [0, 1], their ``labels`` and their places in the file."""

    images: Tensor
    labels: NDArray[np.uint8]
    places: NDArray[np.intp]

    def part(self, split: str, classes: tuple[int, ...], most: int | None = None) -> Digits:
        """The digits of a split and some classes, class by class, the first ``most`` of each."""
        inside = np.isin(self.places % 10, ENDINGS[split])
        rows = np.concatenate([np.flatnonzero(inside & (self.labels == c))[:most] for c in classes])
        return Digits(self.images[rows], self.labels[rows], self.places[rows])


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An IDX file of bytes, gzip. Raises :class:`UsageError` for anything else."""
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise UsageError(f"{path}: cannot be read as gzip ({error}); expected an MNIST file in IDX form") from error
    shape = tuple(np.frombuffer(raw, ">i4", raw[3], 4).tolist()) if raw[:3] == b"\0\0\x08" and len(raw) > 4 + 4 * raw[3] else ()
    if not shape or len(raw) != 4 + 4 * len(shape) + int(np.prod(shape)):
        raise UsageError(f"{path}: not an IDX file of bytes ({len(raw)} bytes, head {raw[:4].hex()}); expected MNIST images or labels")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def read_digits(folder: Path) -> Digits:
    """The images and labels of a folder, ``*images*.gz`` and ``*labels*.gz``. Raises :class:`UsageError` where there is not one of each."""
    found = [sorted(folder.glob(f"*{kind}*.gz")) for kind in ("images", "labels")]
    if [len(paths) for paths in found] != [1, 1]:
        raise UsageError(f"{folder}: found {[p.name for paths in found for p in paths]}; expected one *images*.gz and one *labels*.gz")
    images, labels = (read_idx(paths[0]) for paths in found)
    if images.shape != (len(labels), 28, 28):
        raise UsageError(f"{folder}: found images {images.shape} and {len(labels)} labels; expected 28 × 28 digits, one label each")
    canvas = F.pad(torch.from_numpy(images.astype(np.float32) / 255)[:, None], (MARGIN,) * 4)
    return Digits(canvas, labels, np.arange(len(labels)))


def without_margin(images: Tensor) -> Tensor:
    """``(N, 1, 32, 32)`` → ``(N, 1, 28, 28)``."""
    return images[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


def classifier() -> nn.Module:
    """A small CNN of ten classes for ``(N, 1, 28, 28)``."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 49, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def classifier_training(digits: Digits) -> Training:
    """All ten classes of the train split, each digit shifted by up to two pixels."""
    known = digits.part("train", tuple(range(10)))
    labels = torch.from_numpy(known.labels.astype(np.int64))

    def loss_of(network: nn.Module, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(labels), (CLASSIFIER_LOOP.batch_size,), generator=generator)
        down, right = (int(torch.randint(-2, 3, (1,), generator=generator)) for _ in range(2))
        shifted = without_margin(known.images[rows].roll((down, right), (2, 3)))
        return F.cross_entropy(network(shifted), labels[rows])

    identity = {"task": "classifier of ten digits", "images": len(labels), "images_sha256": digest_of(known.images.numpy())}
    about = f"{ORIGIN}, all classes, {TRAIN_SPLIT}; shifted by up to 2 pixels"
    return Training("digits-classifier", classifier, loss_of, CLASSIFIER_LOOP, identity, about)


def upsampler_training(digits: Digits, factor: int) -> Training:
    """The super-resolution network of a factor, on the 8s of the train split."""
    images = digits.part("train", (TRAINED,)).images
    about = f"{ORIGIN}, class {TRAINED} only, {TRAIN_SPLIT}"
    return sr.training(f"digits-{factor}x", about, images, factor, NETWORK, LOOP, images.shape[-1])


def features(images: Tensor) -> NDArray[np.float64]:
    """What FID looks at, ``(N, 112)``: evaluation/realism.py's features of the digits enlarged four times."""
    backbone = load_backbone(input_scale=4.0)
    rows = torch.cat(apart(lambda image: backbone(image[None])[1].mean(dim=(2, 3)), images))
    return rows.numpy().astype(np.float64)


@dataclass(frozen=True, eq=False)
class Bench:
    """Everything that a factor's rows need: networks, and the ``cases`` to judge out of all ``digits``."""

    digits: Digits
    cases: Digits
    factor: int
    network: nn.Module
    judge: nn.Module
    sampling: sr.Sampling
    detecting: Detecting

    @cached_property
    def detector(self) -> PatchCoreDetector:
        """PatchCore with the bank of training 8s and the threshold of validation 8s, both at low resolution."""
        known, held_out = (sr.low_resolution(self.digits.part(split, (TRAINED,)).images, self.factor) for split in ("train", "val"))
        return sr.fit_patchcore(known, held_out, self.detecting.scale, self.detecting.false_alarm, self.detecting.bank)

    @cached_property
    def unseen(self) -> NDArray[np.bool_]:
        """Which cases are of a class that the super-resolution network never saw."""
        return np.isin(self.cases.labels, UNSEEN)

    @cached_property
    def true_features(self) -> NDArray[np.float64]:
        """Features of the true digits of the unseen classes."""
        return features(without_margin(self.cases.images[self.unseen]))

    @cached_property
    def condition(self) -> Tensor:
        """The cases at low resolution, on the canvas."""
        return sr.low_resolution(self.cases.images, self.factor)

    @cached_property
    def plain(self) -> Tensor:
        """What plain sampling makes of them."""
        return self._drawn(self.sampling, None, None)

    def _drawn(self, sampling: sr.Sampling, ood_map: Tensor | None, mask: Tensor | None) -> Tensor:
        return sr.upsample(self.network, sampling, self.condition, self.cases.places, ood_map, mask, BATCH)

    @cached_property
    def maps(self) -> dict[str, Tensor]:
        """M by source, as :class:`Row` has them."""
        everywhere = torch.ones_like(self.condition, dtype=torch.bool)
        oracle = ((self.plain - self.cases.images).abs() > 0.3).float()
        return {"patchcore": self.detector(self.condition, everywhere).ood_map, "oracle": oracle}

    def region(self, row: Row) -> tuple[Tensor, Tensor]:
        """M and B of a row."""
        ood_map, everywhere, d = self.maps[row.source], torch.ones_like(self.condition, dtype=torch.bool), self.detecting
        return ood_map, ood_map >= 1 if row.published else to_mask(ood_map, d.threshold, everywhere, 0.0, d.dilate, (1.0, 1.0))

    def images(self, row: Row) -> tuple[Tensor, Tensor]:
        """What a row makes of the cases, and its OOD regions B; both ``(N, 1, 32, 32)``."""
        nothing = torch.zeros_like(self.condition, dtype=torch.bool)
        if row.source in ("true", "condition"):
            return (self.cases.images if row.source == "true" else self.condition), nothing
        sampling = replace(self.sampling, local=row.local)
        sampling = sampling.as_published if row.published else sampling
        if row.source == "none":
            return (self._drawn(sampling, None, None) if row.published else self.plain), nothing
        ood_map, mask = self.region(row)
        if row.pasted:
            return sr.pasted(self.condition, self.plain, mask), mask
        return self._drawn(sampling, ood_map, mask), mask

    def judged(self, row: Row) -> dict[str, Any]:
        """Figures of a row, digit by digit: the class named, PSNR, SSIM, share of B; FID of the unseen classes as a set."""
        whole, mask = self.images(row)
        image, true = without_margin(whole), without_margin(self.cases.images)
        named = torch.cat(apart(lambda one: self.judge(one[None]).argmax(dim=1), image))
        distance = fid(features(image[self.unseen]), self.true_features)
        pairs = list(zip(image[:, 0].numpy(), true[:, 0].numpy(), strict=True))
        return {
            "label": self.cases.labels.tolist(), "named": named.tolist(), "psnr": [sr.decibels(*pair) for pair in pairs],
            "ssim": [sr.similarity(*pair) for pair in pairs], "ood": without_margin(mask).float().mean(dim=(1, 2, 3)).tolist(),
            "fid": distance.value, "fid_missing": distance.reason,
        }  # fmt: skip


def summary_row(row: Row, own: dict[str, Any], plain: dict[str, Any] | None) -> dict[str, str]:
    """One line of the table; intervals are 95 % bootstrap intervals over digits (5,000 resamples, seed 0)."""
    label, named = np.array(own["label"]), np.array(own["named"])
    wrong, ood, unseen = label != named, np.array(own["ood"]), np.isin(label, UNSEEN)
    line = {"row": row.label, "digits": str(int(unseen.sum()))}
    line["misclassified %"] = sr.mean_of(wrong[unseen], percent)
    line["called 8 %"] = sr.mean_of(named[unseen] == TRAINED, percent)
    before = None if plain is None else np.array(plain["label"]) != np.array(plain["named"])
    line["fewer misclassified than plain %"] = "" if before is None else percent(sr.reduction(wrong[unseen], before[unseen], Bootstrap()))
    for key, digits in (("psnr", 2), ("ssim", 3)):
        values = np.array([value for value, inside in zip(own[key], unseen, strict=True) if inside and value is not None])
        line[key] = sr.mean_of(values, partial(decimal, digits=digits))
    line["FID"] = f"{own['fid']:.2f}" if own["fid"] is not None else f"n/a ({own['fid_missing']})"
    line["OOD region %"] = f"{100 * ood[unseen].mean():.1f}"
    line["8s misclassified %"] = sr.mean_of(wrong[~unseen], percent)
    line["OOD region of 8s %"] = f"{100 * ood[~unseen].mean():.1f}"
    return line


def factor_table(digits: Digits, factor: int, options: argparse.Namespace) -> Table:
    """All rows of one factor on the digits of a split."""
    command = f"measured without shipped weights, split {options.split}"
    trainings = upsampler_training(digits, factor), classifier_training(digits)
    network, judge = (obtain(each, options.work, command) for each in trainings)
    sampling, detecting = sr.Sampling(), Detecting()
    cases = digits.part(options.split, (*UNSEEN, TRAINED), options.most or PER_CLASS)
    bench = Bench(digits, cases, factor, network, judge, sampling, detecting)
    results = {}
    for row in ROWS:
        key = [*(t.digest for t in trainings), factor, asdict(row), asdict(sampling), asdict(detecting), cases.places.tolist()]
        results[row] = sr.measured_once(options.work / "digits", key, partial(bench.judged, row))
        print(f"digits {factor}x, {row.label}: {len(cases.labels)} digits", flush=True)
    plain = next(result for row, result in results.items() if row.source == "none" and not row.published)
    rows = [summary_row(row, own, plain if row.source in ("patchcore", "oracle") else None) for row, own in results.items()]
    counts = {str(c): int((cases.labels == c).sum()) for c in (*UNSEEN, TRAINED)}
    account = {
        "split": options.split, "endings": ENDINGS, "digits": counts, "weights": {t.name: t.digest for t in trainings},
        "sampling": asdict(sampling), "detector": asdict(detecting), "rows": [asdict(row) for row in ROWS],
    }  # fmt: skip
    about = f"{factor}x, trained on 8; {options.split} digits {', '.join(f'{n} of class {c}' for c, n in counts.items())}; unit: the digit"
    stem = f"digits-{factor}x-{options.split}"
    return Table(stem, rows, about, account, lambda canvas: _draw(canvas, stem, rows))


def _draw(canvas: Any, title: str, rows: list[dict[str, str]]) -> None:
    """Misclassified digits of the unseen classes and of the trained one, side by side."""
    axes = canvas.subplots()
    places = np.arange(len(rows))
    for shift, key, name in ((-0.2, "misclassified %", "3 and 5 (never seen)"), (0.2, "8s misclassified %", "8 (trained on)")):
        axes.barh(places + shift, [float(line[key].split(" ")[0]) for line in rows], 0.4, label=name)
    axes.set(yticks=places, yticklabels=[line["row"] for line in rows], xlabel="misclassified, %", title=title)
    axes.invert_yaxis()
    axes.legend()


def measure(options: argparse.Namespace) -> list[Table]:
    """The part: one table a factor."""
    digits = read_digits(options.data[0])
    return [factor_table(digits, factor, options) for factor in FACTORS]


def main() -> None:
    """Make the weights again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path, help="folder with the two t10k files")
    parser.add_argument("--work", type=Path, default=Path("bench.work"), help="checkpoints; an interrupted training goes on from there")
    parser.add_argument("--out", type=Path, default=Path("models/bench"))
    parser.add_argument("--only", nargs="+", default=[], help="names of the weights to make (default: all)")
    options = parser.parse_args()
    digits = read_digits(options.data)
    command = f"python -m examples.benchmarks.digits {recorded_arguments(sys.argv[1:])}"
    for training in (classifier_training(digits), *(upsampler_training(digits, factor) for factor in FACTORS)):
        if not options.only or training.name in options.only:
            fit(training, options.out, options.work, command)


if __name__ == "__main__":
    main()
