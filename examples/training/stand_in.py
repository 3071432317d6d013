"""Stand-in T2w volumes for people who have T1w and FLAIR only: what a T2w image would most likely show, voxel by voxel.

T2w and FLAIR show the same lesions; T1w tells fluid (dark on both T1w and FLAIR, bright on T2w) from tissue. The mean of T2w given T1w
and FLAIR is learnt as a smoothed table over both intensities from the few people who have all three, and looked up for everybody else. A
stand-in is for training only: nothing is tested against one.

``python -m examples.training.stand_in --learn A… --make B… --out FOLDER`` where A and B are folders as in ``examples.training.cohort``;
only people of the train split are learnt from, only people of the train and val splits get a stand-in. ``FOLDER/cohort.tsv`` is for
``localdiff fit``."""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from examples.training.cohort import Person, people, write_table
from localdiff_cli.volumes.brain import Brain, brain_from_file
from localdiff_cli.volumes.intensity import WINDOWS
from localdiff_cli.volumes.prepare import Prepared, PrepareSettings, prepare
from localdiff_cli.volumes.reader import open_volume

BINS, SMOOTH = 64, 1.5


def contrasts_of(person: Person, contrasts: tuple[str, ...]) -> list[NDArray[np.float32]]:
    """The person's contrasts in [0, 1] on the native grid, canonical; the brain is that of the first one. 0 outside it."""
    files = [person.files["condition"].with_name(f"{person.name}_{c}.nii.gz") for c in contrasts]
    first = _prepared(files[0], contrasts[0], person.files.get("brain"))
    brain = Brain(first.brain.mask, first.brain.source)
    return [_voxels(p) for p in [first, *(_prepared(f, c, None, brain) for f, c in zip(files[1:], contrasts[1:], strict=True))]]


def _prepared(path: Path, contrast: str, mask: Path | None, brain: Brain | None = None) -> Prepared:
    volume = open_volume(path)
    known = brain or (brain_from_file(mask, volume) if mask else None)
    return prepare(volume, PrepareSettings(window=WINDOWS[contrast]), brain=known)


def _voxels(prepared: Prepared) -> NDArray[np.float32]:
    mask = prepared.brain.mask
    return np.stack([np.where(mask[k], prepared.scale.normalise(prepared.corrected(k)), 0) for k in range(len(mask))]).astype(np.float32)


def learn(found: list[Person]) -> NDArray[np.float64]:
    """E[T2w | T1w, FLAIR] as a table ``(BINS, BINS)``; people count alike. Empty places take their value from around them."""
    total, weight = np.zeros((BINS, BINS)), np.zeros((BINS, BINS))
    for person in found:
        t1, flair, t2 = contrasts_of(person, ("T1w", "FLAIR", "T2w"))
        inside = t1 > 0
        at = tuple((image[inside] * (BINS - 1)).round().astype(int) for image in (t1, flair))
        share = 1 / inside.sum()
        np.add.at(total, at, share * t2[inside])
        np.add.at(weight, at, share)
        print(f"learnt from {person.name}", flush=True)
    near = gaussian_filter(weight, SMOOTH)
    wide = gaussian_filter(weight, 6 * SMOOTH)
    table = gaussian_filter(total, SMOOTH) / np.maximum(near, 1e-12)
    fallback = gaussian_filter(total, 6 * SMOOTH) / np.maximum(wide, 1e-12)
    return np.where(near > 1e-6, table, fallback)


def make(person: Person, table: NDArray[np.float64], out: Path) -> Path:
    """Write one person's stand-in beside its brain's grid, in arbitrary units, 0 outside the brain; its path."""
    t1, flair = contrasts_of(person, ("T1w", "FLAIR"))
    t2 = map_coordinates(table, [image * (BINS - 1) for image in (t1, flair)], order=1, mode="nearest")
    image = nib.Nifti1Image.from_filename(person.files["condition"])
    frame, voxels = open_volume(person.files["condition"]).frame, np.where(t1 > 0, 100 + 1000 * t2, 0).astype(np.float32)
    stored = np.zeros(image.shape, dtype=np.float32)
    slices = np.moveaxis(stored, frame.slice_axis, 0)
    for k in range(len(voxels)):
        slices[frame.stored_index(k)] = frame.slice_to_stored(voxels[k])
    path = out / f"{person.name}_T2w.nii.gz"
    nib.save(nib.Nifti1Image(stored, image.affine), path)
    return path


def main() -> None:
    """Learn the table, make the stand-ins and write the training table of both."""
    parser = argparse.ArgumentParser(description="Stand-in T2w volumes from T1w and FLAIR.")
    parser.add_argument("--learn", nargs="+", type=Path, required=True)
    parser.add_argument("--make", nargs="+", type=Path, required=True)
    parser.add_argument("--exclude", action="append", default=[], help="a person to leave out; repeatable")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    known = [p for folder in args.learn for p in people(folder, "T1w", "T2w", frozenset(args.exclude)) if "target" in p.files]
    complete = [p for p in known if p.split == "train" and p.files["target"].with_name(f"{p.name}_FLAIR.nii.gz").is_file()]
    table = learn(complete)
    names = {p.name for p in known}
    given = [p for folder in args.make for p in people(folder, "T1w", "FLAIR", frozenset(args.exclude))]
    wanted = [p for p in given if "target" in p.files and p.split != "test" and p.name not in names]
    made = [Person(p.name, p.split, {**p.files, "target": make(p, table, args.out)}, p.lesion_free) for p in wanted]
    write_table([*known, *made], args.out / "cohort.tsv")
    print(f"{len(complete)} people learnt from, {len(made)} stand-ins in {args.out}")


if __name__ == "__main__":
    main()
