"""Stand-in T2w volumes for people who have T1w and FLAIR only: what a T2w image would most likely show.

T2w and FLAIR show the same lesions; T1w tells fluid (dark on both T1w and FLAIR, bright on T2w) from tissue. A small U-Net learns T2w from
both, by squared error, from the few people who have all three. A stand-in is for training only: nothing is tested against one.

``python -m examples.training.stand_in --learn A… --make B… --out FOLDER`` where A and B are folders as in ``examples.training.cohort``;
only people of the train split are learnt from, only people of the train and val splits get a stand-in. A person who is in several folders
is taken from the first that has the contrast. ``FOLDER/cohort.tsv`` is for ``localdiff fit``; a checkpoint and the prepared slices lie in
``FOLDER`` too, so that a training that was stopped goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from examples.training.cohort import Person, left_out, people, write_table
from localdiff_cli.errors import UsageError
from localdiff_cli.startup import load_monai
from localdiff_cli.training.augment import AugmentSettings, place, recontrast
from localdiff_cli.training.expert import MIN_LESION_PIXELS
from localdiff_cli.training.loop import LoopSettings, LossOf, Progress, train
from localdiff_cli.training.pairs import Pair
from localdiff_cli.training.slices import PatientSlices, as_contrast, load_slices
from localdiff_cli.volumes.brain import Brain, brain_from_file
from localdiff_cli.volumes.prepare import Prepared, PrepareSettings, prepare
from localdiff_cli.volumes.reader import open_volume

FEATURES = (48, 48, 96, 128, 192, 48)
LESION_SHARE = 0.6
"""At least this share of the slices drawn of a person with a lesion show it."""
LESION_WEIGHT, BACKGROUND_WEIGHT = 3.0, 0.02
AUGMENT = AugmentSettings(rotation=12.0, scale=0.2, contrast=0.25, gamma=0.2)


class StandInNetwork(nn.Module):
    """T1w and FLAIR ``(N, 2, H, W)`` in [0, 1] → T2w ``(N, 1, H, W)``: MONAI's basic U-Net on a space-to-depth grid."""

    def __init__(self) -> None:
        super().__init__()
        load_monai()
        from monai.networks.nets import BasicUNet

        self.unet = BasicUNet(2, 8, 4, features=FEATURES, act=("LeakyReLU", {"inplace": True}), upsample="nontrainable")

    def forward(self, images: Tensor) -> Tensor:
        """Return T2w on the same grid."""
        return pixel_shuffle(self.unet(pixel_unshuffle(2 * images - 1, 2)), 2)


@dataclass(frozen=True)
class Three:
    """A person with all three contrasts: slices of T1w and T2w, and of T1w and FLAIR, on the same grid."""

    t2: PatientSlices
    flair: PatientSlices

    def planes(self, row: int) -> np.ndarray:
        """``(5, H, W)``: T1w, FLAIR, T2w in [0, 1], brain and lesion."""
        assert self.t2.target is not None
        assert self.flair.target is not None
        images = [np.float32(each[row]) / 65535 for each in (self.t2.condition, self.flair.target, self.t2.target)]
        return np.stack([*images, np.float32(self.t2.brain[row]), np.float32(self.t2.lesion[row])])


def stand_in_loss(found: Sequence[Three], batch_size: int) -> LossOf:
    """Return the loss of one step: squared error in the brain; people are drawn alike, lesions count more."""
    with_lesion = [np.flatnonzero(three.t2.lesion_pixels >= MIN_LESION_PIXELS) for three in found]

    def drawn(generator: torch.Generator) -> np.ndarray:
        who = int(torch.randint(len(found), (1,), generator=generator))
        some = with_lesion[who] if float(torch.rand(1, generator=generator)) < LESION_SHARE else np.empty(0)
        rows = some if len(some) else np.arange(len(found[who].t2.condition))
        return found[who].planes(int(rows[int(torch.randint(len(rows), (1,), generator=generator))]))

    def loss_of(network: nn.Module, generator: torch.Generator) -> Tensor:
        batch = torch.from_numpy(np.stack([drawn(generator) for _ in range(batch_size)]))
        t1, flair, t2, brain, lesion = place(batch, AUGMENT, generator).split(1, dim=1)
        inside = (brain > 0.5).float()
        seen = torch.cat([recontrast(image, inside, AUGMENT, generator) for image in (t1, flair)], dim=1)
        weight = inside * (1 + (LESION_WEIGHT - 1) * (lesion > 0.5).float()) + BACKGROUND_WEIGHT
        return (weight * (network(seen) - t2 * inside).square()).sum() / weight.sum()

    return loss_of


