"""Does the lesion survive? Rows of sampling modes, detectors and the OOD expert on real patients, missed beside invented lesions.

``python -m examples.benchmarks.mri --model t1-to-flair --data DATA --split val``

Slices are judged on the network's grid; the frozen segmenter of the target contrast says what it finds on each image.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from examples.benchmarks import variants
from examples.benchmarks.noisy_maps import sample_redrawn
from examples.benchmarks.table import decimal, percent, to_tsv
from examples.benchmarks.translation import chunk_of, patients
from examples.benchmarks.variants import regress
from examples.benchmarks.weights import how_to_make
from examples.benchmarks.wrong_maps import REDRAWN, noisy, spoil
from localdiff_cli.bundle import Bundle, load_detector, load_expert, load_segmenter, load_translator, open_bundle, schedule_of
from localdiff_cli.diffusion.device import on_device
from localdiff_cli.diffusion.fusion import LocalSettings
from localdiff_cli.errors import UsageError
from localdiff_cli.evaluation.cohort.realism import kid
from localdiff_cli.evaluation.cohort.statistics import Bootstrap, Interval, bootstrap_mean, bootstrap_ratio, bootstrap_sums
from localdiff_cli.evaluation.metrics.image import Compartment, DataRange, region_figures, ssim_maps
from localdiff_cli.evaluation.metrics.lesion import contrast_agreement, lesion_contrast, ring_around
from localdiff_cli.evaluation.metrics.measure import measured
from localdiff_cli.evaluation.metrics.misdiagnosis import MisdiagnosisSettings, collect_evidence, judge_slices, tally
from localdiff_cli.ood.detector import Detector
from localdiff_cli.ood.texture import too_smooth
from localdiff_cli.ood.threshold import to_mask
from localdiff_cli.options import TranslateOptions
from localdiff_cli.recipes.translate import sample_settings
from localdiff_cli.segmentation.detector import SegmenterDetector
from localdiff_cli.segmentation.network import LesionNetwork, lesion_probability
from localdiff_cli.tasks.guidance import lesion_shows
from localdiff_cli.tasks.judges import SliceFeatures
from localdiff_cli.tasks.sampling import Networks, SampleSettings, SliceSampler
from localdiff_cli.tasks.slices import Chunk
from localdiff_cli.training.slices import PatientSlices
from localdiff_cli.volumes.whole import write_text

UNIT = DataRange(1.0, "robust z window mapped to [0, 1]")
SOURCES = ("true", "polynomial", "regression", "none", "patchcore", "segmenter", "truth")
REGIONS = ("whole", "brain", "lesion", "ring", "outside", "healthy")
PIXELWISE = tuple(f"{figure}_{region}" for region in REGIONS for figure in ("psnr", "ssim", "mae"))
FIGURES = (*PIXELWISE, "contrast", "bias", "dice", "seam", "mask_dice", "seconds")
SHOWN = (
    "row", "patients", "missed %", "invented %", "fewer missed than plain %", "psnr_brain", "psnr_healthy", "psnr_lesion", "psnr_ring",
    "ssim_brain", "mae_lesion", "contrast", "slope", "dice", "seam", "kid", "seconds",
)  # fmt: skip
"""The columns that the page shows; the TSV has all."""


@dataclass(frozen=True)
class Row:
    """One way to make the target: ``source`` of the OOD region (none: plain), by the ``expert`` or not, mean of ``samples``.

    ``source``: true (the target itself), polynomial, regression, none, patchcore, segmenter or truth. ``changes`` to the sampling
    settings and ``mask_changes`` to the bundle's mask defaults come with a ``label`` of their own. ``wrong`` spoils a true mask: a fault
    of wrong_maps.py and its size. ``variant`` names weights of variants.py that take the place of the expert's (of the translator's
    without ``expert``).
    """

    label: str
    source: str
    expert: bool = False
    samples: int = 1
    changes: tuple[tuple[str, Any], ...] = ()
    mask_changes: tuple[tuple[str, Any], ...] = ()
    wrong: tuple[str, float] | None = None
    variant: str = ""


PUBLISHED = (("steps", 50), ("fusion_step", 2), ("soft", False))
"""The paper's number of steps, mask and fusion; the rest is as the bundle has it."""

