"""Networks that only experiments need: the regression yardstick, the network trained on, experts of fewer patients.

``python -m examples.benchmarks.variants --variant regression --base t1-to-flair --data DATA``

Each is the base's network again, with weights of its own: a file in ``models/bench/<base>``, a bundle like the others, outside the wheel.
The repository keeps the bundle's account and card; ``make bench-weights`` makes the weights that are not here (remake.py).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from examples.benchmarks.weights import how_to_make
from localdiff_cli.batch.report import recorded_arguments
from localdiff_cli.bundle import METADATA, TRANSLATOR, Bundle, load_translator, open_bundle, read_metadata, save_bundle, schedule_of
from localdiff_cli.bundle.card import card
from localdiff_cli.diffusion.network import TranslatorNetwork
from localdiff_cli.errors import UsageError
from localdiff_cli.training.augment import AugmentSettings, place, recontrast
from localdiff_cli.training.expert import RegionSettings, expert_loss, lesion_slices
from localdiff_cli.training.job import FitJob, Start, identity, progress, version
from localdiff_cli.training.loop import LoopSettings, LossOf, train, trained_seconds
from localdiff_cli.training.pairs import read_pairs, without
from localdiff_cli.training.slices import PatientSlices
from localdiff_cli.training.translator import BACKGROUND_WEIGHT, ChosenSlices, draw, healthy_slices, translator_loss
from localdiff_cli.volumes.prepare import PrepareSettings

FOLDER = Path("models/bench")


@dataclass(frozen=True)
class Variant:
    """How a variant is trained: ``kind`` (regression, everything, further or expert), ``steps``, peak ``rate``.

    ``patients`` and ``healthy_share`` belong to an expert; ``region``, the share of slices restricted to a region, to ``further``.
    """

    kind: str
    steps: int
    rate: float
    patients: int | None = None
    healthy_share: float = 0.25
    region: float = 0.0


VARIANTS = {
    "regression": Variant("regression", 2600, 4e-4),
    "everything": Variant("everything", 400, 2e-4),
    "further": Variant("further", 400, 2e-4),
    "further-regions": Variant("further", 400, 2e-4, region=0.5),
    "expert-5": Variant("expert", 400, 2e-4, patients=5),
    "expert-20": Variant("expert", 400, 2e-4, patients=20),
    "share-0.05": Variant("expert", 400, 2e-4, healthy_share=0.05),
    "share-0.25": Variant("expert", 400, 2e-4, healthy_share=0.25),
    "share-0.5": Variant("expert", 400, 2e-4, healthy_share=0.5),
    "share-0.75": Variant("expert", 400, 2e-4, healthy_share=0.75),
}


def weights_of(variant: str) -> str:
    """The weight file of a variant inside its bundle."""
    return f"models/{variant}.safetensors"


def regress(network: Callable[[Tensor, Tensor, Tensor], Tensor], condition: Tensor) -> Tensor:
    """The target in [0, 1] as a regression network sees it: the translator's network with nothing in place of x_t, at t = 0."""
    nothing = torch.zeros_like(condition)
    times = torch.zeros(condition.shape[0], dtype=torch.long, device=condition.device)
    return (network(nothing, condition, times) + 1) / 2


def regression_loss(slices: ChosenSlices, augment: AugmentSettings, batch_size: int) -> LossOf:
    """The loss of one step: absolute error on the slices and with the augmentation that the translator learns from."""

    def loss_of(network: nn.Module, generator: torch.Generator) -> Tensor:
        images = place(torch.cat(draw(slices, batch_size, generator)[:3], dim=1), augment, generator)
        condition, target, brain = images.split(1, dim=1)
        inside = (brain > 0.5).float()
        condition = recontrast(condition, inside, augment, generator)
        device = next(network.parameters()).device
        condition, target, inside = (tensor.to(device) for tensor in (condition, target.clamp(0, 1) * inside, inside))
        weight = BACKGROUND_WEIGHT + (1 - BACKGROUND_WEIGHT) * inside
        return (weight * (regress(network, condition) - target).abs()).sum() / weight.sum()

    return loss_of


