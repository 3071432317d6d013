"""``make gpu-train``: train every network of the bundles on one card from a pack of prepared slices, all within ``--minutes``.

``python -m examples.gpu.train --pack pack.npz`` (examples/gpu/pack.py makes it). The slices lie on the card, batches are drawn and varied
there, the network runs compiled and in bfloat16; each training has a share of the time, and as many steps as fit into it. Every
network starts from the shipped weights and is kept as ``<bundle>.<part>.safetensors`` (at most 16 MiB) with its figure on the val split
beside the shipped one's, in ``<out>/gpu-train.tsv`` as they come. ``python -m examples.gpu.adopt`` puts those that are better into bundles.
``--rehearse`` does the same on the CPU with tiny batches and few val slices: with the pack that ``--pack`` names, or one of the packaged
patient; ``--compile`` compiles there too.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from examples.gpu.box import Box
from examples.gpu.pack import read_pack, rehearsed, write_pack
from localdiff_cli.bundle import Bundle, load_expert, load_segmenter, load_translator, open_bundle, schedule_of
from localdiff_cli.diffusion.device import choose_device
from localdiff_cli.segmentation.network import lesion_probability
from localdiff_cli.training.augment import AugmentSettings
from localdiff_cli.training.hard_negatives import HardNegatives
from localdiff_cli.training.job import data_account
from localdiff_cli.training.loop import LoopSettings, LossOf, train
from localdiff_cli.training.segmenter import LesionLoss, loss_of_drawn
from localdiff_cli.training.slices import PatientSlices
from localdiff_cli.training.told import ToldSettings, told_loss
from localdiff_cli.training.translator import denoising_loss, translator_loss

LARGEST = 16 * 2**20
MIN_LESION_PIXELS = 40
SHARES = (0.24, 0.14, 0.12, 0.2, 0.2, 0.1)
"""Of the time, in the order of :func:`trainings`."""
PROBE = 12
"""Steps that tell what a step costs, the first few of which compile."""


@dataclass(frozen=True, eq=False)
class OnCard:
    """Slices on a device, ``planes`` ``(S, 4, H, W)`` half precision: condition, target, brain, lesion; ``weights`` ``(S,)`` to draw by."""

    planes: Tensor
    weights: Tensor

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A random batch: each ``(n, 1, H, W)`` float32."""
        rows = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        condition, target, brain, lesion = self.planes[rows].float().split(1, dim=1)
        return condition, target, brain, lesion


def on_card(patients: list[PatientSlices], chosen: Callable[[PatientSlices], NDArray[np.bool_]], device: torch.device) -> OnCard:
    """The ``chosen`` slices; a patient is drawn by the square root of their number, as in ``fit``."""
    stacks, weights = [], []
    for p in patients:
        rows = np.flatnonzero(chosen(p))
        if len(rows):
            target = p.condition if p.target is None else p.target
            images = np.stack([p.condition[rows], target[rows]], axis=1).astype(np.float32) / 65535
            masks = np.stack([p.brain[rows], p.lesion[rows]], axis=1).astype(np.float32)
            stacks.append(torch.from_numpy(np.concatenate([images, masks], axis=1)).half())
            weights += [len(rows) ** -0.5] * len(rows)
    return OnCard(torch.cat(stacks).to(device), torch.tensor(weights, device=device))


def drawn_there(loss_of: LossOf, device: torch.device) -> LossOf:
    """The same loss with everything that is random drawn on the device, from a seed that the loop's generator gives."""

    def run(network: nn.Module, generator: torch.Generator) -> Tensor:
        own = torch.Generator(device).manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        with torch.device(device):
            return loss_of(network, own)

    return run


@dataclass(frozen=True, eq=False)
class Training:
    """One network to train; ``figure`` of a network on the val split, better when ``higher``; ``data``: what the card says of slices."""

    bundle: str
    part: str
    batch: int
    rate: float
    make: Callable[[], nn.Module]
    loss: Callable[[int], LossOf]
    figure: Callable[[nn.Module], float]
    what: str
    higher: bool
    data: dict[str, Any]


