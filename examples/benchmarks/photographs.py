"""Photographs: 2× super-resolution trained on good parts, tested on defective ones. Does the defect survive?

``python -m examples.benchmarks.paper --part photographs --data PHOTOGRAPHS --split test`` measures;
``python -m examples.benchmarks.photographs --data PHOTOGRAPHS --out models/bench`` makes the weights again.

Photographs are used in luminance (colour.py: in RGB). Of each category's good ones, by name, the first two of every four train, the
third validates, the fourth tests; of the defective ones every third validates, the others test. The validation photographs also set the
thresholds.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage.color import rgb2gray
from skimage.io import imread
from torch import Tensor, nn

from examples.benchmarks import super_resolution as sr
from examples.benchmarks.super_resolution import Row
from examples.benchmarks.table import Table, decimal, percent
from examples.benchmarks.weights import Training, digest_of, fit, obtain
from localdiff_cli.batch.report import recorded_arguments
from localdiff_cli.diffusion.fusion import LocalSettings
from localdiff_cli.diffusion.network import NetworkSettings
from localdiff_cli.errors import UsageError
from localdiff_cli.evaluation.cohort.statistics import Bootstrap
from localdiff_cli.evaluation.metrics.ood_maps import auroc
from localdiff_cli.ood.detector import PatchCoreDetector
from localdiff_cli.ood.threshold import to_mask
from localdiff_cli.training.loop import LoopSettings

FACTOR, WINDOW, BATCH = 2, 128, 1
LUMA = (0.2125, 0.7154, 0.0721)
ORIGIN = "subset of MVTec AD (Bergmann et al. 2019; CC BY-NC-SA 4.0: weights for non-commercial use)"
GOOD = ("train", "train", "val", "test")
DEFECTIVE = ("val", "test", "test")
NETWORK = NetworkSettings(4, (32, 64, 64), 1, (False, False, False), 32)
LOOP = LoopSettings(steps=400, batch_size=4, rate=4e-4, warmup=30, ema=0.99, precision="bf16")


@dataclass(frozen=True)
class Detecting:
    """PatchCore: bank size, share of held-out good pixels it may flag, cut on M, opening and dilation in pixels."""

    bank: int = 2000
    false_alarm: float = 0.02
    threshold: float = 0.5
    open: float = 1.0
    dilate: float = 4.0


ROWS = (
    *sr.yardsticks("photograph"),
    *(Row(f"local, patchcore, fusion_step {k}", "patchcore", LocalSettings(context=0.5, fusion_step=k)) for k in (0, 5)),
    *sr.drawn_inside("patchcore", "patchcore", sr.KINDS),
    *sr.drawn_inside("truth", "true mask", sr.KINDS),
    Row("local, true mask, network, context 0.95", "truth", LocalSettings(context=0.95, fusion_step=2)),
)
"""The source ``truth`` is the defect's mask."""


@dataclass(frozen=True, eq=False)
class Photograph:
    """Luminance or RGB ``(C, H, W)`` in [0, 1], the defect's mask ``(1, H, W)`` (empty on good ones), its split and number."""

    category: str
    kind: str
    name: str
    split: str
    number: int
    image: Tensor
    mask: Tensor

    @property
    def defective(self) -> bool:
        """Whether it shows a defect."""
        return self.kind != "good"


def read_photographs(folder: Path, colour: bool = False) -> list[Photograph]:
    """All photographs of a folder of MVTec categories, in luminance or in ``colour``. Raises :class:`UsageError` where there are none."""
    paths = sorted(folder.glob("*/test/*/*.png"))
    if not any(path.parent.name == "good" for path in paths):
        raise UsageError(f"{folder}: found no <category>/test/good/*.png; expected MVTec categories with test and ground_truth")
    places: dict[tuple[str, bool], int] = {}
    found = []
    for number, path in enumerate(paths):
        category, kind = path.parents[2].name, path.parent.name
        place = places.setdefault((category, kind == "good"), 0)
        places[category, kind == "good"] += 1
        splits = GOOD if kind == "good" else DEFECTIVE
        image, mask = _read(path, folder / category / "ground_truth" / kind / f"{path.stem}_mask.png", colour)
        found.append(Photograph(category, kind, path.stem, splits[place % len(splits)], number, image, mask))
    return found


def _read(path: Path, mask_path: Path, colour: bool) -> tuple[Tensor, Tensor]:
    pixels = imread(path)
    grey = rgb2gray(pixels) if pixels.ndim == 3 else pixels / 255
    rgb = (pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=-1)) / 255
    image = torch.from_numpy((rgb.transpose(2, 0, 1) if colour else grey[None]).astype(np.float32))
    if path.parent.name == "good":
        return image, torch.zeros_like(image[:1], dtype=torch.bool)
    if not mask_path.is_file():
        raise UsageError(f"{path}: its defect mask {mask_path} is not there; expected one beside every defective photograph")
    return image, torch.from_numpy(imread(mask_path).reshape(*grey.shape, -1)[..., 0] > 0)[None]