def all_slices(patients: list[PatientSlices]) -> ChosenSlices:
    """Every training slice of the masked patients, with or without a lesion."""
    used = tuple(p for p in patients if p.split == "train" and p.masked and p.target is not None)
    return ChosenSlices(used, tuple(np.arange(len(p.condition)) for p in used))


def _begun(base: Bundle) -> dict[str, Any] | None:
    """What the base's translator started from; None for random weights, or a regression, which then came before the translator."""
    begun: dict[str, Any] | None = base.metadata.get("training", {}).get("translator", {}).get("start")
    return None if begun is None or begun["part"] == "regression" else begun


def _start(base: Bundle, variant: Variant, device: torch.device) -> nn.Module:
    """A regression starts as the translator did, anew or from the regression of the bundle it started from; others from its weights.

    Raises :class:`UsageError` for a regression like an adapted network (adapters/), or where that other regression is missing.
    """
    network = load_translator(base, device).requires_grad_(True)
    if variant.kind != "regression":
        return network
    if not isinstance(network, TranslatorNetwork):
        raise UsageError(f"--base {base.name}: an adapted network; expected one that localdiff fit has made")
    begun = _begun(base)
    if begun is None:
        torch.manual_seed(0)
        return TranslatorNetwork(network.settings).to(device)
    first = load(open_bundle(begun["bundle"]), "regression", FOLDER)
    if first is None:
        told = f"{FOLDER / begun['bundle']}: no regression there; expected one, since {base.name} started from that bundle"
        raise UsageError(f"{told}. {how_to_make(begun['bundle'] + '/regression')}")
    return first.to(device).requires_grad_(True)


def _regression_account(base: Bundle) -> dict[str, Any]:
    """What a regression of a base that started from another bundle says of the regression it starts from itself."""
    begun = _begun(base)
    assert begun is not None
    return Start(open_bundle(str(FOLDER / begun["bundle"])), "regression").account


def _loss(base: Bundle, variant: Variant, patients: list[PatientSlices], batch_size: int) -> tuple[LossOf, ChosenSlices]:
    """The loss, and the slices it draws from (of an expert: those with a lesion)."""
    augment, schedule = AugmentSettings(region=variant.region), schedule_of(base)
    if variant.kind == "everything":
        slices = all_slices(patients)
        return translator_loss(slices, schedule, augment, batch_size), slices
    healthy = healthy_slices(patients, "train")
    if variant.kind == "regression":
        return regression_loss(healthy, augment, batch_size), healthy
    if variant.kind == "further":
        return translator_loss(healthy, schedule, augment, batch_size), healthy
    lesions = lesion_slices(patients, variant.patients)
    regions = RegionSettings(healthy_share=variant.healthy_share)
    return expert_loss(lesions, healthy, schedule, augment, regions, batch_size), lesions


def fit(base: Bundle, name: str, job: FitJob, precision: str, steps: int | None = None) -> Bundle:
    """Train one variant (resumable) and put it into the bench bundle of ``job.out``, with the account of how it was made.

    ``steps`` in place of the variant's own.
    """
    variant = VARIANTS[name] if steps is None else replace(VARIANTS[name], steps=steps)
    loop = LoopSettings(steps=variant.steps, rate=variant.rate, precision=precision)
    patients = job.patients()
    loss, slices = _loss(base, variant, patients, loop.batch_size)
    job.say(f"{name}: {slices.count} slices of {len(slices.patients)} patients")
    checkpoint = job.work / f"bench-{base.name}-{name}.pt"
    begun = {"start": _regression_account(base)} if variant.kind == "regression" and _begun(base) else {}
    kept = identity(list(slices.patients), variant=variant) | {"base": base.metadata["files"][TRANSLATOR]} | begun
    average, curve = train(_start(base, variant, job.device), loss, loop, checkpoint, progress(job), None, kept)
    account = {
        "command": job.command, "seconds": round(trained_seconds(checkpoint)), "loop": asdict(loop), "variant": asdict(variant),
        "slices": slices.count, "patients": {"train": sorted(p.name for p in slices.patients)}, "curve": curve,
        "base": base.metadata["files"][TRANSLATOR], "monai": version("monai"), "torch": torch.__version__, **begun,
    }  # fmt: skip
    return _save(base, job.out, name, account, average)