def data_of(patients: list[PatientSlices], *groups: OnCard) -> dict[str, Any]:
    """Slices to learn from, and the people of both splits."""
    return {"slices": sum(len(group.weights) for group in groups), "patients": data_account(patients)}


def swapped(patients: list[PatientSlices]) -> list[PatientSlices]:
    """The other way round: target to condition."""
    return [replace(p, condition=p.target, target=p.condition) for p in patients if p.target is not None]


def of(patients: list[PatientSlices], split: str, *, masked: bool = False) -> list[PatientSlices]:
    """A split's patients with a target; ``masked``: of whom it is known where lesions are."""
    return [p for p in patients if p.split == split and p.target is not None and (p.masked or not masked)]


def watched(device: torch.device) -> tuple[int, int]:
    """Slices a batch and batches of a val figure; few on a CPU, where only the way is tried."""
    return (32, 8) if device.type != "cpu" else (2, 1)


def thinned_out(planes: Tensor, most: int = 8) -> Tensor:
    """At most ``most`` slices, drawn once for all: where only the way is tried. Every so-manieth would be the same of every patient."""
    return planes[torch.randperm(len(planes), generator=torch.Generator().manual_seed(0))[:most]]


def denoising(bundle: Bundle, patients: list[PatientSlices], device: torch.device) -> Callable[[nn.Module], float]:
    """The denoising loss on lesion-free val slices, the same noise and timesteps for every network."""
    held, (batch, batches) = on_card(of(patients, "val"), lambda p: p.lesion_free, device), watched(device)

    @torch.inference_mode()
    def figure(network: nn.Module) -> float:
        generator, total = torch.Generator(device).manual_seed(1), 0.0
        with torch.device(device):
            for _ in range(batches):
                condition, target, brain, _ = held.draw(batch, generator)
                total += float(denoising_loss(network, schedule_of(bundle), condition, target * brain, brain, generator))
        return total / batches

    return figure


def translator(name: str, patients: list[PatientSlices], device: torch.device) -> Training:
    """A translator on lesion-free slices."""
    bundle = open_bundle(name)
    slices = on_card(of(patients, "train"), lambda p: p.lesion_free, device)

    def loss(batch: int) -> LossOf:
        return translator_loss(slices, schedule_of(bundle), AugmentSettings(), batch)

    make, figure = (lambda: load_translator(bundle, device)), denoising(bundle, patients, device)
    data = data_of(of(patients, "train") + of(patients, "val"), slices)
    return Training(name, "translator", 256, 8e-4, make, loss, figure, "denoising loss on val", False, data)


def expert(name: str, finder: str, patients: list[PatientSlices], device: torch.device) -> Training:
    """A told expert: lesions and healthy slices, and the maps that a lesion network finds."""
    bundle, found = open_bundle(name), load_segmenter(open_bundle(finder), device)

    def find(condition: Tensor, brain: Tensor) -> Tensor:
        return lesion_probability(found, condition, brain, mirror=False)

    def slices(split: str) -> tuple[OnCard, OnCard]:
        known = of(patients, split, masked=True)
        lesions = on_card(known, lambda p: p.lesion_pixels >= MIN_LESION_PIXELS, device)
        return lesions, on_card(known, lambda p: p.lesion_free, device)

    def told(groups: tuple[OnCard, OnCard], batch: int) -> LossOf:
        return told_loss(*groups, schedule_of(bundle), AugmentSettings(), ToldSettings(), find, batch)

    batch, batches = watched(device)
    taught, held = slices("train"), drawn_there(told(slices("val"), batch), device)

    @torch.no_grad()
    def figure(network: nn.Module) -> float:
        return float(np.mean([float(held(network, torch.Generator().manual_seed(k))) for k in range(batches)]))

    make, data = (lambda: load_expert(bundle, device)), data_of(of(patients, "train", masked=True), *taught)
    return Training(name, "expert", 128, 4e-4, make, partial(told, taught), figure, "told loss on val", False, data)