def luminance(image: Tensor) -> Tensor:
    """``(…, 3, H, W)`` → ``(…, 1, H, W)`` as scikit-image has it; luminance itself as it is."""
    if image.shape[-3] == 1:
        return image
    return (image * torch.tensor(LUMA)[:, None, None]).sum(dim=-3, keepdim=True)


def first(photographs: list[Photograph], split: str, most: int | None) -> list[Photograph]:
    """Those of a split; of each category's good and defective ones the first ``most``, where that is given."""
    counts: Counter[tuple[str, bool]] = Counter()
    kept = []
    for photograph in photographs:
        kind = photograph.category, photograph.defective
        if photograph.split == split and (most is None or counts[kind] < most):
            kept.append(photograph)
            counts[kind] += 1
    return kept


def good(photographs: list[Photograph], split: str, category: str | None = None) -> Tensor:
    """The good photographs of a split, of one category or all, ``(N, 1, H, W)``."""
    return torch.stack([p.image for p in photographs if p.split == split and not p.defective and category in (None, p.category)])


def upsampler_training(photographs: list[Photograph]) -> Training:
    """The super-resolution network, on the good photographs of the train split of all categories."""
    images = good(photographs, "train")
    grey = images.shape[1] == 1
    name, told, kind = ("photographs-2x", "luminance", sr.Refiner) if grey else ("photographs-2x-rgb", "RGB", sr.ColourRefiner)
    about = f"{ORIGIN}, {told}, train split: of the good photographs of each category, by name, the first two of every four"
    return sr.training(name, about, images, FACTOR, NETWORK, LOOP, min(WINDOW, *images.shape[-2:]), kind)


@dataclass(frozen=True, eq=False)
class Category:
    """What is known of one category: PatchCore on conditions (finds B), and PatchCore on true photographs (judges the results)."""

    finder: PatchCoreDetector
    judge: PatchCoreDetector
    usual: float
    """Mean score the judge gives to the true good photographs of the validation split."""
    highest: float
    """The highest of them, as a multiple of ``usual``."""


def category_of(photographs: list[Photograph], name: str, settings: Detecting) -> Category:
    """Fit both detectors on the good photographs of a category: banks of the train split, thresholds of the validation split."""
    known, held_out = (good(photographs, split, name) for split in ("train", "val"))
    small = sr.low_resolution(known, FACTOR), sr.low_resolution(held_out, FACTOR)
    finder = sr.fit_patchcore(small[0], small[1], 1.0, settings.false_alarm, settings.bank)
    judge = sr.fit_patchcore(known, held_out, 1.0, settings.false_alarm, settings.bank)
    scores = [float(judge(image[None], sr.everywhere(image[None])).slice_score) for image in held_out]
    return Category(finder, judge, float(np.mean(scores)), float(np.max(scores) / np.mean(scores)))


@dataclass(frozen=True, eq=False)
class Bench:
    """Everything that the rows need; the detectors are fitted when first asked."""

    photographs: list[Photograph]
    network: nn.Module
    sampling: sr.Sampling
    detecting: Detecting

    @cached_property
    def categories(self) -> dict[str, Category]:
        """By name."""
        return {name: category_of(self.photographs, name, self.detecting) for name in sorted({p.category for p in self.photographs})}

    @cached_property
    def cut(self) -> float:
        """A photograph counts as defective above this multiple of its category's usual score: no true good validation one does."""
        return max(category.highest for category in self.categories.values())

    def image(self, row: Row, case: Photograph) -> tuple[Tensor, Tensor]:
        """What a row makes of a photograph, ``(1, C, H, W)``, and its OOD region B ``(1, 1, H, W)``."""
        condition = sr.low_resolution(case.image[None], FACTOR)
        nothing = torch.zeros_like(case.mask[None])
        if row.source in ("true", "condition"):
            return (case.image[None] if row.source == "true" else condition), nothing
        sampling = replace(self.sampling, local=row.local)
        draw = partial(
            sr.upsample, self.network, sampling.as_published if row.published else sampling, condition, np.array([case.number]), batch=BATCH
        )
        if row.source == "none":
            return draw(ood_map=None, mask=None), nothing
        ood_map, mask = (case.mask[None].float(), case.mask[None]) if row.source == "truth" else self._found(condition, case, row)
        if row.pasted:
            return sr.pasted(condition, draw(ood_map=None, mask=None), mask), mask
        return draw(ood_map=ood_map, mask=mask), mask

    def _found(self, condition: Tensor, case: Photograph, row: Row) -> tuple[Tensor, Tensor]:
        every, d = sr.everywhere(condition), self.detecting
        ood_map = self.categories[case.category].finder(condition, every).ood_map
        return ood_map, ood_map >= 1 if row.published else to_mask(ood_map, d.threshold, every, d.open, d.dilate, (1.0, 1.0))

    def judged(self, row: Row, case: Photograph) -> dict[str, Any]:
        """Figures of one photograph: the judge's score as a multiple of the usual one, PSNR (whole, defect), SSIM, share of B."""
        image, mask = self.image(row, case)
        category = self.categories[case.category]
        score = float(category.judge(image, sr.everywhere(image)).slice_score) / category.usual
        made, true, inside = image[0].numpy(), case.image.numpy(), case.mask[0].numpy()
        grey = [luminance(each)[0].numpy() for each in (image[0], case.image)]
        return {
            "defective": case.defective, "score": score, "flagged": score > self.cut, "psnr": sr.decibels(made, true),
            "psnr_defect": sr.decibels(made[:, inside], true[:, inside]), "ssim": sr.similarity(grey[0], grey[1]),
            "ood": float(mask.float().mean()),
        }  # fmt: skip


