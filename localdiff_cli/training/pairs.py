"""The table of training patients: from a TSV or a BIDS-like folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from localdiff_cli.errors import NoInputError, UsageError
from localdiff_cli.training.tables import Table, read_table
from localdiff_cli.volumes.contrast import content_of
from localdiff_cli.volumes.files import stem
from localdiff_cli.volumes.names import parse
from localdiff_cli.volumes.partners import BRAIN, IMAGE, MASK, NO_PARTNER, Index, Source

SPLITS = ("train", "val", "test")
TRAINED = ("train", "training")
HELD_OUT = ("val", "test", "validation", "testing", "valid", "dev", "holdout", "hold-out", "heldout", "held-out", "held out")
"""Words for the parts of a cohort, with those that other tables have for them."""
COLUMNS = ("condition", "target", "mask", "brain", "split")
PARTICIPANTS = "participants.tsv"
Say = Callable[[str], None]


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


def _silent(text: str) -> None:
    return


def read_pairs(
    sources: Iterable[Path],
    condition: str,
    target: str | None,
    say: Say = _silent,
    exclude: Collection[str] = (),
    *,
    everybody: bool = False,
) -> list[Pair]:
    """Return all patients of several tables or folders.

    ``condition`` and ``target`` are BIDS suffixes (``T1w``, …), used for folders. ``exclude``: patients whose split need
    not be known. ``everybody``: those without the target too; ``say`` is told what is left out. Raise :class:`NoInputError`
    where nothing is found, :class:`UsageError` for a malformed table, a patient named twice or whose split is not known,
    two files that fit one role, a synthetic volume, or a sidecar that cannot be read.
    """
    sources = list(sources)
    pairs = [
        pair
        for source in sources
        for pair in (
            _from_folder(source, condition, target, say, exclude, everybody=everybody) if source.is_dir() else _from_table(source, exclude)
        )
    ]
    if not pairs:
        raise NoInputError(f"no training pairs in {', '.join(map(str, sources))}; expected sub-*_{condition} with sub-*_{target}, or a TSV")
    repeated = [name for name, count in Counter(pair.name for pair in pairs).items() if count > 1]
    if repeated:
        raise UsageError(f"patients named twice in the training data: {', '.join(sorted(repeated))}")
    for pair in pairs:
        for path, wanted in ((pair.condition, condition), (pair.target, target)):
            if path is not None and pair.name not in exclude:
                _check_acquired(path, wanted)
    return pairs


def _check_acquired(path: Path, wanted: str | None) -> None:
    """Refuse what is not, or may not be, an acquired volume of the contrast. Raises :class:`UsageError`."""
    content = content_of(path)
    if content.problem:
        raise UsageError(f"{path}: {content.problem}; whether the volume is synthetic is not known. Mend the sidecar or remove it")
    if content.synthetic:
        raise UsageError(f"{path}: its sidecar says it is synthetic; expected acquired volumes to train on. Take it out of the data")


def _from_table(path: Path, exclude: Collection[str]) -> list[Pair]:
    if not path.exists() and not path.is_symlink():
        raise UsageError(f"{path}: no such table or folder")
    table = read_table(path)
    if "condition" not in table.columns or set(table.columns) - {*COLUMNS, "name"}:
        found = ", ".join(table.columns)
        raise UsageError(f"{path}: found columns {found}; expected condition and any of target, mask, brain, split, name")
    return [_row(table, number, row, exclude) for number, row in table.rows if row]


def _row(table: Table, number: int, row: dict[str, str], exclude: Collection[str]) -> Pair:
    def file(column: str) -> Path | None:
        return table.path.parent / row[column] if column in row else None

    condition = file("condition")
    if condition is None:
        raise UsageError(f"{table.path}: line {number} has no condition")
    name = row.get("name", stem(condition))
    if name != Path(name).name or name.startswith("."):
        raise UsageError(f"{table.path}: found the patient name {name!r}; expected one that may name a file, without slashes")
    split = _split(table, row) if "split" in table.columns else "train"
    if split is None:
        if name not in exclude:
            raise UsageError(
                f"{table.path}: line {number} ({name}) has no split; expected one of {', '.join(SPLITS)}, or no column split at all",
                code="unknown-split",
            )
        split = "test"
    return Pair(name, condition, file("target"), file("mask"), file("brain"), split)


def _split(table: Table, row: dict[str, str]) -> str | None:
    split = row.get("split")
    if split is not None and split.lower() not in SPLITS:
        raise UsageError(f"{table.path}: found split {split!r}; expected one of {', '.join(SPLITS)}")
    return None if split is None else split.lower()


def _participants(folder: Path) -> Path | None:
    """The table beside the subjects' folders, or one folder up. Raises :class:`UsageError` for one under another name."""
    for place in (folder, Path(folder).absolute().parent):
        path = place / PARTICIPANTS
        if path.exists() or path.is_symlink():
            return path
    names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() != ".json")
    alike = ", ".join(name for name in names if name.lower().startswith("participants"))
    if alike:
        raise UsageError(f"{folder}: found {alike}; expected {PARTICIPANTS}, tab-separated, which says the split of every patient")
    return None


