"""The table of training patients: from a TSV or a BIDS-like folder."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from localdiff_cli.errors import NoInputError, UsageError
from localdiff_cli.volumes.contrast import content_of
from localdiff_cli.volumes.reader import SUFFIXES, pair_of, stem, suffix_of

SPLITS = ("train", "val", "test")
COLUMNS = ("condition", "target", "mask", "brain", "split")


@dataclass(frozen=True)
class Pair:
    """One patient: source and target contrast, and what else is known.

    ``mask`` marks lesions (> 0), ``brain`` the brain; ``target`` is None where only a detector is fitted.
    """

    name: str
    condition: Path
    target: Path | None = None
    mask: Path | None = None
    brain: Path | None = None
    split: str = "train"


def read_pairs(sources: Iterable[Path], condition: str, target: str | None) -> list[Pair]:
    """All patients of several tables or folders.

    ``condition`` and ``target`` are BIDS suffixes (``T1w``, …), used for folders. Raises :class:`NoInputError` where nothing
    is found, :class:`UsageError` for a malformed table, a patient named twice or a synthetic volume.
    """
    pairs = [pair for source in sources for pair in (_from_folder(source, condition, target) if source.is_dir() else _from_table(source))]
    if not pairs:
        raise NoInputError(f"no training pairs in {', '.join(map(str, sources))}; expected sub-*_{condition} with sub-*_{target}, or a TSV")
    repeated = {pair.name for pair in pairs if sum(p.name == pair.name for p in pairs) > 1}
    if repeated:
        raise UsageError(f"patients named twice in the training data: {', '.join(sorted(repeated))}")
    for path in (path for pair in pairs for path in (pair.condition, pair.target) if path is not None):
        if content_of(path).synthetic:
            raise UsageError(f"{path}: its sidecar says it is synthetic; expected acquired volumes to train on. Take it out of the data")
    return pairs


def _rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of a TSV. Raises :class:`UsageError` where it is not text."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle, delimiter="\t")
            return list(reader.fieldnames or ()), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: not a table ({error}); expected tab-separated text in UTF-8") from error


def _from_table(path: Path) -> list[Pair]:
    if not path.is_file():
        raise UsageError(f"{path}: no such table or folder")
    columns, rows = _rows(path)
    if "condition" not in columns or set(columns) - {*COLUMNS, "name"}:
        raise UsageError(f"{path}: found columns {', '.join(columns)}; expected condition and any of target, mask, brain, split, name")
    return [_row(path, row) for row in rows]


def _row(path: Path, row: dict[str, str]) -> Pair:
    def file(column: str) -> Path | None:
        return path.parent / row[column] if row.get(column) else None

    condition = file("condition")
    if condition is None:
        raise UsageError(f"{path}: a row has no condition")
    name = row.get("name") or stem(condition)
    if name != Path(name).name or name.startswith("."):
        raise UsageError(f"{path}: found the patient name {name!r}; expected one that may name a file, without slashes")
    return Pair(name, condition, file("target"), file("mask"), file("brain"), _split(path, row))


def _split(path: Path, row: dict[str, str]) -> str:
    split = row.get("split") or "train"
    if split not in SPLITS:
        raise UsageError(f"{path}: found split {split!r}; expected one of {', '.join(SPLITS)}")
    return split


def _splits(folder: Path) -> dict[str, str]:
    table = folder / "participants.tsv"
    if not table.is_file():
        return {}
    columns, rows = _rows(table)
    if "participant_id" not in columns:
        raise UsageError(f"{table}: found columns {', '.join(columns)}; expected participant_id and, for held-out patients, split")
    return {row["participant_id"]: _split(table, row) for row in rows}


def _from_folder(folder: Path, condition: str, target: str | None) -> list[Pair]:
    """``sub-*`` files with the suffix ``_<condition>``, their neighbours ``_<target>``, ``_mask`` and ``_brain``."""
    splits = _splits(folder)
    pairs = []
    for path in sorted(folder.rglob(f"sub-*_{condition}.*")):
        if suffix_of(path) not in SUFFIXES or (suffix_of(path) == ".img" and pair_of(path)[0].exists()):
            continue
        base = stem(path).removesuffix(f"_{condition}")
        near = {
            role: next((p for s in SUFFIXES if (p := path.with_name(f"{base}_{suffix}{s}")).exists()), None)
            for role, suffix in (("target", target), ("mask", "mask"), ("brain", "brain"))
            if suffix
        }
        if target and near["target"] is None:
            continue
        split = splits.get(base.split("_")[0], "train")
        pairs.append(Pair(base, path, near.get("target"), near["mask"], near["brain"], split))
    return pairs


def without(pairs: list[Pair], names: tuple[str, ...]) -> list[Pair]:
    """The pairs without the patients named. Raises :class:`UsageError` for a name that is not among them."""
    unknown = set(names) - {pair.name for pair in pairs}
    if unknown:
        raise UsageError(f"--exclude {', '.join(sorted(unknown))}: no such patient in the data")
    return [pair for pair in pairs if pair.name not in names]