def summary_row(row: Row, own: list[dict[str, Any]], plain: list[dict[str, Any]] | None) -> dict[str, str]:
    """One line of the table; intervals are 95 % bootstrap intervals over photographs (5,000 resamples, seed 0)."""
    defective, flagged = (np.array([case[key] for case in own]) for key in ("defective", "flagged"))
    line = {"row": row.label, "defective": str(int(defective.sum())), "good": str(int((~defective).sum()))}
    line["misdetected defects %"] = sr.mean_of(~flagged[defective], percent)
    line["false alarms %"] = sr.mean_of(flagged[~defective], percent)
    line["accuracy %"] = sr.mean_of(flagged == defective, percent)
    before = None if plain is None else np.array([not case["flagged"] for case in plain])
    line["fewer misdetected than plain %"] = (
        "" if before is None else percent(sr.reduction(~flagged[defective], before[defective], Bootstrap()))
    )
    scores = np.array([case["score"] for case in own])
    line["AUROC"] = f"{auroc(scores[defective], np.sort(scores[~defective])):.3f}"
    for key, digits in (("psnr", 2), ("psnr_defect", 2), ("ssim", 3)):
        line[key] = sr.mean_of(np.array([case[key] for case in own if case[key] is not None]), partial(decimal, digits=digits))
    for name, chosen in (("defective", defective), ("good", ~defective)):
        line[f"OOD region of {name} %"] = f"{100 * np.array([case['ood'] for case in own])[chosen].mean():.1f}"
    return line


def bench_of(photographs: list[Photograph], options: argparse.Namespace) -> tuple[Bench, str]:
    """What measures, and the digest of its network's training."""
    training = upsampler_training(photographs)
    network = obtain(training, options.work, f"measured without shipped weights, split {options.split}")
    return Bench(photographs, network, sr.Sampling(), Detecting()), training.digest


def measure(options: argparse.Namespace) -> list[Table]:
    """The part: one table."""
    return [table_of(read_photographs(options.data[0]), f"photographs-{options.split}", options)]


def table_of(photographs: list[Photograph], stem: str, options: argparse.Namespace) -> Table:
    """All rows on the photographs of a split."""
    bench, weights = bench_of(photographs, options)
    sampling, detecting = bench.sampling, bench.detecting
    cases = first(photographs, options.split, options.most)
    seen = digest_of(np.stack([p.image.numpy() for p in photographs]))
    results = {}
    for row in ROWS:
        key = [weights, seen, asdict(row), asdict(sampling), asdict(detecting)]
        results[row] = [
            sr.measured_once(options.work / "photographs", [*key, case.number], partial(bench.judged, row, case)) for case in cases
        ]
        print(f"{stem}, {row.label}: {len(cases)} photographs", flush=True)
    plain = next(result for row, result in results.items() if row.source == "none" and not row.published)
    rows = [summary_row(row, own, plain if row.source in ("patchcore", "truth") else None) for row, own in results.items()]
    account = {
        "split": options.split, "photographs": [f"{p.category}/{p.kind}/{p.name}" for p in cases], "weights": weights,
        "sampling": asdict(sampling), "detector": asdict(detecting), "rows": [asdict(row) for row in ROWS],
    }  # fmt: skip
    bad = sum(p.defective for p in cases)
    about = f"2x, trained on {len(good(photographs, 'train'))} good photographs; {options.split}: {bad} defective, {len(cases) - bad} good"
    return Table(stem, rows, f"{about}; unit: the photograph", account, lambda canvas: _draw(canvas, stem, rows))


def _draw(canvas: Any, title: str, rows: list[dict[str, str]]) -> None:
    """Misdetected defects and false alarms, side by side."""
    axes = canvas.subplots()
    places = np.arange(len(rows))
    for shift, key in ((-0.2, "misdetected defects %"), (0.2, "false alarms %")):
        axes.barh(places + shift, [float(line[key].split(" ")[0]) for line in rows], 0.4, label=key)
    axes.set(yticks=places, yticklabels=[line["row"] for line in rows], xlabel="% of photographs", title=title)
    axes.invert_yaxis()
    axes.legend()


def main() -> None:
    """Make the weights again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path, help="folder of MVTec categories")
    parser.add_argument("--work", type=Path, default=Path("bench.work"), help="checkpoints; an interrupted training goes on from there")
    parser.add_argument("--out", type=Path, default=Path("models/bench"))
    options = parser.parse_args()
    command = f"python -m examples.benchmarks.photographs {recorded_arguments(sys.argv[1:])}"
    for colour in (False, True):
        fit(upsampler_training(read_photographs(options.data, colour)), options.out, options.work, command)


if __name__ == "__main__":
    main()
