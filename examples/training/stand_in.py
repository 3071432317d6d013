"""Stand-in T2w volumes for people who have T1w and FLAIR only: what a T2w image would most likely show.

T2w and FLAIR show the same lesions; T1w tells fluid (dark on both T1w and FLAIR, bright on T2w) from tissue. A small network learns the T2w
of a pixel from both contrasts in it and around it, by squared error, from the few people who have all three. It sees too little to know
where in the head it is, so that it learns how bright lesions are and not what these few people look like. It can be trusted in lesions,
but fluid of a brightness that none of the few people has comes out dark. So a stand-in takes everything but the lesions of the person's
mask from the translation of a network that has learnt healthy brains: the output folder of ``localdiff translate --mode plain --suffix
T2w``. A stand-in is for training only: nothing is tested against one.

``python -m examples.training.stand_in --learn A… --make B… --elsewhere TRANSLATIONS --out FOLDER`` where A and B are folders as in
``examples.training.cohort``; a person without a translation gets none;
only people of the train split are learnt from, only people of the train and val splits get a stand-in. A person who is in several folders
is taken from the first that has the contrast. ``FOLDER/cohort.tsv`` is for ``localdiff fit``; a checkpoint and the prepared slices lie in
``FOLDER`` too, so that a training that was stopped goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from examples.training.cohort import Person, left_out, people, write_table
from localdiff_cli.errors import UsageError
from localdiff_cli.training.expert import MIN_LESION_PIXELS
from localdiff_cli.training.loop import LoopSettings, LossOf, Progress, train
from localdiff_cli.training.pairs import Pair
from localdiff_cli.training.slices import PatientSlices, as_contrast, load_slices, mask_from_file_or_empty
from localdiff_cli.volumes.brain import Brain, brain_from_file, check_same_grid
from localdiff_cli.volumes.prepare import Prepared, PrepareSettings, prepare
from localdiff_cli.volumes.reader import SliceReader, open_volume

HIDDEN = 64
LESION_SHARE = 0.6
"""At least this share of the slices drawn of a person with a lesion show it."""
LESION_WEIGHT = 3.0
RIM = 1.5
"""Pixels: standard deviation of the smoothing by which a stand-in passes from a lesion to its surroundings."""


class StandInNetwork(nn.Module):
    """T1w and FLAIR in [0, 1] and the brain, ``(N, 3, H, W)`` → T2w ``(N, 1, H, W)``: every pixel from both contrasts in it and from their
    mean and standard deviation in the brain around it."""

    def __init__(self) -> None:
        super().__init__()
        self.of_pixel = nn.Sequential(
            nn.Conv2d(6, HIDDEN, 1), nn.ReLU(), nn.Conv2d(HIDDEN, HIDDEN, 1), nn.ReLU(), nn.Conv2d(HIDDEN, 1, 1)
        )  # fmt: skip

    def forward(self, planes: Tensor) -> Tensor:
        """Return T2w on the same grid."""
        images, brain = planes.split((2, 1), dim=1)
        return self.of_pixel(torch.cat([images, *around(images, brain)], dim=1))


def around(images: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the brain in the 3 × 3 pixels around every pixel, each ``(N, 2, H, W)``."""
    pooled = partial(avg_pool2d, kernel_size=3, stride=1, padding=1)
    share = pooled(brain).clamp(min=1e-3)
    mean = pooled(images * brain) / share
    return mean, (pooled(images.square() * brain) / share - mean.square()).clamp(min=0).sqrt()