TABLE = (
    Row("true target contrast", "true"),
    Row("polynomial", "polynomial"),
    Row("regression", "regression", variant="regression"),
    Row("plain", "none"),
    Row("plain, mean of 10", "none", samples=10),
    Row("fine-tuned on everything, plain", "none", variant="everything"),
    Row("local, patchcore", "patchcore"),
    Row("local, segmenter map", "segmenter"),
    Row("local, true mask", "truth"),
    Row("local, patchcore, as published: 50 steps, hard, 2 joint", "patchcore", changes=PUBLISHED, mask_changes=(("texture", 0.0),)),
    Row(
        "local, patchcore, as published, ancestral, B = (M ≥ 1)",
        "patchcore",
        changes=(*PUBLISHED, ("sampler", "ddpm")),
        mask_changes=(("threshold", 1.0), ("open_mm", 0.0), ("dilate_mm", 0.0), ("texture", 0.0)),
    ),
    Row("local, patchcore, expert", "patchcore", expert=True),
    Row("local, segmenter map, expert", "segmenter", expert=True),
    Row("local, true mask, expert", "truth", expert=True),
    Row("local, segmenter map, expert, guided", "segmenter", expert=True, changes=(("guided", True), ("fusion_step", 2))),
    Row("local, segmenter map, expert of 5 patients", "segmenter", expert=True, variant="expert-5"),
    Row("local, segmenter map, expert of 20 patients", "segmenter", expert=True, variant="expert-20"),
    Row("local, segmenter map, expert of 60 patients, trained as briefly", "segmenter", expert=True, variant="share-0.25"),
    Row("local, patchcore, expert of 5 patients", "patchcore", expert=True, variant="expert-5"),
    Row("local, patchcore, expert of 20 patients", "patchcore", expert=True, variant="expert-20"),
)