def _save(base: Bundle, out: Path, name: str, account: dict[str, Any], average: nn.Module) -> Bundle:
    shared = ("task", "condition", "target", "grid", "brain", "bias", "network", "schedule", "licence", "intended_use")
    metadata = {key: base.metadata[key] for key in shared if key in base.metadata}
    before = read_metadata(out) if (out / METADATA).is_file() else {}
    metadata["training"] = before.get("training", {}) | {name: account}
    return save_bundle(out, metadata, {weights_of(name): average.state_dict()}, card(metadata | {"name": out.name}))


def of_translator(account: dict[str, Any], translator: str) -> bool:
    """Whether a variant of this account belongs to the translator with this SHA-256; a regression stands on its own."""
    return bool(account["variant"]["kind"] == "regression" or account["base"] == translator)


def load(base: Bundle, name: str, folder: Path = FOLDER) -> nn.Module | None:
    """A variant of the base's network, frozen; None where it was not made, was made from another translator, or is not here (said).

    A regression is one's own where it is of the same network, contrasts and grid.
    """
    path = folder / base.name
    if not (path / METADATA).is_file():
        return None
    bundle = open_bundle(str(path))
    if any(bundle.metadata.get(key) != base.metadata.get(key) for key in ("network", "condition", "target", "grid")):
        return None
    account = bundle.metadata.get("training", {}).get(name)
    if account is None or not of_translator(account, base.metadata["files"][TRANSLATOR]):
        return None
    if not (path / weights_of(name)).is_file():
        print(f"{path / weights_of(name)}: not here. {how_to_make(f'{base.name}/{name}')}", file=sys.stderr, flush=True)
        return None
    return load_translator(bundle, torch.device("cpu"), weights_of(name))


def main() -> None:
    """Train variants, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", nargs="+", choices=tuple(VARIANTS), required=True)
    parser.add_argument("--base", required=True, help="translator bundle")
    parser.add_argument("--data", nargs="+", type=Path, required=True, help="the pairs that the base was trained on")
    parser.add_argument("--exclude", nargs="*", default=[], help="patients to leave out, as the base's card has them")
    parser.add_argument("--out", type=Path, help=f"bench bundle to add to (default: {FOLDER}/<base>)")
    parser.add_argument("--work", type=Path, default=Path("bench.work"))
    parser.add_argument("--steps", type=int, help="optimiser steps (default: the variant's)")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    options = parser.parse_args()
    base = open_bundle(options.base)
    say: Callable[[str], None] = lambda text: print(text, flush=True)  # noqa: E731
    for name in options.variant:
        fit(base, name, _job(base, options, say), options.precision, options.steps)


def _job(base: Bundle, options: argparse.Namespace, say: Callable[[str], None]) -> FitJob:
    contrasts = (base.condition.contrast, base.target.contrast)
    pairs = without(read_pairs(options.data, *contrasts), tuple(options.exclude))
    command = f"python -m examples.benchmarks.variants {recorded_arguments(sys.argv[1:])}"
    prepare = PrepareSettings(bias=base.bias, spacing=base.grid.spacing, shape=base.grid.shape)
    out = options.out or FOLDER / base.name
    return FitJob(tuple(pairs), contrasts, out, options.work, prepare, command, torch.device("cpu"), say)


if __name__ == "__main__":
    main()
