"""Write one training table of people of several kinds for ``localdiff fit``: glioma patients, other diseases and healthy people.

``python -m examples.training.cohort DATA… --target FLAIR --out cohort.tsv`` reads folders with ``participants.tsv`` (columns
participant_id and split; disease where it is known) and ``sub-*/sub-*_T1w.nii.gz`` with ``_<target>``, ``_mask``, ``_wmhauto`` and
``_brain`` beside it. People without the target contrast are kept: a detector needs only the condition. The names of those who have no
lesion mask, and may serve as lesion-free (healthy people; patients whose lesions show on the target and are left out of the loss by
``--doubt``), are printed as options of ``fit``.

``--without 1/2`` leaves out every second train person, ``--without 2/2`` the others: two detectors, neither of which has seen the
people of the other, make maps with the errors that a detector makes in people it does not know (``fit expert --told A --told B``).
Which people a part leaves out depends on the order of the rows: give all other options alike. A file ``_mask`` counts as an expert's
(``--trust-experts``), ``_wmhauto`` as automatic.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from localdiff_cli.errors import UsageError

COLUMNS = ("name", "condition", "target", "mask", "brain", "split")


@dataclass(frozen=True)
class Person:
    """One row: the files that exist, and whether the person counts as lesion-free where no mask says otherwise."""

    name: str
    split: str
    files: dict[str, Path]
    lesion_free: bool

    @property
    def drawn_by_hand(self) -> bool:
        """Whether the lesion mask is an expert's."""
        return "mask" in self.files and self.files["mask"].name.endswith("_mask.nii.gz")


def people(folder: Path, condition: str, target: str, exclude: frozenset[str]) -> Iterator[Person]:
    """Every person of a folder that has the condition contrast."""
    with (folder / "participants.tsv").open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    for row in rows:
        name = row["participant_id"]
        stem = folder / name / name
        suffixes = {"condition": (condition,), "target": (target,), "mask": ("mask", "wmhauto"), "brain": ("brain",)}
        files = {role: path for role, choices in suffixes.items() if (path := _first(stem, choices)) is not None}
        disease = row.get("disease") or row.get("origin") or ""
        if "condition" in files and name not in exclude:
            yield Person(name, row["split"], files, "mask" not in files and ("healthy" in disease or "sclerosis" in disease))


def _first(stem: Path, suffixes: tuple[str, ...]) -> Path | None:
    """The first of ``<stem>_<suffix>.nii.gz`` that exists."""
    return next((path for suffix in suffixes if (path := Path(f"{stem}_{suffix}.nii.gz")).is_file()), None)


def left_out(folders: Sequence[Path], condition: str, names: Sequence[str]) -> frozenset[str]:
    """Return the names to leave out; raise :class:`UsageError` where one is nobody's in these folders."""
    everybody = {person.name for folder in folders for person in people(folder, condition, condition, frozenset())}
    if unknown := sorted(set(names) - everybody):
        raise UsageError(f"--exclude {', '.join(unknown)}: found nobody of that name; expected people of {', '.join(map(str, folders))}")
    return frozenset(names)


def fold(text: str) -> tuple[int, int]:
    """Read ``1/2``, the first of two parts. Raise :class:`argparse.ArgumentTypeError` for anything else."""
    which, _, parts = text.partition("/")
    if not (which.isdecimal() and parts.isdecimal() and 1 <= int(which) <= int(parts) and int(parts) > 1):
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a part of several, such as 1/2")
    return int(which), int(parts)


def without_fold(found: list[Person], which: int, parts: int) -> list[Person]:
    """Leave out the ``which``-th, counted from 1, of every ``parts`` train people; the other splits stay whole."""
    train = [person for person in found if person.split == "train"]
    out = {id(person) for person in train[which - 1 :: parts]}
    return [person for person in found if id(person) not in out]


def write_table(found: list[Person], out: Path) -> None:
    """The TSV that ``localdiff fit --data`` reads; absolute paths."""
    with out.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        for p in found:
            writer.writerow([p.name, *(str(p.files[c].resolve()) if c in p.files else "" for c in COLUMNS[1:-1]), p.split])


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table and print the options that name the lesion-free people."""
    parser = argparse.ArgumentParser(description="One training table of people of several kinds.")
    parser.add_argument("data", nargs="+", type=Path, help="folders with participants.tsv")
    parser.add_argument("--condition", default="T1w")
    parser.add_argument("--target", default="FLAIR")
    parser.add_argument("--exclude", action="append", default=[], help="a person to leave out; repeatable")
    parser.add_argument("--only-with-target", action="store_true", help="leave out people without the target contrast")
    parser.add_argument(
        "--trust-experts", action="store_true", help="leave out the target of people with an expert's mask: --doubt is for automatic masks"
    )
    parser.add_argument("--without", type=fold, metavar="K/N", help="leave out the K-th of every N train people")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    if args.trust_experts and args.only_with_target:
        parser.error("--trust-experts takes the target away from people whom --only-with-target asks to have it; give one of them")
    exclude = left_out(args.data, args.condition, args.exclude)
    found = [p for folder in args.data for p in people(folder, args.condition, args.target, exclude)]
    found = [p for p in found if not args.only_with_target or "target" in p.files]
    if args.trust_experts:
        found = [replace(p, files={k: v for k, v in p.files.items() if k != "target"}) if p.drawn_by_hand else p for p in found]
    if args.without is not None:
        found = without_fold(found, *args.without)
    write_table(found, args.out)
    print(" ".join(f"--healthy {p.name}" for p in found if p.lesion_free))


if __name__ == "__main__":
    main()