@dataclass(frozen=True, eq=False)
class Bench:
    """Everything loaded once: the translator's parts, the detectors, the frozen segmenter of the target contrast.

    ``variant`` gives a network of variants.py by name, None where it was not made. ``hashes`` say of what weights all this is made.
    """

    bundle: Bundle
    networks: Networks
    detector: Callable[[str, float], Detector]
    segmenter: LesionNetwork
    cut: float
    settings: SampleSettings
    variant: Callable[[str], nn.Module | None] = lambda name: None
    hashes: tuple[str, ...] = ()
    features: Callable[[NDArray, NDArray[np.bool_]], NDArray] = field(default_factory=SliceFeatures)

    def can(self, row: Row) -> bool:
        """Whether the weights that a row asks for are there."""
        return self.variant(row.variant) is not None if row.variant else self.networks.expert is not None or not row.expert

    def networks_of(self, row: Row) -> Networks:
        """The networks that a row samples with. Raises :class:`UsageError` where the variant that it names is not here."""
        if not row.variant:
            return self.networks if row.expert else replace(self.networks, expert=None)
        network = self.variant(row.variant)
        if network is None:
            told = f"{row.label}: the variant {row.variant} of {self.bundle.name} is not here, or was made from another translator"
            raise UsageError(f"{told}. {how_to_make(f'{self.bundle.name}/{row.variant}')}", code="no-model")
        model = on_device(network, self.networks.device, "fp32")
        return replace(self.networks, expert=model, told=False) if row.expert else replace(self.networks, expert=None, model=model)

    def region(self, row: Row, chunk: Chunk, lesion: Tensor) -> tuple[Tensor, Tensor]:
        """M and B of a chunk, ``(N, 1, H, W)``, of each slice as if it were a volume of its own: nothing is averaged through slices."""
        if row.source == "truth":
            mask = self.wrong_masks(row, chunk, lesion)[0] if row.wrong else lesion
            return mask.float(), mask
        d = replace(self.bundle.defaults, **dict(row.mask_changes))
        found = self.detector(row.source, d.false_alarm)(chunk.condition, chunk.brain)
        peak = d.peak if row.source == self.bundle.defaults.detector else 0.0
        spacing = (self.bundle.grid.spacing,) * 2
        mask = to_mask(found.ood_map, d.threshold, chunk.brain, d.open_mm, d.dilate_mm, spacing, peak)
        return found.ood_map, mask & ~too_smooth(chunk.condition, mask, chunk.brain, d.texture, spacing[0])

    def wrong_masks(self, row: Row, chunk: Chunk, lesion: Tensor) -> list[Tensor]:
        """The masks that a row's fault makes of the true one, ``(N, 1, H, W)``: one, or one for each step where they are redrawn."""
        if row.wrong is None:
            return []
        fault, size = row.wrong
        if fault == REDRAWN:
            return [noisy(lesion, chunk.brain, size, draw) for draw in range(dict(row.changes).get("steps", self.settings.steps))]
        return [spoil(lesion, chunk.brain, fault, size)]

    def image(self, row: Row, patient: PatientSlices, chunk: Chunk, target: NDArray, lesion: Tensor) -> NDArray:
        """The image that a row makes of a chunk, ``(N, H, W)`` in [0, 1]."""
        if row.source == "true":
            return target
        if row.source == "polynomial":
            power = self.bundle.metadata["training"]["translator"]["polynomial"]
            mapped = np.clip(np.polyval(power, chunk.condition.numpy()), 0, 1) * chunk.brain.numpy()
            return mapped[:, 0].astype(np.float32)
        if row.source == "regression":
            with torch.inference_mode():
                made = regress(self.networks_of(row).model, chunk.condition).clamp(0, 1) * chunk.brain
            return made[:, 0].numpy()
        changes = dict(row.changes)
        local = replace(self.settings.local, **{k: changes.pop(k) for k in list(changes) if hasattr(self.settings.local, k)})
        settings = replace(self.settings, mode="plain" if row.source == "none" else "local", samples=row.samples, local=local, **changes)
        networks = self.networks_of(row)
        if row.wrong is not None and row.wrong[0] == REDRAWN:
            return sample_redrawn(networks, settings, chunk, self.wrong_masks(row, chunk, lesion), patient.name)[:, 0].numpy()
        nothing = torch.zeros_like(chunk.brain)
        ood_map, mask = (nothing.float(), nothing) if row.source == "none" else self.region(row, chunk, lesion)
        return SliceSampler(networks, settings, patient.name)(chunk, ood_map, mask)[0][:, 0].numpy()


def load(model: str, segmenter: str | None, ood_segmenter: str | None) -> Bench:
    """Load a bundle and what judges it, on the CPU."""
    bundle, device = open_bundle(model), torch.device("cpu")
    network = load_translator(bundle, device)
    expert = on_device(load_expert(bundle, device), device, "fp32") if bundle.has_expert else None
    translate = on_device(network, device, "fp32")
    judge = open_bundle(segmenter or bundle.target.segmenter)
    judging, cut = load_segmenter(judge, device), judge.segmenter_defaults.threshold
    shows = lesion_shows(judging, cut)
    networks = Networks(
        translate, schedule_of(bundle), device, network.settings.multiple, shows, judge.name, expert, told=bundle.expert_is_told
    )
    finder = open_bundle(ood_segmenter or bundle.finder)

    @functools.cache
    def detector(name: str, false_alarm: float) -> Detector:
        if name == "patchcore":
            return load_detector(bundle, false_alarm, device)
        return SegmenterDetector(load_segmenter(finder, device))

    settings = sample_settings(TranslateOptions(model=model), bundle)
    hashes = (bundle.hash, judge.hash, finder.hash)
    return Bench(bundle, networks, detector, judging, cut, settings, functools.cache(functools.partial(variants.load, bundle)), hashes)