KINDS: tuple[tuple[float, Callable[[PatientSlices], NDArray[np.bool_]]], ...] = (
    (0.4, lambda p: ~p.lesion_free),
    (0.2, lambda p: p.lesion_free & (not p.lesion_free.all())),
    (0.4, lambda p: p.lesion_free & p.lesion_free.all()),
)
"""Shares of a lesion network's batch: slices with a lesion, the other slices of these people, slices of people without any lesion."""


def shared_out(batch: int, shares: list[float]) -> list[int]:
    """``batch`` slices by ``shares``, which need not sum to one; the first kind takes what rounding leaves."""
    counts = [int(batch * share / sum(shares)) for share in shares]
    return [batch - sum(counts[1:]), *counts[1:]]


def segmenter(name: str, patients: list[PatientSlices], hard: HardNegatives | None, device: torch.device) -> Training:
    """A lesion network: of the sick people's slices two thirds with a lesion, two fifths of all from people without any."""
    bundle = open_bundle(name)
    known = of(patients, "train", masked=True)
    groups = [(share, on_card(known, chosen, device)) for share, chosen in KINDS if any(chosen(p).any() for p in known)]

    def loss(batch: int) -> LossOf:
        counts = shared_out(batch, [share for share, _ in groups])

        def loss_of(network: nn.Module, generator: torch.Generator) -> Tensor:
            parts = [group.draw(n, generator) for (_, group), n in zip(groups, counts, strict=True) if n]
            image, _, brain, lesion = (torch.cat(planes) for planes in zip(*parts, strict=True))
            drawn = torch.cat([image, brain, lesion, torch.zeros_like(brain)], dim=1)
            return loss_of_drawn(network, drawn, AugmentSettings(), hard, LesionLoss(), generator)

        return loss_of

    held = on_card(of(patients, "val", masked=True), lambda p: np.ones(len(p.condition), bool), device)

    @torch.inference_mode()
    def figure(network: nn.Module) -> float:
        hits, total = 0.0, 0.0
        for part in (held.planes if device.type != "cpu" else thinned_out(held.planes)).split(64):
            image, _, brain, lesion = part.float().split(1, dim=1)
            found = lesion_probability(network, image, brain) >= bundle.segmenter_defaults.threshold  # type: ignore[arg-type]
            hits, total = hits + 2 * float((found * lesion).sum()), total + float(found.sum() + lesion.sum())
        return hits / max(total, 1)

    make = lambda: load_segmenter(bundle, device)  # noqa: E731
    data = data_of(known, *(group for _, group in groups))
    return Training(name, "segmenter", 192, 1e-3, make, loss, figure, "Dice of all val voxels", True, data)


def trainings(flair: list[PatientSlices], t2: list[PatientSlices] | None, device: torch.device) -> list[Callable[[], Training]]:
    """All of them, made when their turn comes."""
    back = swapped(flair)
    return [
        lambda: translator("t1-to-flair", flair, device),
        lambda: translator("flair-to-t1", back, device),
        lambda: segmenter("lesion-flair", back, None, device),
        lambda: segmenter("lesion-t1", flair, HardNegatives(), device),
        lambda: expert("t1-to-flair", "lesion-t1", flair, device),
        *([] if t2 is None else [lambda: translator("t1-to-t2", t2, device)]),
    ]