@dataclass(frozen=True)
class Three:
    """A person with all three contrasts: slices of T1w and T2w, and of T1w and FLAIR, on the same grid."""

    t2: PatientSlices
    flair: PatientSlices

    def planes(self, row: int) -> np.ndarray:
        """``(5, H, W)``: T1w and FLAIR in [0, 1], brain, T2w in [0, 1] and lesion."""
        assert self.t2.target is not None
        assert self.flair.target is not None
        t1, flair, t2 = (np.float32(each[row]) / 65535 for each in (self.t2.condition, self.flair.target, self.t2.target))
        return np.stack([t1, flair, np.float32(self.t2.brain[row]), t2, np.float32(self.t2.lesion[row])])


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
        seen, t2, lesion = batch.split((3, 1, 1), dim=1)
        weight = seen[:, 2:] * (1 + (LESION_WEIGHT - 1) * lesion)
        return (weight * (network(seen) - t2).square()).sum() / weight.sum()

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
def make(person: Person, network: Callable[[Tensor], Tensor], elsewhere: Path, out: Path) -> Path:
    """Write one person's stand-in on the T1w's grid, in arbitrary units, 0 outside the brain; its path.

    In the lesions of the person's mask, and fading out around them, it is what ``network`` says, from 0 to 1; elsewhere, and everywhere
    without a mask, the translation in the file ``elsewhere``. Raise :class:`UsageError` for a translation that does not lie in [0, 1].
    """
    t1 = _prepared(person, "T1w", None)
    flair = _prepared(person, "FLAIR", Brain(t1.brain.mask, t1.brain.source))
    translation, lesion = open_volume(elsewhere), mask_from_file_or_empty(person.files.get("mask"), t1)
    check_same_grid(translation, t1.volume, "translation")
    translated = SliceReader(translation)
    image = nib.Nifti1Image.from_filename(person.files["condition"])
    frame, stored = t1.volume.frame, np.zeros(image.shape, dtype=np.float32)
    slices = np.moveaxis(stored, frame.slice_axis, 0)
    for k in np.flatnonzero(t1.brain.mask.any(axis=(1, 2))):
        (first, inside), (second, _) = (prepared.network_slice(int(k)) for prepared in (t1, flair))
        seen = torch.from_numpy(np.stack([first, second, inside]).astype(np.float32))[None]
        t2 = t1.grid.to_native(network(seen)[0, 0].clamp(0, 1).numpy())
        share = np.maximum(np.minimum(2 * gaussian_filter(np.float32(lesion[k]), RIM), 1), lesion[k])
        blended = share * t2 + (1 - share) * _in_range(translated.read(int(k)), elsewhere)
        slices[frame.stored_index(int(k))] = frame.slice_to_stored(np.where(t1.brain.mask[k], 100 + 1000 * blended, 0).astype(np.float32))
    path = out / f"{person.name}_T2w.nii.gz"
    nib.save(nib.Nifti1Image(stored, image.affine), path)
    return path


def _in_range(image: NDArray[np.float32], path: Path) -> NDArray[np.float32]:
    if image.min() < 0 or image.max() > 1:
        raise UsageError(f"{path}: goes from {image.min():g} to {image.max():g}; expected a translation as localdiff writes it, in [0, 1]")
    return image


def _translation(person: Person, folder: Path) -> Path | None:
    """A person's translation in the output folder of ``translate``, whose input was one folder or one for each person."""
    name = f"{person.name}_T2w.nii.gz"
    return next((path for path in (folder / name, folder / person.name / name) if path.is_file()), None)


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
    parser.add_argument("--elsewhere", type=Path, required=True, help="output folder of translate --mode plain --suffix T2w")
    parser.add_argument("--exclude", action="append", default=[], help="a person to leave out; repeatable")
    parser.add_argument("--steps", type=int, default=1200, help="optimiser steps (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    exclude = left_out([*args.learn, *args.make], "T1w", args.exclude)
    known = _everybody(args.learn, "T2w", exclude)
    complete = [p for p in known if p.split == "train" and p.files["target"].with_name(f"{p.name}_FLAIR.nii.gz").is_file()]
    names = {p.name for p in known}
    others = [p for p in _everybody(args.make, "FLAIR", exclude) if p.split != "test" and p.name not in names]
    wanted = [(p, file) for p in others if (file := _translation(p, args.elsewhere)) is not None]
    if not wanted:
        raise UsageError(
            f"--elsewhere {args.elsewhere}: found no translation of the {len(others)} people who lack a T2w; "
            "expected <person>_T2w.nii.gz there, or in a folder for each person"
        )
    network, learnt_from = learn(complete, args.out, LoopSettings(steps=args.steps, batch_size=2, rate=3e-3))
    made = [replace(p, files=p.files | {"target": make(p, network, file, args.out)}) for p, file in wanted]
    write_table([*known, *made], args.out / "cohort.tsv")
    left = f", {len(others) - len(made)} people without a translation left out" if len(others) > len(made) else ""
    print(f"{learnt_from} people learnt from, {len(made)} stand-ins in {args.out}{left}")


if __name__ == "__main__":
    main()