def measure(bench: Bench, row: Row, patient: PatientSlices, every: int) -> dict[str, Any]:
    """The figures and counts of one patient; None where there is nothing to measure."""
    chunk, target, lesion = chunk_of(patient, every)
    brain = chunk.brain[:, 0].numpy()
    started = time.monotonic()
    image = bench.image(row, patient, chunk, target, torch.from_numpy(lesion)[:, None])
    seconds = time.monotonic() - started
    return figures_of(bench, image, target, brain, lesion) | {
        "seconds": seconds / len(target), "mask_dice": _mask_dice(bench, row, chunk, lesion),
        "features": np.round(bench.features(image, brain), 4).tolist(),
    }  # fmt: skip


def figures_of(bench: Bench, image: NDArray, target: NDArray, brain: NDArray[np.bool_], lesion: NDArray[np.bool_]) -> dict[str, Any]:
    """The figures and counts of one patient's image, all ``(N, H, W)``; None where there is nothing to measure."""

    def found(images: NDArray) -> NDArray[np.bool_]:
        probability = lesion_probability(bench.segmenter, torch.from_numpy(images)[:, None], torch.from_numpy(brain)[:, None])
        return probability[:, 0].numpy() >= bench.cut

    mask, inside = found(image), lesion & brain
    evidence = collect_evidence(mask, found(target), lesion, brain)
    counts = tally(judge_slices(evidence, MisdiagnosisSettings()))
    ring = ring_around(inside, brain, (1e3, bench.bundle.grid.spacing, bench.bundle.grid.spacing), 1.0, 5.0)
    overlap = mask.sum() + lesion.sum()
    contrast, true = (lesion_contrast(images, inside, ring, UNIT).value for images in (image, target))
    return {
        **_image_figures(image, target, _regions(brain, inside, ring)),
        "contrast": contrast, "bias": None if contrast is None or true is None else contrast - true,
        "dice": float(2 * (mask & lesion).sum() / overlap) if overlap else None,
        "missed": counts.missed, "found": counts.found, "invented": counts.invented, "free": counts.lesion_free,
        "seam": seam(image, inside, brain),
    }  # fmt: skip


def _mask_dice(bench: Bench, row: Row, chunk: Chunk, lesion: NDArray[np.bool_]) -> float | None:
    """Dice of a wrong B (mean over its draws) with the true lesion inside the brain; None for rows with another B, or without a lesion."""
    whole = torch.from_numpy(lesion)[:, None]
    true, masks = whole & chunk.brain, bench.wrong_masks(row, chunk, whole)
    if not masks or not true.any():
        return None
    return float(np.mean([float(2 * (wrong & true).sum() / (wrong.sum() + true.sum())) for wrong in masks]))


def seam(image: NDArray, region: NDArray[np.bool_], brain: NDArray[np.bool_]) -> float | None:
    """Mean gradient on the rim of ``region`` over that of the brain 4 to 8 pixels outside it; all ``(N, H, W)``, None without either.

    1: the rim is as smooth as its surroundings; a lesion's own edge counts as well, so read it beside the true contrast's.
    """
    gradient = np.hypot(*np.gradient(image, axis=(1, 2)))
    outwards = np.stack([ndimage.distance_transform_edt(~r) if r.any() else np.full(r.shape, np.inf) for r in region])
    rim = (outwards <= 1) & ~np.stack([ndimage.binary_erosion(r) for r in region]) & brain
    around = (outwards > 4) & (outwards <= 8) & brain
    return float(gradient[rim].mean() / gradient[around].mean()) if rim.any() and around.any() else None