def settings_for(one: Training, steps: int, batch: int, *, compiled: bool) -> LoopSettings:
    """The loop's: bfloat16, no checkpoint but the last."""
    return LoopSettings(
        steps=steps, batch_size=batch, rate=one.rate, warmup=min(100, steps // 5 + 1), checkpoint_minutes=1e6,
        report_every=max(1, steps // 20), precision="bf16", compiled=compiled,
    )  # fmt: skip


def cost_of(one: Training, network: nn.Module, loss: LossOf, batch: int, folder: Path, *, steps: int, compiled: bool) -> float:
    """Seconds of a step, tried on a copy of the network by ``steps`` of them; what compiling takes, in the first, is not among them."""
    times: list[float] = []
    probe = replace(settings_for(one, steps, batch, compiled=compiled), report_every=1)
    train(copy.deepcopy(network), loss, probe, folder / "probe.pt", lambda p: times.append(time.monotonic()))
    return float(np.median(np.diff(times)[steps // 3 :]))


def carry_out(one: Training, box: Box, seconds: float, device: torch.device, batch: int | None, *, compiled: bool) -> None:
    """Train one network for about ``seconds``, keep it, and say both figures."""
    started, size = time.monotonic(), batch or one.batch
    network = one.make().requires_grad_(True)
    before, loss = one.figure(network.eval()), drawn_there(one.loss(size), device)
    name = f"{one.bundle}.{one.part}"
    with tempfile.TemporaryDirectory() as folder:  # a checkpoint of a run that was cut off is no business of this one
        probed = PROBE if compiled and seconds else 3
        step = cost_of(one, network, loss, size, Path(folder), steps=probed, compiled=compiled)
        steps = max(2, int((seconds - (time.monotonic() - started)) / step))
        settings = settings_for(one, steps, size, compiled=compiled)
        average, curve = train(network, loss, settings, Path(folder) / "checkpoint.pt", lambda p: None)
    after = one.figure(average)
    better = (after > before) == one.higher and after != before
    path = box.folder / f"{name}.safetensors"
    account = {
        "bundle": one.bundle, "part": one.part, "what": one.what, "shipped": before, "trained": after, "better": better,
        "loop": asdict(settings), "curve": curve, "seconds": time.monotonic() - started,
        **one.data,
    }  # fmt: skip
    state = {key: value.half() if value.is_floating_point() else value for key, value in average.state_dict().items()}
    save_file({key: value.cpu().contiguous() for key, value in state.items()}, path, {"account": json.dumps(account)})
    box.row(name, f"{steps} steps of {size} slices, slices a second", size / step)
    box.within(name, "file, MiB", path.stat().st_size / 2**20, LARGEST / 2**20)
    box.row(name, f"{one.what}, trained against shipped", after, before, "better" if better else "not better")


def main() -> int:
    """All trainings within the time; 1 where one stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", type=Path, help="T1w and FLAIR (default: pack.npz in the folder of --out)")
    parser.add_argument("--pack-t2", type=Path, help="T1w and T2w; without it t1-to-t2 is left out")
    parser.add_argument("--out", type=Path, default=Path("gpu.work"), help="folder of the table and the weights")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--batch", type=int, help="slices a step (default: each network's own)")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, tiny; without --pack on the packaged patient")
    parser.add_argument("--compile", action="store_true", help="compile in a rehearsal too")
    options = parser.parse_args()
    small, device = options.rehearse, choose_device("cpu" if options.rehearse else options.device)
    box = Box(options.out, "gpu-train", 60 * options.minutes)
    pack = options.pack or options.out / "pack.npz"
    if small and options.pack is None:
        pack = options.out / "rehearsal.npz"
        write_pack(rehearsed(options.out), pack, 9)
    flair, t2 = read_pack(pack), read_pack(options.pack_t2) if options.pack_t2 else None
    box.row("pack", "patients", len(flair))
    torch.set_float32_matmul_precision("high")
    planned, shares = trainings(flair, t2, device), SHARES if t2 else SHARES[:-1]
    for number, make in enumerate(planned):

        def work(make: Callable[[], Training] = make, number: int = number) -> None:
            seconds = 0.0 if small else 0.95 * box.left * shares[number] / sum(shares[number:])
            carry_out(make(), box, seconds, device, 2 if small else options.batch, compiled=not small or options.compile)

        box.run(f"training {number + 1} of {len(planned)}", 0 if small else 30, work)
    print(f"{box.path}: {box.failures} failures")
    return 1 if box.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