def _splits(folder: Path) -> tuple[Path, dict[str, str | None]] | None:
    """The table and the split of everyone it names, None for one without; None where nothing says who is held out."""
    path = _participants(folder)
    if path is None:
        return None
    table = read_table(path)
    if "participant_id" not in table.columns:
        raise UsageError(f"{path}: found columns {', '.join(table.columns)}; expected participant_id and, for held-out patients, split")
    if "split" not in table.columns:
        _check_no_other_split(table)
        return None
    splits: dict[str, str | None] = {}
    for number, row in table.rows:
        name = row.get("participant_id")
        if name is None:
            raise UsageError(f"{path}: line {number} has no participant_id")
        name, split = name if name.startswith("sub-") else f"sub-{name}", _split(table, row)
        if splits.setdefault(name, split) != split:
            raise UsageError(f"{path}: gives two splits for {name}: {splits[name]} and {split}; expected one")
    return path, splits


def _check_no_other_split(table: Table) -> None:
    """Refuse a table that seems to say the split in a column of another name."""
    for column in table.columns:
        values = {row[column].lower() for _, row in table.rows if column in row}
        alone, both = values <= {*TRAINED, *HELD_OUT}, not values.isdisjoint(TRAINED) and not values.isdisjoint(HELD_OUT)
        if column.lower() in ("split", "splits") or (values and alone) or both:
            wanted = ", ".join(SPLITS)
            raise UsageError(f"{table.path}: its column {column!r} seems to say the split; expected the name split and {wanted}")


def _from_folder(folder: Path, condition: str, target: str | None, say: Say, exclude: Collection[str], *, everybody: bool) -> list[Pair]:
    """``sub-*`` images of the condition, with their target, lesion mask and brain mask among the folder's files."""
    conditions = Index(Source(str(folder), IMAGE, condition, "--data"))
    sources = {
        **({"target": Source(str(folder), IMAGE, target, "--data")} if target else {}),
        "mask": Source(str(folder), MASK, option="--data"),
        "brain": Source(str(folder), BRAIN, option="--data", exact=True),
    }
    indices = {name: Index(source) for name, source in sources.items()}
    for relative, reason in conditions.walk.aside:
        say(f"{relative}: {reason}")
    pairs = []
    for relative, path in _originals(conditions, condition, say):
        partners = {name: _partner(index, relative, path, name) for name, index in indices.items()}
        if target and partners["target"] is None and not everybody:
            say(f"left out {relative}: no {target} that belongs to it")
            continue
        pairs.append(Pair(_name_of(relative), path, partners.get("target"), partners["mask"], partners["brain"]))
    return _with_splits(pairs, _splits(folder), exclude)


def _originals(conditions: Index, condition: str, say: Say) -> list[tuple[Path, Path]]:
    """(relative, path) of the condition's ``sub-*`` images that say their contrast; a processed copy beside its original is
    left out."""
    found = []
    originals = {_scan(relative) for relative in conditions.paths if _is_original(relative)}
    for relative, path in sorted(conditions.paths.items()):
        if not parse(relative).bids or content_of(path, relative).contrast != condition:
            continue
        if not _is_original(relative) and _scan(relative) in originals:
            say(f"left out {relative}: a processed copy of an image that is there itself")
        else:
            found.append((relative, path))
    return found


def _is_original(relative: Path) -> bool:
    return "desc" not in dict(parse(relative).entities)


def _scan(relative: Path) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(parse(relative).of_scan.items()))


def _name_of(relative: Path) -> str:
    """The patient's name: the file's, without its contrast."""
    head, underscore, _ = stem(relative).rpartition("_")
    return head if underscore else stem(relative)


def _partner(index: Index, relative: Path, path: Path, role: str) -> Path | None:
    partner, why = index.partner(relative, path)
    if partner is None and why != NO_PARTNER:
        raise UsageError(f"{path}: {role}: {why}", code="two-partners")
    return partner


def _with_splits(pairs: list[Pair], known: tuple[Path, dict[str, str | None]] | None, exclude: Collection[str]) -> list[Pair]:
    """The pairs with their splits. Raises :class:`UsageError` that names everyone whose split is not known."""
    if known is None:
        return pairs
    table, splits = known
    placed = [(pair, splits.get(pair.name.split("_")[0])) for pair in pairs]
    unknown = sorted({pair.name.split("_")[0] for pair, split in placed if split is None and pair.name not in exclude})
    if unknown:
        raise UsageError(
            f"{table}: gives no split for {', '.join(unknown)}; expected a row with train, val or test for everyone, so that nobody who is "
            "held out is trained on. Add the rows, or leave these people out with --exclude",
            code="unknown-split",
        )
    return [replace(pair, split=split or "test") for pair, split in placed]


def without(pairs: list[Pair], names: tuple[str, ...]) -> list[Pair]:
    """Return the pairs without the patients named. Raise :class:`UsageError` for a name that is not among them."""
    unknown = set(names) - {pair.name for pair in pairs}
    if unknown:
        raise UsageError(f"--exclude {', '.join(sorted(unknown))}: no such patient in the data")
    return [pair for pair in pairs if pair.name not in names]