def _regions(brain: NDArray[np.bool_], lesion: NDArray[np.bool_], ring: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    """The masks of REGIONS; ``healthy`` is the brain of lesion-free slices."""
    free = ~lesion.any(axis=(1, 2), keepdims=True)
    masks = (np.ones_like(brain), brain, lesion, ring, brain & ~lesion, brain & free)
    return dict(zip(REGIONS, masks, strict=True))


def _image_figures(image: NDArray, target: NDArray, regions: dict[str, NDArray[np.bool_]]) -> dict[str, float | None]:
    """PSNR, SSIM (slice by slice) and MAE of each region; None where it is empty or the images are identical."""
    maps = ssim_maps(image, target, UNIT)
    figures: dict[str, float | None] = {}
    for name, mask in regions.items():
        found = region_figures(image, target, Compartment(name, mask, name), UNIT, maps)
        figures |= {f"psnr_{name}": found.psnr.value, f"ssim_{name}": found.ssim_slices.value, f"mae_{name}": found.mae.value}
    return figures


def run(bench: Bench, rows: tuple[Row, ...], cases: list[PatientSlices], every: int, cache: Path) -> dict[str, list[dict[str, Any]]]:
    """Every row on every patient. What ``cache`` holds of the same bundle and settings is not measured again."""
    results: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        for patient in cases:
            path = cache / f"{_digest(_key(bench, row, patient.name, every))}.json"
            if not path.is_file():
                write_text(path, json.dumps(measure(bench, row, patient, every)))
            results.setdefault(row.label, []).append(json.loads(path.read_text(encoding="utf-8")))
        print(f"{row.label}: {len(cases)} patients", flush=True)
    return results


def _key(bench: Bench, row: Row, patient: str, every: int) -> str:
    """Everything that decides a measurement. What only branches need does not count for rows that have none."""
    weights, settings = [bench.bundle.metadata["files"], *bench.hashes[1:], weights_of_row(bench, row)], bench.settings
    defaults = asdict(bench.bundle.defaults)
    if row.source in ("true", "polynomial", "regression", "none"):
        settings, defaults = replace(settings, local=LocalSettings(), guided=False, ood_crop=False), {}
    return json.dumps([weights, defaults, asdict(row), asdict(settings), patient, every, FIGURES], default=str)


def weights_of_row(bench: Bench, row: Row) -> str:
    """What tells the weights of a row's variant from others of that name."""
    network = bench.variant(row.variant) if row.variant else None
    return "" if network is None else _digest(str([float(p.double().sum()) for p in network.parameters()]))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def summary_row(label: str, own: list[dict[str, Any]], plain: list[dict[str, Any]] | None, bootstrap: Bootstrap) -> dict[str, str]:
    """One line of the table: means and shares over patients with intervals, and the reduction of missed lesions against plain."""
    line = {"row": label, "patients": str(len(own))}
    for name, numerator, denominator in (("missed %", "missed", "found"), ("invented %", "invented", "free")):
        ratio = bootstrap_ratio([p[numerator] for p in own], [p[denominator] for p in own], bootstrap, "none")
        line[name] = percent(ratio)
    line["fewer missed than plain %"] = "" if plain is None else percent(_reduction(own, plain, bootstrap))
    for key in FIGURES:
        known = [p[key] for p in own if p[key] is not None]
        line[key] = decimal(bootstrap_mean(known, bootstrap), 2 if key.startswith("psnr") or key == "seconds" else 3) if known else "n/a"
    return line | {"slope": _slope(own)}


def _slope(own: list[dict[str, Any]]) -> str:
    """How the patients' lesion contrast follows the true one: 1 where differences between patients are kept, 0 where they are lost."""
    known = [p for p in own if p["bias"] is not None]
    slope = contrast_agreement([measured(p["contrast"]) for p in known], [measured(p["contrast"] - p["bias"]) for p in known]).slope
    return "n/a" if slope.value is None else f"{slope.value:.2f}"


def _kid(own: list[dict[str, Any]], true: list[dict[str, Any]]) -> str:
    """KID of all slices against the true contrast's, in the features and units of ``evaluate --realism``."""
    a, b = (np.concatenate([np.asarray(p["features"], np.float64) for p in each]) for each in (own, true))
    found = kid(a, b, seed=0)
    return "n/a" if found.value is None else f"{found.value:.1f}"


def _reduction(own: list[dict[str, Any]], plain: list[dict[str, Any]], bootstrap: Bootstrap) -> Interval:
    """1 − missed / missed by plain; the lesions found on the true contrast are the same."""
    sums = np.array([[a["missed"], b["missed"]] for a, b in zip(own, plain, strict=True)], np.float64)

    def reduction(totals: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return 1 - totals[:, 0] / totals[:, 1]

    return bootstrap_sums(sums, reduction, bootstrap, "plain misses none")


def table(results: dict[str, list[dict[str, Any]]]) -> list[dict[str, str]]:
    """All rows, with 95 % bootstrap intervals over patients (5,000 resamples, seed 0)."""
    plain = results.get("plain")
    alone = ("plain", "true target contrast")
    lines = [summary_row(label, own, None if label in alone else plain, Bootstrap()) for label, own in results.items()]
    true = results.get("true target contrast")
    return [line | {"kid": "n/a" if true is None else _kid(own, true)} for line, own in zip(lines, results.values(), strict=True)]


def account_of(bench: Bench, rows: tuple[Row, ...], cases: list[PatientSlices], split: str, every: int) -> dict[str, Any]:
    """The exact settings of a table, JSON-able."""
    return {
        "bundle": bench.bundle.name, "hashes": bench.hashes, "split": split, "every": every,
        "patients": [p.name for p in cases], "sampling": asdict(bench.settings), "defaults": asdict(bench.bundle.defaults),
        "rows": [asdict(row) for row in rows],
    }  # fmt: skip


def parse_row(text: str) -> Row:
    """``source[+expert][,name=value…]`` → a row; values as JSON, ``variant=NAME`` as it stands.

    Raises :class:`UsageError` for anything else.
    """
    head, *settings = text.split(",")
    source, *flags = head.split("+")
    if source not in SOURCES or set(flags) - {"expert"}:
        raise UsageError(f"--row {text}: expected one of {', '.join(SOURCES)}, with +expert or not", code="row")
    told = dict(each.split("=") for each in settings)
    variant = told.pop("variant", "regression" if source == "regression" else "")
    pairs = [(name, json.loads(value)) for name, value in told.items()]
    of_mask = ("threshold", "open_mm", "dilate_mm", "peak", "false_alarm")
    changes, mask = ([p for p in pairs if (p[0] in of_mask) == wanted] for wanted in (False, True))
    return Row(text, source, bool(flags), 1, tuple(changes), tuple(mask), variant=variant)


def main() -> None:
    """Measure and print; ``--out`` writes the TSV with the exact settings beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, nargs="+", type=Path)
    parser.add_argument("--split", default="val", choices=("val", "test"))
    parser.add_argument("--every", type=int, default=2, help="every n-th slice")
    parser.add_argument("--row", nargs="+", help="rows of one's own: source[+expert][,setting=value] (default: the table)")
    parser.add_argument("--segmenter", help="frozen segmenter of the target contrast (default: lesion-<target>)")
    parser.add_argument("--ood-segmenter", help="segmenter of the condition (default: the bundle's, or lesion-<condition>)")
    parser.add_argument("--work", type=Path, default=Path("bench.work"), help="caches; an interrupted run goes on from there")
    parser.add_argument("--out", type=Path, help="TSV to write, and a .json of the settings beside it")
    options = parser.parse_args()
    bench = load(options.model, options.segmenter, options.ood_segmenter)
    rows = tuple(map(parse_row, options.row)) if options.row else tuple(filter(bench.can, TABLE))
    cases = [p for p in patients(bench.bundle, options.data, options.split, options.work) if p.masked]
    text = to_tsv(table(run(bench, rows, cases, options.every, options.work / "mri")))
    print(text)
    if options.out:
        write_text(options.out, text)
        account = account_of(bench, rows, cases, options.split, options.every)
        write_text(options.out.with_suffix(".json"), json.dumps(account, indent=1) + "\n")


if __name__ == "__main__":
    main()