def learn(found: Sequence[Person], work: Path, loop: LoopSettings) -> tuple[nn.Module, int]:
    """Return the network and of how many of these people it learnt; ``work`` keeps their slices and its checkpoint.

    Raise :class:`UsageError` where nobody has all three contrasts.
    """
    by_contrast = [_slices(found, contrast, work) for contrast in ("T2w", "FLAIR")]
    complete = [Three(t2, by_contrast[1][name]) for name, t2 in sorted(by_contrast[0].items()) if name in by_contrast[1]]
    if not complete:
        raise UsageError("--learn: found nobody of the train split with T1w, FLAIR and T2w that can be used; expected at least one person")
    torch.manual_seed(loop.seed)
    identity = {"people": [[three.t2.name, three.t2.digest, three.flair.digest] for three in complete]}
    loss_of = stand_in_loss(complete, loop.batch_size)
    return train(StandInNetwork(), loss_of, loop, work / "stand-in.pt", _say, identity=identity)[0], len(complete)


def _say(progress: Progress) -> None:
    print(f"step {progress.step} of {progress.steps}, loss {progress.loss:.5f}, {progress.seconds_left / 60:.0f} minutes left", flush=True)


def _slices(found: Sequence[Person], contrast: str, work: Path) -> dict[str, PatientSlices]:
    files = [(p, p.files["condition"].with_name(f"{p.name}_{contrast}.nii.gz")) for p in found]
    pairs = [Pair(p.name, p.files["condition"], file, p.files.get("mask"), p.files.get("brain"), p.split) for p, file in files]
    return {each.name: each for each in load_slices(pairs, ("T1w", contrast), PrepareSettings(), work / "cache", print)}


@torch.inference_mode()
def make(person: Person, network: Callable[[Tensor], Tensor], out: Path) -> Path:
    """Write one person's stand-in on the T1w's grid, in arbitrary units, 0 outside the brain; its path."""
    t1 = _prepared(person, "T1w", None)
    flair = _prepared(person, "FLAIR", Brain(t1.brain.mask, t1.brain.source))
    image = nib.Nifti1Image.from_filename(person.files["condition"])
    frame, stored = t1.volume.frame, np.zeros(image.shape, dtype=np.float32)
    slices = np.moveaxis(stored, frame.slice_axis, 0)
    for k in np.flatnonzero(t1.brain.mask.any(axis=(1, 2))):
        seen = np.stack([prepared.network_slice(int(k))[0] for prepared in (t1, flair)])
        t2 = t1.grid.to_native(network(torch.from_numpy(seen)[None])[0, 0].clamp(0, 1).numpy())
        slices[frame.stored_index(int(k))] = frame.slice_to_stored(np.where(t1.brain.mask[k], 100 + 1000 * t2, 0).astype(np.float32))
    path = out / f"{person.name}_T2w.nii.gz"
    nib.save(nib.Nifti1Image(stored, image.affine), path)
    return path


def _prepared(person: Person, contrast: str, brain: Brain | None) -> Prepared:
    volume = open_volume(person.files["condition"].with_name(f"{person.name}_{contrast}.nii.gz"))
    known = brain or (brain_from_file(person.files["brain"], volume) if "brain" in person.files else None)
    return prepare(volume, as_contrast(contrast, PrepareSettings()), brain=known)


def _everybody(folders: Sequence[Path], target: str, exclude: frozenset[str]) -> list[Person]:
    """People of several folders who have T1w and the target, each where it is found first."""
    found: dict[str, Person] = {}
    for folder in folders:
        for person in people(folder, "T1w", target, exclude):
            if "target" in person.files:
                found.setdefault(person.name, person)
    return list(found.values())


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the network, make the stand-ins and write the training table of both."""
    parser = argparse.ArgumentParser(description="Stand-in T2w volumes from T1w and FLAIR.")
    parser.add_argument("--learn", nargs="+", type=Path, required=True, help="folders of people with T1w, FLAIR and T2w")
    parser.add_argument("--make", nargs="+", type=Path, required=True, help="folders of people with T1w and FLAIR")
    parser.add_argument("--exclude", action="append", default=[], help="a person to leave out; repeatable")
    parser.add_argument("--steps", type=int, default=2500, help="optimiser steps (default: %(default)s)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of the network's passes (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    exclude = left_out([*args.learn, *args.make], "T1w", args.exclude)
    known = _everybody(args.learn, "T2w", exclude)
    complete = [p for p in known if p.split == "train" and p.files["target"].with_name(f"{p.name}_FLAIR.nii.gz").is_file()]
    network, learnt_from = learn(complete, args.out, LoopSettings(steps=args.steps, rate=1.5e-3, precision=args.precision))
    names = {p.name for p in known}
    wanted = [p for p in _everybody(args.make, "FLAIR", exclude) if p.split != "test" and p.name not in names]
    made = [replace(p, files=p.files | {"target": make(p, network, args.out)}) for p in wanted]
    write_table([*known, *made], args.out / "cohort.tsv")
    print(f"{learnt_from} people learnt from, {len(made)} stand-ins in {args.out}")


if __name__ == "__main__":
    main()
